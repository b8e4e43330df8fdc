//! What Grafana does with the dashboard: it offers choices for the variables, fills them in, and queries Prometheus.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::board::{Board, Panel, Query};
use crate::support::prometheus::{Prometheus, percent_encoded};

/// What a person chose in the variables, *Instance* excepted: all that it offers.
pub type Choice = BTreeMap<&'static str, &'static str>;

/// A dashboard that is open.
pub struct Grafana<'a> {
    prometheus: &'a Prometheus,
    board: &'a Board,
    /// The variables' values, as they are filled in.
    values: BTreeMap<String, String>,
    /// The choice of *Scrape interval*.
    scrape_interval_s: u64,
    /// The shown time: its length and its end, in seconds since the epoch.
    range_s: u64,
    end_s: f64,
}

/// The answer to one query of one panel.
#[derive(Debug)]
pub struct Answer {
    pub panel: String,
    pub query: String,
    pub series: Vec<Series>,
}

#[derive(Debug)]
pub struct Series {
    pub labels: Value,
    /// Time and value.
    pub samples: Vec<(f64, f64)>,
}

impl Series {
    pub fn last(&self) -> f64 {
        self.samples.last().expect("a sample").1
    }
}

impl<'a> Grafana<'a> {
    /// Opens the dashboard.
    pub fn open(
        board: &'a Board,
        prometheus: &'a Prometheus,
        choice: &Choice,
        scrape_interval: &str,
        range_s: u64,
        end_s: f64,
    ) -> Self {
        assert!(board.scrape_intervals.iter().any(|choice| choice == scrape_interval));
        let (number, unit) = scrape_interval.split_at(scrape_interval.len() - 1);
        let mut grafana = Self {
            prometheus,
            board,
            values: choice
                .iter()
                .map(|(name, value)| (String::from(*name), String::from(*value)))
                .collect(),
            scrape_interval_s: number.parse::<u64>().unwrap() * if unit == "m" { 60 } else { 1 },
            range_s,
            end_s,
        };
        let instances: Vec<String> = grafana.offered("instance").iter().map(|name| escaped(name)).collect();
        let all = if instances.len() == 1 {
            instances[0].clone()
        } else {
            format!("({})", instances.join("|"))
        };
        grafana.values.insert("instance".into(), all);
        grafana
    }

    /// The time between two points of a panel that is 1,000 points wide at most: no less than the query's Min step.
    fn interval_s(&self) -> u64 {
        self.scrape_interval_s.max(self.range_s / 1000)
    }

    /// A query with its variables filled in. `$__rate_interval` is as Grafana documents it, with the Min step as the scrape
    /// interval.
    fn filled_in(&self, query: &str) -> String {
        let rate_interval_s = (self.interval_s() + self.scrape_interval_s).max(4 * self.scrape_interval_s);
        let mut filled = query
            .replace("$__rate_interval", &format!("{rate_interval_s}s"))
            .replace("$__range", &format!("{}s", self.range_s));
        for (name, value) in &self.values {
            filled = filled.replace(&format!("${name}"), value);
        }
        assert!(!filled.contains('$'), "a variable that nothing fills: {filled}");
        filled
    }

    /// What a variable offers.
    pub fn offered(&self, name: &str) -> Vec<String> {
        let variable = self.board.variables.iter().find(|variable| variable.name == name);
        let variable = variable.expect(name);
        let query = self.filled_in(&variable.query);
        let inside = |function: &str| query.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(query) = inside("query_result") {
            // Each series as text, out of which the variable's regular expression takes a label.
            let label = variable
                .regex
                .strip_prefix('/')
                .unwrap()
                .strip_suffix("=\"([^\"]+)\"/")
                .unwrap();
            let target = format!("/api/v1/query?query={}&time={}", percent_encoded(query), self.end_s);
            let answer = self.prometheus.api(&target);
            let series = answer["data"]["result"].as_array().unwrap().iter();
            return series
                .map(|series| series["metric"][label].as_str().unwrap().to_owned())
                .collect();
        }
        let (selector, label) = inside("label_values").unwrap().rsplit_once(", ").unwrap();
        let answer = self.prometheus.api(&format!(
            "/api/v1/label/{label}/values?match[]={}&start={}&end={}",
            percent_encoded(selector),
            self.end_s - self.range_s as f64,
            self.end_s
        ));
        let values = answer["data"].as_array().unwrap().iter();
        values.map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// The answers to every query of every panel.
    pub fn answers(&self) -> Vec<Answer> {
        let of_panel = |panel: &'a Panel| panel.queries.iter().map(move |query| self.query(panel, query));
        self.board.panels().flat_map(of_panel).collect()
    }

    /// Queries as a panel does: over the shown time, or at its end.
    fn query(&self, panel: &Panel, query: &Query) -> Answer {
        assert_eq!(query.interval, "$scrape_interval", "{}", panel.title);
        let expression = self.filled_in(&query.expression);
        let encoded = percent_encoded(&expression);
        let (target, samples) = if query.instant {
            (format!("/api/v1/query?query={encoded}&time={}", self.end_s), "value")
        } else {
            let (start_s, step_s) = (self.end_s - self.range_s as f64, self.interval_s());
            let range = format!("start={start_s}&end={}&step={step_s}", self.end_s);
            (format!("/api/v1/query_range?query={encoded}&{range}"), "values")
        };
        let sample = |pair: &Value| {
            let value = pair[1].as_str().and_then(|text| text.parse().ok());
            (pair[0].as_f64().unwrap(), value.expect("a number"))
        };
        let series = |series: &Value| Series {
            labels: series["metric"].clone(),
            samples: if query.instant {
                vec![sample(&series[samples])]
            } else {
                series[samples].as_array().unwrap().iter().map(sample).collect()
            },
        };
        let answer = self.prometheus.api(&target);
        Answer {
            panel: panel.title.clone(),
            query: expression,
            series: answer["data"]["result"]
                .as_array()
                .unwrap()
                .iter()
                .map(series)
                .collect(),
        }
    }
}

/// A value in a regular expression in a string of PromQL.
fn escaped(value: &str) -> String {
    value.replace('.', "\\\\.")
}
