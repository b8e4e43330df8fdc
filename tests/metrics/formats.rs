//! /metrics of the running server: the formats that scrapers get, its values compared with /proc, and exemplars in a
//! real Prometheus.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::prometheus::{Prometheus, percent_encoded, scrape_config};
use support::server::{Server, value_of};
use support::wait_for;

#[test]
fn each_scraper_gets_the_best_format_that_it_accepts() {
    let server = Server::start(&[]);
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
        application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.1";
    for (accept, content_type) in [
        (
            protobuf,
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        ),
        (
            "application/openmetrics-text;version=2.0.0;escaping=allow-utf-8;q=0.8,*/*;q=0.7",
            "application/openmetrics-text; version=2.0.0; charset=utf-8",
        ),
        (
            prometheus_3,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        (
            prometheus_2,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("image/png", "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let mut client = server.connect();
        client.request("GET", "/metrics", &[("Accept", accept)]);
        let response = client.receive().unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("Content-Type"), Some(content_type), "{accept}");
        let is_openmetrics = content_type.starts_with("application/openmetrics-text");
        assert_eq!(response.body.ends_with(b"\n# EOF\n"), is_openmetrics, "{accept}");
        client.request("HEAD", "/metrics", &[("Accept", accept)]);
        let response = client.receive_head().unwrap();
        assert_eq!(
            (response.status, response.header("Content-Type")),
            (200, Some(content_type)),
            "{accept}"
        );
    }
}

/// Returns a number from a file of /proc/PID.
fn proc_number(server: &Server, file: &str, find: impl Fn(&str) -> Option<u64>) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    find(&text).unwrap_or_else(|| panic!("not in {file}: {text}"))
}

/// What is exposed was so between two readings of /proc. The tolerances are for what comes and goes in between: the
/// memory of the scrape itself, and the connection that the doorbell opens now and then, with its thread.
#[test]
fn process_metrics_agree_with_proc() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let before_start = now();
    let server = Server::start(&[]);
    let after_start = now();
    let mut client = server.connect();
    // Warm up: what the first scrapes allocate stays.
    for _ in 0..20 {
        client.get("/metrics");
    }
    let read = || {
        [
            // /proc rounds user and system time down to 10 ms each.
            ("process_cpu_seconds_total", server.cpu_time().as_secs_f64(), 0.021),
            ("process_resident_memory_bytes", server.resident_bytes() as f64, 1e6),
            // A thread has megabytes of address space.
            (
                "process_virtual_memory_bytes",
                (server.proc_status("VmSize") * 1024) as f64,
                20e6,
            ),
            ("process_open_fds", server.open_fds() as f64, 6.0),
            ("process_threads", server.proc_status("Threads") as f64, 3.0),
        ]
    };
    let before = read();
    let exposition = client.get("/metrics").text();
    let after = read();
    let value = |name: &str| value_of(&exposition, name).unwrap_or_else(|| panic!("no {name}"));
    for ((name, before, tolerance), (_, after, _)) in before.into_iter().zip(after) {
        let exposed = value(name);
        let range = before.min(after) - tolerance..=before.max(after) + tolerance;
        assert!(
            range.contains(&exposed),
            "{name}: {exposed} exposed, {range:?} in /proc"
        );
    }
    let started = value("process_start_time_seconds");
    // It is rounded down to a millisecond.
    let range = before_start - 0.001..=after_start;
    assert!(range.contains(&started), "started at {started}, not in {range:?}");
    assert_eq!(value("httpserver_start_time_seconds"), started);
    let max_fds = proc_number(&server, "limits", |limits| {
        limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    assert_eq!(value("process_max_fds"), max_fds as f64);
}

#[test]
fn open_descriptors_follow_the_number_of_connections() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut open_fds = || value_of(&client.get("/metrics").text(), "process_open_fds").unwrap();
    let before = open_fds();
    let connections: Vec<_> = (0..50).map(|_| server.connect()).collect();
    // Each connection is two descriptors in the server.
    wait_for("the descriptors of 50 connections", &mut open_fds, |fds| {
        *fds >= before + 90.0
    });
    drop(connections);
    wait_for("them to be closed", &mut open_fds, |fds| *fds <= before + 10.0);
}

/// Returns the exemplars of the buckets that Prometheus has stored.
fn exemplars(prometheus: &Prometheus, labels: &str) -> Vec<Value> {
    let query = format!("http_request_duration_seconds_bucket{labels}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let response = prometheus.api(&format!(
        "/api/v1/query_exemplars?query={}&start={}&end={}",
        percent_encoded(&query),
        now - 600,
        now + 60
    ));
    let series = response["data"].as_array().unwrap().clone();
    series
        .iter()
        .flat_map(|series| series["exemplars"].as_array().unwrap().clone())
        .collect()
}

/// Blocks until Prometheus has stored an exemplar with such labels, and returns it.
fn wait_for_exemplar(prometheus: &Prometheus, series: &str, has: impl Fn(&Value) -> bool) -> Value {
    let is_it = |exemplar: &&Value| has(&exemplar["labels"]);
    let stored = wait_for(
        &format!("an exemplar of {series}"),
        || exemplars(prometheus, series),
        |stored| stored.iter().any(|exemplar| is_it(&exemplar)),
    );
    stored.iter().find(is_it).expect("it was found").clone()
}

#[test]
fn a_real_prometheus_stores_our_exemplars() {
    let server = Server::start(&[]);
    let config = scrape_config(&[server.address]);
    let prometheus = Prometheus::start(&config, &["--enable-feature=exemplar-storage"]);
    let mut client = server.connect();
    let sent: Vec<_> = [("250ms", 0.25), ("800ms", 0.8), ("1600ms", 1.6)]
        .into_iter()
        .enumerate()
        .map(|(place, (delay, seconds))| {
            let (trace_id, span_id) = (format!("{:032x}", 0xabc0 + place), format!("{:016x}", 0xdef0 + place));
            let traceparent = format!("00-{trace_id}-{span_id}-01");
            client.request("GET", &format!("/?delay={delay}"), &[("traceparent", &traceparent)]);
            assert_eq!(client.receive().unwrap().status, 200);
            (trace_id, span_id, seconds)
        })
        .collect();
    let recorded = server.logged(sent.len());
    for ((trace_id, span_id, seconds), line) in sent.into_iter().zip(recorded) {
        let exemplar = wait_for_exemplar(&prometheus, r#"{method="GET",path="/",status="200"}"#, |labels| {
            labels["trace_id"] == *trace_id
        });
        assert_eq!(exemplar["labels"]["api"], "/");
        assert_eq!(exemplar["labels"]["span_id"], *span_id);
        let value: f64 = exemplar["value"].as_str().unwrap().parse().unwrap();
        // The log rounds durations to 1 µs.
        let recorded = line.duration.as_secs_f64();
        assert!(
            value >= seconds && (value - recorded).abs() <= 1e-6,
            "{value} s in the exemplar and {recorded} s in the log for a delay of {seconds} s"
        );
    }
    // A request without a trace has one, too.
    server.get("/healthz");
    let without_trace = serde_json::json!({"api": "/healthz"});
    wait_for_exemplar(&prometheus, r#"{path="/healthz"}"#, |labels| *labels == without_trace);
}
