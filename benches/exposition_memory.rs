//! Measures what rendering an exposition allocates once warm, beside the peers, and how large each format is.
//!
//! `cargo bench --bench exposition_memory`
//!
//! Separate from the bench of speed, since a counting allocator would slow down the peers that allocate.

#[path = "peers/mod.rs"]
mod peers;

use peers::{MetricsExporter, Ours, PrometheusClient, RustPrometheus, durations_ns, label_sets};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Prints what the second call allocates; the first one warms up.
fn row(name: &str, mut render: impl FnMut() -> usize) {
    let bytes = render();
    let region = Region::new(ALLOCATOR);
    render();
    let change = region.change();
    let allocations = change.allocations + change.reallocations;
    println!("| {name} | {bytes} | {} | {allocations} |", change.bytes_allocated);
}

fn main() {
    let (series, durations_ns) = (label_sets(20), durations_ns(1_000));
    println!("| 20 series | bytes | bytes allocated | allocations |");
    println!("| --- | --- | --- | --- |");

    let ours = Ours::new();
    ours.fill(&series, &durations_ns);
    let mut out = Vec::new();
    for format in httpserver::metrics::Format::ALL {
        row(&format!("httpserver, {format:?}"), || {
            out.clear();
            ours.metrics.render(format, 0, &mut out);
            out.len()
        });
    }

    let peer = RustPrometheus::new();
    peer.fill(&series, &durations_ns);
    let mut out = Vec::new();
    row("prometheus", || {
        out.clear();
        peer.render(&mut out);
        out.len()
    });

    let peer = PrometheusClient::new();
    peer.fill(&series, &durations_ns);
    let mut out = String::new();
    row("prometheus-client", || {
        out.clear();
        peer.render(&mut out);
        out.len()
    });

    let peer = MetricsExporter::new();
    peer.fill(&series, &durations_ns);
    row("metrics-exporter-prometheus", || peer.render().len());
}
