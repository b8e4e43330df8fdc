//! Every metric of the server, and the formats that expose them.
//!
//! Each thread that responds to requests owns a [`Recorder`] and records durations through it. [`Metrics::render`] writes
//! the exposition. Recording never waits for anything, rendering never for a recorder, and the `_count`, `_sum` and
//! buckets of one exposition describe the same observations: `record/histogram.rs` explains how.

mod expose;
mod process;
mod record;

pub use expose::Format;
pub use record::{BOUND_MAX_NS, BOUNDS_MAX, Bounds, BoundsError, Labels, Method, Path, Recorder, Status, TraceContext};

use expose::State;
pub(crate) use process::Process;
use process::Usage;
use record::{AtomicU64, Buckets, Ordering, SERIES_MAX, Shard, Snapshot, unix_time_ms};
use std::sync::Arc;

/// The series that exists before anything is observed, so that a rate over it can start from 0.
const MAIN_SERIES: Labels = Labels {
    method: Method::Get,
    path: Path::Root,
    status: Status::OK,
};

/// All metrics of the process.
pub struct Metrics {
    bounds: Bounds,
    buckets: Buckets,
    process: Process,
    /// When each series was first observed, in Unix milliseconds; 0 before.
    created_ms: [AtomicU64; SERIES_MAX],
    shards: Arc<Shard>,
    next_scrape: NextScrape,
}

/// The number of the next scrape that shows exemplars, from 1. On a cache line of its own, since every observation reads
/// it and only scrapes write it.
#[repr(align(128))]
struct NextScrape(AtomicU64);

impl Metrics {
    /// Returns metrics without observations. Only the series `GET`, `/`, `200` exists.
    pub fn new(bounds: Bounds) -> Metrics {
        let metrics = Metrics {
            buckets: Buckets::new(&bounds),
            bounds,
            process: Process::new(),
            created_ms: std::array::from_fn(|_| AtomicU64::new(0)),
            shards: Arc::new(Shard::new_taken(false)),
            next_scrape: NextScrape(AtomicU64::new(1)),
        };
        metrics.create(MAIN_SERIES.index());
        metrics
    }

    /// Returns the right to record, for one thread. What was recorded stays after it is dropped.
    pub fn recorder(self: &Arc<Self>) -> Recorder {
        Recorder::new(Arc::clone(self))
    }

    /// The bounds of the histogram.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Appends the whole exposition to `out`. Its Content-Type is that of the format.
    ///
    /// `in_flight` is the number of requests that wait for their responses: the gauge `http_requests_in_flight`.
    ///
    /// Each series is as of one moment for each recorder, and no count is below that of an earlier exposition. Nothing is
    /// allocated if `out` has the capacity.
    pub fn render(&self, format: Format, in_flight: usize, out: &mut Vec<u8>) {
        expose::render(format, &self.state(in_flight, self.process.usage()), out);
        if format != Format::Text004 {
            // Relaxed: an exemplar of either number is valid.
            self.next_scrape.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends only `http_request_duration_seconds` to `out`, as text, and makes no system call: the part of
    /// [`render`](Metrics::render) that can be compared with other libraries.
    pub fn render_durations(&self, out: &mut Vec<u8>) {
        expose::render_durations(&self.state(0, Usage::default()), out);
    }

    /// When the process started, in Unix milliseconds. It never changes, so it identifies the process.
    fn started_at_ms(&self) -> u64 {
        self.process.started_at_ms()
    }

    fn state(&self, in_flight: usize, usage: Usage) -> State<'_> {
        State {
            metrics: self,
            in_flight,
            usage,
        }
    }

    /// Returns whether the series exists.
    fn is_created(&self, labels: Labels) -> bool {
        self.created_ms[labels.index()].load(Ordering::Relaxed) != 0
    }

    /// Returns the series over all shards.
    fn snapshot(&self, labels: Labels) -> Snapshot {
        let mut total = Snapshot::new();
        for series in self.shards.list().filter_map(|shard| shard.series(labels.index())) {
            series.add_to(&mut total);
        }
        total
    }

    /// Creates a series, as of now, unless it exists.
    fn create(&self, index: usize) {
        // A clock at zero would mean that it does not exist.
        let now_ms = unix_time_ms().max(1);
        // An error means that another shard was first.
        let _ = self.created_ms[index].compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
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

    fn exposition(metrics: &Metrics, format: Format) -> String {
        let mut out = Vec::new();
        metrics.render(format, 1, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Returns the lines that do not depend on this process and the time.
    fn steady(exposition: &str) -> Vec<&str> {
        let varies = |line: &&str| line.contains("process_") || line.starts_with("httpserver_start_time_seconds ");
        exposition.lines().filter(|line| !varies(line)).collect()
    }

    #[test]
    fn the_text_exposition_has_each_line_in_its_place() {
        let metrics = metrics("0.1,1");
        let mut recorder = metrics.recorder();
        recorder.record(ROOT_OK, 100_000_000, None);
        recorder.record(ROOT_OK, 100_000_001, None);
        recorder.record(UI_MISSING, 5_000_000_000, None);
        assert_eq!(
            steady(&exposition(&metrics, Format::Text004)),
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
                "# HELP http_requests_in_flight HTTP requests received and not yet responded to.",
                "# TYPE http_requests_in_flight gauge",
                "http_requests_in_flight 1",
                "# HELP httpserver_build_info The version of the running server.",
                "# TYPE httpserver_build_info gauge",
                concat!("httpserver_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
                "# HELP httpserver_start_time_seconds When the process started, in Unix time as of then; it never changes.",
                "# TYPE httpserver_start_time_seconds gauge",
            ]
        );
    }

    #[test]
    fn the_openmetrics_exposition_has_each_line_in_its_place() {
        let metrics = metrics("0.1,1");
        let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        metrics.recorder().record(ROOT_OK, 1_500_000_000, trace);
        let exposition = exposition(&metrics, Format::OpenMetrics100);
        let lines = steady(&exposition);
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
                "# HELP http_requests_in_flight HTTP requests received and not yet responded to.",
                "http_requests_in_flight 1",
                "# TYPE httpserver_build info",
                "# HELP httpserver_build The version of the running server.",
                concat!("httpserver_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
                "# TYPE httpserver_start_time_seconds gauge",
                "# UNIT httpserver_start_time_seconds seconds",
                "# HELP httpserver_start_time_seconds When the process started, in Unix time as of then; it never changes.",
                "# EOF",
            ]
        );
    }

    #[test]
    fn the_main_series_exists_before_anything_is_observed() {
        let exposition = exposition(&metrics("1"), Format::Text004);
        assert!(
            exposition.contains("http_request_duration_seconds_count{method=\"GET\",path=\"/\",status=\"200\"} 0\n")
        );
        assert_eq!(exposition.matches("_count{").count(), 1);
    }

    #[test]
    fn what_was_recorded_outlives_its_recorder_and_the_next_one_gets_the_shard() {
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
    fn rendering_appends_and_does_not_grow_a_buffer_that_has_the_capacity() {
        let metrics = metrics("1");
        let mut out = b"before".to_vec();
        metrics.render(Format::Text004, 0, &mut out);
        assert!(out.starts_with(b"before# HELP"));
        let capacity = out.capacity();
        out.clear();
        metrics.render(Format::Text004, 0, &mut out);
        assert_eq!(out.capacity(), capacity);
    }
}
