//! Writes expositions: every family, in a fixed order, straight into the response's buffer.
//!
//! [`families`] describes each family once, for all formats. A format is an [`Encoder`], in a file of its own.

mod encoder;
mod families;
mod lines;
mod native;
mod negotiation;
mod openmetrics;
mod openmetrics2;
mod protobuf;
mod text;

pub(super) use families::State;
pub use negotiation::Format;

use encoder::{Encoder, Series};
use families::{FAMILIES, Samples};
use lines::Lines;
use openmetrics2::OpenMetrics2;
use protobuf::Protobuf;

/// Appends all families to `out`.
pub(super) fn render(format: Format, state: &State, out: &mut Vec<u8>) {
    let (bounds, started_at_ms) = (state.bounds, state.started_at_ms);
    match format {
        Format::Protobuf => write(state, Protobuf::new(bounds, started_at_ms, out)),
        Format::OpenMetrics200 => write(
            state,
            OpenMetrics2 {
                bounds,
                started_at_ms,
                out,
            },
        ),
        Format::OpenMetrics100 => write(state, Lines::new(&openmetrics::DIALECT, bounds, out)),
        Format::Text004 => write(state, Lines::new(&text::DIALECT, bounds, out)),
    }
}

fn write<E: Encoder>(state: &State, mut encoder: E) {
    for family in &FAMILIES {
        match family.samples {
            Samples::Durations => {
                encoder.begin(family);
                for (labels, created_ms) in state.durations.series() {
                    let total = &state.durations.snapshot(labels, E::HAS_NATIVE);
                    encoder.durations(
                        family,
                        &Series {
                            labels,
                            total,
                            created_ms,
                        },
                    );
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
