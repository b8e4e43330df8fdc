//! dashboard.json and the rules:
//!
//! - in a real Prometheus of each major version, which scrapes the server under load and another program with the same
//!   metric;
//! - the dashboard with an hour of samples, at the shortest and the longest scrape interval;
//! - dashboard.json against Grafana's own model of a dashboard.

mod board;
mod grafana;
mod history;
mod neighbour;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use board::{Board, Panel, Query};
use grafana::{Choice, Grafana, QueryResult, Series};
use history::Scraped;
use httpserver::metrics::Bounds;
use serde_json::Value;
use support::access_log::{Durations, Line};
use support::client;
use support::prometheus::{Major, Prometheus, percent_encoded};
use support::server::Server;
use support::wait_for;

const CLIENTS: usize = 200;
/// Far less than `$__rate_interval`, which is a minute in the run under load: the panels show all requests.
const LOAD_LASTS: Duration = Duration::from_secs(15);
/// The dashboard's time range in the run under load. It begins before the load.
const SHOWN_S: u64 = 300;
/// The panels that have data only in Prometheus 3, if it scrapes native histograms.
const NATIVE: [&str; 2] = ["Estimates by the native histogram", "Error of the native histogram"];

/// Returns a choice for each way in which targets are labelled.
fn choices() -> [Choice; 3] {
    let outside_kubernetes = [
        ("job", "httpserver"),
        ("namespace", ".*"),
        ("pod", ".*"),
        ("path", "/"),
        ("target", "2"),
    ];
    let one_namespace = [
        ("job", "kubernetes-pods"),
        ("namespace", "demo"),
        ("pod", "(httpserver-a|httpserver-b)"),
        ("path", "/"),
        ("target", "1.5"),
    ];
    let everything = [
        ("job", "(httpserver|kubernetes-pods)"),
        ("namespace", ".*"),
        ("pod", ".*"),
        ("path", ".*"),
        ("target", "2"),
    ];
    [outside_kubernetes, one_namespace, everything].map(|pairs| pairs.into_iter().collect())
}

/// The results of one run of the server under load, with a Prometheus of each major version. The processes of the run
/// have ended.
struct Observed {
    /// The access log.
    log: Vec<Line>,
    /// The server's exposition after the load, in OpenMetrics.
    exposition: String,
    by_version: [Results; 2],
}

/// The query results of one Prometheus.
struct Results {
    major: Major,
    /// For each choice, the results of every panel.
    panels: Vec<Vec<QueryResult>>,
    /// For each choice, the values that the variables offer.
    variables: Vec<BTreeMap<String, Vec<String>>>,
    rules: Value,
    /// The result of each rule's expression, without the threshold of an alert, by the rule's name.
    rule_results: Vec<(String, Vec<Value>)>,
    recorded_quantiles: BTreeMap<&'static str, f64>,
    exemplars: Value,
}

static OBSERVED: LazyLock<Observed> = LazyLock::new(observe);

impl Observed {
    /// Returns the durations that the server recorded.
    fn recorded(&self) -> Durations {
        self.log.iter().map(|line| line.duration).collect()
    }
}

fn observe() -> Observed {
    let board = Board::read();
    let server = Server::start(&["--error-rate", "0.2"]);
    let neighbour = neighbour::start();
    let config = |major: Major| {
        // Prometheus 2 knows these settings only as a flag, if at all.
        let native = if major == Major::Three {
            ", scrape_native_histograms: true, always_scrape_classic_histograms: true"
        } else {
            ""
        };
        format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s{native} }}\n\
             rule_files: ['{rules}']\n\
             scrape_configs:\n\
             - job_name: httpserver\n\
            \x20 static_configs: [{{ targets: ['{target}', '{neighbour}'] }}]\n\
             - job_name: kubernetes-pods\n\
            \x20 static_configs:\n\
            \x20 - {{ targets: ['{target}'], labels: {{ namespace: demo, pod: httpserver-a }} }}\n\
            \x20 - {{ targets: ['{neighbour}'], labels: {{ namespace: demo, pod: neighbour }} }}\n\
             - job_name: neighbours\n\
            \x20 static_configs: [{{ targets: ['{neighbour}'], labels: {{ namespace: elsewhere, pod: neighbour }} }}]\n",
            rules = concat!(env!("CARGO_MANIFEST_DIR"), "/yaml/monitoring/rules.yaml"),
            target = server.address,
        )
    };
    let flags = ["--enable-feature=exemplar-storage"];
    let both = Major::BOTH.map(|major| (major, Prometheus::start_major(major, &config(major), &flags)));
    // Scrape the counters at zero before the load, since an increase counts from the first sample.
    for (_, prometheus) in &both {
        wait_for(
            "a scrape of each target",
            || prometheus.value("count(sum_over_time(up[10m]) >= 1)"),
            |scraped| *scraped == Some(5.0),
        );
    }
    let clients = client::load(server.address, "/", CLIENTS, LOAD_LASTS);
    assert_eq!(clients.lost, 0, "requests lost");
    let log = server.logged(clients.latencies.count());
    assert_eq!(log.len(), clients.latencies.count());
    let both = both.map(|(major, prometheus)| {
        let now_s = last_scrape(&prometheus, log.len());
        (major, prometheus, now_s)
    });
    let by_version = both.map(|(major, prometheus, now_s)| query_all(&board, major, &prometheus, now_s));
    let mut client = server.connect();
    client.request(
        "GET",
        "/metrics",
        &[("Accept", "application/openmetrics-text; version=1.0.0")],
    );
    Observed {
        log,
        exposition: client.receive().expect("the exposition").text(),
        by_version,
    }
}

/// Blocks until all `answered` requests have been scraped. Returns the time of such a scrape, at which every target was
/// up.
///
/// At the time of a scrape, an increase is exactly what was counted since the first scrape. Later it is extrapolated.
fn last_scrape(prometheus: &Prometheus, answered: usize) -> f64 {
    let is_ours = "and on (job, instance) httpserver_build_info";
    let counted = format!("sum by (job) (http_request_duration_seconds_count{{path=\"/\"}} {is_ours})");
    wait_for(
        "the last requests to be scraped",
        || prometheus.query(&counted),
        |counts| {
            let all = |count: &Value| count["value"][1].as_str() == Some(&answered.to_string());
            counts.len() == 2 && counts.iter().all(all)
        },
    );
    let series = "http_request_duration_seconds_count{job=\"httpserver\",path=\"/\",status=\"200\"}";
    let scrape = wait_for(
        "all targets to be up",
        || {
            let time = prometheus.value(&format!("timestamp({series}) {is_ours}"))?;
            Some((time, prometheus.value(&format!("min(up @ {time})"))))
        },
        |scrape| scrape.is_some_and(|(_, up)| up == Some(1.0)),
    );
    scrape.expect("a scrape").0
}

/// Runs all queries of the dashboard as of a time.
fn query_all(board: &Board, major: Major, prometheus: &Prometheus, now_s: f64) -> Results {
    const RECORDED: &str = "namespace_job_path:httpserver_duration_seconds";
    // Three rounds of evaluations: a group of rules may use what another has recorded, which may use what a third has.
    let evaluations = || prometheus.value(&format!("min(count_over_time({RECORDED}:p50_rate5m[10m]))"));
    let before = evaluations();
    let mut rules = Value::Null;
    wait_for(
        "the rules' next evaluations, with all targets up",
        || {
            let evaluations = evaluations();
            rules = prometheus.api("/api/v1/rules");
            // A busy machine may have a scrape time out: then they are pending until the next one.
            let of_scrapes = ["HttpserverTargetDown", "HttpserverAbsent"].map(|alert| state_of(&rules, alert));
            (evaluations, of_scrapes)
        },
        |(evaluations, of_scrapes)| {
            let enough = before
                .zip(*evaluations)
                .is_some_and(|(before, now)| now >= before + 3.0);
            enough && of_scrapes.iter().all(|state| state == "inactive")
        },
    );
    let open = |choice| Grafana::open(board, prometheus, choice, "15s", SHOWN_S, now_s);
    let query = |promql: &str| {
        let mut answer = prometheus.api(&format!("/api/v1/query?query={}&time={now_s}", percent_encoded(promql)));
        let result: Vec<Value> = serde_json::from_value(answer["data"]["result"].take()).expect("series");
        result
    };
    let rule_results = rules_of(&rules)
        .map(|rule| {
            let expression = rule["query"].as_str().unwrap();
            let promql = if rule["type"] == "alerting" {
                without_threshold(expression)
            } else {
                expression.to_owned()
            };
            (rule["name"].as_str().unwrap().to_owned(), query(&promql))
        })
        .collect();
    let recorded_quantiles = ["p50", "p90", "p95", "p99"]
        .into_iter()
        .map(|name| {
            let recorded = format!("{RECORDED}:{name}_rate5m{{job=\"httpserver\",path=\"/\"}}");
            (name, prometheus.value(&recorded).expect("a recorded quantile"))
        })
        .collect();
    let variables_of = |grafana: Grafana| {
        let names = board.variables.iter().map(|variable| variable.name.clone());
        names.map(|name| (name.clone(), grafana.offered(&name))).collect()
    };
    Results {
        major,
        panels: choices().iter().map(|choice| open(choice).results()).collect(),
        variables: choices().iter().map(|choice| variables_of(open(choice))).collect(),
        rules,
        rule_results,
        recorded_quantiles,
        exemplars: prometheus
            .api("/api/v1/query_exemplars?query=http_request_duration_seconds_bucket&start=0&end=9999999999")["data"]
            .take(),
    }
}

fn rules_of(rules: &Value) -> impl Iterator<Item = &Value> {
    rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
}

/// Returns the state of an alert: inactive, pending or firing.
fn state_of(rules: &Value, alert: &str) -> String {
    let rule = rules_of(rules).find(|rule| rule["name"] == alert).expect(alert);
    rule["state"].as_str().unwrap_or("unknown").to_owned()
}

/// Returns an alert's expression without the parts that make it empty in normal operation, so that the rest must find
/// its series: "ratio > 14.4 * 0.01" becomes "ratio", "up == 0" becomes "up", "unless" becomes "and", "absent(x)"
/// becomes "(x)".
fn without_threshold(expression: &str) -> String {
    let mut kept = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find(['>', '=']) {
        let (before, from) = rest.split_at(at);
        let threshold = from.strip_prefix("> ").or_else(|| from.strip_prefix("== "));
        // An "=" inside a selector is not a comparison.
        kept.push_str(if threshold.is_some() { before } else { &rest[..=at] });
        rest = threshold.map_or(&from[1..], |number| {
            number.trim_start_matches(|c: char| c.is_ascii_digit() || ".* ".contains(c))
        });
        if threshold.is_some() {
            kept.push(' ');
        }
    }
    (kept + rest).replace(" unless ", " and ").replace("absent(", "(")
}

impl Results {
    /// Returns the single number that a panel's query returns, for targets outside Kubernetes.
    fn figure(&self, title: &str, nth: usize) -> f64 {
        let mut results = self.panels[0].iter().filter(|result| result.panel == title);
        let result = results.nth(nth).expect(title);
        assert_eq!(result.series.len(), 1, "{title}: {}", result.query);
        result.series[0].last()
    }
}

#[test]
fn every_query_of_every_panel_returns_numbers_however_targets_are_labelled() {
    for Results { major, panels, .. } in &OBSERVED.by_version {
        for (results, choice) in panels.iter().zip(choices()) {
            for QueryResult { panel, query, series } in results {
                let found = series.iter().any(|series| !series.last().is_nan());
                let expected = *major == Major::Three || !NATIVE.contains(&panel.as_str());
                assert_eq!(found, expected, "Prometheus {major:?}: {panel} for {choice:?}: {query}");
            }
        }
    }
}

#[test]
fn no_query_of_the_dashboard_and_no_variable_returns_the_neighbours_series() {
    for Results {
        major,
        panels,
        variables,
        ..
    } in &OBSERVED.by_version
    {
        for result in panels.iter().flatten() {
            for Series { labels, samples } in &result.series {
                let of_neighbour = labels["pod"] == "neighbour"
                    || labels["namespace"] == "elsewhere"
                    || labels["job"] == "neighbours"
                    || labels["path"] == neighbour::PATH
                    || labels["le"] == neighbour::BOUND;
                assert!(!of_neighbour, "Prometheus {major:?}: {}: {labels}", result.panel);
                // The neighbour's values are larger than any of ours.
                let largest = samples.iter().map(|sample| sample.1).filter(|value| value.is_finite());
                assert!(
                    largest.fold(0.0, f64::max) < 1e12,
                    "Prometheus {major:?}: {}",
                    result.panel
                );
            }
        }
        for offered in variables.iter().flat_map(BTreeMap::values).flatten() {
            let theirs = [
                "neighbour",
                "neighbours",
                "elsewhere",
                neighbour::PATH,
                neighbour::BOUND,
            ];
            assert!(
                !theirs.contains(&offered.as_str()),
                "Prometheus {major:?} offers {offered}"
            );
        }
        assert!(variables.iter().all(|variables| variables["instance"].len() == 1));
    }
}

#[test]
fn the_dashboard_is_the_same_with_and_without_a_neighbour_at_scrape_intervals_of_15_s_and_60_s() {
    let board = Board::read();
    let choice = &choices()[1];
    let ours = ["a", "b"].map(|pod| {
        format!("job=\"kubernetes-pods\",namespace=\"demo\",pod=\"httpserver-{pod}\",instance=\"10.0.0.{pod}:19004\"")
    });
    let theirs = "job=\"kubernetes-pods\",namespace=\"demo\",pod=\"neighbour\",instance=\"10.0.0.9:9898\"";
    let neighbour = neighbour::exposition(5000);
    let mut programs: Vec<Scraped> = ours
        .iter()
        .map(|labels| Scraped {
            labels,
            exposition: &OBSERVED.exposition,
        })
        .collect();
    let alone = programs.len();
    programs.push(Scraped {
        labels: theirs,
        exposition: &neighbour,
    });
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();

    for (scrape_interval, scrape_interval_s) in [("15s", 15), ("1m", 60)] {
        for major in Major::BOTH {
            let results = [alone, programs.len()].map(|count| {
                let samples = history::samples(&programs[..count], scrape_interval_s, now_s);
                let prometheus = Prometheus::start_on_samples(major, &samples);
                let range_s = history::LENGTH_S / 2;
                Grafana::open(&board, &prometheus, choice, scrape_interval, range_s, now_s as f64).results()
            });
            for (one, other) in results[0].iter().zip(&results[1]) {
                let what = format!(
                    "{} at {scrape_interval}, Prometheus {major:?}: {}",
                    one.panel, one.query
                );
                if NATIVE.contains(&one.panel.as_str()) {
                    // A text format has no native histograms.
                    assert!(one.series.is_empty(), "{what}");
                    continue;
                }
                // Each result is a line without gaps or one number.
                let points = history::LENGTH_S / 2 / scrape_interval_s;
                let is_line = |series: &Series| series.samples.len() as u64 >= points;
                let instant = one.series.iter().all(|series| series.samples.len() == 1);
                assert!(!one.series.is_empty(), "{what} is empty");
                assert!(instant || one.series.iter().all(is_line), "{what} has gaps");
                assert_same(&what, &one.series, &other.series);
            }
        }
    }
}

fn assert_same(what: &str, one: &[Series], other: &[Series]) {
    assert_eq!(one.len(), other.len(), "{what}");
    for series in one {
        let same = other.iter().find(|other| other.labels == series.labels);
        let same = same.unwrap_or_else(|| panic!("{what}: {} is missing", series.labels));
        assert_eq!(series.samples.len(), same.samples.len(), "{what}");
        for ((_, value), (_, other)) in series.samples.iter().zip(&same.samples) {
            // Floating-point sums differ slightly with the order of the terms.
            let close = (value - other).abs() <= 1e-9 * value.abs();
            assert!(close || value.is_nan() && other.is_nan(), "{what}: {value} and {other}");
        }
    }
}

#[test]
fn served_and_queued_requests_are_those_in_flight_below_and_above_the_concurrency() {
    let pods = [
        (
            "a",
            "http_requests_in_flight 61\nhttpserver_concurrency 20\n",
            [20.0, 41.0],
        ),
        (
            "b",
            "http_requests_in_flight 7\nhttpserver_concurrency 20\n",
            [7.0, 0.0],
        ),
        ("c", "http_requests_in_flight 9\n", [9.0, 0.0]),
    ];
    let labels = pods
        .map(|(pod, ..)| format!("job=\"kubernetes-pods\",namespace=\"demo\",pod=\"{pod}\",instance=\"{pod}:19004\""));
    let expositions = pods.map(|(_, gauges, _)| format!("{gauges}httpserver_build_info{{version=\"2\"}} 1\n"));
    let scraped: Vec<Scraped> = labels
        .iter()
        .zip(&expositions)
        .map(|(labels, exposition)| Scraped { labels, exposition })
        .collect();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let samples = history::samples(&scraped, 15, now_s);
    let choice = &choices()[2];
    for major in Major::BOTH {
        let prometheus = Prometheus::start_on_samples(major, &samples);
        let results = Grafana::open(&Board::read(), &prometheus, choice, "15s", 600, now_s as f64).results();
        let panel = results
            .iter()
            .filter(|result| result.panel == "Served and queued by pod");
        let panel: Vec<&QueryResult> = panel.collect();
        assert_eq!(panel.len(), 2);
        for (pod, _, expected) in &pods {
            let shown = [panel[0], panel[1]].map(|result| {
                let of_pod = result.series.iter().find(|series| series.labels["pod"] == *pod);
                of_pod.expect(pod).last()
            });
            assert_eq!(shown, *expected, "Prometheus {major:?}, {pod}");
        }
    }
}

#[test]
fn quantile_panels_agree_with_the_access_log() {
    let bounds = Bounds::default();
    let recorded = OBSERVED.recorded();
    for results in &OBSERVED.by_version {
        for (title, nth, q) in [("p50", 0, 0.5), ("p99", 0, 0.99)].into_iter().chain(
            [0.5, 0.9, 0.95, 0.99]
                .into_iter()
                .enumerate()
                .map(|(nth, q)| ("Quantiles", nth, q)),
        ) {
            let what = format!("Prometheus {:?}: {title}", results.major);
            recorded.assert_estimate(&what, results.figure(title, nth), q, bounds.upper_ns());
        }
    }
}

#[test]
fn recorded_quantiles_agree_with_the_access_log() {
    let bounds = Bounds::default();
    let recorded = OBSERVED.recorded();
    for results in &OBSERVED.by_version {
        for (name, q) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
            let what = format!("Prometheus {:?}: {name}", results.major);
            recorded.assert_estimate(&what, results.recorded_quantiles[name], q, bounds.upper_ns());
        }
    }
}

#[test]
fn the_distribution_panel_counts_every_request_in_the_access_log() {
    /// The log rounds durations to 1 µs.
    const ROUNDING_S: f64 = 1e-6;
    let recorded = OBSERVED.recorded();
    for results in &OBSERVED.by_version {
        let title = "Distribution in the shown time";
        let buckets = results.panels[0].iter().find(|result| result.panel == title).unwrap();
        assert_eq!(buckets.series.len(), 13, "{:?}", buckets.series);
        for series in &buckets.series {
            let bound: f64 = series.labels["le"]
                .as_str()
                .and_then(|le| le.parse().ok())
                .expect("a bound");
            let count = series.last().round() as usize;
            let within = recorded.at_most(bound - ROUNDING_S)..=recorded.at_most(bound + ROUNDING_S);
            let what = format!("Prometheus {:?}, le {bound}", results.major);
            assert!(within.contains(&count), "{what}: {count} here, {within:?} in the log");
        }
    }
}

#[test]
fn the_errors_panel_shows_the_servers_error_rate() {
    let requests = OBSERVED.log.len() as f64;
    let failed = OBSERVED.log.iter().filter(|line| line.status >= 500).count() as f64;
    // Seven standard deviations of that many draws.
    let spread = 7.0 * (0.2 * 0.8 / requests).sqrt();
    assert!((failed / requests - 0.2).abs() <= spread, "{failed} of {requests}");
    for results in &OBSERVED.by_version {
        let errors = results.figure("Errors", 0);
        let off = (errors - failed / requests).abs();
        assert!(off < 1e-6, "{errors} here, {failed} of {requests} in the log");
    }
}

#[test]
fn the_error_panels_show_how_far_the_estimates_are_from_the_configured_quantiles() {
    /// How much wider a native bucket is than the one below: 2^(1/8), rounded up.
    const BUCKET_GROWTH: f64 = 1.0906;
    let delayed = OBSERVED.log.iter().filter(|line| line.status == 200);
    let recorded: Durations = delayed.map(|line| line.duration).collect();
    let bounds = Bounds::default();
    for results in &OBSERVED.by_version {
        for (nth, (q, configured)) in [(0.5, 1.0), (0.9, 1.8), (0.99, 1.98)].into_iter().enumerate() {
            let estimate = |title: &str| (1.0 + results.figure(title, nth)) * configured;
            let title = "Error of the classic buckets";
            let what = format!("Prometheus {:?}: {title}", results.major);
            recorded.assert_estimate(&what, estimate(title), q, bounds.upper_ns());
            if results.major == Major::Three {
                let (native, truth) = (estimate("Error of the native histogram"), recorded.quantile(q));
                let line = format!("native histogram, quantile {q}: {native:.4} s here, {truth:.4} s recorded");
                println!("{line}");
                assert!((native / truth).max(truth / native) <= BUCKET_GROWTH, "{line}");
            }
        }
    }
}

#[test]
fn panels_that_show_exemplars_find_some() {
    for results in &OBSERVED.by_version {
        assert!(
            !results.exemplars.as_array().unwrap().is_empty(),
            "Prometheus {:?}",
            results.major
        );
    }
}

#[test]
fn variables_offer_the_values_in_prometheus() {
    for Results { variables, .. } in &OBSERVED.by_version {
        let offered =
            |choice: usize, name: &str| -> Vec<&str> { variables[choice][name].iter().map(String::as_str).collect() };
        assert_eq!(offered(1, "job"), ["httpserver", "kubernetes-pods"]);
        assert_eq!(offered(1, "namespace"), ["demo"]);
        assert_eq!(offered(1, "pod"), ["httpserver-a"]);
        assert_eq!(offered(0, "instance"), offered(2, "instance"));
        assert!(offered(1, "path").contains(&"/"));
        assert!(offered(1, "target").iter().any(|bound| ["2", "2.0"].contains(bound)));
    }
}

#[test]
fn every_rule_is_healthy_and_finds_its_series() {
    for results in &OBSERVED.by_version {
        let mut count = 0;
        for rule in rules_of(&results.rules) {
            count += 1;
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        assert_eq!(count, results.rule_results.len());
        for (name, result) in &results.rule_results {
            assert!(
                !result.is_empty(),
                "Prometheus {:?}: {name} finds nothing",
                results.major
            );
        }
    }
}

#[test]
fn an_error_rate_of_a_fifth_makes_only_the_fast_burn_alert_pending() {
    for results in &OBSERVED.by_version {
        let state = |name: &str| state_of(&results.rules, name);
        assert_eq!(state("HttpserverErrorBudgetBurnsFast"), "pending");
        for silent in [
            "HttpserverLatencyBudgetBurnsFast",
            "HttpserverLatencyUnmeasured",
            "HttpserverTargetDown",
            "HttpserverAbsent",
            "HttpserverInFlightNearLimit",
            "HttpserverConnectionsStuck",
        ] {
            assert_eq!(state(silent), "inactive", "{silent}");
        }
    }
}

#[test]
fn dashboard_json_matches_grafanas_own_model() {
    for version in ["10.1", "11.6"] {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(".tools")
            .join(format!("grafana-{version}"));
        assert!(sdk.is_dir(), "{} is missing: tests/run installs it", sdk.display());
        let output = Command::new("python3")
            .args(["tests/dashboard/panels/schema.py", "dashboard.json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PYTHONPATH", &sdk)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .expect("python3 is installed");
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Grafana {version}:\n{printed}");
    }
}

#[test]
fn ids_are_unique_and_panels_are_in_the_grid_without_overlap() {
    let board = Board::read();
    let mut ids = HashSet::new();
    for panel in board.panels().chain(board.rows.iter().map(|row| &row.heading)) {
        assert!(ids.insert(panel.id), "{} has the id of another panel", panel.title);
        assert!(
            panel.width > 0 && panel.height > 0 && panel.x + panel.width <= 24,
            "{} leaves the grid",
            panel.title
        );
    }
    // Of a collapsed row only the heading takes up space. An open row moves the panels below it.
    let collapsed: Vec<&Panel> = board
        .story
        .iter()
        .chain(board.rows.iter().map(|row| &row.heading))
        .collect();
    assert_apart(&collapsed);
    for row in &board.rows {
        assert_apart(&row.panels.iter().collect::<Vec<_>>());
        assert!(
            row.panels.iter().all(|panel| panel.y > row.heading.y),
            "{}",
            row.heading.title
        );
    }
}

fn assert_apart(panels: &[&Panel]) {
    for (i, one) in panels.iter().enumerate() {
        for other in &panels[i + 1..] {
            let apart = one.x + one.width <= other.x
                || other.x + other.width <= one.x
                || one.y + one.height <= other.y
                || other.y + other.height <= one.y;
            assert!(apart, "{} and {} overlap", one.title, other.title);
        }
    }
}

#[test]
fn the_story_fits_a_1080p_screen_with_the_headings_of_the_collapsed_rows() {
    // A grid row is 38 px high, gap included. The browser and Grafana's own bars take about 250 of the 1080 px.
    const ROWS_MAX: u64 = 22;
    let board = Board::read();
    let headings = board.rows.iter().map(|row| &row.heading);
    assert!(
        board
            .story
            .iter()
            .chain(headings)
            .all(|panel| panel.y + panel.height <= ROWS_MAX)
    );
    assert_eq!(board.rows.len(), 2);
    assert!(board.rows.iter().all(|row| !row.panels.is_empty()));
}

#[test]
fn every_panel_has_a_description_a_unit_and_an_empty_state() {
    for panel in Board::read().panels() {
        assert!(panel.description.len() > 40, "{} is not described", panel.title);
        assert!(panel.unit.is_some(), "{} has no unit", panel.title);
        let empty_state = panel.empty_state.as_deref();
        assert!(empty_state.is_some(), "{} has no text for its empty state", panel.title);
        if NATIVE.contains(&panel.title.as_str()) {
            assert!(
                empty_state.unwrap().contains("scrape_native_histograms"),
                "{}",
                panel.title
            );
        }
    }
}

#[test]
fn every_query_selects_our_instances_and_uses_only_the_scrape_interval_and_grafanas_windows() {
    for panel in Board::read().panels() {
        for Query {
            expression, interval, ..
        } in &panel.queries
        {
            let what = format!("{}: {expression}", panel.title);
            assert_eq!(interval, "$scrape_interval", "{what}");
            let selectors = expression.matches('{').count();
            let ours = expression.matches("{job=~\"$job\",instance=~\"$instance\"").count();
            assert_eq!(selectors, ours, "{what}");
            assert!(selectors > 0 || expression == "vector(0.01)", "{what}");
            for window in expression.split('[').skip(1).filter_map(|rest| rest.split(']').next()) {
                // The only other brackets are the regular expression's "[.]".
                assert!(["$__rate_interval", "$__range", "."].contains(&window), "{what}");
            }
        }
    }
}

#[test]
fn the_scrape_interval_can_be_15_s_30_s_or_a_minute() {
    assert_eq!(Board::read().scrape_intervals, ["15s", "30s", "1m"]);
}

#[test]
fn the_data_source_is_always_a_variable_so_that_import_and_provisioning_both_work() {
    let board = Board::read();
    assert_eq!(board.data_sources, HashSet::from(["${datasource}".to_owned()]));
    assert_eq!(board.json["uid"], "httpserver-latency");
    assert!(board.json["id"].is_null() && board.json.get("__inputs").is_none());
}
