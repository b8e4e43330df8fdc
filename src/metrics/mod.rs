//! All metrics of the server, and the formats in which they are exposed.
//!
//! Each thread that responds to requests owns a [`Recorder`] and records durations through it. [`Metrics::render`]
//! writes the exposition. Recording never blocks, and rendering never waits for a recorder. The `_count`, `_sum` and
//! buckets of one exposition describe the same observations; `record/histogram.rs` explains how.

mod decimal;
mod expose;
mod process;
mod record;

pub use expose::Format;
pub use process::{open_fds, threads};
pub use record::{
    BOUND_MAX_NS, BOUND_MIN_NS, BOUNDS_MAX, Bounds, CloseReason, Labels, Method, Path, Recorder, Status, TraceContext,
};

use expose::Scrape;
use process::Process;
use record::Recorded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The statuses whose series for `GET /` exist from the start. Alerts and dashboards use their rates, and a rate misses
/// the first event of a series that appears only with it.
const INITIAL_STATUSES: [Status; 3] = [Status::OK, Status::INTERNAL_SERVER_ERROR, Status::SERVICE_UNAVAILABLE];

/// The settings of [`Metrics`]. They never change.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bounds of the histogram.
    pub bounds: Bounds,
    /// The gauge `httpserver_max_in_flight`.
    pub max_in_flight: usize,
    /// The gauge `httpserver_concurrency`; 0 is no limit, and no gauge.
    pub concurrency: usize,
    /// The gauges `httpserver_delay_quantile_seconds`: the quantiles [`DELAY_QUANTILES`] of the configured delay.
    pub delay_quantiles: [Duration; DELAY_QUANTILES.len()],
}

/// The quantiles of the configured delay that are exposed, each with its label `q`.
pub const DELAY_QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];

/// All metrics of the process.
pub struct Metrics {
    config: Config,
    process: Process,
    recorded: Arc<Recorded>,
    /// How long requests have waited for a place.
    queued_ns: AtomicU64,
    /// Connections that are stuck.
    stuck: AtomicU64,
    /// Closed connections by reason.
    closed: [AtomicU64; CloseReason::ALL.len()],
}

impl Metrics {
    /// Returns metrics without observations.
    pub fn new(config: Config) -> Metrics {
        let initial = INITIAL_STATUSES.map(|status| Labels {
            method: Method::Get,
            path: Path::Root,
            status,
        });
        Metrics {
            recorded: Arc::new(Recorded::new(&config.bounds, initial)),
            config,
            process: Process::new(),
            queued_ns: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            closed: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Returns a recorder for one thread. Its observations outlive it.
    pub fn recorder(&self) -> Recorder {
        Recorder::new(Arc::clone(&self.recorded))
    }

    /// Counts a connection that the server closed, in `httpserver_connections_closed_total`.
    pub fn connection_closed(&self, reason: CloseReason) {
        self.closed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Sets `httpserver_connections_stuck`.
    pub fn set_stuck(&self, stuck: u64) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Adds the time that a request waited for a place to `httpserver_queue_seconds_total`. After 584 years in total it starts again at 0,
    /// which a scraper takes as a restart.
    pub fn queued(&self, queue_ns: u64) {
        self.queued_ns.fetch_add(queue_ns, Ordering::Relaxed);
    }

    /// Appends the whole exposition to `out`.
    ///
    /// `in_flight` is the number of requests that wait for their responses: the gauge `http_requests_in_flight`.
    ///
    /// Each recorder's part of a series is consistent, and no count is below that of an earlier exposition. Allocates
    /// nothing if `out` has enough capacity.
    pub fn render(&self, format: Format, in_flight: usize, out: &mut Vec<u8>) {
        let scrape = Scrape {
            metrics: self,
            in_flight,
            usage: self.process.usage(),
        };
        expose::render(format, &scrape, out);
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::*;
    use std::time::Instant;

    /// Returns metrics with these bounds, 10,000 requests in flight at most, and a delay of 0 to 2 seconds.
    pub(crate) fn metrics(bounds: &str) -> Metrics {
        Metrics::new(Config {
            bounds: bounds.parse().unwrap(),
            max_in_flight: 10_000,
            concurrency: 0,
            delay_quantiles: DELAY_QUANTILES.map(|(q, _)| Duration::from_secs(2).mul_f64(q)),
        })
    }

    #[test]
    fn the_values_of_the_label_q_are_the_exposed_quantiles() {
        for (q, label) in DELAY_QUANTILES {
            assert_eq!(label.parse(), Ok(q));
        }
    }

    const ROOT_OK: Labels = Labels {
        method: Method::Get,
        path: Path::Root,
        status: Status::OK,
    };
    const UI_MISSING: Labels = Labels {
        method: Method::Head,
        path: Path::Ui,
        status: Status::NOT_FOUND,
    };

    fn exposition(metrics: &Metrics, format: Format) -> String {
        let mut out = Vec::new();
        metrics.render(format, 1, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Returns the lines that depend neither on this process nor on the time.
    fn reproducible(exposition: &str) -> Vec<&str> {
        let varies = |line: &&str| line.contains("process_") || line.starts_with("httpserver_start_time_seconds ");
        exposition.lines().filter(|line| !varies(line)).collect()
    }

    #[test]
    fn the_text_exposition_has_every_line_in_order() {
        let metrics = metrics("0.1,1");
        let mut recorder = metrics.recorder();
        recorder.record(ROOT_OK, 100_000_000, None, Instant::now());
        recorder.record(ROOT_OK, 100_000_001, None, Instant::now());
        recorder.record(UI_MISSING, 5_000_000_000, None, Instant::now());
        metrics.connection_closed(CloseReason::Flood);
        let expected = [
            "# HELP http_request_duration_seconds A histogram of the HTTP request durations in seconds.",
            "# TYPE http_request_duration_seconds histogram",
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="0.1"} 1"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="1"} 2"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="+Inf"} 2"#,
            r#"http_request_duration_seconds_sum{method="GET",path="/",status="200"} 0.200000001"#,
            r#"http_request_duration_seconds_count{method="GET",path="/",status="200"} 2"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="500",le="0.1"} 0"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="500",le="1"} 0"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="500",le="+Inf"} 0"#,
            r#"http_request_duration_seconds_sum{method="GET",path="/",status="500"} 0"#,
            r#"http_request_duration_seconds_count{method="GET",path="/",status="500"} 0"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="503",le="0.1"} 0"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="503",le="1"} 0"#,
            r#"http_request_duration_seconds_bucket{method="GET",path="/",status="503",le="+Inf"} 0"#,
            r#"http_request_duration_seconds_sum{method="GET",path="/",status="503"} 0"#,
            r#"http_request_duration_seconds_count{method="GET",path="/",status="503"} 0"#,
            r#"http_request_duration_seconds_bucket{method="HEAD",path="/ui",status="404",le="0.1"} 0"#,
            r#"http_request_duration_seconds_bucket{method="HEAD",path="/ui",status="404",le="1"} 0"#,
            r#"http_request_duration_seconds_bucket{method="HEAD",path="/ui",status="404",le="+Inf"} 1"#,
            r#"http_request_duration_seconds_sum{method="HEAD",path="/ui",status="404"} 5"#,
            r#"http_request_duration_seconds_count{method="HEAD",path="/ui",status="404"} 1"#,
            "# HELP http_requests_in_flight HTTP requests received and not yet responded to.",
            "# TYPE http_requests_in_flight gauge",
            "http_requests_in_flight 1",
            "# HELP httpserver_max_in_flight The largest number of HTTP requests in flight; more get a 503.",
            "# TYPE httpserver_max_in_flight gauge",
            "httpserver_max_in_flight 10000",
            "# HELP httpserver_connections_closed_total Connections that the server closed, by reason.",
            "# TYPE httpserver_connections_closed_total counter",
            r#"httpserver_connections_closed_total{reason="idle"} 0"#,
            r#"httpserver_connections_closed_total{reason="slow_head"} 0"#,
            r#"httpserver_connections_closed_total{reason="oversized_head"} 0"#,
            r#"httpserver_connections_closed_total{reason="flood"} 1"#,
            r#"httpserver_connections_closed_total{reason="descriptors"} 0"#,
            r#"httpserver_connections_closed_total{reason="threads"} 0"#,
            r#"httpserver_connections_closed_total{reason="refused_body"} 0"#,
            "# HELP httpserver_connections_stuck Connections whose threads and descriptors only the end of the process releases.",
            "# TYPE httpserver_connections_stuck gauge",
            "httpserver_connections_stuck 0",
            "# HELP httpserver_delay_quantile_seconds Quantiles of the configured delay of GET / with status 200.",
            "# TYPE httpserver_delay_quantile_seconds gauge",
            r#"httpserver_delay_quantile_seconds{q="0.5"} 1"#,
            r#"httpserver_delay_quantile_seconds{q="0.9"} 1.8"#,
            r#"httpserver_delay_quantile_seconds{q="0.99"} 1.98"#,
            "# HELP httpserver_build_info The version of the running server.",
            "# TYPE httpserver_build_info gauge",
            concat!("httpserver_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# HELP httpserver_start_time_seconds Start time of the process since unix epoch in seconds, by its clock at the start; it never changes.",
            "# TYPE httpserver_start_time_seconds gauge",
        ];
        assert_eq!(reproducible(&exposition(&metrics, Format::Text004)), expected);
    }

    #[test]
    fn openmetrics_has_its_own_metadata_bounds_exemplars_and_end() {
        let metrics = metrics("0.1,1");
        metrics
            .recorder()
            .record(ROOT_OK, 1_500_000_000, trace(true), Instant::now());
        let exposition = exposition(&metrics, Format::OpenMetrics100);
        let lines = reproducible(&exposition);
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
        for line in [
            "# TYPE httpserver_connections_closed counter",
            "# TYPE httpserver_build info",
            "# UNIT httpserver_start_time_seconds seconds",
        ] {
            assert!(lines.contains(&line), "{line}");
        }
        assert_eq!(lines.last(), Some(&"# EOF"));
        assert!(!exposition.contains("_created"));
    }

    fn trace(is_sampled: bool) -> Option<TraceContext> {
        let flags = u8::from(is_sampled);
        TraceContext::parse(&format!(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags:02x}"
        ))
    }

    #[test]
    fn a_trace_that_is_not_sampled_is_never_exposed() {
        let metrics = metrics("1");
        let exemplar = |is_sampled| {
            metrics
                .recorder()
                .record(ROOT_OK, 500_000_000, trace(is_sampled), Instant::now());
            exposition(&metrics, Format::OpenMetrics100)
        };
        let untraced = exemplar(false);
        assert!(untraced.contains(r##"# {api="/"} 0.5 "##) && !untraced.contains("trace_id"));
        let traced = r##"# {api="/",trace_id="4bf92f3577b34da6a3ce929d0e0e4736",span_id="00f067aa0ba902b7"} 0.5 "##;
        assert!(exemplar(true).contains(traced));
        // It stays across scrapes, whatever is observed in between.
        assert!(exemplar(false).contains(traced));
        assert!(exemplar(false).contains(traced));
    }

    #[test]
    fn the_exemplar_is_the_latest_sampled_trace_of_all_recorders() {
        let metrics = metrics("1");
        let mut recorders = [metrics.recorder(), metrics.recorder(), metrics.recorder()];
        let shown = |id: u64| exposition(&metrics, Format::OpenMetrics100).contains(&format!("trace_id=\"{id:032x}\""));
        for id in 1..=9 {
            let recorder = id as usize % 3;
            let trace = TraceContext::parse(&format!("00-{id:032x}-{id:016x}-01"));
            recorders[recorder].record(ROOT_OK, 1, trace, Instant::now());
            assert!(shown(id));
            std::thread::sleep(Duration::from_millis(2));
            recorders[(recorder + 1) % 3].record(ROOT_OK, 2, None, Instant::now());
            assert!(shown(id) && shown(id));
        }
    }

    #[test]
    fn the_series_that_alerts_use_exist_before_the_first_observation() {
        let exposition = exposition(&metrics("1"), Format::Text004);
        for status in ["200", "500", "503"] {
            let line =
                format!("http_request_duration_seconds_count{{method=\"GET\",path=\"/\",status=\"{status}\"}} 0\n");
            assert!(exposition.contains(&line));
        }
        assert_eq!(exposition.matches("_count{").count(), 3);
    }

    #[test]
    fn observations_outlive_their_recorder_and_its_shard_is_reused() {
        let metrics = metrics("1");
        for _ in 0..3 {
            metrics.recorder().record(ROOT_OK, 1, None, Instant::now());
        }
        assert_eq!(metrics.recorded.shards().list().count(), 1);
        let at_once = [metrics.recorder(), metrics.recorder()];
        assert_eq!(metrics.recorded.shards().list().count(), 2);
        for mut recorder in at_once {
            recorder.record(ROOT_OK, 1, None, Instant::now());
        }
        let total = metrics.recorded.snapshot(ROOT_OK, true);
        assert_eq!((total.counts[0], total.native.unwrap()[0], total.sum_ns), (5, 5, 5));
    }

    #[test]
    fn rendering_appends_and_does_not_grow_a_buffer_with_enough_capacity() {
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
