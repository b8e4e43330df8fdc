//! Writes expositions: every family, in a fixed order, straight into the response's buffer.
//!
//! [`families`] describes each family once, for all formats. A format is an [`Encoder`], in a file of its own.

pub(crate) mod decimal;
mod families;
mod lines;
mod native;
mod negotiation;
mod openmetrics;
mod openmetrics2;
mod protobuf;
mod text;

pub use negotiation::Format;

use super::Metrics;
use super::process::Usage;
use super::record::{Exemplar, Labels, Snapshot};
use families::{FAMILIES, Family, Samples, Value};
use lines::Lines;
use openmetrics2::OpenMetrics2;
use protobuf::Protobuf;

/// Everything that is exposed, as of one scrape.
pub(super) struct State<'a> {
    pub metrics: &'a Metrics,
    pub in_flight: usize,
    pub usage: Usage,
}

/// A label's name and value. No value needs escaping.
type Label<'a> = (&'a str, &'a str);

/// A series of the histogram.
struct Series<'a> {
    labels: Labels,
    total: &'a Snapshot,
    /// The start timestamp.
    created_ms: u64,
}

/// Writes one format. For each family that has samples, the calls are `begin`, then `sample` or `durations` for each of
/// its samples, then `finish`. `end` is the last call.
trait Encoder {
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

/// Appends all families to `out`.
pub(super) fn render(format: Format, state: &State, out: &mut Vec<u8>) {
    let (bounds, started_at_ms) = (&state.metrics.config.bounds, state.metrics.started_at_ms());
    let lines = |dialect, out| Lines { dialect, bounds, out };
    match format {
        Format::Protobuf => write(&FAMILIES, state, Protobuf::new(bounds, started_at_ms, out)),
        Format::OpenMetrics200 => {
            let encoder = OpenMetrics2 {
                bounds,
                started_at_ms,
                out,
            };
            write(&FAMILIES, state, encoder);
        }
        Format::OpenMetrics100 => write(&FAMILIES, state, lines(&openmetrics::DIALECT, out)),
        Format::Text004 => write(&FAMILIES, state, lines(&text::DIALECT, out)),
    }
}

/// Appends only the histogram to `out`, as text.
pub(super) fn render_durations(state: &State, out: &mut Vec<u8>) {
    let (dialect, bounds) = (&text::DIALECT, &state.metrics.config.bounds);
    write(&FAMILIES[..1], state, Lines { dialect, bounds, out });
}

fn write<E: Encoder>(families: &[Family], state: &State, mut encoder: E) {
    for family in families {
        match family.samples {
            Samples::Durations => {
                encoder.begin(family);
                for labels in Labels::all() {
                    let Some(created) = state.metrics.created[labels.index()].get() else {
                        continue;
                    };
                    let total = &state.metrics.snapshot(labels, E::HAS_NATIVE && created.has_native);
                    let created_ms = created.at_ms;
                    let series = Series {
                        labels,
                        total,
                        created_ms,
                    };
                    encoder.durations(family, &series);
                }
            }
            Samples::One(value) => {
                // A family whose value cannot be read is left out, its metadata included.
                let Some(value) = value(state) else { continue };
                encoder.begin(family);
                encoder.sample(family, &[], value);
            }
            Samples::Each(for_each) => {
                encoder.begin(family);
                for_each(state, &mut |label, value| encoder.sample(family, &[label], value));
            }
        }
        encoder.finish(family);
    }
    encoder.end();
}

/// Calls `write` with the labels of an exemplar: `api`, which is the path, and the ids of its trace, if it has one.
///
/// They have at most 74 characters together; OpenMetrics 1.0 allows 128.
fn with_exemplar_labels(path: &str, exemplar: &Exemplar, write: impl FnOnce(&[Label])) {
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
