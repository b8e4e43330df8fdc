//! OpenMetrics 2.0, which is experimental. Source: its specification 2.0.0-rc0, whose sections are cited by name.

use super::encoder::{Encoder, Series};
use super::families::{Family, Kind, Label, Value};
use super::lines::{put, put_labels};
use super::{native, openmetrics};
use crate::metrics::decimal;
use crate::metrics::record::{Bounds, NATIVE_SCHEMA};

/// `ZERO_THRESHOLD_SECONDS` as text.
const ZERO_THRESHOLD: &str = "9.5367431640625e-07";

/// An exposition with one line for each metric, including each series of the histogram.
pub(super) struct OpenMetrics2<'a> {
    pub bounds: &'a Bounds,
    /// The start timestamp of counters.
    pub started_at_ms: u64,
    pub out: &'a mut Vec<u8>,
}

impl Encoder for OpenMetrics2<'_> {
    const HAS_NATIVE: bool = true;

    /// A family has the name of its samples ("Name").
    fn begin(&mut self, family: &Family) {
        openmetrics::put_metadata(self.out, family, family.name);
    }

    fn sample(&mut self, family: &Family, labels: &[Label], value: Value) {
        put(self.out, &[family.name]);
        put_labels(self.out, labels);
        put(self.out, &[" "]);
        value.append(self.out);
        if family.kind == Kind::Counter {
            put_start(self.out, self.started_at_ms);
        }
        put(self.out, &["\n"]);
    }

    /// Appends one composite value ("Histogram with both Classic and Native Buckets"). Its count is that of `+Inf`.
    fn durations(&mut self, family: &Family, series: &Series) {
        let (out, total) = (&mut *self.out, series.total);
        put(out, &[family.name]);
        put_labels(out, &series.labels.pairs());
        put(out, &[" {count:"]);
        decimal::integer(out, total.counts.iter().sum());
        put(out, &[",sum:"]);
        decimal::seconds(out, total.sum_ns);
        if let Some(native) = &total.native {
            put_native(out, native);
        }
        put(out, &[",bucket:["]);
        let mut count = 0;
        for (&upper_ns, observed) in self.bounds.upper_ns().iter().zip(&total.counts) {
            openmetrics::bound(out, upper_ns);
            count += observed;
            put(out, &[":"]);
            decimal::integer(out, count);
            put(out, &[","]);
        }
        put(out, &["+Inf:"]);
        decimal::integer(out, total.counts.iter().sum());
        put(out, &["]}"]);
        put_start(out, series.created_ms);
        for exemplar in total.exemplars.iter().flatten() {
            openmetrics::exemplar(out, series.labels.path.as_str(), exemplar);
        }
        put(out, &["\n"]);
    }

    fn end(&mut self) {
        put(self.out, &["# EOF\n"]);
    }
}

/// Appends the fields of the native buckets ("Histogram with Native Buckets").
fn put_native(out: &mut Vec<u8>, native: &[u64]) {
    put(out, &[",schema:"]);
    put_signed(out, NATIVE_SCHEMA.into());
    put(out, &[",zero_threshold:", ZERO_THRESHOLD, ",zero_count:"]);
    decimal::integer(out, native[0]);
    let spans = || native::spans(native).enumerate();
    for (place, span) in spans() {
        put(out, &[if place == 0 { ",positive_spans:[" } else { "," }]);
        put_signed(out, span.offset);
        put(out, &[":"]);
        decimal::integer(out, span.counts.len() as u64);
    }
    let counts = || spans().flat_map(|(_, span)| span.counts).enumerate();
    for (place, &count) in counts() {
        put(out, &[if place == 0 { "],positive_buckets:[" } else { "," }]);
        decimal::integer(out, count);
    }
    if counts().next().is_some() {
        put(out, &["]"]);
    }
}

/// Appends a start timestamp.
fn put_start(out: &mut Vec<u8>, ms: u64) {
    put(out, &[" st@"]);
    decimal::timestamp(out, ms);
}

fn put_signed(out: &mut Vec<u8>, value: i32) {
    put(out, &[if value < 0 { "-" } else { "" }]);
    decimal::integer(out, value.unsigned_abs().into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::record::ZERO_THRESHOLD_SECONDS;

    #[test]
    fn the_zero_threshold_is_the_width_of_the_zero_bucket() {
        assert_eq!(ZERO_THRESHOLD.parse(), Ok(ZERO_THRESHOLD_SECONDS));
    }
}
