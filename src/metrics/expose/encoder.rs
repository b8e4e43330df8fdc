//! What a format has to write.

use super::families::{Family, Label, Value};
use crate::metrics::record::{Exemplar, Labels, Snapshot};

/// A series of the histogram.
pub(super) struct Series<'a> {
    pub labels: Labels,
    pub total: &'a Snapshot,
    /// The start timestamp.
    pub created_ms: u64,
}

/// Writes one format. For each family that has samples, the calls are `begin`, then `sample` or `durations` for each of
/// its samples, then `finish`. `end` is the last call.
pub(super) trait Encoder {
    /// Whether the format has native buckets.
    const HAS_NATIVE: bool;

    /// Starts a family.
    fn begin(&mut self, family: &Family);

    /// Writes a sample of a family other than the histogram.
    fn sample(&mut self, family: &Family, labels: &[Label], value: Value);

    /// Writes a series of the histogram.
    fn durations(&mut self, family: &Family, series: &Series);

    /// Ends a family.
    fn finish(&mut self, _family: &Family) {}

    /// Ends the exposition.
    fn end(&mut self) {}
}

/// Calls `write` with the labels of an exemplar: `api`, which is the path, and the ids of its trace, if it has one.
///
/// They have at most 74 characters together; OpenMetrics 1.0 allows 128.
pub(super) fn with_exemplar_labels(path: &str, exemplar: &Exemplar, write: impl FnOnce(&[Label])) {
    let Some(trace) = exemplar.trace else {
        return write(&[("api", path)]);
    };
    let (mut trace_id, mut span_id) = ([0; 32], [0; 16]);
    write(&[
        ("api", path),
        ("trace_id", hex(trace.trace_id(), &mut trace_id)),
        ("span_id", hex(trace.span_id().into(), &mut span_id)),
    ]);
}

/// Fills `digits` with the lowest hexadecimal digits of `value`.
fn hex(value: u128, digits: &mut [u8]) -> &str {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * place)) as usize & 0xf];
    }
    str::from_utf8(digits).unwrap_or_default()
}
