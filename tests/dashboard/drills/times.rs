//! The table of docs/drills.md against what promtool computes from the rules: each drill with nothing before it, and after an
//! hour of healthy traffic.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use support::prometheus::Major;
use support::root;

/// The interval of scrapes and evaluations, in seconds.
const STEP_S: u32 = 15;

/// Requests between two scrapes: 20 a second.
const REQUESTS: f64 = 20.0 * STEP_S as f64;

/// The minutes of healthy traffic before and after a drill.
const HEALTHY_BEFORE: u32 = 60;
const HEALTHY_AFTER: u32 = 120;

const OURS: &str = r#"namespace="demo",job="httpserver",instance="a""#;

/// What a series does in healthy times, and during the drill.
enum Course {
    /// A counter that starts at 0 with the server, which the drill restarts, and rises by so much between two scrapes.
    Counter(f64, f64),
    /// A counter that is not there during the drill.
    CounterWithout(f64),
    Gauge(f64, f64),
    /// A gauge whose last scrape failed.
    GaugeLost(f64),
}

/// How many scrapes there are before, during and after the drill.
type Scrapes = [u32; 3];

impl Course {
    /// Returns the values in promtool's notation.
    fn values(&self, [before, during, after]: Scrapes) -> String {
        let counter = |rise: f64, scrapes: u32| format!("0+{rise}x{}", scrapes - 1);
        let gauge = |value: f64, scrapes: u32| format!("{value}x{}", scrapes - 1);
        let nothing = format!("_x{}", during - 1);
        let healthy = |scrapes| match *self {
            Course::Counter(rise, _) | Course::CounterWithout(rise) => counter(rise, scrapes),
            Course::Gauge(value, _) | Course::GaugeLost(value) => gauge(value, scrapes),
        };
        let drill = match *self {
            Course::Counter(_, rise) => counter(rise, during),
            Course::Gauge(_, value) => gauge(value, during),
            Course::CounterWithout(_) => nothing,
            Course::GaugeLost(_) => format!("stale _x{}", during - 2),
        };
        let first = if before > 0 {
            healthy(before) + " "
        } else {
            String::new()
        };
        format!("{first}{drill} {}", healthy(after))
    }
}

fn bucket(status: &str, le: &str, healthy: f64, during: f64) -> (String, Course) {
    let name =
        format!(r#"http_request_duration_seconds_bucket{{method="GET",path="/",status="{status}",le="{le}",{OURS}}}"#);
    (name, Course::Counter(healthy, during))
}

fn ours(name: &str, course: Course) -> (String, Course) {
    (format!("{name}{{{OURS}}}"), course)
}

/// Returns the series of a drill, by its name in the table.
fn series(drill: &str) -> Vec<(String, Course)> {
    // `fast` and `all` requests are answered between two scrapes of the drill, and `errors` of them get 500.
    let requests = |fast: f64, all: f64, errors: f64| {
        vec![
            bucket("200", "2.0", REQUESTS, fast),
            bucket("200", "+Inf", REQUESTS, all - errors),
            bucket("500", "2.0", 0.0, errors),
            bucket("500", "+Inf", 0.0, errors),
        ]
    };
    let errors = |share: f64| requests(REQUESTS * (1.0 - share), REQUESTS, REQUESTS * share);
    let up_and_known = |up, build_info| [ours("up", up), ours("httpserver_build_info", build_info)];
    let (mut of_drill, target) = match drill {
        "many errors" => (errors(0.2), None),
        "few errors" => (errors(0.05), None),
        // 20 clients that wait for each response, which takes 2.25 s on average.
        "slow responses" => (requests(0.0, 20.0 / 2.25 * f64::from(STEP_S), 0.0), None),
        "slow responses, open loop" => (requests(0.0, REQUESTS, 0.0), None),
        "no bucket at the objective" => {
            let (name, _) = bucket("200", "2.0", 0.0, 0.0);
            let lost = (name, Course::CounterWithout(REQUESTS));
            (vec![lost, bucket("200", "+Inf", REQUESTS, REQUESTS)], None)
        }
        "one server down" | "no server at all" => {
            let other = |name: &str| {
                (
                    format!(r#"{name}{{job="httpserver",instance="b"}}"#),
                    Course::Gauge(1.0, 1.0),
                )
            };
            let others = [other("up"), other("httpserver_build_info")];
            let others = if drill == "one server down" {
                others.into()
            } else {
                Vec::new()
            };
            (
                others,
                Some(up_and_known(Course::Gauge(1.0, 0.0), Course::GaugeLost(1.0))),
            )
        }
        "near the limit" => (
            vec![
                ours("http_requests_in_flight", Course::Gauge(21.0, 21.0)),
                ours("httpserver_max_in_flight", Course::Gauge(10_000.0, 24.0)),
            ],
            None,
        ),
        "stuck connections" => (
            vec![
                ours("httpserver_connections_stuck", Course::Gauge(0.0, 40.0)),
                ours("process_max_fds", Course::Gauge(400.0, 400.0)),
            ],
            None,
        ),
        _ => panic!("the table has the drill {drill}, which this test does not know"),
    };
    let always_up = || up_and_known(Course::Gauge(1.0, 1.0), Course::Gauge(1.0, 1.0));
    of_drill.extend(target.unwrap_or_else(always_up));
    of_drill
}

/// A row of the table, for one kind of traffic before. Times are in minutes.
struct Row {
    drill: String,
    alert: String,
    /// Of healthy traffic.
    before: u32,
    fires: u32,
    left_for: u32,
    ends: u32,
}

/// Returns a cell's text without its link.
fn text(cell: &str) -> String {
    let cell = cell.trim();
    let linked = cell.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    linked.map_or(cell, |(text, _)| text).to_owned()
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(root().join("docs/drills.md")).unwrap();
    let lines = page.lines().filter(|line| line.starts_with("| ["));
    lines
        .flat_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let cases = [(2, 0), (3, HEALTHY_BEFORE)].into_iter();
            let with_times = cases.filter(|(cell, _)| cells[*cell].trim() != "never");
            let rows: Vec<Row> = with_times
                .map(|(cell, before)| {
                    let times: Vec<u32> = cells[cell]
                        .split(',')
                        .map(|time| time.trim().parse().unwrap())
                        .collect();
                    let [fires, left_for, ends] = times[..] else {
                        panic!("{line}")
                    };
                    Row {
                        drill: text(cells[0]),
                        alert: text(cells[1]),
                        before,
                        fires,
                        left_for,
                        ends,
                    }
                })
                .collect();
            rows
        })
        .collect()
}

/// Returns a unit test of the rules: whether the alert fires, minute by minute where that changes.
fn unit_test(row: &Row) -> String {
    let scrapes = [row.before, row.left_for, HEALTHY_AFTER].map(|minutes| minutes * 60 / STEP_S);
    let mut test = format!(
        "rule_files: ['{}']\nevaluation_interval: {STEP_S}s\n\
         group_eval_order: [httpserver-requests, httpserver-objectives, httpserver-burn-rate, httpserver-targets]\n\
         tests:\n- interval: {STEP_S}s\n  input_series:\n",
        root().join("yaml/monitoring/rules.yaml").display()
    );
    for (series, course) in series(&row.drill) {
        writeln!(test, "  - {{series: '{series}', values: '{}'}}", course.values(scrapes)).unwrap();
    }
    test += "  promql_expr_test:\n";
    let undone = row.before + row.left_for;
    let mut expected = vec![
        (row.before + row.fires - 1, false),
        (row.before + row.fires, true),
        (undone - 1, true),
        (undone + row.ends, false),
        (undone + HEALTHY_AFTER - 1, false),
    ];
    // What ends with the next scrape ends within the minute.
    expected.extend((row.ends > 1).then(|| (undone + row.ends - 1, true)));
    for (minute, fires) in expected {
        writeln!(
            test,
            "  - {{expr: 'count(ALERTS{{alertname=\"{}\",alertstate=\"firing\"}}) or vector(0)', eval_time: {minute}m, \
             exp_samples: [{{labels: '{{}}', value: {}}}]}}",
            row.alert,
            u32::from(fires)
        )
        .unwrap();
    }
    test
}

#[test]
fn each_alert_fires_and_ends_when_the_table_of_drills_says() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drills");
    fs::create_dir_all(&folder).unwrap();
    let rows = rows();
    assert!(rows.len() >= 17, "{} rows", rows.len());
    for row in &rows {
        let file = folder.join(format!("{} {}.yaml", row.drill, row.before));
        fs::write(&file, unit_test(row)).unwrap();
        let output = Major::Three
            .promtool()
            .args(["test", "rules"])
            .arg(file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}, {} minutes before:\n{}{}",
            row.drill,
            row.before,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn every_alert_but_one_has_a_drill_and_its_section_of_the_runbook_links_there() {
    // Its drill is a sentence.
    const TOLD: &str = "HttpserverLatencyBudgetBurnsSlowly";
    let rows = rows();
    let runbook = fs::read_to_string(root().join("docs/runbook.md")).unwrap();
    for section in runbook.split("\n## Httpserver").skip(1) {
        let alert = format!("Httpserver{}", section.lines().next().unwrap());
        assert!(alert == TOLD || rows.iter().any(|row| row.alert == alert), "{alert}");
        assert!(section.contains("](drills.md#"), "{alert}");
    }
}
