//! The recording and alerting rules as files: accepted by promtool, each alert shown to fire and to stay quiet, the form
//! for the operator no different from the plain one, each alert explained in the README.
//!
//! What they find in a real Prometheus is tested in dashboard.rs, in one run with the dashboard's queries.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::prometheus::Major;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> String {
    fs::read_to_string(root().join("yaml/monitoring/rules.yaml")).unwrap()
}

/// The names after `- alert:`.
fn alerts() -> Vec<String> {
    let names = |line: &str| line.trim().strip_prefix("- alert: ").map(str::to_owned);
    rules().lines().filter_map(names).collect()
}

fn unit_tests() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("tests/rules")).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

/// What promtool says, as Prometheus 2 has it and as Prometheus 3 has it: the rules must hold on both.
fn promtool(arguments: &[&str], files: &[PathBuf]) -> [String; 2] {
    Major::BOTH.map(|major| {
        let output = major
            .promtool()
            .args(arguments)
            .args(files)
            .output()
            .expect("promtool starts");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?} of {major:?}:\n{said}");
        said.into_owned()
    })
}

#[test]
fn promtool_accepts_the_rules_without_a_complaint() {
    for said in promtool(
        &["check", "rules", "--lint=all", "--lint-fatal"],
        &[root().join("yaml/monitoring/rules.yaml")],
    ) {
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn each_alert_fires_when_it_should_and_stays_quiet_when_it_should_not() {
    promtool(&["test", "rules"], &unit_tests());
}

#[test]
fn no_alert_is_without_a_case_that_fires_and_one_that_is_quiet() {
    let cases: String = unit_tests()
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    for alert in alerts() {
        let quiet = format!("alertname: {alert}, exp_alerts: [] }}");
        let firing = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        assert!(cases.contains(&quiet), "{alert} is nowhere expected to be quiet");
        assert!(cases.contains(&firing), "{alert} is nowhere expected to fire");
    }
}

#[test]
fn the_operators_form_holds_the_same_groups() {
    let plain = rules();
    let form = fs::read_to_string(root().join("yaml/monitoring/prometheusrule.yaml")).unwrap();
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
        "prometheusrule.yaml is not rules.yaml indented by two spaces: copy what differs"
    );
}

#[test]
fn each_alert_has_a_summary_a_description_and_a_section_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let anchors: Vec<String> = readme
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']).trim_matches('`').to_lowercase())
        .collect();
    let rules = rules();
    let bodies: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert_eq!(bodies.len(), alerts().len());
    for (alert, body) in alerts().iter().zip(bodies) {
        for key in ["severity: ", "summary: ", "description: ", "runbook_url: "] {
            assert_eq!(body.matches(key).count(), 1, "{alert}: {key}");
        }
        let anchor = alert.to_lowercase();
        assert!(
            body.contains(&format!("runbook_url: README.md#{anchor}\n")),
            "{alert}: its runbook's address"
        );
        assert!(
            anchors.contains(&anchor),
            "{alert}: README.md has no section of this name"
        );
    }
}
