//! What rendering a page allocates once warm, beside the peers.
//!
//! `cargo bench --bench exposition_memory`
//!
//! Apart from the bench of speed, since an allocator that counts would slow down those that allocate.

#[path = "peers/mod.rs"]
mod peers;

use peers::{MetricsExporter, Ours, PrometheusClient, RustPrometheus, durations_ns, label_sets};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Prints what the second call allocates: the first one warms up.
fn row(name: &str, mut render: impl FnMut() -> usize) {
    let page_bytes = render();
    let region = Region::new(ALLOCATOR);
    render();
    let change = region.change();
    let allocations = change.allocations + change.reallocations;
    println!("| {name} | {page_bytes} | {} | {allocations} |", change.bytes_allocated);
}

fn main() {
    let (series, durations_ns) = (label_sets(20), durations_ns(1_000));
    println!("| 20 series | bytes of page | bytes allocated | allocations |");
    println!("| --- | --- | --- | --- |");

    let ours = Ours::new();
    ours.fill(&series, &durations_ns);
    let mut page = Vec::new();
    row("httpserver", || {
        page.clear();
        ours.metrics.render(httpserver::metrics::Format::Text004, 0, &mut page);
        page.len()
    });

    let peer = RustPrometheus::new();
    peer.fill(&series, &durations_ns);
    let mut page = Vec::new();
    row("prometheus", || {
        page.clear();
        peer.render(&mut page);
        page.len()
    });

    let peer = PrometheusClient::new();
    peer.fill(&series, &durations_ns);
    let mut page = String::new();
    row("prometheus-client", || {
        page.clear();
        peer.render(&mut page);
        page.len()
    });

    let peer = MetricsExporter::new();
    peer.fill(&series, &durations_ns);
    row("metrics-exporter-prometheus", || peer.render().len());
}
