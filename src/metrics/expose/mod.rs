//! What a scrape gets: every family in its order, written straight into the response's buffer.
//!
//! [`families`] describes each family once, for all formats. A format is an [`Encoder`], in a file of its own.

pub(crate) mod decimal;
mod families;
mod lines;
mod negotiation;
mod openmetrics;
mod text;

pub use negotiation::Format;

use super::Metrics;
use super::process::Usage;
use super::record::{Labels, Snapshot};
use families::{FAMILIES, Family, Samples, Value};
use lines::{Dialect, Lines};

/// What an exposition is made of: the state of everything that is exposed, as of one scrape.
pub(super) struct State<'a> {
    pub metrics: &'a Metrics,
    pub in_flight: usize,
    pub usage: Usage,
}

impl State<'_> {
    fn lines<'a>(&'a self, dialect: &'static Dialect, out: &'a mut Vec<u8>) -> Lines<'a> {
        let bounds = &self.metrics.config.bounds;
        Lines { dialect, bounds, out }
    }
}

/// A label's name and value. No value needs escaping.
type Label<'a> = (&'a str, &'a str);

/// Writes one format. For each family that has samples, the calls are `begin`, then `sample` or `durations` for each of
/// its samples; `end` is the last call.
trait Encoder {
    /// Starts a family.
    fn begin(&mut self, family: &Family);

    /// Writes a sample of a family that is no histogram.
    fn sample(&mut self, family: &Family, labels: &[Label], value: Value);

    /// Writes a series of the histogram.
    fn durations(&mut self, family: &Family, labels: Labels, total: &Snapshot);

    /// Ends the exposition.
    fn end(&mut self);
}

/// Appends all families to `out`.
pub(super) fn render(format: Format, state: &State, out: &mut Vec<u8>) {
    match format {
        Format::OpenMetrics100 => write(&FAMILIES, state, state.lines(&openmetrics::DIALECT, out)),
        Format::Text004 => write(&FAMILIES, state, state.lines(&text::DIALECT, out)),
    }
}

/// Appends only the histogram to `out`, as text.
pub(super) fn render_durations(state: &State, out: &mut Vec<u8>) {
    write(&FAMILIES[..1], state, state.lines(&text::DIALECT, out));
}

fn write(families: &[Family], state: &State, mut encoder: impl Encoder) {
    for family in families {
        match family.samples {
            Samples::Durations => {
                encoder.begin(family);
                for labels in Labels::all().filter(|&labels| state.metrics.is_created(labels)) {
                    encoder.durations(family, labels, &state.metrics.snapshot(labels));
                }
            }
            Samples::One(value) => {
                // What cannot be read is left out, its metadata included.
                if let Some(value) = value(state) {
                    encoder.begin(family);
                    encoder.sample(family, &[], value);
                }
            }
            Samples::Each(for_each) => {
                encoder.begin(family);
                for_each(state, &mut |label, value| encoder.sample(family, &[label], value));
            }
        }
    }
    encoder.end();
}
