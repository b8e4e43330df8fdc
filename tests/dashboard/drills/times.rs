//! The times of docs/drills.md: its table against what promtool computes from the rules, and its formula against its table.
//!
//! What the server exposes during a drill follows from the variables of the drill's command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use support::prometheus::Major;
use support::root;

/// The interval of scrapes and evaluations, in seconds.
const STEP_S: u32 = 15;

/// The load of the drills: clients that each wait for their response.
const CLIENTS: f64 = 20.0;

/// The bound of the latency objective, in seconds.
const OBJECTIVE_S: f64 = 2.0;

/// How many minutes an alert stays silent, once it has ended.
const SILENT: u32 = 20;

/// By how many minutes the formula may differ from the table.
const ROUGHLY: f64 = 1.0;

/// What a server exposes.
#[derive(Clone)]
struct Exposed {
    up: bool,
    /// Requests a second.
    rate: f64,
    /// Shares of the requests that take longer than the objective, and that get 500.
    slow: f64,
    failed: f64,
    /// Whether there is a bucket bound at the objective.
    has_bound: bool,
    max_in_flight: f64,
    stuck: f64,
}

impl Exposed {
    /// Under the load, with the variables of a drill's command.
    fn with(variables: &BTreeMap<String, String>) -> Exposed {
        let number = |name: &str, default: f64| variables.get(name).map_or(default, |value| value.parse().unwrap());
        let seconds = |name: &str, default: f64| {
            let given = variables
                .get(name)
                .map(|value| humantime::parse_duration(value).unwrap());
            given.as_ref().map_or(default, Duration::as_secs_f64)
        };
        let (min, max) = (
            seconds("HTTPSERVER_DELAY_MIN", 0.0),
            seconds("HTTPSERVER_DELAY_MAX", 2.0),
        );
        Exposed {
            up: true,
            rate: CLIENTS / ((min + max) / 2.0),
            slow: ((max - OBJECTIVE_S) / (max - min)).clamp(0.0, 1.0),
            failed: number("HTTPSERVER_ERROR_RATE", 0.0),
            has_bound: !variables.contains_key("HTTPSERVER_BUCKETS"),
            max_in_flight: number("HTTPSERVER_MAX_IN_FLIGHT", 10_000.0),
            stuck: 0.0,
        }
    }

    /// Returns each series' name, and its values at a number of scrapes in promtool's notation.
    fn values(&self, scrapes: u32) -> Vec<(String, String)> {
        let last = scrapes - 1;
        let ours = |name: &str, labels: &str, values: Option<String>| {
            let values = values.filter(|_| self.up || name == "up");
            (
                format!(r#"{name}{{{labels}namespace="demo",job="httpserver",instance="a"}}"#),
                // The scrape that no longer finds a series marks its end.
                values.unwrap_or_else(|| format!("stale _x{last}")),
            )
        };
        let gauge = |name: &str, value: f64| ours(name, "", Some(format!("{value}x{last}")));
        // From 0, since the drill restarts the server.
        let bucket = |status: u32, le: &str, share: Option<f64>| {
            let rise = share.map(|share| format!("0+{}x{last}", share * self.rate * f64::from(STEP_S)));
            let labels = format!(r#"method="GET",path="/",status="{status}",le="{le}","#);
            ours("http_request_duration_seconds_bucket", &labels, rise)
        };
        let within = |share: f64| self.has_bound.then_some(share * (1.0 - self.slow));
        vec![
            bucket(200, "2.0", within(1.0 - self.failed)),
            bucket(200, "+Inf", Some(1.0 - self.failed)),
            bucket(500, "2.0", within(self.failed)),
            bucket(500, "+Inf", Some(self.failed)),
            gauge("up", f64::from(u8::from(self.up))),
            gauge("httpserver_build_info", 1.0),
            // The scrape itself is in flight, too.
            gauge("http_requests_in_flight", CLIENTS + 1.0),
            gauge("httpserver_max_in_flight", self.max_in_flight),
            gauge("httpserver_connections_stuck", self.stuck),
            gauge("process_max_fds", 400.0),
        ]
    }
}

/// A row of the table, for one kind of traffic before. Times are in minutes.
struct Row {
    drill: String,
    /// The anchor of its section.
    section: String,
    alert: String,
    /// Of healthy traffic.
    before: u32,
    /// After the drill has begun.
    fires: u32,
    /// After the drill is undone, which it is once the alert fires.
    ends: u32,
}

fn page() -> String {
    fs::read_to_string(root().join("docs/drills.md")).unwrap()
}

/// Returns the text and the target of a cell that is a link.
fn link(cell: &str) -> (String, String) {
    let (text, target) = cell.trim()[1..].split_once("](").expect("a link");
    (text.to_owned(), target.trim_end_matches(')').to_owned())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in page().lines().filter(|line| line.starts_with("| [")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let ((drill, section), (alert, _)) = (link(cells[0]), link(cells[1]));
        for (before, times) in [(0, &cells[2..4]), (60, &cells[4..6])] {
            if times[0].trim() != "never" {
                let [fires, ends] = [times[0], times[1]].map(|time| time.trim().parse().expect("minutes"));
                let (drill, section, alert) = (drill.clone(), section.clone(), alert.clone());
                rows.push(Row {
                    drill,
                    section,
                    alert,
                    before,
                    fires,
                    ends,
                });
            }
        }
    }
    rows
}

impl Row {
    /// Returns the variables in front of the first command of the drill's section.
    fn variables(&self) -> BTreeMap<String, String> {
        let page = page();
        let heading = |text: &str| text.lines().next().unwrap().to_lowercase().replace(' ', "-");
        let section = page
            .split("\n## ")
            .find(|text| self.section == format!("#{}", heading(text)));
        let section = section.unwrap_or_else(|| panic!("no section {}", self.section));
        let command = section.split("```sh\n").nth(1).expect("a command");
        let words = command.split(' ').map_while(|word| word.split_once('='));
        words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn during(&self) -> Exposed {
        let variables = self.variables();
        let exposed = Exposed::with(&variables);
        let healthy = Exposed::with(&BTreeMap::new());
        match self.drill.as_str() {
            "one server down" | "no server at all" => Exposed { up: false, ..exposed },
            "stuck connections" => Exposed { stuck: 40.0, ..exposed },
            "slow responses, open loop" => Exposed {
                rate: healthy.rate,
                ..exposed
            },
            drill => {
                assert!(!variables.is_empty(), "{drill} sets no variable");
                exposed
            }
        }
    }

    /// Returns a unit test of the rules: whether the alert fires, on both sides of each change.
    fn unit_test(&self) -> String {
        let healthy = Exposed::with(&BTreeMap::new());
        let mut series: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (exposed, minutes) in [
            (&healthy, self.before),
            (&self.during(), self.fires),
            (&healthy, self.ends + SILENT),
        ] {
            if minutes > 0 {
                for (name, values) in exposed.values(minutes * 60 / STEP_S) {
                    series.entry(name).or_default().push(values);
                }
            }
        }
        let mut test = format!(
            "rule_files: ['{}']\nevaluation_interval: {STEP_S}s\n\
             group_eval_order: [httpserver-requests, httpserver-objectives, httpserver-burn-rate, httpserver-targets]\n\
             tests:\n- interval: {STEP_S}s\n  input_series:\n",
            root().join("yaml/monitoring/rules.yaml").display()
        );
        for (name, values) in series {
            writeln!(test, "  - {{series: '{name}', values: '{}'}}", values.join(" ")).unwrap();
        }
        test += "  promql_expr_test:\n";
        let undone = self.before + self.fires;
        for (minute, fires) in [
            (undone - 1, false),
            (undone, true),
            (undone + self.ends - 1, true),
            (undone + self.ends, false),
            (undone + self.ends + SILENT, false),
        ] {
            // A change comes right after a scrape, so the first that shows it is a step later.
            let eval_time = minute * 60 - STEP_S;
            writeln!(
                test,
                "  - {{expr: 'count(ALERTS{{alertname=\"{}\",alertstate=\"firing\"}}) or vector(0)', eval_time: {eval_time}s, \
                 exp_samples: [{{labels: '{{}}', value: {}}}]}}",
                self.alert,
                u32::from(fires)
            )
            .unwrap();
        }
        test
    }
}

#[test]
fn each_alert_fires_and_ends_when_the_table_of_drills_says() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drills");
    fs::create_dir_all(&folder).unwrap();
    let mut wrong = Vec::new();
    for row in rows() {
        let file = folder.join(format!("{} {}.yaml", row.drill, row.before));
        fs::write(&file, row.unit_test()).unwrap();
        let output = Major::Three
            .promtool()
            .args(["test", "rules"])
            .arg(file)
            .output()
            .expect("promtool starts");
        if !output.status.success() {
            let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            wrong.push(format!(
                "{}, {} minutes before:\n{}",
                row.drill,
                row.before,
                printed.concat()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

/// A window of an alert on a budget, in minutes, and the share of bad requests that it compares with.
struct Window {
    minutes: f64,
    threshold: f64,
}

/// A drill as the formula sees it: the minutes of healthy traffic before, the share of bad requests, their rate beside the one
/// before, and how long it lasts.
struct Drill {
    before: f64,
    share: f64,
    rate: f64,
    lasts: f64,
}

impl Window {
    /// Returns by how many minutes it lags behind. It is a mean of rates over 5 minutes, unless it is such a rate itself.
    fn lag(&self) -> f64 {
        if self.minutes > 5.0 { 2.5 } else { 0.0 }
    }
}

impl Drill {
    /// Returns after how many minutes the share in a window that the traffic fills reaches the threshold.
    fn fills(&self, window: &Window) -> f64 {
        window.threshold * window.minutes / (self.rate * self.share + window.threshold * (1.0 - self.rate))
    }

    /// Returns after how many minutes the share in a window is above the threshold.
    fn reaches(&self, window: &Window) -> f64 {
        let unfilled = window.threshold * self.before / (self.rate * (self.share - window.threshold));
        let is_unfilled = unfilled >= 0.0 && self.before + unfilled <= window.minutes;
        window.lag() + if is_unfilled { unfilled } else { self.fills(window) }
    }

    /// Returns how many minutes after the drill the share in a window is below the threshold.
    fn leaves(&self, window: &Window) -> f64 {
        let bad = self.rate * self.share * self.lasts;
        let unfilled = bad / window.threshold - self.before - self.rate * self.lasts;
        if self.before + self.lasts + unfilled <= window.minutes {
            return (window.lag() + unfilled).max(0.0);
        }
        let fills = self.fills(window);
        if fills > self.lasts {
            0.0
        } else {
            window.lag() + window.minutes - fills
        }
    }
}

#[test]
fn the_formula_of_the_drills_gives_the_times_of_the_table() {
    let healthy = Exposed::with(&BTreeMap::new());
    let mut checked = 0;
    for row in rows() {
        let Some(budget) = row
            .alert
            .strip_prefix("Httpserver")
            .and_then(|name| name.split_once("BudgetBurns"))
        else {
            continue;
        };
        let during = row.during();
        let (share, allowed) = match budget.0 {
            "Error" => (during.failed, 0.01),
            _ => (during.slow, 0.05),
        };
        let (pairs, waits) = match budget.1 {
            "Fast" => ([(14.4, [60.0, 5.0]), (6.0, [360.0, 30.0])], 2.0),
            _ => ([(3.0, [1440.0, 120.0]), (1.0, [4320.0, 360.0])], 15.0),
        };
        let pairs = pairs.map(|(burn_rate, windows)| {
            let threshold = burn_rate * allowed;
            windows.map(|minutes| Window { minutes, threshold })
        });
        let drill = Drill {
            before: f64::from(row.before),
            share,
            rate: during.rate / healthy.rate,
            lasts: f64::from(row.fires),
        };
        let largest = |times: Vec<f64>| times.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let least = |times: Vec<f64>| times.into_iter().fold(f64::INFINITY, f64::min);
        // A pair fires once both are above, and the alert with the first pair. It ends once one of each pair is below.
        let reached = pairs
            .iter()
            .map(|pair| largest(pair.iter().map(|window| drill.reaches(window)).collect()));
        let left = pairs
            .iter()
            .map(|pair| least(pair.iter().map(|window| drill.leaves(window)).collect()));
        // With nothing before, every rate has the drill's share from the second scrape on.
        let reached = if row.before == 0 { 0.5 } else { least(reached.collect()) };
        let (fires, ends) = (waits + reached, largest(left.collect()));
        println!(
            "{}, {} before: fires {fires:.1} {}, ends {ends:.1} {}",
            row.drill, row.before, row.fires, row.ends
        );
        for (computed, stated) in [(fires, row.fires), (ends, row.ends)] {
            let difference = computed - f64::from(stated);
            assert!(difference.abs() <= ROUGHLY, "{}: {computed:.1}, {stated}", row.drill);
        }
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn every_alert_has_a_drill_and_its_section_of_the_runbook_links_there() {
    let drills: BTreeSet<(String, String)> = rows().into_iter().map(|row| (row.alert, row.section)).collect();
    let runbook = fs::read_to_string(root().join("docs/runbook.md")).unwrap();
    for section in runbook.split("\n## Httpserver").skip(1) {
        let alert = format!("Httpserver{}", section.lines().next().unwrap());
        let linked = drills
            .iter()
            .any(|(of, anchor)| *of == alert && section.contains(&format!("](drills.md{anchor})")));
        assert!(linked, "{alert}: no drill, or no link to it");
    }
}
