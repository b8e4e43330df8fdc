//! Recording and rendering allocate nothing once warm.

use std::alloc::System;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httpserver::metrics::{Bounds, Config, Format, Labels, Method, Metrics, Path, Status, TraceContext};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Returns the smallest number of allocations of 20 calls. The allocator counts those of all threads, including the
/// test harness's.
fn allocations(mut call: impl FnMut()) -> usize {
    let once = |()| {
        let region = Region::new(ALLOCATOR);
        call();
        let change = region.change();
        change.allocations + change.reallocations
    };
    std::iter::repeat_n((), 20).map(once).min().unwrap()
}

#[test]
fn neither_recording_nor_rendering_allocates_once_warm() {
    let metrics = Arc::new(Metrics::new(Config {
        bounds: Bounds::default(),
        max_in_flight: 10_000,
        concurrency: 0,
        delay_quantiles: [Duration::from_secs(1); 3],
    }));
    let mut recorder = metrics.recorder();
    let labels = Labels {
        method: Method::Get,
        path: Path::Root,
        status: Status::OK,
    };
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    recorder.record(labels, 1, trace, Instant::now());
    let mut record = || (0..1_000).for_each(|n| recorder.record(labels, n * 3_000_000, trace, Instant::now()));
    assert_eq!(allocations(&mut record), 0);

    let mut out = Vec::new();
    for format in Format::ALL {
        metrics.render(format, 0, &mut out);
        let render = || {
            out.clear();
            metrics.render(format, 0, &mut out);
        };
        assert_eq!(allocations(render), 0, "{format:?}");
    }
}
