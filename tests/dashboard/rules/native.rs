//! rules-native.yaml, the twin of rules.yaml that reads native histograms:
//!
//! - it differs from rules.yaml only in the rules that read a histogram;
//! - its alerts fire and stay silent in every case of rules.yaml;
//! - both record the same of the same requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;
use support::access_log::Durations;
use support::client::load;
use support::prometheus::{Major, Prometheus};
use support::server::Server;
use support::{root, wait_for};

use super::{FILES, NATIVE, NEIGHBOURS, cases, promtool, read};

/// The records that read the server's histogram: the one has a series for each bucket, the other one of histograms.
const OF_BUCKETS: &str = "namespace_job_path_status_le:httpserver_duration_seconds_bucket:rate5m";
const OF_HISTOGRAMS: &str = "namespace_job_path_status:httpserver_duration_seconds:rate5m";

/// Of rules.yaml it reports that there is no bucket at 2 s, and of rules-native.yaml that there is no native histogram.
const UNMEASURED: &str = "HttpserverLatencyUnmeasured";

/// How much wider a native bucket is than the one below: 2^(1/8), rounded up.
const BUCKET_GROWTH: f64 = 1.0906;

/// Returns the groups of a file of rules.
fn groups(file: &str) -> Vec<Value> {
    let rules: Value = serde_yaml_ng::from_str(&read(file)).unwrap();
    rules["groups"].as_sequence().unwrap().clone()
}

#[test]
fn rules_native_differs_from_rules_only_where_a_histogram_is_read() {
    let [classic, native] = [FILES[0], NATIVE].map(groups);
    let names = |groups: &[Value]| groups.iter().map(|group| group["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&native), names(&classic));
    for (classic, native) in classic.into_iter().zip(native) {
        let [classic, native] = [classic, native].map(|group| group["rules"].as_sequence().unwrap().clone());
        for (classic, mut native) in classic.iter().zip(native.clone()) {
            if native["record"] == OF_HISTOGRAMS {
                assert_eq!(classic["record"], OF_BUCKETS);
                continue;
            }
            if classic["expr"].as_str().unwrap().contains(OF_BUCKETS) {
                assert!(native["expr"].as_str().unwrap().contains(OF_HISTOGRAMS), "{native:?}");
                native["expr"] = classic["expr"].clone();
            }
            if classic["alert"] == UNMEASURED {
                native["expr"] = classic["expr"].clone();
                for text in ["summary", "description"] {
                    native["annotations"][text] = classic["annotations"][text].clone();
                }
            }
            assert!(native == *classic, "copy this to {NATIVE}: {classic:#?}");
        }
        assert_eq!(
            native.len(),
            classic.len(),
            "a rule is missing in {NATIVE}, or only there"
        );
    }
}

/// Returns the samples that promtool's notation `0+25x70 1750 stale` stands for. `None` is a missing one or a stale marker.
fn samples(values: &str) -> Vec<Option<f64>> {
    let mut samples = Vec::new();
    for item in values.split(' ') {
        let (value, times) = match item.split_once('x') {
            Some((value, times)) => (value, times.parse::<usize>().unwrap()),
            None => (item, 0),
        };
        if ["_", "stale"].contains(&value) {
            samples.extend(vec![None; times.max(1)]);
            continue;
        }
        let (start, step) = value.split_once('+').unwrap_or((value, "0"));
        let [start, step] = [start, step].map(|number| number.parse::<f64>().unwrap());
        samples.extend((0..=times).map(|nth| Some(start + step * nth as f64)));
    }
    samples
}

/// Returns, in promtool's notation, a native histogram of `fast` requests that took at most 2 s and `all - fast` that took
/// longer. They are in the buckets next to that bound, so that no other bound will do.
fn histogram([fast, all]: [f64; 2]) -> String {
    let slow = all - fast;
    format!("{{{{schema:3 count:{all} sum:{all} buckets:[{fast} {slow}] offset:8}}}}")
}

/// Returns a series of native histograms, in promtool's notation, from those of the bucket at 2 s and the bucket `+Inf`.
fn histograms(fast: &str, all: &str) -> String {
    let [fast, all] = [fast, all].map(samples);
    let mut pairs = all.iter().enumerate().map(|(nth, all)| {
        let fast = fast.get(nth).copied().flatten().unwrap_or(0.0);
        all.map(|all| [fast, all])
    });
    let mut items: Vec<String> = Vec::new();
    let mut next = pairs.next();
    while let Some(pair) = next {
        let Some(start) = pair else {
            items.push("stale".into());
            next = pairs.next();
            continue;
        };
        // Joins samples at equal distances.
        let (mut last, mut times, mut step) = (start, 0, None);
        next = pairs.next();
        while let Some(Some(pair)) = next {
            let distance = [pair[0] - last[0], pair[1] - last[1]];
            let falls = distance[0] < 0.0 || distance[1] < 0.0;
            if falls || step.is_some_and(|step| step != distance) {
                break;
            }
            (last, times, step) = (pair, times + 1, Some(distance));
            next = pairs.next();
        }
        items.push(match step {
            Some(step) => format!("{}+{}x{times}", histogram(start), histogram(step)),
            None => histogram(start),
        });
    }
    items.join(" ")
}

/// Replaces the buckets of a case's input by native histograms. Returns whether that can be done: with other bounds than 2 s,
/// a case is about classic buckets.
fn replace_buckets(case: &mut Value) -> bool {
    let (mut others, mut fast, mut all) = (Vec::new(), BTreeMap::new(), Vec::new());
    for input in case["input_series"].as_sequence().unwrap() {
        let [series, values] = ["series", "values"].map(|key| input[key].as_str().unwrap().to_owned());
        let Some((before, rest)) = series.split_once(",le=\"") else {
            others.push(input.clone());
            continue;
        };
        let (bound, after) = rest.split_once('"').unwrap();
        let series = format!("{before}{after}").replace("_bucket{", "{");
        match bound {
            "+Inf" => all.push((series, values)),
            "2" | "2.0" => drop(fast.insert(series, values)),
            // Of a neighbour.
            "0.5" => {}
            _ => return false,
        }
    }
    let replaced = all.into_iter().map(|(series, all)| {
        let fast = fast.get(&series).map_or("0", String::as_str);
        let input = [("series", series.clone()), ("values", histograms(fast, &all))];
        Value::Mapping(input.map(|(key, text)| (key.into(), text.into())).into_iter().collect())
    });
    others.extend(replaced);
    case["input_series"] = others.into();
    true
}

/// Writes copies of the unit tests of rules.yaml with native histograms, and returns their files. `edit` may change a case
/// before.
fn unit_tests(folder: &str, files: &[&str], edit: impl Fn(&mut Value)) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).unwrap();
    let written = files.iter().map(|name| {
        let mut file: Value = serde_yaml_ng::from_str(&read(&format!("tests/dashboard/rules/{name}"))).unwrap();
        file["rule_files"][0] = root().join(NATIVE).to_str().unwrap().into();
        let tests = file["tests"].as_sequence_mut().unwrap();
        tests.iter_mut().for_each(&edit);
        tests.retain_mut(replace_buckets);
        assert!(!tests.is_empty(), "{name}");
        let written = folder.join(name);
        fs::write(&written, serde_yaml_ng::to_string(&file).unwrap()).unwrap();
        written
    });
    written.collect()
}

#[test]
fn each_alert_of_rules_native_fires_and_stays_silent_in_the_cases_of_rules() {
    let names =
        ["days", "errors-long", "errors", "latency-long", "latency", "targets"].map(|name| format!("{name}.yaml"));
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(all.len(), cases(Major::Two).len());
    promtool(
        Major::Three,
        &["test", "rules"],
        &unit_tests("rules-native", &all, |_| {}),
    );
}

#[test]
fn other_programs_with_the_same_job_and_native_histogram_do_not_affect_the_alerts() {
    for (number, neighbour) in NEIGHBOURS.iter().enumerate() {
        let beside = |case: &mut Value| {
            for (series, values) in *neighbour {
                let yaml = format!("{{series: '{series}', values: '{values}'}}");
                let input = case["input_series"].as_sequence_mut().unwrap();
                input.push(serde_yaml_ng::from_str(&yaml).unwrap());
            }
        };
        let short = ["errors.yaml", "latency.yaml", "targets.yaml"];
        let files = unit_tests(&format!("rules-native-beside-{number}"), &short, beside);
        promtool(Major::Three, &["test", "rules"], &files);
    }
}

/// Returns the recording rules of both files as one group, so that they are evaluated as of the same time, and the names of
/// those that both have. Those of the native rules get a prefix.
fn both_files_in_one_group() -> (String, Vec<String>) {
    let (mut rules, mut names) = (Vec::new(), Vec::new());
    for file in [FILES[0], NATIVE] {
        for group in groups(file) {
            for rule in group["rules"].as_sequence().unwrap() {
                let Some(name) = rule["record"].as_str() else {
                    continue;
                };
                let mut rule = rule.clone();
                if file == NATIVE {
                    for key in ["record", "expr"] {
                        let text = rule[key]
                            .as_str()
                            .unwrap()
                            .replace("namespace_job", "native_namespace_job");
                        rule[key] = text.into();
                    }
                    names.push(name.to_owned());
                }
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    names.retain(|name| name.starts_with("namespace_job") && name != OF_HISTOGRAMS);
    let rules = serde_yaml_ng::to_string(&rules).unwrap();
    (format!("groups:\n- name: both\n  rules:\n{}", indented(&rules)), names)
}

fn indented(yaml: &str) -> String {
    yaml.lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn both_files_record_the_same_of_the_same_requests() {
    let (group, names) = both_files_in_one_group();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rules-of-both.yaml");
    fs::write(&file, group).unwrap();
    let flags = [
        "--delay-min",
        "1s",
        "--delay-max",
        "3s",
        "--buckets",
        "linear:0.25,0.25,12",
    ];
    let server = Server::start(&[&flags[..], &["--error-rate", "0.2"]].concat());
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s, scrape_native_histograms: true, \
         always_scrape_classic_histograms: true }}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n\
         - job_name: httpserver\n\
        \x20 static_configs: [{{ targets: ['{}'] }}]\n",
        file.display(),
        server.address
    );
    let prometheus = Prometheus::start(&config, &[]);
    // An increase counts from the first sample.
    wait_for("the first scrape", || prometheus.value("up"), |up| *up == Some(1.0));
    let refused = 10;
    for _ in 0..refused {
        server.get("/?status=404");
    }
    let seen = load(server.address, "/", 100, std::time::Duration::from_secs(10));
    assert_eq!(seen.lost, 0);
    let log = server.logged(seen.latencies.count() + refused);
    let counted = "sum(http_request_duration_seconds_count{path=\"/\"})";
    wait_for(
        "all requests to be scraped",
        || prometheus.value(counted),
        |count| *count == Some(log.len() as f64),
    );
    // From here on no sample is added, so that all rules of an evaluation read the same ones.
    drop(server);
    wait_for("the last scrape", || prometheus.value("up"), |up| *up == Some(0.0));
    let last = format!("timestamp(native_{})", names.last().unwrap());
    let before = prometheus.value(&last);
    let after = wait_for("an evaluation", || prometheus.value(&last), |time| *time > before);
    let at = after.expect("the time of an evaluation");

    let recorded = |name: &str| -> BTreeMap<String, f64> {
        let series = prometheus.query(&format!("{name} @ {at}"));
        let series = series.into_iter().map(|mut series| {
            series["metric"].as_object_mut().unwrap().remove("__name__");
            let value = series["value"][1].as_str().unwrap().parse().unwrap();
            (series["metric"].to_string(), value)
        });
        series.collect()
    };
    let durations: Durations = log.iter().map(|line| line.duration).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let [classic, native] = [name.clone(), format!("native_{name}")].map(|name| recorded(&name));
        let labels = |series: &BTreeMap<String, f64>| series.keys().cloned().collect::<Vec<_>>();
        assert_eq!(labels(&native), labels(&classic), "{name}");
        let quantile = name.split(":p").nth(1).and_then(|rest| rest.split('_').next());
        if let Some(quantile) = quantile {
            let estimate = native["{\"job\":\"httpserver\",\"path\":\"/\"}"];
            let truth = durations.quantile(quantile.parse::<f64>().unwrap() / 100.0);
            let line = format!("{name}: {estimate} s, recorded {truth} s");
            assert!((estimate / truth).max(truth / estimate) <= BUCKET_GROWTH, "{line}");
            continue;
        }
        assert!(!classic.is_empty(), "{name} is empty");
        for (labels, value) in &classic {
            // Floating-point sums differ slightly with the order of the terms.
            let close = (value - native[labels]).abs() <= 1e-9 * value.abs();
            assert!(
                close && *value > 0.0,
                "{name}{labels}: {value}, native {}",
                native[labels]
            );
        }
    }
}
