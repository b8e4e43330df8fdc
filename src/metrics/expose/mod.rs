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

pub(super) use families::Scrape;
pub use negotiation::Format;

use encoder::{Encoder, Series};
use families::{FAMILIES, Samples};
use lines::Lines;
use openmetrics2::OpenMetrics2;
use protobuf::Protobuf;

use super::Metrics;

/// Appends all families to `out`.
pub(super) fn render(format: Format, scrape: &Scrape, out: &mut Vec<u8>) {
    let Metrics { config, process, .. } = scrape.metrics;
    let (bounds, started_at_ms) = (&config.bounds, process.started_at_ms());
    match format {
        Format::Protobuf => write(scrape, Protobuf::new(bounds, started_at_ms, out)),
        Format::OpenMetrics200 => write(
            scrape,
            OpenMetrics2 {
                bounds,
                started_at_ms,
                out,
            },
        ),
        Format::OpenMetrics100 => write(scrape, Lines::new(&openmetrics::DIALECT, bounds, out)),
        Format::Text004 => write(scrape, Lines::new(&text::DIALECT, bounds, out)),
    }
}

fn write<E: Encoder>(scrape: &Scrape, mut encoder: E) {
    for family in &FAMILIES {
        match family.samples {
            Samples::Durations => {
                encoder.begin(family);
                for (labels, created_ms) in scrape.metrics.recorded.series() {
                    let total = &scrape.metrics.recorded.snapshot(labels, E::HAS_NATIVE);
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
                let Some(value) = value(scrape) else { continue };
                encoder.begin(family);
                encoder.sample(family, &[], value);
            }
            Samples::Each(for_each) => {
                encoder.begin(family);
                for_each(scrape, &mut |label, value| encoder.sample(family, &[label], value));
            }
        }
        encoder.finish(family);
    }
    encoder.end();
}
