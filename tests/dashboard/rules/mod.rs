//! The recording and alerting rules, as files:
//!
//! - promtool accepts them;
//! - each alert fires and stays silent when it should, with and without other programs beside the server;
//! - the operator's form equals the plain one;
//! - the runbook explains each alert, at an address that a fork can change.
//!
//! `native` tests the twin that reads native histograms.
//! `panels` tests the rules in a real Prometheus, together with the dashboard's queries.

mod native;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_yaml_ng::Value;
use support::client::Client;
use support::prometheus::{Major, Prometheus};
use support::server::Server;
use support::{root, wait_for};

/// Both forms of the rules.
const FILES: [&str; 2] = ["yaml/monitoring/rules.yaml", "yaml/monitoring/prometheusrule.yaml"];

/// Their twin, which reads native histograms.
const NATIVE: &str = "yaml/monitoring/rules-native.yaml";

const WITH_NATIVE: [&str; 3] = [FILES[0], FILES[1], NATIVE];

/// Series of other programs in our job and namespace. The first is down, slow, fails half of its requests, and has no
/// bucket at 2 s and many requests in flight: a rule that included it would fire. The second answers far more requests
/// than ours, all of them fast: a rule that included it would stay silent.
const NEIGHBOURS: [&[(&str, &str)]; 2] = [
    &[
        (r#"up{namespace="demo",job="httpserver",instance="bad"}"#, "0x9999"),
        (
            r#"http_requests_in_flight{namespace="demo",job="httpserver",instance="bad"}"#,
            "9999x9999",
        ),
        (
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="503",le="0.5",namespace="demo",job="httpserver",instance="bad"}"#,
            "0+0x9999",
        ),
        (
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="503",le="+Inf",namespace="demo",job="httpserver",instance="bad"}"#,
            "0+1000x9999",
        ),
        (
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="0.5",namespace="demo",job="httpserver",instance="bad"}"#,
            "0+0x9999",
        ),
        (
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="+Inf",namespace="demo",job="httpserver",instance="bad"}"#,
            "0+1000x9999",
        ),
    ],
    &[
        (r#"up{namespace="demo",job="httpserver",instance="good"}"#, "1x9999"),
        (
            r#"http_requests_in_flight{namespace="demo",job="httpserver",instance="good"}"#,
            "0x9999",
        ),
        (
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="2.0",namespace="demo",job="httpserver",instance="good"}"#,
            "0+9999x9999",
        ),
        (
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="+Inf",namespace="demo",job="httpserver",instance="good"}"#,
            "0+9999x9999",
        ),
    ],
];

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// Returns the names of all alerts.
fn alerts() -> Vec<String> {
    let names = |line: &str| line.trim().strip_prefix("- alert: ").map(str::to_owned);
    read(FILES[0]).lines().filter_map(names).collect()
}

/// Returns the unit tests that a major version can run: Prometheus 2 has no native histograms.
fn cases(major: Major) -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("tests/dashboard/rules")).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .filter(|path| major == Major::Three || !path.ends_with("native.yaml"))
        .collect()
}

/// Returns the output of promtool. Panics if it fails.
fn promtool(major: Major, arguments: &[&str], files: &[PathBuf]) -> String {
    let output = major
        .promtool()
        .args(arguments)
        .args(files)
        .output()
        .expect("promtool starts");
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "promtool {arguments:?} of {major:?}, {files:?}:\n{printed}"
    );
    printed.into_owned()
}

/// Writes a copy of the unit tests with a neighbour's series in every case, and returns its files. Those of hours and days are
/// left out: they take the longest, and all alerts are in the others too.
fn unit_tests_beside(neighbour: usize) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rules-beside-{neighbour}"));
    fs::create_dir_all(&folder).unwrap();
    let beside = |path: &PathBuf| {
        let mut file: Value = serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        file["rule_files"][0] = root().join(FILES[0]).to_str().unwrap().into();
        for case in file["tests"].as_sequence_mut().unwrap() {
            let series = case["input_series"].as_sequence_mut().unwrap();
            for (name, values) in NEIGHBOURS[neighbour] {
                let yaml = format!("{{series: '{name}', values: '{values}'}}");
                series.push(serde_yaml_ng::from_str(&yaml).unwrap());
            }
        }
        let written = folder.join(path.file_name().unwrap());
        fs::write(&written, serde_yaml_ng::to_string(&file).unwrap()).unwrap();
        written
    };
    let short =
        ["errors.yaml", "latency.yaml", "targets.yaml"].map(|name| root().join("tests/dashboard/rules").join(name));
    short.iter().map(beside).collect()
}

#[test]
fn promtool_has_no_complaint_about_the_rules() {
    for (major, file) in [(Major::Two, FILES[0]), (Major::Three, FILES[0]), (Major::Three, NATIVE)] {
        let printed = promtool(
            major,
            &["check", "rules", "--lint=all", "--lint-fatal"],
            &[root().join(file)],
        );
        assert!(printed.contains("SUCCESS"), "{printed}");
    }
}

#[test]
fn each_alert_fires_and_stays_silent_when_it_should() {
    thread::scope(|scope| {
        for major in Major::BOTH {
            scope.spawn(move || promtool(major, &["test", "rules"], &cases(major)));
        }
    });
}

#[test]
fn other_programs_with_the_same_job_and_metric_do_not_affect_the_alerts() {
    thread::scope(|scope| {
        for neighbour in 0..NEIGHBOURS.len() {
            scope.spawn(move || promtool(Major::Three, &["test", "rules"], &unit_tests_beside(neighbour)));
        }
    });
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_is_silent() {
    let cases: String = cases(Major::Two)
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    for alert in alerts() {
        let silent = format!("alertname: {alert}, exp_alerts: [] }}");
        let firing = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        assert!(cases.contains(&silent), "no case expects {alert} to be silent");
        assert!(cases.contains(&firing), "no case expects {alert} to fire");
    }
}

#[test]
fn error_series_in_the_unit_tests_start_at_zero_as_the_servers_do() {
    let server = Server::start(&[]);
    let exposition = server.metrics();
    for file in cases(Major::Two) {
        let file: Value = serde_yaml_ng::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        for case in file["tests"].as_sequence().unwrap() {
            for input in case["input_series"].as_sequence().unwrap() {
                let (series, values) = (input["series"].as_str().unwrap(), input["values"].as_str().unwrap());
                if series.contains("_bucket{") && series.contains("path=\"/\",status=\"5") {
                    assert!(values.starts_with("0"), "does not start at zero: {series} {values}");
                    let start = series.split(",le=").next().unwrap();
                    assert!(exposition.contains(start), "the server does not expose {start}");
                }
            }
        }
    }
}

#[test]
fn a_burst_of_503_after_the_first_scrape_is_counted() {
    const REQUESTS: usize = 500;
    let server = Server::start(&["--max-in-flight", "1"]);
    let prometheus = Prometheus::scraping(&[server.address]);
    wait_for("the first scrape", || prometheus.value("up"), |up| *up == Some(1.0));
    let address = server.address;
    let clients: Vec<_> = (0..REQUESTS)
        .map(|_| thread::spawn(move || Client::connect(address).get("/?delay=2s").status))
        .collect();
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(refused > REQUESTS / 2, "{refused} were refused");

    let counted = "http_request_duration_seconds_count{path=\"/\",status=\"503\"}";
    wait_for(
        "the last scrape",
        || prometheus.value(counted),
        |count| *count == Some(refused as f64),
    );
    // At the time of a scrape, an increase is not extrapolated.
    let scrape = wait_for(
        "a scrape",
        || prometheus.value(&format!("timestamp({counted})")),
        Option::is_some,
    );
    let increase = format!("increase({counted}[10m] @ {})", scrape.expect("its time"));
    let increase = prometheus.value(&increase).expect("an increase");
    assert_eq!(increase.round(), refused as f64);
}

#[test]
fn the_operators_form_has_the_same_groups() {
    let plain = read(FILES[0]);
    let form = read(FILES[1]);
    let groups = &plain[plain.find("groups:").unwrap()..];
    let indented: String = groups
        .lines()
        .map(|line| {
            if line.is_empty() {
                "\n".into()
            } else {
                format!("  {line}\n")
            }
        })
        .collect();
    let (head, spec) = form.split_once("spec:\n").unwrap();
    assert!(head.contains("kind: PrometheusRule"));
    assert!(
        spec == indented,
        "prometheusrule.yaml is not rules.yaml indented by two spaces: copy the differences"
    );
}

/// Returns the runbook addresses of the rules, in order.
fn runbooks(rules: &str) -> Vec<&str> {
    let address = |line: &'_ str| line.trim().strip_prefix("runbook_url: ").map(|_| ());
    let lines = rules.lines().filter(|line| address(line).is_some());
    lines
        .map(|line| line.trim().trim_start_matches("runbook_url: "))
        .collect()
}

#[test]
fn each_alert_has_a_summary_a_description_and_a_link_to_its_section_of_the_runbook() {
    let containerfile = read("Containerfile");
    let source = containerfile
        .lines()
        .find_map(|line| line.strip_prefix("ARG SOURCE="))
        .unwrap();
    assert!(source.starts_with("https://"), "{source}");
    assert_eq!(env!("CARGO_PKG_REPOSITORY"), source);

    let sections: Vec<String> = read("docs/runbook.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## Httpserver"))
        .map(|name| format!("Httpserver{name}"))
        .collect();
    assert_eq!(sections, alerts(), "the runbook's sections differ from the alerts");

    for file in WITH_NATIVE {
        let rules = read(file);
        let bodies: Vec<&str> = rules.split("- alert: ").skip(1).collect();
        assert_eq!(bodies.len(), alerts().len());
        for (alert, body) in alerts().iter().zip(&bodies) {
            for key in ["severity: ", "summary: ", "description: ", "runbook_url: "] {
                assert_eq!(body.matches(key).count(), 1, "{file}: {alert}: {key}");
            }
        }
        let expected: Vec<String> = alerts()
            .iter()
            .map(|alert| format!("{source}/blob/main/docs/runbook.md#{}", alert.to_lowercase()))
            .collect();
        assert_eq!(runbooks(&rules), expected, "{file}");
    }
}

#[test]
fn the_command_in_the_docs_changes_every_runbook_address_to_that_of_a_fork() {
    let docs = read("docs/runbook.md");
    let lines: Vec<&str> = docs.lines().filter(|line| line.starts_with("sed ")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");

    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fork");
    fs::create_dir_all(copy.join("yaml/monitoring")).unwrap();
    let all = ["Cargo.toml", "Containerfile", FILES[0], FILES[1], NATIVE];
    for file in all {
        fs::copy(root().join(file), copy.join(file)).unwrap();
    }
    let status = Command::new("sh").args(["-c", lines[0]]).current_dir(&copy).status();
    assert!(status.unwrap().success());

    let fork = "https://github.com/you/httpserver";
    for file in all {
        let changed = fs::read_to_string(copy.join(file)).unwrap();
        assert!(!changed.contains(env!("CARGO_PKG_REPOSITORY")), "{file}");
        assert!(changed.contains(fork), "{file}");
    }
    for file in WITH_NATIVE {
        let changed = fs::read_to_string(copy.join(file)).unwrap();
        let addresses = runbooks(&changed);
        assert_eq!(addresses.len(), alerts().len());
        assert!(
            addresses.iter().all(|address| address.starts_with(fork)),
            "{addresses:?}"
        );
    }
}
