//! The protobuf format, decoded by prost with the fields of `io/prometheus/client/metrics.proto` of
//! github.com/prometheus/client_model. Fields that this server never writes are declared so that the tests would notice
//! them.

use prost::Message;

use super::model::{self, Family, LabelMap, Native, Value, by_index};

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    unit: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(int64, optional, tag = "6")]
    timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    created_timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(double, optional, tag = "4")]
    sample_count_float: Option<f64>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(double, optional, tag = "8")]
    zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "14")]
    positive_count: Vec<f64>,
    #[prost(message, optional, tag = "15")]
    created_timestamp: Option<Timestamp>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
    #[prost(double, optional, tag = "4")]
    cumulative_count_float: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

/// `google/protobuf/timestamp.proto`
#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Decodes length-delimited messages `MetricFamily`. Checks that encoding them again gives the same bytes, so that the
/// encoding is canonical: fields are in the order of their numbers, and none is unknown.
pub fn decode(mut bytes: &[u8]) -> Vec<Family> {
    let mut families = Vec::new();
    let (whole, mut again) = (bytes, Vec::new());
    while !bytes.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut bytes).expect("a MetricFamily");
        family.encode_length_delimited(&mut again).unwrap();
        families.push(to_model(family));
    }
    assert!(whole == again, "the encoding is not canonical");
    families
}

fn to_model(family: MetricFamily) -> Family {
    let name = family.name.expect("a name");
    // The format has no info metrics: by convention they are gauges.
    let kind = match family.kind {
        Some(0) => "counter",
        Some(1) if name.ends_with("_info") => "info",
        Some(1) => "gauge",
        Some(4) => "histogram",
        other => panic!("{name} has type {other:?}"),
    };
    let metrics = family
        .metric
        .into_iter()
        .map(|metric| {
            assert_eq!(metric.timestamp_ms, None);
            let labels = label_map(metric.label);
            match (metric.gauge, metric.counter, metric.histogram) {
                (Some(gauge), None, None) if kind != "histogram" && kind != "counter" => model::Metric {
                    labels,
                    value: Value::Number(gauge.value.expect("a value")),
                    start_ms: None,
                    exemplars: Vec::new(),
                },
                (None, Some(counter), None) if kind == "counter" => {
                    assert_eq!(counter.exemplar, None);
                    model::Metric {
                        labels,
                        value: Value::Number(counter.value.expect("a value")),
                        start_ms: counter.created_timestamp.map(unix_ms),
                        exemplars: Vec::new(),
                    }
                }
                (None, None, Some(histogram)) if kind == "histogram" => histogram_metric(labels, histogram),
                other => panic!("{name} of type {kind} has {other:?}"),
            }
        })
        .collect();
    Family {
        name,
        kind: kind.to_owned(),
        unit: family.unit.unwrap_or_default(),
        help: family.help.expect("help"),
        metrics,
    }
}

fn histogram_metric(labels: LabelMap, histogram: Histogram) -> model::Metric {
    assert_eq!(histogram.sample_count_float, None);
    assert_eq!(histogram.zero_count_float, None);
    assert!(histogram.negative_span.is_empty() && histogram.negative_delta.is_empty());
    assert!(histogram.positive_count.is_empty() && histogram.exemplars.is_empty());
    let native = histogram.schema.map(|schema| {
        let spans: Vec<_> = histogram
            .positive_span
            .iter()
            .map(|span| (span.offset.expect("an offset"), span.length.expect("a length")))
            .collect();
        // The specification of native histograms, "Exposition formats".
        let is_empty = histogram.sample_count == Some(0);
        assert!(!is_empty || spans == [(0, 0)], "the no-op span alone: {spans:?}");
        assert!(is_empty || !spans.contains(&(0, 0)), "no no-op span: {spans:?}");
        let mut count = 0;
        let counts: Vec<u64> = histogram
            .positive_delta
            .iter()
            .map(|delta| {
                count += delta;
                count.try_into().expect("no count is negative")
            })
            .collect();
        Native {
            schema,
            zero_threshold: histogram.zero_threshold.expect("a zero threshold"),
            zero_count: histogram.zero_count.expect("a zero count"),
            positive: by_index(&spans, &counts),
        }
    });
    let (mut classic, mut exemplars) = (Vec::new(), Vec::new());
    for bucket in histogram.bucket {
        assert_eq!(bucket.cumulative_count_float, None);
        classic.push((
            bucket.upper_bound.expect("a bound"),
            bucket.cumulative_count.expect("a count"),
        ));
        if let Some(exemplar) = bucket.exemplar {
            exemplars.push(model::Exemplar {
                labels: label_map(exemplar.label),
                value: exemplar.value.expect("a value"),
                timestamp_ms: unix_ms(exemplar.timestamp.expect("a timestamp")),
            });
        }
    }
    model::Metric {
        labels,
        value: Value::Histogram(model::Histogram {
            count: histogram.sample_count.expect("a count"),
            sum: histogram.sample_sum.expect("a sum"),
            classic,
            native,
        }),
        start_ms: histogram.created_timestamp.map(unix_ms),
        exemplars,
    }
}

fn label_map(labels: Vec<LabelPair>) -> LabelMap {
    labels
        .into_iter()
        .map(|label| (label.name.expect("a name"), label.value.expect("a value")))
        .collect()
}

fn unix_ms(timestamp: Timestamp) -> u64 {
    assert!((0..1_000_000_000).contains(&timestamp.nanos) && timestamp.nanos % 1_000_000 == 0);
    timestamp.seconds as u64 * 1_000 + timestamp.nanos as u64 / 1_000_000
}
