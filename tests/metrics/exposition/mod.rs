//! Expositions in every format, parsed and compared with the observations. The official client's parsers read those
//! with classic buckets, our own parser OpenMetrics 2.0, and prost protobuf.

mod model;
mod openmetrics2;
mod protobuf;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path as FilePath;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use httpserver::metrics::{
    Bounds, CloseReason, Config, DELAY_QUANTILES, Format, Labels, Method, Metrics, Path, Status, TraceContext,
};
use model::{Family, Observation, check_durations, duration_ns, label_map, labels, trace};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The formats with classic buckets only.
const CLASSIC: [Format; 2] = [Format::OpenMetrics100, Format::Text004];

/// The number of requests in flight that the server passes to the renderer.
const IN_FLIGHT: usize = 7;

fn config(bounds: Bounds) -> Config {
    Config {
        bounds,
        max_in_flight: 10_000,
        concurrency: 20,
        delay_quantiles: DELAY_QUANTILES.map(|(q, _)| Duration::from_secs(2).mul_f64(q)),
    }
}

fn is_openmetrics(format: Format) -> bool {
    format.content_type().starts_with("application/openmetrics-text")
}

/// Returns observations of several series: on every bound, just beside it, and at random durations.
fn observations(bounds: &Bounds) -> Vec<Observation> {
    let mut random = fastrand::Rng::with_seed(19_004);
    let series = [
        Labels {
            method: Method::Get,
            path: Path::Root,
            status: Status::OK,
        },
        Labels {
            method: Method::Head,
            path: Path::Ui,
            status: Status::OK,
        },
        Labels {
            method: Method::Other,
            path: Path::Other,
            status: Status::METHOD_NOT_ALLOWED,
        },
        Labels {
            method: Method::Get,
            path: Path::Readyz,
            status: Status::SERVICE_UNAVAILABLE,
        },
    ];
    let on_bounds = bounds.upper_ns().iter().flat_map(|&ns| [ns - 1, ns, ns + 1]);
    let anywhere: Vec<u64> = (0..2_000).map(|_| random.u64(0..2 * bounds.largest_ns())).collect();
    on_bounds
        .chain(anywhere)
        .map(|duration_ns| {
            let trace = random.bool().then(|| {
                let flags = random.u8(..2);
                let (trace_id, span_id) = (random.u128(1..), random.u64(1..));
                TraceContext::parse(&format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}")).unwrap()
            });
            (series[random.usize(..series.len())], duration_ns, trace)
        })
        .collect()
}

fn record(metrics: &Arc<Metrics>, observations: &[Observation]) {
    let mut recorders = [metrics.recorder(), metrics.recorder()];
    for (place, &(labels, duration_ns, trace)) in observations.iter().enumerate() {
        recorders[place % 2].record(labels, duration_ns, trace, Instant::now());
    }
}

fn bytes(metrics: &Metrics, format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    metrics.render(format, IN_FLIGHT, &mut out);
    out
}

fn text(metrics: &Metrics, format: Format) -> String {
    String::from_utf8(bytes(metrics, format)).expect("UTF-8")
}

/// Parses expositions with the official Python client. Its parser for OpenMetrics is strict.
fn parse(expositions: &[(Format, String)]) -> Vec<Value> {
    let here = FilePath::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(here.join(".tools/venv/bin/python"))
        .arg(here.join("tests/metrics/exposition/parse.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tests/run has created .tools/venv");
    let expositions: Vec<Value> = expositions
        .iter()
        .map(|(format, text)| json!({"openmetrics": is_openmetrics(*format), "text": text}))
        .collect();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(Value::from(expositions).to_string().as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A parsed sample.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
    exemplar: Value,
}

fn samples(parsed: &Value, family: &str) -> Vec<Sample> {
    let samples = parsed[family]["samples"]
        .as_array()
        .unwrap_or_else(|| panic!("no family {family}"));
    samples
        .iter()
        .map(|sample| Sample {
            name: sample[0].as_str().unwrap().to_owned(),
            labels: serde_json::from_value(sample[1].clone()).unwrap(),
            value: sample[2].as_str().unwrap().parse().unwrap(),
            exemplar: sample[3].clone(),
        })
        .collect()
}

#[test]
fn the_official_parsers_read_the_observations() {
    for bounds in [
        Bounds::default(),
        "linear:0.25,0.25,8".parse().unwrap(),
        "exponential:0.0001,10,10".parse().unwrap(),
        "0.00012345,0.001,9.999999999,100000".parse().unwrap(),
        "1".parse().unwrap(),
    ] {
        let metrics = Arc::new(Metrics::new(config(bounds.clone())));
        let observations = observations(&bounds);
        record(&metrics, &observations);
        metrics.queued(1_500_000_000);
        metrics.connection_closed(CloseReason::Idle);
        metrics.connection_closed(CloseReason::Idle);
        let expositions: Vec<_> = CLASSIC.iter().map(|&format| (format, text(&metrics, format))).collect();
        for ((format, _), parsed) in expositions.iter().zip(parse(&expositions)) {
            check_classic_durations(&parsed, *format, &bounds, &observations);
            check_other_families(&parsed, *format);
        }
    }
}

/// Checks every sample of the histogram against the observations, which are counted independently here.
fn check_classic_durations(parsed: &Value, format: Format, bounds: &Bounds, observations: &[Observation]) {
    const NAME: &str = "http_request_duration_seconds";
    let family = &parsed[NAME];
    assert_eq!(family["type"], "histogram");
    assert_eq!(family["help"], "A histogram of the HTTP request durations in seconds.");
    assert_eq!(family["unit"], if is_openmetrics(format) { "seconds" } else { "" });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for mut sample in samples(parsed, NAME) {
        *seen.entry(sample.name.clone()).or_default() += 1;
        let le = sample.labels.remove("le");
        let of_series = || {
            observations
                .iter()
                .filter(|(labels, ..)| label_map(*labels) == sample.labels)
        };
        match sample.name.strip_prefix(NAME).unwrap() {
            "_bucket" => {
                let le = le.expect("a bucket has a bound");
                let upper: f64 = le.parse().unwrap();
                let place = bounds.upper_ns().iter().position(|&ns| ns as f64 / 1e9 == upper);
                assert!(place.is_some() || upper.is_infinite(), "{le} is not one of our bounds");
                let upper_ns = place.map_or(u64::MAX, |place| bounds.upper_ns()[place]);
                let lower_ns = match place.unwrap_or(bounds.upper_ns().len()) {
                    0 => None,
                    place => Some(bounds.upper_ns()[place - 1]),
                };
                let below = of_series()
                    .filter(|(_, duration_ns, _)| *duration_ns <= upper_ns)
                    .count();
                assert_eq!(sample.value, below as f64, "le {le}");
                let within = |duration_ns: u64| Some(duration_ns) > lower_ns && duration_ns <= upper_ns;
                let mut in_bucket = of_series().filter(|(_, duration_ns, _)| within(*duration_ns));
                if !is_openmetrics(format) {
                    assert!(sample.exemplar.is_null());
                } else if in_bucket.clone().next().is_none() {
                    assert!(sample.exemplar.is_null(), "an exemplar in an empty bucket");
                } else {
                    let exemplar = &sample.exemplar;
                    assert_eq!(exemplar["labels"]["api"], sample.labels["path"]);
                    assert!((now - exemplar["timestamp"].as_f64().unwrap()).abs() < 60.0);
                    // The exemplar has a sampled trace, if there is one. The ids of other traces are never exposed.
                    let sampled = |(_, _, trace): &&Observation| trace.is_some_and(TraceContext::is_sampled);
                    let any_sampled = in_bucket.clone().any(|observation| sampled(&observation));
                    assert_eq!(exemplar["labels"].get("trace_id").is_some(), any_sampled);
                    let shown = in_bucket.any(|(_, duration_ns, trace)| {
                        let trace = trace.filter(|trace| trace.is_sampled());
                        let trace_id = trace.map(|trace| Value::from(format!("{:032x}", trace.trace_id())));
                        let span_id = trace.map(|trace| Value::from(format!("{:016x}", trace.span_id())));
                        exemplar["value"].as_f64() == Some(*duration_ns as f64 / 1e9)
                            && exemplar["labels"].get("trace_id") == trace_id.as_ref()
                            && exemplar["labels"].get("span_id") == span_id.as_ref()
                    });
                    assert!(shown, "{exemplar} was not observed in this bucket");
                }
            }
            "_count" => assert_eq!(sample.value, of_series().count() as f64),
            "_sum" => {
                let sum_ns: u128 = of_series().map(|(_, duration_ns, _)| u128::from(*duration_ns)).sum();
                // The exposition is exact, but a float64 has only 53 bits.
                assert!((sample.value - sum_ns as f64 / 1e9).abs() <= sample.value * 1e-15);
            }
            other => panic!("a sample {other}"),
        }
    }
    // The four observed series, and two that exist from the start and have no observations.
    let series = 4 + 2;
    let expected = [
        ("_bucket", series * (bounds.upper_ns().len() + 1)),
        ("_count", series),
        ("_sum", series),
    ];
    let expected = expected
        .into_iter()
        .map(|(suffix, count)| (format!("{NAME}{suffix}"), count))
        .collect();
    assert_eq!(seen, expected);
}

/// Checks the other families: types, units, and the values that are known.
fn check_other_families(parsed: &Value, format: Format) {
    let openmetrics = is_openmetrics(format);
    for (name, kind, unit) in [
        ("http_requests_in_flight", "gauge", ""),
        ("httpserver_max_in_flight", "gauge", ""),
        ("httpserver_concurrency", "gauge", ""),
        ("httpserver_queue_seconds", "counter", "seconds"),
        ("httpserver_delay_quantile_seconds", "gauge", "seconds"),
        ("httpserver_connections_closed", "counter", ""),
        ("httpserver_connections_stuck", "gauge", ""),
        ("httpserver_start_time_seconds", "gauge", "seconds"),
        ("process_cpu_seconds", "counter", "seconds"),
        ("process_resident_memory_bytes", "gauge", "bytes"),
        ("process_virtual_memory_bytes", "gauge", "bytes"),
        ("process_open_fds", "gauge", ""),
        ("process_max_fds", "gauge", ""),
        ("process_start_time_seconds", "gauge", "seconds"),
        ("process_threads", "gauge", ""),
    ] {
        assert_eq!(parsed[name]["type"], kind, "{name}");
        assert_eq!(parsed[name]["unit"], if openmetrics { unit } else { "" }, "{name}");
        assert!(!parsed[name]["help"].as_str().unwrap().is_empty());
    }
    assert_eq!(samples(parsed, "http_requests_in_flight")[0].value, IN_FLIGHT as f64);
    assert_eq!(samples(parsed, "httpserver_max_in_flight")[0].value, 10_000.0);
    assert_eq!(samples(parsed, "httpserver_concurrency")[0].value, 20.0);
    assert_eq!(samples(parsed, "httpserver_queue_seconds")[0].value, 1.5);
    let delays: Vec<_> = samples(parsed, "httpserver_delay_quantile_seconds")
        .into_iter()
        .map(|sample| (sample.labels["q"].clone(), sample.value))
        .collect();
    assert_eq!(
        delays,
        [("0.5", 1.0), ("0.9", 1.8), ("0.99", 1.98)].map(|(q, delay)| (q.to_owned(), delay))
    );
    for (sample, reason) in samples(parsed, "httpserver_connections_closed")
        .iter()
        .zip(CloseReason::ALL)
    {
        assert_eq!(sample.name, "httpserver_connections_closed_total");
        assert_eq!(sample.labels["reason"], reason.as_str());
        assert_eq!(sample.value, if reason == CloseReason::Idle { 2.0 } else { 0.0 });
    }
    let cpu = samples(parsed, "process_cpu_seconds");
    assert_eq!(cpu[0].name, "process_cpu_seconds_total");
    assert_eq!(cpu.len(), 1);
    let (family, kind) = if openmetrics {
        ("httpserver_build", "info")
    } else {
        ("httpserver_build_info", "gauge")
    };
    assert_eq!(parsed[family]["type"], kind);
    let build = &samples(parsed, family)[0];
    assert_eq!((build.name.as_str(), build.value), ("httpserver_build_info", 1.0));
    assert_eq!(build.labels["version"], env!("CARGO_PKG_VERSION"));
}

proptest! {
    #[test]
    fn buckets_never_decrease_and_the_count_is_that_of_inf(
        observed in proptest::collection::vec((labels(), duration_ns(), 0..3usize), 0..200),
        bounds in proptest::sample::select(vec!["1", "linear:0.25,0.25,8", "exponential:0.0001,2,29"]),
        format in proptest::sample::select(&CLASSIC[..]),
    ) {
        let metrics = Arc::new(Metrics::new(config(bounds.parse().unwrap())));
        let mut recorders = [metrics.recorder(), metrics.recorder(), metrics.recorder()];
        for &(labels, duration_ns, recorder) in &observed {
            recorders[recorder].record(labels, duration_ns, None, Instant::now());
        }
        let text = text(&metrics, format);
        let mut buckets: Vec<u64> = Vec::new();
        let (mut counted, mut series) = (0, std::collections::HashSet::new());
        for line in text.lines().filter_map(|line| line.strip_prefix("http_request_duration_seconds_")) {
            let value = line.split("} ").nth(1).unwrap().split(' ').next().unwrap();
            if line.starts_with("bucket{") {
                buckets.push(value.parse().unwrap());
            } else if line.starts_with("count{") {
                prop_assert!(buckets.is_sorted());
                let count = value.parse().unwrap();
                prop_assert_eq!(buckets.last(), Some(&count));
                prop_assert!(series.insert(line.split("} ").next().unwrap().to_owned()), "a series twice");
                counted += count;
                buckets.clear();
            }
        }
        prop_assert_eq!(counted, observed.len() as u64);
    }
}

/// Returns the series that exist before the first observation.
fn initial_series() -> Vec<Labels> {
    [Status::OK, Status::INTERNAL_SERVER_ERROR, Status::SERVICE_UNAVAILABLE]
        .map(|status| Labels {
            method: Method::Get,
            path: Path::Root,
            status,
        })
        .to_vec()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Renders and parses both formats with native buckets, one after the other, so their process metrics differ.
fn with_native_buckets(metrics: &Metrics) -> [Vec<Family>; 2] {
    [
        openmetrics2::parse(&text(metrics, Format::OpenMetrics200)),
        protobuf::decode(&bytes(metrics, Format::Protobuf)),
    ]
}

#[test]
fn openmetrics_2_and_protobuf_have_the_observations() {
    for bounds in [
        Bounds::default(),
        "exponential:0.1,1.5,5".parse().unwrap(),
        "exponential:0.0001,10,10".parse().unwrap(),
        "0.00012345,0.001,9.999999999,100000".parse().unwrap(),
    ] {
        let metrics = Arc::new(Metrics::new(config(bounds.clone())));
        let observations = observations(&bounds);
        record(&metrics, &observations);
        for families in with_native_buckets(&metrics) {
            check_durations(&families[0], &bounds, &observations, &initial_series(), now_ms());
        }
    }
}

#[test]
fn openmetrics_2_and_protobuf_have_the_same_families_and_metadata_as_the_text_format() {
    let metrics = Arc::new(Metrics::new(config(Bounds::default())));
    metrics.connection_closed(CloseReason::SlowHead);
    let [openmetrics, protobuf] = with_native_buckets(&metrics);
    let text = text(&metrics, Format::Text004);
    let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    for families in [&openmetrics, &protobuf] {
        let of_families: Vec<_> = families
            .iter()
            .map(|family| format!("{} {}", family.name, family.kind.replace("info", "gauge")))
            .collect();
        assert_eq!(of_families, types);
        for family in families {
            let help = format!("# HELP {} {}\n", family.name, family.help);
            assert!(text.contains(&help), "{help}");
        }
    }
    // They are equal except for the values of the process metrics.
    let mut process_starts_ms = Vec::new();
    for (openmetrics, protobuf) in openmetrics.iter().zip(&protobuf) {
        if openmetrics.name.starts_with("process_") {
            let without_values = |family: &Family| (family.name.clone(), family.unit.clone(), family.metrics.len());
            assert_eq!(without_values(openmetrics), without_values(protobuf));
        } else {
            assert_eq!(openmetrics, protobuf);
        }
        if openmetrics.kind == "counter" {
            for metric in openmetrics.metrics.iter().chain(&protobuf.metrics) {
                process_starts_ms.push(metric.start_ms.unwrap());
            }
        }
    }
    // Counters start with the process.
    process_starts_ms.dedup();
    assert_eq!(process_starts_ms.len(), 1);
    assert!(now_ms() - process_starts_ms[0] < 600_000);
}

#[test]
fn native_buckets_add_at_most_200_bytes_to_an_idle_exposition() {
    let metrics = Arc::new(Metrics::new(config(Bounds::default())));
    let text = text(&metrics, Format::OpenMetrics200);
    let fields = text.matches("schema:3,zero_threshold:9.5367431640625e-07,zero_count:0,");
    let added: usize = fields.map(str::len).sum();
    assert!((1..=200).contains(&added), "{added}");
    assert!(!text.contains("positive_"), "no native bucket is in use");
}

#[test]
fn every_series_has_native_buckets() {
    let metrics = Metrics::new(config(Bounds::default()));
    let mut recorder = metrics.recorder();
    let mut series = 0;
    for method in Method::ALL {
        for path in Path::ALL {
            for status in Status::ALL {
                recorder.record(Labels { method, path, status }, 1_000_000_000, None, Instant::now());
                series += 1;
            }
        }
    }
    for families in with_native_buckets(&metrics) {
        let has_native = |metric: &&model::Metric| match &metric.value {
            model::Value::Histogram(histogram) => histogram.native.is_some(),
            model::Value::Number(_) => false,
        };
        assert_eq!(families[0].metrics.iter().filter(has_native).count(), series);
    }
}

#[test]
fn a_scrape_does_not_change_what_the_next_one_shows() {
    for format in [Format::Protobuf, Format::OpenMetrics200, Format::OpenMetrics100] {
        let metrics = Metrics::new(config(Bounds::default()));
        let mut recorder = metrics.recorder();
        let labels = initial_series()[0];
        let now = Instant::now();
        let shown = |metrics: &Metrics, duration_ns: u64| match format {
            Format::Protobuf => {
                let exemplars = &protobuf::decode(&bytes(metrics, format))[0].metrics[0].exemplars;
                exemplars[0].value == duration_ns as f64 / 1e9
            }
            _ => text(metrics, format).contains(&format!("# {{api=\"/\"}} {} ", duration_ns as f64 / 1e9)),
        };
        recorder.record(labels, 51_000_000, None, now);
        assert!(shown(&metrics, 51_000_000));
        recorder.record(labels, 52_000_000, None, now + Duration::from_secs(14));
        assert!(shown(&metrics, 51_000_000));
        recorder.record(labels, 53_000_000, None, now + Duration::from_secs(16));
        assert!(shown(&metrics, 53_000_000));
    }
}

proptest! {
    #[test]
    fn parsing_a_rendered_exposition_returns_the_observations(
        observed in proptest::collection::vec((labels(), duration_ns(), trace(), 0..3usize), 0..60),
        bounds in proptest::sample::select(vec!["1", "linear:0.25,0.25,8", "exponential:0.0001,2,29"]),
    ) {
        let bounds: Bounds = bounds.parse().unwrap();
        let metrics = Arc::new(Metrics::new(config(bounds.clone())));
        let mut recorders = [metrics.recorder(), metrics.recorder(), metrics.recorder()];
        let mut observations = Vec::new();
        for (labels, duration_ns, trace, recorder) in observed {
            recorders[recorder].record(labels, duration_ns, trace, Instant::now());
            observations.push((labels, duration_ns, trace));
        }
        // So few series that each has native buckets.
        let [openmetrics, protobuf] = with_native_buckets(&metrics);
        prop_assert_eq!(&openmetrics[0], &protobuf[0]);
        check_durations(&openmetrics[0], &bounds, &observations, &initial_series(), now_ms());
    }
}
