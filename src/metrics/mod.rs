//! Every metric of the server, and the pages that expose them.
//!
//! Threads that answer requests each own a [`Recorder`] and record durations through it; whoever serves
//! `/metrics` calls [`Metrics::render`]. Recording never waits for anything, rendering never for a recorder, and
//! a page's `_count`, `_sum` and buckets describe the same observations: `histogram` tells how.
//!
//! The modules, from the inside out: `histogram` and `exemplar` hold what one thread observed of one series;
//! `recorder` hands out the right to write to them; `page` puts all together, `text` and `openmetrics`
//! know what differs between the formats and `families` what is the same.

mod bounds;
mod buckets;
mod decimal;
mod exemplar;
mod families;
mod gauge;
mod histogram;
mod labels;
#[cfg(all(test, loom))]
mod model;
mod negotiation;
mod openmetrics;
mod page;
mod process;
mod recorder;
#[cfg(all(test, not(loom)))]
mod stress;
mod sync;
mod text;
mod traceparent;

pub use bounds::{BOUND_MAX_NS, BOUNDS_MAX, Bounds, BoundsError};
pub use gauge::Gauge;
pub use labels::{Labels, Method, Path, Status};
pub use negotiation::{Escaping, Format};
pub use recorder::Recorder;
pub use traceparent::TraceContext;

use buckets::Buckets;
use histogram::Snapshot;
use labels::SERIES_MAX;
use page::{Layout, Page};
pub(crate) use process::Process;
use recorder::Shard;
use std::fmt;
use std::sync::Arc;
use sync::{AtomicU64, Ordering};

/// The series that exists before anything was observed, so that a rate over it can start from 0.
const MAIN_SERIES: Labels = Labels {
    method: Method::Get,
    path: Path::Root,
    status: Status::OK,
};

/// All metrics of the process.
pub struct Metrics {
    bounds: Bounds,
    buckets: Buckets,
    layout: Layout,
    process: Process,
    in_flight: Gauge,
    /// When each series was first observed, in Unix milliseconds; 0 where it was not yet.
    created_ms: [AtomicU64; SERIES_MAX],
    shards: Arc<Shard>,
    scrape: Scrape,
}

/// The number of OpenMetrics pages so far, and one: exemplars are kept by it. On a cache line of its own, since
/// every observation reads it and only scrapes write it.
#[repr(align(128))]
struct Scrape(AtomicU64);

impl Metrics {
    /// Metrics with nothing observed, but for the series `GET`, `/`, `200`, which exists from the start.
    pub fn new(bounds: Bounds) -> Metrics {
        let metrics = Metrics {
            buckets: Buckets::new(&bounds),
            layout: Layout::new(&bounds),
            bounds,
            process: Process::new(),
            in_flight: Gauge::new(),
            created_ms: std::array::from_fn(|_| AtomicU64::new(0)),
            shards: Arc::new(Shard::new_taken(false)),
            scrape: Scrape(AtomicU64::new(1)),
        };
        metrics.mark_created(MAIN_SERIES.index());
        metrics
    }

    /// The right to record, for one thread. What it recorded stays when it is dropped.
    pub fn recorder(self: &Arc<Self>) -> Recorder {
        Recorder::new(Arc::clone(self))
    }

    /// The gauge `http_requests_in_flight`.
    pub fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// The histogram's bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Appends the whole exposition to `page`. The Content-Type that goes with it is the format's.
    ///
    /// Each series is as of one moment for each recorder, and never less than on a page rendered before. Nothing
    /// is allocated but the room that `page` lacks.
    pub fn render(&self, format: Format, page: &mut Vec<u8>) {
        let mut page = self.layout.page(format.is_openmetrics(), page);
        self.put_requests(&mut page);
        page.build();
        page.process(&self.process, self.process.usage());
        page.end();
        if format.is_openmetrics() {
            // Relaxed: exemplars of either number are right.
            self.scrape.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends only what the server counts itself, the `http_*` families, and asks the kernel nothing: the part
    /// of [`render`](Metrics::render) that can be compared with other libraries.
    pub fn render_requests(&self, format: Format, page: &mut Vec<u8>) {
        self.put_requests(&mut self.layout.page(format.is_openmetrics(), page));
    }

    fn put_requests(&self, page: &mut Page) {
        page.begin_request_duration();
        for labels in Labels::all() {
            let created_ms = self.created_ms[labels.index()].load(Ordering::Relaxed);
            if created_ms != 0 {
                page.request_duration(labels, &self.snapshot(labels), created_ms);
            }
        }
        page.requests_in_flight(self.in_flight.get());
    }

    /// The series over all shards.
    fn snapshot(&self, labels: Labels) -> Snapshot {
        let mut total = Snapshot::new();
        for series in self.shards.list().filter_map(|shard| shard.series(labels.index())) {
            series.add_to(&mut total);
        }
        total
    }

    fn shards(&self) -> &Arc<Shard> {
        &self.shards
    }

    #[inline]
    fn scrape(&self) -> u64 {
        self.scrape.0.load(Ordering::Relaxed)
    }

    /// Notes the time of a series' first observation, whichever shard makes it.
    fn mark_created(&self, index: usize) {
        // A clock at zero would read as "not yet".
        let now_ms = exemplar::unix_time_ms().max(1);
        // An error means that another shard was first.
        let _ = self.created_ms[index].compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ROOT_OK: Labels = MAIN_SERIES;
    const UI_MISSING: Labels = Labels {
        method: Method::Head,
        path: Path::Ui,
        status: Status::NOT_FOUND,
    };

    fn metrics(bounds: &str) -> Arc<Metrics> {
        Arc::new(Metrics::new(bounds.parse().unwrap()))
    }

    fn page(metrics: &Metrics, format: Format) -> String {
        let mut page = Vec::new();
        metrics.render(format, &mut page);
        String::from_utf8(page).unwrap()
    }

    /// The page without what depends on this process and the time.
    fn steady(page: &str) -> Vec<&str> {
        let varies = |line: &&str| line.contains("process_") || line.contains("_created{");
        page.lines().filter(|line| !varies(line)).collect()
    }

    #[test]
    fn the_text_page_has_every_line_in_its_place() {
        let metrics = metrics("0.1,1");
        let mut recorder = metrics.recorder();
        recorder.record(ROOT_OK, 100_000_000, None);
        recorder.record(ROOT_OK, 100_000_001, None);
        recorder.record(UI_MISSING, 5_000_000_000, None);
        metrics.in_flight().set(1);
        assert_eq!(
            steady(&page(&metrics, Format::Text004)),
            [
                "# HELP http_request_duration_seconds A histogram of the HTTP request durations in seconds.",
                "# TYPE http_request_duration_seconds histogram",
                r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="0.1"} 1"#,
                r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="1"} 2"#,
                r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="+Inf"} 2"#,
                r#"http_request_duration_seconds_sum{method="GET",path="/",status="200"} 0.200000001"#,
                r#"http_request_duration_seconds_count{method="GET",path="/",status="200"} 2"#,
                r#"http_request_duration_seconds_bucket{method="HEAD",path="/ui",status="404",le="0.1"} 0"#,
                r#"http_request_duration_seconds_bucket{method="HEAD",path="/ui",status="404",le="1"} 0"#,
                r#"http_request_duration_seconds_bucket{method="HEAD",path="/ui",status="404",le="+Inf"} 1"#,
                r#"http_request_duration_seconds_sum{method="HEAD",path="/ui",status="404"} 5"#,
                r#"http_request_duration_seconds_count{method="HEAD",path="/ui",status="404"} 1"#,
                "# HELP http_requests_in_flight HTTP requests taken and not yet answered.",
                "# TYPE http_requests_in_flight gauge",
                "http_requests_in_flight 1",
                "# HELP httpserver_build_info The version of the running server.",
                "# TYPE httpserver_build_info gauge",
                concat!("httpserver_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            ]
        );
    }

    #[test]
    fn the_openmetrics_page_has_every_line_in_its_place() {
        let metrics = metrics("0.1,1");
        let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        metrics.recorder().record(ROOT_OK, 1_500_000_000, trace);
        let page = page(&metrics, Format::OpenMetrics100(None));
        let lines = steady(&page);
        assert_eq!(
            lines[..5],
            [
                "# TYPE http_request_duration_seconds histogram",
                "# UNIT http_request_duration_seconds seconds",
                "# HELP http_request_duration_seconds A histogram of the HTTP request durations in seconds.",
                r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="0.1"} 0"#,
                r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="1.0"} 0"#,
            ]
        );
        let with_exemplar = concat!(
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="+Inf"} 1 "#,
            r##"# {api="/",trace_id="4bf92f3577b34da6a3ce929d0e0e4736",span_id="00f067aa0ba902b7"} 1.5 "##,
        );
        assert!(lines[5].starts_with(with_exemplar), "{}", lines[5]);
        assert_eq!(
            lines[6..],
            [
                r#"http_request_duration_seconds_sum{method="GET",path="/",status="200"} 1.5"#,
                r#"http_request_duration_seconds_count{method="GET",path="/",status="200"} 1"#,
                "# TYPE http_requests_in_flight gauge",
                "# HELP http_requests_in_flight HTTP requests taken and not yet answered.",
                "http_requests_in_flight 0",
                "# TYPE httpserver_build info",
                "# HELP httpserver_build The version of the running server.",
                concat!("httpserver_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
                "# EOF",
            ]
        );
        assert!(page.contains("\nprocess_cpu_seconds_created "));
        assert!(page.contains("\nhttp_request_duration_seconds_created{method=\"GET\""));
    }

    #[test]
    fn the_main_series_exists_before_anything_is_observed() {
        let page = page(&metrics("1"), Format::Text004);
        assert!(page.contains("http_request_duration_seconds_count{method=\"GET\",path=\"/\",status=\"200\"} 0\n"));
        assert_eq!(page.matches("_count{").count(), 1);
    }

    #[test]
    fn what_a_recorder_recorded_outlives_it_and_its_shard_serves_the_next() {
        let metrics = metrics("1");
        for _ in 0..3 {
            metrics.recorder().record(ROOT_OK, 1, None);
        }
        assert_eq!(metrics.shards.list().count(), 1);
        let at_once = [metrics.recorder(), metrics.recorder()];
        assert_eq!(metrics.shards.list().count(), 2);
        for mut recorder in at_once {
            recorder.record(ROOT_OK, 1, None);
        }
        let total = metrics.snapshot(ROOT_OK);
        assert_eq!((total.counts[0], total.sum_ns), (5, 5));
    }

    #[test]
    fn rendering_appends_and_a_warm_buffer_is_not_grown() {
        let metrics = metrics("1");
        let mut page = b"before".to_vec();
        metrics.render(Format::Text004, &mut page);
        assert!(page.starts_with(b"before# HELP"));
        let capacity = page.capacity();
        page.clear();
        metrics.render(Format::Text004, &mut page);
        assert_eq!(page.capacity(), capacity);
    }
}
