//! dashboard.json and the recording and alerting rules, asked of a real Prometheus that scraped the server under load; and
//! dashboard.json read by Grafana's own model of a dashboard.

mod support;

#[path = "dashboard/board.rs"]
mod board;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use board::{Board, Panel, Query};
use serde_json::Value;
use support::client::{self, Seen};
use support::prometheus::{Major, Prometheus, percent_encoded};
use support::server::Server;
use support::wait_for;

/// What a quantile, a rate or a count may differ by from what the clients measured.
const TOLERANCE: f64 = 0.05;
const CLIENTS: usize = 200;
const LOAD_LASTS: Duration = Duration::from_secs(30);
/// Stands for `$__rate_interval` and `$__range`: reaches back to before the load.
const WINDOW: &str = "2m";

/// What a person chose in the dashboard's variables.
type Choice = BTreeMap<&'static str, &'static str>;

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

/// The query as Grafana sends it: `$__rate_interval`, `$__range` and the dashboard's variables replaced.
fn filled_in(expression: &str, choice: &Choice) -> String {
    let mut filled = expression
        .replace("$__rate_interval", WINDOW)
        .replace("$__range", WINDOW);
    for (name, value) in choice {
        filled = filled.replace(&format!("${name}"), value);
    }
    assert!(!filled.contains('$'), "a variable that nothing fills: {filled}");
    filled
}

/// The answer to one query of one panel.
struct Answer {
    panel: String,
    query: String,
    /// The last value of each series, by its labels.
    series: Vec<(Value, f64)>,
}

/// All that one run of server and load showed, with a Prometheus of each major version. Its processes have ended when this is
/// read.
struct Observed {
    clients: Seen,
    told: [Told; 2],
}

/// What one Prometheus answered.
struct Told {
    major: Major,
    /// For each choice, each panel's answers.
    answers: Vec<Vec<Answer>>,
    rules: Value,
    /// The answers to each rule's expression, an alert's without its threshold, by the rule's name.
    rule_answers: Vec<(String, Vec<Value>)>,
    recorded_quantiles: BTreeMap<&'static str, f64>,
    variables: BTreeMap<String, Vec<String>>,
    exemplars: usize,
}

static OBSERVED: LazyLock<Observed> = LazyLock::new(observe);

fn observe() -> Observed {
    let board = Board::read();
    let server = Server::start(&["--error-rate", "0.2", "--access-log", "false"]);
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
         rule_files: ['{rules}']\n\
         scrape_configs:\n\
         - job_name: httpserver\n\
        \x20 static_configs: [{{ targets: ['{target}'] }}]\n\
         - job_name: kubernetes-pods\n\
        \x20 static_configs: [{{ targets: ['{target}'], labels: {{ namespace: demo, pod: httpserver-a }} }}]\n",
        rules = concat!(env!("CARGO_MANIFEST_DIR"), "/yaml/monitoring/rules.yaml"),
        target = server.address,
    );
    let flags = ["--enable-feature=exemplar-storage"];
    let both = Major::BOTH.map(|major| (major, Prometheus::start_major(major, &config, &flags)));
    // The counters' zeros are scraped before the load, as what their increase is taken from.
    for (_, prometheus) in &both {
        wait_for("the first scrapes", Duration::from_secs(20), || {
            (prometheus.value("count(count_over_time(up[1m]) >= 2)")? == 2.0).then_some(())
        });
    }
    let clients = client::load(server.address, "/", CLIENTS, LOAD_LASTS);
    assert_eq!(clients.lost, 0, "requests lost");
    let told = both.map(|(major, prometheus)| ask_all(&board, major, &prometheus, clients.latencies.len()));
    Observed { clients, told }
}

/// Asks all that the dashboard asks, once `answered` requests are scraped.
fn ask_all(board: &Board, major: Major, prometheus: &Prometheus, answered: usize) -> Told {
    let counted = "sum by (job) (http_request_duration_seconds_count{path=\"/\"})";
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

    let answers = choices()
        .iter()
        .map(|choice| {
            let of_panel = |panel: &Panel| -> Vec<Answer> {
                panel
                    .queries
                    .iter()
                    .map(|query| ask(prometheus, panel, query, choice))
                    .collect()
            };
            board.panels().flat_map(of_panel).collect()
        })
        .collect();
    let rules = prometheus.api("/api/v1/rules");
    let rule_answers = rules_of(&rules)
        .map(|rule| {
            let expression = rule["query"].as_str().unwrap();
            let asked = if rule["type"] == "alerting" {
                without_threshold(expression)
            } else {
                expression.to_owned()
            };
            (rule["name"].as_str().unwrap().to_owned(), prometheus.query(&asked))
        })
        .collect();
    let recorded_quantiles = ["p50", "p90", "p95", "p99"]
        .into_iter()
        .map(|name| {
            let recorded = format!(
                "namespace_job_path:http_request_duration_seconds:{name}_rate5m{{job=\"httpserver\",path=\"/\"}}"
            );
            (name, prometheus.value(&recorded).expect("a recorded quantile"))
        })
        .collect();
    let [_, one_namespace, _] = choices();
    let variables = board
        .variables
        .iter()
        .map(|(name, query)| {
            (
                name.clone(),
                label_values(prometheus, &filled_in(query, &one_namespace)),
            )
        })
        .collect();
    let exemplars = prometheus
        .api("/api/v1/query_exemplars?query=http_request_duration_seconds_bucket&start=0&end=9999999999")["data"]
        .as_array()
        .map_or(0, Vec::len);
    Told {
        major,
        answers,
        rules,
        rule_answers,
        recorded_quantiles,
        variables,
        exemplars,
    }
}

/// Asks a panel's query as the panel does: over a range, or at one instant.
fn ask(prometheus: &Prometheus, panel: &Panel, query: &Query, choice: &Choice) -> Answer {
    let expression = filled_in(&query.expression, choice);
    let encoded = percent_encoded(&expression);
    let series = if query.instant {
        let answer = prometheus.api(&format!("/api/v1/query?query={encoded}"));
        answer["data"]["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["metric"].clone(), number(&one["value"])))
            .collect()
    } else {
        let now = prometheus.value("vector(time())").expect("the time");
        let target = format!(
            "/api/v1/query_range?query={encoded}&start={}&end={now}&step=5",
            now - 60.0
        );
        let answer = prometheus.api(&target);
        let result = answer["data"]["result"].as_array().unwrap();
        result
            .iter()
            .map(|one| {
                (
                    one["metric"].clone(),
                    number(one["values"].as_array().unwrap().last().unwrap()),
                )
            })
            .collect()
    };
    Answer {
        panel: panel.title.clone(),
        query: expression,
        series,
    }
}

/// The number of a `[time, "value"]` pair.
fn number(pair: &Value) -> f64 {
    pair[1].as_str().and_then(|text| text.parse().ok()).expect("a sample")
}

fn rules_of(rules: &Value) -> impl Iterator<Item = &Value> {
    rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
}

/// An alert's expression without what makes it empty while all is well, so that the rest can be seen to find its series:
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

/// What Grafana's `label_values(selector, label)` asks of Prometheus.
fn label_values(prometheus: &Prometheus, query: &str) -> Vec<String> {
    let inside = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'))
        .expect("label_values");
    let (selector, label) = inside.rsplit_once(", ").expect("a selector and a label");
    let answer = prometheus.api(&format!(
        "/api/v1/label/{label}/values?match[]={}",
        percent_encoded(selector)
    ));
    answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_str().unwrap().to_owned())
        .collect()
}

fn assert_close(what: &str, got: f64, wanted: f64) {
    let off = (got / wanted - 1.0).abs();
    assert!(off <= TOLERANCE, "{what}: {got} here, {wanted} at the clients");
}

impl Told {
    /// The one number that a panel's query answers, for targets outside Kubernetes.
    fn figure(&self, title: &str, nth: usize) -> f64 {
        let answer = self.answers[0]
            .iter()
            .filter(|answer| answer.panel == title)
            .nth(nth)
            .expect(title);
        assert_eq!(answer.series.len(), 1, "{title}: {}", answer.query);
        answer.series[0].1
    }
}

#[test]
fn every_query_of_every_panel_finds_numbers_however_targets_are_labelled() {
    for told in &OBSERVED.told {
        for (answers, choice) in told.answers.iter().zip(choices()) {
            for Answer { panel, query, series } in answers {
                let found = series.iter().any(|(_, value)| !value.is_nan());
                assert!(
                    found,
                    "Prometheus {:?}: {panel} is empty for {choice:?}: {query}",
                    told.major
                );
            }
        }
    }
}

#[test]
fn quantile_panels_agree_with_what_the_clients_measured() {
    let clients = &OBSERVED.clients;
    for told in &OBSERVED.told {
        for (title, nth, q) in [("p50", 0, 0.5), ("p99", 0, 0.99)].into_iter().chain(
            [0.5, 0.9, 0.95, 0.99]
                .into_iter()
                .enumerate()
                .map(|(nth, q)| ("Quantiles", nth, q)),
        ) {
            let what = format!("Prometheus {:?}: {title}, quantile {q}", told.major);
            let (panel, measured) = (told.figure(title, nth), clients.quantile(q));
            println!("{what}: panel {panel:.4} s, clients {measured:.4} s");
            assert_close(&what, panel, measured);
        }
    }
}

#[test]
fn recorded_quantiles_agree_with_what_the_clients_measured() {
    for told in &OBSERVED.told {
        for (name, q) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
            let what = format!("Prometheus {:?}: {name}", told.major);
            assert_close(&what, told.recorded_quantiles[name], OBSERVED.clients.quantile(q));
        }
    }
}

#[test]
fn the_distribution_panel_holds_every_request_that_the_clients_sent() {
    let clients = &OBSERVED.clients.latencies;
    let within_1s = clients.iter().filter(|latency| latency.as_secs_f64() <= 1.0).count();
    for told in &OBSERVED.told {
        let buckets = told.answers[0]
            .iter()
            .find(|answer| answer.panel == "Distribution in the shown time")
            .unwrap();
        // Prometheus 3 writes every bound with a decimal point.
        let of = |bounds: [&str; 2]| {
            let is_it = |labels: &Value| bounds.iter().any(|bound| labels["le"] == *bound);
            let (_, value) = buckets
                .series
                .iter()
                .find(|(labels, _)| is_it(labels))
                .expect(bounds[0]);
            *value
        };
        assert_close("requests", of(["+Inf", "+Inf"]), clients.len() as f64);
        assert_close("requests within a second", of(["1", "1.0"]), within_1s as f64);
    }
}

#[test]
fn errors_show_the_share_that_the_server_was_told_to_fail() {
    // A fifth, give or take four standard deviations of as many draws.
    let spread = 4.0 * (0.2 * 0.8 / OBSERVED.clients.latencies.len() as f64).sqrt();
    for told in &OBSERVED.told {
        let errors = told.figure("Errors", 0);
        assert!((errors - 0.2).abs() < spread + 0.2 * TOLERANCE, "{errors}");
    }
}

#[test]
fn exemplars_are_there_for_the_panels_that_show_them() {
    assert!(OBSERVED.told.iter().all(|told| told.exemplars > 0));
}

#[test]
fn variables_offer_what_prometheus_has() {
    for told in &OBSERVED.told {
        let offered = |name: &str| -> Vec<&str> { told.variables[name].iter().map(String::as_str).collect() };
        assert_eq!(offered("job"), ["httpserver", "kubernetes-pods"]);
        assert_eq!(offered("namespace"), ["demo"]);
        assert_eq!(offered("pod"), ["httpserver-a"]);
        assert!(offered("path").contains(&"/"));
        assert!(offered("target").iter().any(|bound| ["2", "2.0"].contains(bound)));
    }
}

#[test]
fn every_rule_is_healthy_and_finds_its_series() {
    for told in &OBSERVED.told {
        let mut count = 0;
        for rule in rules_of(&told.rules) {
            count += 1;
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        assert_eq!(count, told.rule_answers.len());
        for (name, answer) in &told.rule_answers {
            assert!(!answer.is_empty(), "Prometheus {:?}: {name} finds nothing", told.major);
        }
    }
}

#[test]
fn a_fifth_of_errors_puts_the_fast_burn_alert_on_its_way_and_no_other_page() {
    for told in &OBSERVED.told {
        let state = |name: &str| {
            let rule = rules_of(&told.rules).find(|rule| rule["name"] == name).expect(name);
            rule["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(state("HttpserverErrorBudgetBurnsFast"), "pending");
        for quiet in [
            "HttpserverLatencyBudgetBurnsFast",
            "HttpserverLatencyUnmeasured",
            "HttpserverTargetDown",
            "HttpserverAbsent",
            "HttpserverInFlightNearLimit",
        ] {
            assert_eq!(state(quiet), "inactive", "{quiet}");
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
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Grafana {version}:\n{said}");
    }
}

#[test]
fn ids_are_unique_and_panels_lie_in_the_grid_without_overlap() {
    let board = Board::read();
    let mut ids = HashSet::new();
    for panel in board.panels().chain(&board.rows) {
        assert!(ids.insert(panel.id), "{} has the id of another panel", panel.title);
        assert!(
            panel.width > 0 && panel.height > 0 && panel.x + panel.width <= 24,
            "{} leaves the grid",
            panel.title
        );
    }
    // A collapsed row's panels take their place when it is opened: below what is above the row.
    let all: Vec<&Panel> = board.panels().chain(&board.rows).collect();
    for (i, one) in all.iter().enumerate() {
        for other in &all[i + 1..] {
            let apart = one.x + one.width <= other.x
                || other.x + other.width <= one.x
                || one.y + one.height <= other.y
                || other.y + other.height <= one.y;
            assert!(apart, "{} and {} overlap", one.title, other.title);
        }
    }
}

#[test]
fn the_story_fits_a_1080p_screen_and_the_details_are_collapsed() {
    // A grid row is 38 px high, its gap included; of 1080, the browser and Grafana's own bars take about 250.
    const ROWS_MAX: u64 = 22;
    let board = Board::read();
    assert!(board.story.iter().all(|panel| panel.y + panel.height <= ROWS_MAX));
    assert_eq!(board.rows.len(), 1);
    assert!(
        board.rows[0].y + board.rows[0].height <= ROWS_MAX,
        "the row's heading is in sight"
    );
    assert!(!board.details.is_empty());
}

#[test]
fn every_panel_tells_how_to_read_it_has_a_unit_and_an_empty_state_and_no_fixed_interval() {
    for panel in Board::read().panels() {
        assert!(panel.description.len() > 40, "{} is not described", panel.title);
        assert!(panel.unit.is_some(), "{} has no unit", panel.title);
        assert!(
            panel.empty_state.is_some(),
            "{} does not say when there is nothing",
            panel.title
        );
        for Query { expression, .. } in &panel.queries {
            for window in expression.split('[').skip(1).filter_map(|rest| rest.split(']').next()) {
                // The only other brackets are the regular expression's "[.]".
                assert!(
                    ["$__rate_interval", "$__range", "."].contains(&window),
                    "{}: [{window}]",
                    panel.title
                );
            }
        }
    }
}

#[test]
fn the_data_source_is_a_variable_everywhere_so_that_import_and_provisioning_both_work() {
    let board = Board::read();
    assert_eq!(board.data_sources, HashSet::from(["${datasource}".to_owned()]));
    assert_eq!(board.json["uid"], "httpserver-latency");
    assert!(board.json["id"].is_null() && board.json.get("__inputs").is_none());
}
