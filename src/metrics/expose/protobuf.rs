//! The Prometheus protobuf format. Source: `io/prometheus/client/metrics.proto` of github.com/prometheus/client_model,
//! whose field names are in the comments, and protobuf.dev, "Encoding".
//!
//! Each family is a message `MetricFamily`, preceded by its length.

use super::encoder::{Encoder, Series, with_exemplar_labels};
use super::families::{Family, Kind, Label, Value};
use super::native::{self, Span};
use crate::metrics::record::{Bounds, Exemplar, NATIVE_SCHEMA, ZERO_THRESHOLD_SECONDS};

/// An exposition.
pub(super) struct Protobuf<'a> {
    bounds: &'a Bounds,
    /// The created timestamp of counters.
    started_at_ms: u64,
    out: &'a mut Vec<u8>,
    /// Where the current family begins in `out`.
    family_start: usize,
}

impl<'a> Protobuf<'a> {
    pub(super) fn new(bounds: &'a Bounds, started_at_ms: u64, out: &'a mut Vec<u8>) -> Protobuf<'a> {
        Protobuf {
            bounds,
            started_at_ms,
            out,
            family_start: 0,
        }
    }
}

impl Encoder for Protobuf<'_> {
    const HAS_NATIVE: bool = true;

    fn begin(&mut self, family: &Family) {
        self.family_start = self.out.len();
        text(self.out, 1, family.name); // name
        text(self.out, 2, family.help); // help
        let kind = match family.kind {
            Kind::Counter => 0,
            // The format has no info metrics: by convention they are gauges.
            Kind::Gauge | Kind::Info => 1,
            Kind::Histogram => 4,
        };
        integer(self.out, 3, kind); // type
    }

    fn sample(&mut self, family: &Family, labels: &[Label], value: Value) {
        let started_at_ms = self.started_at_ms;
        // metric
        message(self.out, 4, |out| {
            label_pairs(out, labels);
            if family.kind == Kind::Counter {
                // counter
                message(out, 3, |out| {
                    double(out, 1, value.to_f64()); // value
                    timestamp(out, 3, started_at_ms); // created_timestamp
                });
            } else {
                // gauge
                message(out, 2, |out| double(out, 1, value.to_f64())); // value
            }
        });
    }

    fn durations(&mut self, _: &Family, series: &Series) {
        let bounds = self.bounds;
        // metric
        message(self.out, 4, |out| {
            label_pairs(out, &series.labels.pairs());
            message(out, 7, |out| histogram(out, bounds, series)); // histogram
        });
    }

    fn finish(&mut self, family: &Family) {
        if let Some(unit) = family.unit() {
            text(self.out, 5, unit); // unit
        }
        prefix_length(self.out, self.family_start);
    }
}

fn histogram(out: &mut Vec<u8>, bounds: &Bounds, series: &Series) {
    let total = series.total;
    integer(out, 1, total.counts.iter().sum()); // sample_count
    double(out, 2, total.sum_ns as f64 / 1e9); // sample_sum
    let upper = bounds
        .upper_ns()
        .iter()
        .map(|&ns| ns as f64 / 1e9)
        .chain([f64::INFINITY]);
    let mut count = 0;
    for (upper, (observed, exemplar)) in upper.zip(total.counts.iter().zip(&total.exemplars)) {
        count += observed;
        // bucket
        message(out, 3, |out| {
            integer(out, 1, count); // cumulative_count
            double(out, 2, upper); // upper_bound
            if let Some(exemplar) = exemplar {
                message(out, 3, |out| put_exemplar(out, series.labels.path.as_str(), exemplar)); // exemplar
            }
        });
    }
    if let Some(native) = &total.native {
        integer(out, 5, zigzag(NATIVE_SCHEMA.into())); // schema
        double(out, 6, ZERO_THRESHOLD_SECONDS); // zero_threshold
        integer(out, 7, native[0]); // zero_count
        // The specification of native histograms, "Exposition formats": without observations, a span of no buckets
        // distinguishes a native histogram from a classic one.
        let no_op = total.counts.iter().all(|&count| count == 0).then_some(Span::default());
        for span in native::spans(native).chain(no_op) {
            // positive_span
            message(out, 12, |out| {
                integer(out, 1, zigzag(span.offset.into())); // offset
                integer(out, 2, span.counts.len() as u64); // length
            });
        }
        let mut last = 0;
        for &count in native::spans(native).flat_map(|span| span.counts) {
            integer(out, 13, zigzag(count as i64 - last)); // positive_delta
            last = count as i64;
        }
    }
    timestamp(out, 15, series.created_ms); // created_timestamp
}

fn put_exemplar(out: &mut Vec<u8>, path: &str, exemplar: &Exemplar) {
    with_exemplar_labels(path, exemplar, |labels| label_pairs(out, labels));
    double(out, 2, exemplar.duration_ns as f64 / 1e9); // value
    timestamp(out, 3, exemplar.timestamp_ms); // timestamp
}

/// Appends labels, which have the same field number in `Metric` and `Exemplar`.
fn label_pairs(out: &mut Vec<u8>, labels: &[Label]) {
    for (name, value) in labels {
        // label
        message(out, 1, |out| {
            text(out, 1, name); // name
            text(out, 2, value); // value
        });
    }
}

/// Appends a `google.protobuf.Timestamp`.
fn timestamp(out: &mut Vec<u8>, field: u64, ms: u64) {
    message(out, field, |out| {
        integer(out, 1, ms / 1_000); // seconds
        // The fields of a timestamp have no explicit presence: one that is 0 is left out.
        let nanos = ms % 1_000 * 1_000_000;
        if nanos != 0 {
            integer(out, 2, nanos); // nanos
        }
    });
}

fn integer(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn text(out: &mut Vec<u8>, field: u64, text: &str) {
    message(out, field, |out| out.extend_from_slice(text.as_bytes()));
}

fn message(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, field << 3 | 2);
    let start = out.len();
    write(out);
    prefix_length(out, start);
}

/// Inserts, at `start`, the length of everything from there on.
fn prefix_length(out: &mut Vec<u8>, start: usize) {
    let end = out.len();
    varint(out, (end - start) as u64);
    let length_bytes = out.len() - end;
    out[start..].rotate_right(length_bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps a signed number to an unsigned one, as sint32 and sint64 do.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of protobuf.dev, "Encoding".
    #[test]
    fn the_wire_format_matches_the_documented_examples() {
        let mut out = Vec::new();
        integer(&mut out, 1, 150);
        text(&mut out, 2, "testing");
        message(&mut out, 3, |out| integer(out, 1, 150));
        let expected = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01";
        assert_eq!(out, expected);
        assert_eq!(
            [0, -1, 1, -2, i64::MAX, i64::MIN].map(zigzag),
            [0, 1, 2, 3, u64::MAX - 1, u64::MAX]
        );
    }

    #[test]
    fn a_length_of_more_than_one_byte_is_inserted_whole() {
        let mut out = b"before".to_vec();
        message(&mut out, 1, |out| out.extend([7; 300]));
        assert_eq!(out[..9], *b"before\x0a\xac\x02");
        assert_eq!(out[9..], [7; 300]);
    }
}
