//! dashboard.json and the recording and alerting rules in a real Prometheus, of each major version, that scrapes the server under
//! load and another program with the same metric; the dashboard on an hour of samples at either end of the scrape intervals;
//! and dashboard.json read by Grafana's own model of a dashboard.

mod support;

#[path = "dashboard/board.rs"]
mod board;
#[path = "dashboard/grafana.rs"]
mod grafana;
#[path = "dashboard/history.rs"]
mod history;
#[path = "dashboard/neighbour.rs"]
mod neighbour;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use board::{Board, Panel, Query};
use grafana::{Answer, Choice, Grafana, Series};
use history::Scraped;
use serde_json::Value;
use support::client::{self, Seen};
use support::prometheus::{Major, Prometheus};
use support::server::Server;
use support::wait_for;

/// What a quantile, a rate or a count may differ by from what the clients measured.
const TOLERANCE: f64 = 0.05;
const CLIENTS: usize = 200;
const LOAD_LASTS: Duration = Duration::from_secs(30);
/// The shown time of the run under load, which begins before the load does.
const SHOWN_S: u64 = 300;
/// What only Prometheus 3 has, if it scrapes native histograms.
const NATIVE: [&str; 2] = ["Estimates by the native histogram", "Error of the native histogram"];

/// A choice for each of the ways that targets are labelled.
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

/// All that one run of server and load showed, with a Prometheus of each major version. Its processes have ended when this is
/// read.
struct Observed {
    clients: Seen,
    /// The server's exposition after the load, in OpenMetrics.
    exposition: String,
    by_version: [Answers; 2],
}

/// What one Prometheus answered.
struct Answers {
    major: Major,
    /// For each choice, each panel's answers.
    panels: Vec<Vec<Answer>>,
    /// For each choice, what the variables offer.
    variables: Vec<BTreeMap<String, Vec<String>>>,
    rules: Value,
    /// The answers to each rule's expression, an alert's without its threshold, by the rule's name.
    rule_answers: Vec<(String, Vec<Value>)>,
    recorded_quantiles: BTreeMap<&'static str, f64>,
    exemplars: Value,
}

static OBSERVED: LazyLock<Observed> = LazyLock::new(observe);

fn observe() -> Observed {
    let board = Board::read();
    let server = Server::start(&["--error-rate", "0.2", "--access-log", "false"]);
    let neighbour = neighbour::start();
    let config = |major: Major| {
        // Prometheus 2 knows these words only as a flag, if at all.
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
    // The counters' zeros are scraped before the load, since increases begin at them.
    for (_, prometheus) in &both {
        wait_for("the first scrapes", Duration::from_secs(20), || {
            (prometheus.value("count(count_over_time(up[1m]) >= 2)")? == 5.0).then_some(())
        });
    }
    let clients = client::load(server.address, "/", CLIENTS, LOAD_LASTS);
    assert_eq!(clients.lost, 0, "requests lost");
    let by_version = both.map(|(major, prometheus)| query_all(&board, major, &prometheus, clients.latencies.len()));
    let mut client = server.connect();
    client.request(
        "GET",
        "/metrics",
        &[("Accept", "application/openmetrics-text; version=1.0.0")],
    );
    Observed {
        clients,
        exposition: client.receive().expect("the exposition").text(),
        by_version,
    }
}

/// Queries all that the dashboard does, once `answered` requests are scraped.
fn query_all(board: &Board, major: Major, prometheus: &Prometheus, answered: usize) -> Answers {
    let counted =
        "sum by (job) (http_request_duration_seconds_count{path=\"/\"} and on (job, instance) httpserver_build_info)";
    wait_for("the last answers to be scraped", Duration::from_secs(20), || {
        let counts = prometheus.query(counted);
        let all = |count: &Value| count["value"][1].as_str() == Some(&answered.to_string());
        (counts.len() == 2 && counts.iter().all(all)).then_some(())
    });
    // One more round of evaluation and scrapes, so that the rules have seen what the queries see.
    let scrapes = "min(count_over_time(up[5m]))";
    let before = prometheus.value(scrapes);
    wait_for("the rules' next evaluations", Duration::from_secs(20), || {
        (prometheus.value(scrapes)? >= before? + 3.0).then_some(())
    });

    let now_s = prometheus.value("vector(time())").expect("the time");
    let open = |choice| Grafana::open(board, prometheus, choice, "15s", SHOWN_S, now_s);
    let rules = prometheus.api("/api/v1/rules");
    let rule_answers = rules_of(&rules)
        .map(|rule| {
            let expression = rule["query"].as_str().unwrap();
            let query = if rule["type"] == "alerting" {
                without_threshold(expression)
            } else {
                expression.to_owned()
            };
            (rule["name"].as_str().unwrap().to_owned(), prometheus.query(&query))
        })
        .collect();
    let recorded_quantiles = ["p50", "p90", "p95", "p99"]
        .into_iter()
        .map(|name| {
            let recorded = format!(
                "namespace_job_path:httpserver_duration_seconds:{name}_rate5m{{job=\"httpserver\",path=\"/\"}}"
            );
            (name, prometheus.value(&recorded).expect("a recorded quantile"))
        })
        .collect();
    let variables_of = |grafana: Grafana| {
        let names = board.variables.iter().map(|variable| variable.name.clone());
        names.map(|name| (name.clone(), grafana.offered(&name))).collect()
    };
    Answers {
        major,
        panels: choices().iter().map(|choice| open(choice).answers()).collect(),
        variables: choices().iter().map(|choice| variables_of(open(choice))).collect(),
        rules,
        rule_answers,
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

/// An alert's expression without what makes it empty while all is well, so that the rest must find its series:
/// "ratio > 14.4 * 0.01" becomes "ratio", "up == 0" becomes "up", "unless" becomes "and", "absent(x)" becomes "(x)".
fn without_threshold(expression: &str) -> String {
    let mut kept = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find(['>', '=']) {
        let (before, from) = rest.split_at(at);
        let threshold = from.strip_prefix("> ").or_else(|| from.strip_prefix("== "));
        // An "=" inside a selector is no comparison.
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

fn assert_close(what: &str, got: f64, wanted: f64) {
    let off = (got / wanted - 1.0).abs();
    assert!(off <= TOLERANCE, "{what}: {got} here, {wanted} at the clients");
}

impl Answers {
    /// The one number that a panel's query answers, for targets outside Kubernetes.
    fn figure(&self, title: &str, nth: usize) -> f64 {
        let mut answers = self.panels[0].iter().filter(|answer| answer.panel == title);
        let answer = answers.nth(nth).expect(title);
        assert_eq!(answer.series.len(), 1, "{title}: {}", answer.query);
        answer.series[0].last()
    }
}

#[test]
fn every_query_of_every_panel_finds_numbers_however_targets_are_labelled() {
    for Answers { major, panels, .. } in &OBSERVED.by_version {
        for (answers, choice) in panels.iter().zip(choices()) {
            for Answer { panel, query, series } in answers {
                let found = series.iter().any(|series| !series.last().is_nan());
                let expected = *major == Major::Three || !NATIVE.contains(&panel.as_str());
                assert_eq!(found, expected, "Prometheus {major:?}: {panel} for {choice:?}: {query}");
            }
        }
    }
}

#[test]
fn no_query_of_the_dashboard_and_no_variable_returns_the_neighbours_series() {
    for Answers {
        major,
        panels,
        variables,
        ..
    } in &OBSERVED.by_version
    {
        for answer in panels.iter().flatten() {
            for Series { labels, samples } in &answer.series {
                let of_neighbour = labels["pod"] == "neighbour"
                    || labels["namespace"] == "elsewhere"
                    || labels["job"] == "neighbours"
                    || labels["path"] == neighbour::PATH
                    || labels["le"] == neighbour::BOUND;
                assert!(!of_neighbour, "Prometheus {major:?}: {}: {labels}", answer.panel);
                // The neighbour's figures are beyond any of ours.
                let largest = samples.iter().map(|sample| sample.1).filter(|value| value.is_finite());
                assert!(
                    largest.fold(0.0, f64::max) < 1e12,
                    "Prometheus {major:?}: {}",
                    answer.panel
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
fn the_dashboard_shows_the_same_with_and_without_a_neighbour_at_scrapes_of_15_s_and_60_s() {
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
            let answers = [alone, programs.len()].map(|count| {
                let samples = history::samples(&programs[..count], scrape_interval_s, now_s);
                let prometheus = Prometheus::start_on_samples(major, &samples);
                let range_s = history::LENGTH_S / 2;
                Grafana::open(&board, &prometheus, choice, scrape_interval, range_s, now_s as f64).answers()
            });
            for (one, other) in answers[0].iter().zip(&answers[1]) {
                let what = format!(
                    "{} at {scrape_interval}, Prometheus {major:?}: {}",
                    one.panel, one.query
                );
                if NATIVE.contains(&one.panel.as_str()) {
                    // A text format has no native histogram.
                    assert!(one.series.is_empty(), "{what}");
                    continue;
                }
                // A line without gaps, or one number.
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
            // Sums of the same numbers in another order.
            let close = (value - other).abs() <= 1e-9 * value.abs();
            assert!(close || value.is_nan() && other.is_nan(), "{what}: {value} and {other}");
        }
    }
}

#[test]
fn quantile_panels_agree_with_what_the_clients_measured() {
    let clients = &OBSERVED.clients;
    for answers in &OBSERVED.by_version {
        for (title, nth, q) in [("p50", 0, 0.5), ("p99", 0, 0.99)].into_iter().chain(
            [0.5, 0.9, 0.95, 0.99]
                .into_iter()
                .enumerate()
                .map(|(nth, q)| ("Quantiles", nth, q)),
        ) {
            let what = format!("Prometheus {:?}: {title}, quantile {q}", answers.major);
            let (panel, measured) = (answers.figure(title, nth), clients.quantile(q));
            println!("{what}: panel {panel:.4} s, clients {measured:.4} s");
            assert_close(&what, panel, measured);
        }
    }
}

#[test]
fn recorded_quantiles_agree_with_what_the_clients_measured() {
    for answers in &OBSERVED.by_version {
        for (name, q) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
            let what = format!("Prometheus {:?}: {name}", answers.major);
            assert_close(&what, answers.recorded_quantiles[name], OBSERVED.clients.quantile(q));
        }
    }
}

#[test]
fn the_distribution_panel_holds_every_request_that_the_clients_sent() {
    let clients = &OBSERVED.clients.latencies;
    let within_1s = clients.iter().filter(|latency| latency.as_secs_f64() <= 1.0).count();
    for answers in &OBSERVED.by_version {
        let title = "Distribution in the shown time";
        let buckets = answers.panels[0].iter().find(|answer| answer.panel == title).unwrap();
        // Prometheus 3 writes every bound with a decimal point.
        let of = |bounds: [&str; 2]| {
            let is_it = |series: &&Series| bounds.iter().any(|bound| series.labels["le"] == *bound);
            buckets.series.iter().find(is_it).expect(bounds[0]).last()
        };
        assert_close("requests", of(["+Inf", "+Inf"]), clients.len() as f64);
        assert_close("requests within a second", of(["1", "1.0"]), within_1s as f64);
    }
}

#[test]
fn errors_show_the_share_that_the_server_was_started_with() {
    // A fifth, give or take four standard deviations of as many draws.
    let spread = 4.0 * (0.2 * 0.8 / OBSERVED.clients.latencies.len() as f64).sqrt();
    for answers in &OBSERVED.by_version {
        let errors = answers.figure("Errors", 0);
        assert!((errors - 0.2).abs() < spread + 0.2 * TOLERANCE, "{errors}");
    }
}

#[test]
fn estimates_come_close_to_the_configured_quantiles() {
    /// What buckets, interpolation and the server itself may add.
    const CLASSIC: f64 = 0.01;
    const NATIVE: f64 = 0.044 + CLASSIC;
    let answered = 0.8 * OBSERVED.clients.latencies.len() as f64;
    for answers in &OBSERVED.by_version {
        for (nth, q) in [0.5, 0.9, 0.99].into_iter().enumerate() {
            // Five standard deviations of that quantile of as many uniform draws.
            let spread = 5.0 * ((1.0 - q) / (q * answered)).sqrt();
            let within = |title: &str, bound: f64| {
                let error = answers.figure(title, nth);
                println!("Prometheus {:?}: {title}, {q}: {:.2} %", answers.major, 100.0 * error);
                assert!(error.abs() < spread + bound, "{title}, {q}: {error}");
            };
            within("Error of the classic buckets", CLASSIC);
            if answers.major == Major::Three {
                within("Error of the native histogram", NATIVE);
            }
        }
    }
}

#[test]
fn exemplars_are_there_for_the_panels_that_show_them() {
    for answers in &OBSERVED.by_version {
        assert!(
            !answers.exemplars.as_array().unwrap().is_empty(),
            "Prometheus {:?}",
            answers.major
        );
    }
}

#[test]
fn variables_offer_what_prometheus_has() {
    for Answers { variables, .. } in &OBSERVED.by_version {
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
    for answers in &OBSERVED.by_version {
        let mut count = 0;
        for rule in rules_of(&answers.rules) {
            count += 1;
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        assert_eq!(count, answers.rule_answers.len());
        for (name, answer) in &answers.rule_answers {
            assert!(
                !answer.is_empty(),
                "Prometheus {:?}: {name} finds nothing",
                answers.major
            );
        }
    }
}

#[test]
fn a_fifth_of_errors_makes_the_fast_burn_alert_pending_and_no_other_critical_one() {
    for answers in &OBSERVED.by_version {
        let state = |name: &str| {
            let rule = rules_of(&answers.rules).find(|rule| rule["name"] == name).expect(name);
            rule["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(state("HttpserverErrorBudgetBurnsFast"), "pending");
        for silent in [
            "HttpserverLatencyBudgetBurnsFast",
            "HttpserverLatencyUnmeasured",
            "HttpserverTargetDown",
            "HttpserverAbsent",
            "HttpserverInFlightNearLimit",
        ] {
            assert_eq!(state(silent), "inactive", "{silent}");
        }
    }
}

#[test]
fn grafanas_own_model_knows_every_key_type_and_value() {
    for version in ["10.1", "11.6"] {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(".tools")
            .join(format!("grafana-{version}"));
        assert!(sdk.is_dir(), "{} is missing: tests/run installs it", sdk.display());
        let output = Command::new("python3")
            .args(["tests/dashboard/schema.py", "dashboard.json"])
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
fn ids_are_unique_and_panels_lie_in_the_grid_without_overlap() {
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
    // While rows are collapsed, only their headings take a place; an open one moves what is below it.
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
    // A grid row is 38 px high, its gap included; of 1080, the browser and Grafana's own bars take about 250.
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
        assert!(empty_state.is_some(), "{} does not say why it is empty", panel.title);
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
fn every_query_selects_our_instances_and_has_the_scrape_interval_as_its_min_step_and_no_window_of_its_own() {
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
fn scrape_intervals_of_15_s_30_s_and_a_minute_can_be_chosen() {
    assert_eq!(Board::read().scrape_intervals, ["15s", "30s", "1m"]);
}

#[test]
fn the_data_source_is_a_variable_everywhere_so_that_import_and_provisioning_both_work() {
    let board = Board::read();
    assert_eq!(board.data_sources, HashSet::from(["${datasource}".to_owned()]));
    assert_eq!(board.json["uid"], "httpserver-latency");
    assert!(board.json["id"].is_null() && board.json.get("__inputs").is_none());
}
