//! A model of an exposition, and checks of it against the observations, which are counted independently here.

use std::collections::BTreeMap;

use httpserver::metrics::{Bounds, Labels, TraceContext};
use proptest::prelude::*;

/// An observation: its labels, its duration in nanoseconds, and its trace.
pub type Observation = (Labels, u64, Option<TraceContext>);

pub type LabelMap = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub unit: String,
    pub help: String,
    pub metrics: Vec<Metric>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub labels: LabelMap,
    pub value: Value,
    pub start_ms: Option<u64>,
    pub exemplars: Vec<Exemplar>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Histogram(Histogram),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    pub count: u64,
    pub sum: f64,
    /// Upper bounds and cumulative counts.
    pub classic: Vec<(f64, u64)>,
    pub native: Option<Native>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: u64,
    /// Counts by index, without those that are 0.
    pub positive: BTreeMap<i32, u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub labels: LabelMap,
    pub value: f64,
    pub timestamp_ms: u64,
}

pub fn label_map(labels: Labels) -> LabelMap {
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

/// Returns the counts of spans by index. The offset of the first span is an index; that of each other is the distance
/// from the end of the span before it.
pub fn by_index(spans: &[(i32, u32)], counts: &[u64]) -> BTreeMap<i32, u64> {
    let mut counts = counts.iter();
    let mut positive = BTreeMap::new();
    let mut index = 0;
    for &(offset, length) in spans {
        index += offset;
        for _ in 0..length {
            let count = *counts.next().expect("as many counts as the lengths add up to");
            if count > 0 {
                positive.insert(index, count);
            }
            index += 1;
        }
    }
    assert!(counts.next().is_none(), "more counts than the lengths add up to");
    positive
}

/// Returns native buckets of schema 3, computed with logarithms. The zero bucket ends at 2^-20 s, the last one at 2^12
/// s.
fn native(durations_ns: &[u64]) -> Native {
    let mut native = Native {
        schema: 3,
        zero_threshold: 2f64.powi(-20),
        zero_count: 0,
        positive: BTreeMap::new(),
    };
    for &duration_ns in durations_ns {
        let seconds = duration_ns as f64 / 1e9;
        if seconds <= native.zero_threshold {
            native.zero_count += 1;
        } else {
            let index = ((seconds.log2() * 8.0).ceil() as i32).min(96);
            *native.positive.entry(index).or_default() += 1;
        }
    }
    native
}

/// Checks each series of `http_request_duration_seconds` against the observations. `initial` are the series that exist
/// without any.
pub fn check_durations(
    family: &Family,
    bounds: &Bounds,
    observations: &[Observation],
    initial: &[Labels],
    now_ms: u64,
) {
    assert_eq!(family.name, "http_request_duration_seconds");
    assert_eq!((family.kind.as_str(), family.unit.as_str()), ("histogram", "seconds"));
    assert_eq!(family.help, "A histogram of the HTTP request durations in seconds.");
    let mut expected: BTreeMap<LabelMap, Vec<&Observation>> = BTreeMap::new();
    for &labels in initial {
        expected.entry(label_map(labels)).or_default();
    }
    for observation in observations {
        expected.entry(label_map(observation.0)).or_default().push(observation);
    }
    let series: Vec<_> = family.metrics.iter().map(|metric| metric.labels.clone()).collect();
    assert_eq!(series.len(), expected.len(), "each series once");
    for metric in &family.metrics {
        let observed = &expected[&metric.labels];
        let durations_ns: Vec<u64> = observed.iter().map(|observation| observation.1).collect();
        let Value::Histogram(histogram) = &metric.value else {
            panic!("{metric:?} is not a histogram");
        };
        assert_eq!(histogram.count, durations_ns.len() as u64);
        let sum_ns: u128 = durations_ns.iter().map(|&ns| u128::from(ns)).sum();
        assert!((histogram.sum - sum_ns as f64 / 1e9).abs() <= histogram.sum * 1e-15);
        let upper_ns = bounds.upper_ns().iter().copied().chain([u64::MAX]);
        let classic: Vec<(f64, u64)> = upper_ns
            .map(|upper_ns| {
                let below = durations_ns.iter().filter(|&&ns| ns <= upper_ns).count() as u64;
                let upper = if upper_ns == u64::MAX {
                    f64::INFINITY
                } else {
                    upper_ns as f64 / 1e9
                };
                (upper, below)
            })
            .collect();
        assert_eq!(histogram.classic, classic);
        assert_eq!(histogram.native, Some(native(&durations_ns)));
        let start_ms = metric.start_ms.expect("a start timestamp");
        assert!(start_ms <= now_ms && now_ms - start_ms < 60_000);
        check_exemplars(metric, bounds, observed, start_ms..=now_ms);
    }
}

/// Checks that each classic bucket with observations has an exemplar, that it is one of them, and that it has a sampled
/// trace if one of them has.
fn check_exemplars(
    metric: &Metric,
    bounds: &Bounds,
    observed: &[&Observation],
    times_ms: std::ops::RangeInclusive<u64>,
) {
    let bucket = |seconds: f64| bounds.upper_ns().partition_point(|&ns| (ns as f64 / 1e9) < seconds);
    let mut shown: Vec<usize> = Vec::new();
    for exemplar in &metric.exemplars {
        let place = bucket(exemplar.value);
        shown.push(place);
        assert!(times_ms.contains(&exemplar.timestamp_ms), "{exemplar:?}");
        let in_bucket = || observed.iter().filter(|(_, ns, _)| bucket(*ns as f64 / 1e9) == place);
        let sampled = |trace: Option<TraceContext>| trace.filter(|trace| trace.is_sampled());
        assert_eq!(
            exemplar.labels.contains_key("trace_id"),
            in_bucket().any(|(_, _, trace)| sampled(*trace).is_some()),
            "a sampled trace wins"
        );
        let is_observed = in_bucket().any(|(labels, ns, trace)| {
            let mut expected = LabelMap::from([("api".to_owned(), labels.path.as_str().to_owned())]);
            if let Some(trace) = sampled(*trace) {
                expected.insert("trace_id".to_owned(), format!("{:032x}", trace.trace_id()));
                expected.insert("span_id".to_owned(), format!("{:016x}", trace.span_id()));
            }
            exemplar.value == *ns as f64 / 1e9 && exemplar.labels == expected
        });
        assert!(is_observed, "{exemplar:?} was not observed");
    }
    let mut expected: Vec<usize> = observed.iter().map(|(_, ns, _)| bucket(*ns as f64 / 1e9)).collect();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(shown, expected, "one exemplar for each bucket in use, in order");
}

pub fn labels() -> impl Strategy<Value = Labels> {
    use httpserver::metrics::{Method, Path, Status};
    use proptest::sample::select;
    (
        select(&Method::ALL[..]),
        select(&Path::ALL[..]),
        select(&Status::ALL[..]),
    )
        .prop_map(|(method, path, status)| Labels { method, path, status })
}

/// Any duration, often one between the bounds.
pub fn duration_ns() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..3_000_000_000u64,
        (0..42u32).prop_map(|power| 1 << power),
        // A float64 holds the sum of 60 of these exactly.
        0..=1u64 << 47
    ]
}

pub fn trace() -> impl Strategy<Value = Option<TraceContext>> {
    proptest::option::of((1u128.., 1u64.., 0u8..2).prop_map(|(trace_id, span_id, flags)| {
        TraceContext::parse(&format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}")).unwrap()
    }))
}
