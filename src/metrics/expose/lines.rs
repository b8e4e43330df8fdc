//! What the Prometheus text format and OpenMetrics 1.0.0 share: one line for each sample, many for a histogram.

use super::encoder::{Encoder, Series};
use super::families::{Family, Label, Value};
use crate::metrics::decimal;
use crate::metrics::record::{Bounds, Exemplar};

/// The differences between the two formats.
pub(super) struct Dialect {
    /// Appends the metadata of a family.
    pub metadata: fn(&mut Vec<u8>, &Family),
    /// Appends a bound, in nanoseconds, as the value of a label `le`.
    pub bound: fn(&mut Vec<u8>, u64),
    /// Appends the exemplar of a bucket, given the series' path, after the bucket's value. `None` if the format has no
    /// exemplars.
    pub exemplar: Option<fn(&mut Vec<u8>, &str, &Exemplar)>,
    /// The last line.
    pub end: &'static str,
}

/// An exposition in one of the two formats.
pub(super) struct Lines<'a> {
    dialect: &'static Dialect,
    bounds: &'a Bounds,
    out: &'a mut Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(dialect: &'static Dialect, bounds: &'a Bounds, out: &'a mut Vec<u8>) -> Lines<'a> {
        Lines { dialect, bounds, out }
    }
}

impl Encoder for Lines<'_> {
    const HAS_NATIVE: bool = false;

    fn begin(&mut self, family: &Family) {
        (self.dialect.metadata)(self.out, family);
    }

    fn sample(&mut self, family: &Family, labels: &[Label], value: Value) {
        put(self.out, &[family.name]);
        put_labels(self.out, labels);
        put(self.out, &[" "]);
        value.append(self.out);
        put(self.out, &["\n"]);
    }

    /// `_count` is the count of the bucket `+Inf`, so the two cannot differ.
    fn durations(&mut self, family: &Family, series: &Series) {
        let total = series.total;
        let line_start = self.out.len();
        put(self.out, &[family.name, "_bucket"]);
        let labels_start = self.out.len();
        put_labels(self.out, &series.labels.pairs());
        // Remove the closing brace: the label `le` follows.
        self.out.pop();
        let labels_end = self.out.len();
        put(self.out, &[",le=\""]);
        let bound_start = self.out.len();

        let mut count = 0;
        let bounds = self.bounds.upper_ns().iter().map(Some).chain([None]);
        let buckets = bounds.zip(total.counts.iter().zip(&total.exemplars));
        for (place, (upper_ns, (observed, exemplar))) in buckets.enumerate() {
            if place > 0 {
                // Each line starts like the first one of the series.
                self.out.extend_from_within(line_start..bound_start);
            }
            match upper_ns {
                Some(&upper_ns) => (self.dialect.bound)(self.out, upper_ns),
                None => put(self.out, &["+Inf"]),
            }
            put(self.out, &["\"} "]);
            count += observed;
            decimal::integer(self.out, count);
            if let (Some(append), Some(exemplar)) = (self.dialect.exemplar, exemplar) {
                append(self.out, series.labels.path.as_str(), exemplar);
            }
            put(self.out, &["\n"]);
        }

        let mut sample = |suffix: &str, append: &dyn Fn(&mut Vec<u8>)| {
            put(self.out, &[family.name, suffix]);
            self.out.extend_from_within(labels_start..labels_end);
            put(self.out, &["} "]);
            append(self.out);
            put(self.out, &["\n"]);
        };
        sample("_sum", &|out| decimal::seconds(out, total.sum_ns));
        sample("_count", &|out| decimal::integer(out, count));
    }

    fn end(&mut self) {
        put(self.out, &[self.dialect.end]);
    }
}

/// Appends texts.
pub(super) fn put(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Appends labels in braces, or nothing if there are none.
pub(super) fn put_labels(out: &mut Vec<u8>, labels: &[Label]) {
    for (place, (name, value)) in labels.iter().enumerate() {
        put(out, &[if place == 0 { "{" } else { "," }, name, "=\"", value, "\""]);
    }
    put(out, &[if labels.is_empty() { "" } else { "}" }]);
}
