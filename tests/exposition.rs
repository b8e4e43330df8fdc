//! The pages, read by parsers that are not ours and compared with what was observed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path as FilePath;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use httpserver::metrics::{Bounds, CloseReason, Config, Format, Labels, Method, Metrics, Path, Status, TraceContext};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Requests in flight, as the server reports them.
const IN_FLIGHT: usize = 7;

fn config(bounds: Bounds) -> Config {
    Config {
        bounds,
        ..Config::default()
    }
}

fn is_openmetrics(format: Format) -> bool {
    format.content_type().starts_with("application/openmetrics-text")
}

/// An observation: its labels, nanoseconds and trace.
type Observation = (Labels, u64, Option<TraceContext>);

/// Observations of several series, by two recorders in turn, on every bound and around it and anywhere.
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
        recorders[place % 2].record(labels, duration_ns, trace);
    }
}

fn page(metrics: &Metrics, format: Format) -> String {
    let mut page = Vec::new();
    metrics.render(format, IN_FLIGHT, &mut page);
    String::from_utf8(page).expect("UTF-8")
}

/// What the official Python client's parsers make of pages; for OpenMetrics its strict one.
fn parsed(pages: &[(Format, String)]) -> Vec<Value> {
    let here = FilePath::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(here.join(".tools/venv/bin/python"))
        .arg(here.join("tests/exposition/parse.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(".tools/venv is there; tests/run makes it");
    let pages: Vec<Value> = pages
        .iter()
        .map(|(format, page)| json!({"openmetrics": is_openmetrics(*format), "page": page}))
        .collect();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(Value::from(pages).to_string().as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn label_map(labels: Labels) -> BTreeMap<String, String> {
    let pairs = [
        ("method", labels.method.as_str()),
        ("path", labels.path.as_str()),
        ("status", labels.status.as_str()),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A sample as the parser tells it.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
    exemplar: Value,
}

fn samples(page: &Value, family: &str) -> Vec<Sample> {
    let samples = page[family]["samples"]
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
fn the_official_parsers_agree_with_what_was_observed_in_every_format() {
    for bounds in [
        Bounds::default(),
        "linear:0.25,0.25,8".parse().unwrap(),
        "exponential:0.000000001,10,15".parse().unwrap(),
        "0.00012345,0.001,9.999999999,100000".parse().unwrap(),
        "1".parse().unwrap(),
    ] {
        let metrics = Arc::new(Metrics::new(config(bounds.clone())));
        let observations = observations(&bounds);
        record(&metrics, &observations);
        metrics.connection_closed(CloseReason::Idle);
        metrics.connection_closed(CloseReason::Idle);
        let pages: Vec<_> = Format::ALL
            .iter()
            .map(|&format| (format, page(&metrics, format)))
            .collect();
        for ((format, _), parsed) in pages.iter().zip(parsed(&pages)) {
            check_durations(&parsed, *format, &bounds, &observations);
            check_singles(&parsed, *format);
        }
    }
}

/// Checks the histogram's every sample against the observations, counted again here.
fn check_durations(page: &Value, format: Format, bounds: &Bounds, observations: &[Observation]) {
    const NAME: &str = "http_request_duration_seconds";
    let family = &page[NAME];
    assert_eq!(family["type"], "histogram");
    assert_eq!(family["help"], "A histogram of the HTTP request durations in seconds.");
    assert_eq!(family["unit"], if is_openmetrics(format) { "seconds" } else { "" });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for mut sample in samples(page, NAME) {
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
                assert!(place.is_some() || upper.is_infinite(), "{le} is none of our bounds");
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
                    assert!(sample.exemplar.is_null(), "an exemplar of nothing");
                } else {
                    let exemplar = &sample.exemplar;
                    assert_eq!(exemplar["labels"]["api"], sample.labels["path"]);
                    assert!((now - exemplar["timestamp"].as_f64().unwrap()).abs() < 60.0);
                    // A sampled trace, if there is one. The ids of others never appear.
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
                // The page is exact, a float64 has 53 bits.
                assert!((sample.value - sum_ns as f64 / 1e9).abs() <= sample.value * 1e-15);
            }
            other => panic!("a sample {other}"),
        }
    }
    // Those observed, and of those that exist from the start two that were not.
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

/// Checks the families of one sample: types, units, and values where they are known.
fn check_singles(page: &Value, format: Format) {
    let openmetrics = is_openmetrics(format);
    for (name, kind, unit) in [
        ("http_requests_in_flight", "gauge", ""),
        ("httpserver_max_in_flight", "gauge", ""),
        ("httpserver_delay_quantile_seconds", "gauge", "seconds"),
        ("httpserver_connections_closed", "counter", ""),
        ("httpserver_start_time_seconds", "gauge", "seconds"),
        ("process_cpu_seconds", "counter", "seconds"),
        ("process_resident_memory_bytes", "gauge", "bytes"),
        ("process_virtual_memory_bytes", "gauge", "bytes"),
        ("process_open_fds", "gauge", ""),
        ("process_max_fds", "gauge", ""),
        ("process_start_time_seconds", "gauge", "seconds"),
        ("process_threads", "gauge", ""),
    ] {
        assert_eq!(page[name]["type"], kind, "{name}");
        assert_eq!(page[name]["unit"], if openmetrics { unit } else { "" }, "{name}");
        assert!(!page[name]["help"].as_str().unwrap().is_empty());
    }
    assert_eq!(samples(page, "http_requests_in_flight")[0].value, IN_FLIGHT as f64);
    assert_eq!(samples(page, "httpserver_max_in_flight")[0].value, 10_000.0);
    let delays: Vec<_> = samples(page, "httpserver_delay_quantile_seconds")
        .into_iter()
        .map(|sample| (sample.labels["q"].clone(), sample.value))
        .collect();
    assert_eq!(
        delays,
        [("0.5", 1.0), ("0.9", 1.8), ("0.99", 1.98)].map(|(q, delay)| (q.to_owned(), delay))
    );
    for (sample, reason) in samples(page, "httpserver_connections_closed")
        .iter()
        .zip(CloseReason::ALL)
    {
        assert_eq!(sample.name, "httpserver_connections_closed_total");
        assert_eq!(sample.labels["reason"], reason.as_str());
        assert_eq!(sample.value, if reason == CloseReason::Idle { 2.0 } else { 0.0 });
    }
    let cpu = samples(page, "process_cpu_seconds");
    assert_eq!(cpu[0].name, "process_cpu_seconds_total");
    assert_eq!(cpu.len(), 1);
    let (family, kind) = if openmetrics {
        ("httpserver_build", "info")
    } else {
        ("httpserver_build_info", "gauge")
    };
    assert_eq!(page[family]["type"], kind);
    let build = &samples(page, family)[0];
    assert_eq!((build.name.as_str(), build.value), ("httpserver_build_info", 1.0));
    assert_eq!(build.labels["version"], env!("CARGO_PKG_VERSION"));
}

fn labels() -> impl Strategy<Value = Labels> {
    use proptest::sample::select;
    (
        select(&Method::ALL[..]),
        select(&Path::ALL[..]),
        select(&Status::ALL[..]),
    )
        .prop_map(|(method, path, status)| Labels { method, path, status })
}

/// Anything, and more often what falls between the bounds.
fn duration_ns() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..3_000_000_000u64,
        (0..42u32).prop_map(|power| 1 << power),
        any::<u64>()
    ]
}

proptest! {
    /// Whatever is observed, on whatever bounds and through however many recorders.
    #[test]
    fn any_observations_render_rising_buckets_and_equal_inf_and_count(
        observed in proptest::collection::vec((labels(), duration_ns(), 0..3usize), 0..200),
        bounds in proptest::sample::select(vec!["1", "linear:0.25,0.25,8", "exponential:0.000000001,2,40"]),
        format in proptest::sample::select(&Format::ALL[..]),
    ) {
        let metrics = Arc::new(Metrics::new(config(bounds.parse().unwrap())));
        let mut recorders = [metrics.recorder(), metrics.recorder(), metrics.recorder()];
        for &(labels, duration_ns, recorder) in &observed {
            recorders[recorder].record(labels, duration_ns, None);
        }
        let page = page(&metrics, format);
        let mut buckets: Vec<u64> = Vec::new();
        let (mut counted, mut series) = (0, std::collections::HashSet::new());
        for line in page.lines().filter_map(|line| line.strip_prefix("http_request_duration_seconds_")) {
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
