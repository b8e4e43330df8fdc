//! Does with the dashboard what Grafana does: offers values for the variables, interpolates them, and queries
//! Prometheus.

use std::collections::BTreeMap;

use serde_json::Value;

use super::board::{Board, Panel, Query};
use support::prometheus::{Prometheus, percent_encoded};

/// The values that a user chose for the variables. For *Instance* it is always all that are offered.
pub type Choice = BTreeMap<&'static str, &'static str>;

/// An open dashboard.
pub struct Grafana<'a> {
    prometheus: &'a Prometheus,
    board: &'a Board,
    /// The values of the variables, as interpolated.
    values: BTreeMap<String, String>,
    /// The chosen *Scrape interval*.
    scrape_interval_s: u64,
    /// The time range: its length, and its end in Unix time.
    range_s: u64,
    end_s: f64,
}

/// The result of one query of one panel.
#[derive(Debug)]
pub struct QueryResult {
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

    /// Returns the time between two points of a panel of at most 1,000 points. It is not below the query's Min step.
    fn interval_s(&self) -> u64 {
        self.scrape_interval_s.max(self.range_s / 1000)
    }

    /// Returns a query with its variables interpolated. `$__rate_interval` is computed as Grafana documents it, with
    /// the Min step as the scrape interval.
    fn interpolated(&self, query: &str) -> String {
        let rate_interval_s = (self.interval_s() + self.scrape_interval_s).max(4 * self.scrape_interval_s);
        let mut interpolated = query
            .replace("$__rate_interval", &format!("{rate_interval_s}s"))
            .replace("$__range", &format!("{}s", self.range_s));
        for (name, value) in &self.values {
            interpolated = interpolated.replace(&format!("${name}"), value);
        }
        assert!(
            !interpolated.contains('$'),
            "a variable without a value: {interpolated}"
        );
        interpolated
    }

    /// Returns the values that a variable offers.
    pub fn offered(&self, name: &str) -> Vec<String> {
        let variable = self.board.variables.iter().find(|variable| variable.name == name);
        let variable = variable.expect(name);
        let query = self.interpolated(&variable.query);
        let inside = |function: &str| query.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(query) = inside("query_result") {
            // The variable's regular expression extracts a label from each series, given as text.
            let label = variable
                .regex
                .strip_prefix('/')
                .unwrap()
                .strip_suffix("=\"([^\"]+)\"/")
                .unwrap();
            let target = format!("/api/v1/query?query={}&time={}", percent_encoded(query), self.end_s);
            let response = self.prometheus.api(&target);
            let series = response["data"]["result"].as_array().unwrap().iter();
            return series
                .map(|series| series["metric"][label].as_str().unwrap().to_owned())
                .collect();
        }
        let (selector, label) = inside("label_values").unwrap().rsplit_once(", ").unwrap();
        let response = self.prometheus.api(&format!(
            "/api/v1/label/{label}/values?match[]={}&start={}&end={}",
            percent_encoded(selector),
            self.end_s - self.range_s as f64,
            self.end_s
        ));
        let values = response["data"].as_array().unwrap().iter();
        values.map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// Returns the results of every query of every panel.
    pub fn results(&self) -> Vec<QueryResult> {
        let of_panel = |panel: &'a Panel| panel.queries.iter().map(move |query| self.query(panel, query));
        self.board.panels().flat_map(of_panel).collect()
    }

    /// Queries as a panel does: over the time range, or at its end.
    pub fn query(&self, panel: &Panel, query: &Query) -> QueryResult {
        assert_eq!(query.interval, "$scrape_interval", "{}", panel.title);
        let expression = self.interpolated(&query.expression);
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
        let response = self.prometheus.api(&target);
        QueryResult {
            panel: panel.title.clone(),
            query: expression,
            series: response["data"]["result"]
                .as_array()
                .unwrap()
                .iter()
                .map(series)
                .collect(),
        }
    }
}

/// Escapes a value for a regular expression in a PromQL string.
fn escaped(value: &str) -> String {
    value.replace('.', "\\\\.")
}
