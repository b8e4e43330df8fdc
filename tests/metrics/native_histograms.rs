//! Native histograms, start timestamps and exemplars in a real Prometheus 3, through both formats that have them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{LABELS, durations, samples, scraped};
use support::client::{Client, load};
use support::prometheus::{Prometheus, free_address};
use support::server::Server;
use support::wait_for;

/// How much wider a native bucket is than the one below: 2^(1/8), rounded up.
const BUCKET_GROWTH: f64 = 1.0906;

/// The five bounds of the Go program. None is above 0.51 s.
const FIVE_BUCKETS: [&str; 2] = ["--buckets", "exponential:0.1,1.5,5"];

/// A format that Prometheus is configured to scrape.
#[derive(Clone, Copy, Debug)]
enum Format {
    Protobuf,
    OpenMetrics2,
}

impl Format {
    /// Starts a Prometheus that scrapes the target every second, with native and classic histograms.
    fn prometheus(self, target: SocketAddr) -> Prometheus {
        let (protocols, features) = match self {
            Format::Protobuf => ("", "created-timestamp-zero-ingestion,exemplar-storage"),
            Format::OpenMetrics2 => (
                "  scrape_protocols: [OpenMetricsText2.0.0]\n",
                "created-timestamp-zero-ingestion,exemplar-storage,openmetrics2",
            ),
        };
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n- job_name: httpserver\n\
             \x20 scrape_native_histograms: true\n  always_scrape_classic_histograms: true\n{protocols}\
             \x20 static_configs:\n  - targets: ['{target}']\n"
        );
        Prometheus::start(&config, &[&format!("--enable-feature={features}")])
    }
}

fn wait_for_scrape(prometheus: &Prometheus) {
    wait_for("the first scrape", || prometheus.value("up"), |up| *up == Some(1.0));
}

#[test]
fn quantiles_of_native_histograms_are_right_when_those_of_five_classic_buckets_are_wrong() {
    let server = Server::start(&FIVE_BUCKETS);
    let formats = [Format::Protobuf, Format::OpenMetrics2].map(|format| (format, format.prometheus(server.address)));
    formats.iter().for_each(|(_, prometheus)| wait_for_scrape(prometheus));
    let seen = load(server.address, "/", 200, Duration::from_secs(12));
    assert_eq!(seen.lost, 0);
    let recorded = durations(&server.logged(seen.latencies.count()));
    for (format, prometheus) in &formats {
        let at = scraped(prometheus, recorded.count());
        for (q, configured) in [(0.5, 1.0), (0.9, 1.8), (0.99, 1.98)] {
            let native =
                format!(r#"histogram_quantile({q}, sum(rate(http_request_duration_seconds{{path="/"}}[10m] @ {at})))"#);
            let classic = format!(
                r#"histogram_quantile({q}, sum by (le) (rate(http_request_duration_seconds_bucket{{path="/"}}[10m] @ {at})))"#
            );
            let gauge = format!(r#"httpserver_delay_quantile_seconds{{q="{q}"}} @ {at}"#);
            let [native, classic, gauge] = [native, classic, gauge].map(|promql| {
                let value = prometheus.value(&promql);
                value.unwrap_or_else(|| panic!("no answer to {promql}"))
            });
            let truth = recorded.quantile(q);
            let line =
                format!("{format:?}, p{q}: native {native:.4}, five classic buckets {classic:.4}, recorded {truth:.4}");
            println!("{line}");
            assert!((native / truth).max(truth / native) <= BUCKET_GROWTH, "{line}");
            assert_eq!((classic, gauge), (0.50625, configured));
        }
        // In each scrape, both kinds of buckets describe the same observations.
        let native = format!("histogram_count(http_request_duration_seconds{LABELS})");
        let classic = format!("http_request_duration_seconds_count{LABELS}");
        let scrapes = prometheus.value(&format!("count_over_time(({native})[10m:1s] @ {at})"));
        let different = prometheus.query(&format!("({native} != ignoring (__name__) {classic})[10m:1s] @ {at}"));
        assert!(
            scrapes >= Some(5.0) && different.is_empty(),
            "{scrapes:?}: {different:?}"
        );
    }
}

/// Delays of three shapes: the flags and the configured quantiles 0.5, 0.9 and 0.99.
const SHAPES: [(&str, &[&str], [f64; 3]); 3] = [
    ("0 to 2 s", &[], [1.0, 1.8, 1.98]),
    (
        "long tail",
        &["--delay-quantiles", "0.5=80ms,0.9=300ms,0.99=1.5s"],
        [0.08, 0.3, 1.5],
    ),
    ("always 1 s", &["--delay-min", "1s", "--delay-max", "1s"], [1.0; 3]),
];

/// Prints the table of docs/histograms.md. All estimates are of the same requests, which the access log has too: so
/// neither chance, which moves a quantile of a long tail, nor a busy machine is part of an error.
#[test]
fn native_histograms_are_within_a_bucket_of_what_the_server_recorded_whatever_the_shape() {
    let running = SHAPES.map(|(_, flags, _)| {
        let server = Server::start(flags);
        let prometheus = Format::Protobuf.prometheus(server.address);
        wait_for_scrape(&prometheus);
        (server, prometheus)
    });
    let answered = std::thread::scope(|scope| {
        let loads = running
            .each_ref()
            .map(|(server, _)| scope.spawn(|| load(server.address, "/", 200, Duration::from_secs(15))));
        loads.map(|load| {
            let seen = load.join().unwrap();
            assert_eq!(seen.lost, 0);
            seen.latencies.count()
        })
    });
    println!("| delay | quantile | configured | recorded | five buckets | twelve buckets | native |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (((shape, _, configured), (server, prometheus)), answered) in SHAPES.into_iter().zip(&running).zip(answered) {
        let recorded = durations(&server.logged(answered));
        let at = scraped(prometheus, recorded.count());
        for (q, configured) in ["0.5", "0.9", "0.99"].into_iter().zip(configured) {
            let gauge = format!(r#"httpserver_delay_quantile_seconds{{q="{q}"}} @ {at}"#);
            assert_eq!(prometheus.value(&gauge), Some(configured));
            let truth = recorded.quantile(q.parse().unwrap());
            let [five, twelve, native] = [
                r#"_bucket{path="/",status="200",le=~"0.1|0.15|0.225|0.3375|0.50625|[+]Inf"}"#,
                r#"_bucket{path="/",status="200"}"#,
                r#"{path="/",status="200"}"#,
            ]
            .map(|series| {
                let promql = format!("histogram_quantile({q}, http_request_duration_seconds{series} @ {at})");
                let estimate = prometheus.value(&promql);
                estimate.unwrap_or_else(|| panic!("no answer to {promql}"))
            });
            // Not -0.
            let error = |estimate: f64| ((estimate / truth - 1.0) * 100.0).round() + 0.0;
            let cell = |estimate: f64| format!("{estimate:.3} ({:+} %)", error(estimate));
            println!(
                "| {shape} | {q} | {configured} | {truth:.3} | {} | {} | {} |",
                cell(five),
                cell(twelve),
                cell(native)
            );
            assert!(
                (native / truth).max(truth / native) <= BUCKET_GROWTH,
                "{shape}, {q}: {native} by PromQL, {truth} recorded"
            );
            assert_eq!(five == 0.50625, truth > 0.50625, "{shape}, {q}: {five}");
        }
    }
}

/// Returns the increase of a counter like `increase`, but without extrapolation: from its first sample, and from zero
/// after each reset.
fn increase(samples: &[f64]) -> f64 {
    let steps = samples.windows(2);
    steps
        .map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] })
        .sum()
}

fn a_restart_in_a_burst_loses_nothing(format: Format) {
    let address = free_address();
    let listen = address.to_string();
    let start = || Server::spawn(support::server::command(&["--listen", &listen, "--delay-max", "0s"]));
    let burst = |requests: usize| {
        let mut client = Client::connect(address);
        (0..requests).for_each(|_| assert_eq!(client.get("/").status, 200));
    };
    let first = start();
    // Before the first scrape: only a start timestamp gives this burst a zero to count from.
    burst(40);
    let prometheus = format.prometheus(address);
    scraped(&prometheus, 40);
    // The second process counts more than the first one did before it is scraped. Without start timestamps this would
    // look like one process, and the second's first 40 requests would be lost.
    drop(first);
    let _second = start();
    burst(60);
    scraped(&prometheus, 60);
    let counts = samples(&prometheus, &format!("http_request_duration_seconds_count{LABELS}"));
    let samples: Vec<f64> = counts.into_iter().map(|(_, count)| count).collect();
    println!("{format:?}: {samples:?}");
    assert_eq!(increase(&samples), 100.0);
    let native_resets = r#"resets(http_request_duration_seconds{path="/",status="200"}[10m])"#;
    assert_eq!(prometheus.value(native_resets), Some(1.0));
}

#[test]
fn a_restart_in_a_burst_loses_nothing_with_protobuf() {
    a_restart_in_a_burst_loses_nothing(Format::Protobuf);
}

#[test]
fn a_restart_in_a_burst_loses_nothing_with_openmetrics_2() {
    a_restart_in_a_burst_loses_nothing(Format::OpenMetrics2);
}

#[test]
fn both_formats_have_sampled_exemplars() {
    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for format in [Format::Protobuf, Format::OpenMetrics2] {
        let server = Server::start(&["--delay-max", "10ms"]);
        let prometheus = format.prometheus(server.address);
        let mut client = Client::connect(server.address);
        client.request("GET", "/", &[("traceparent", TRACEPARENT)]);
        assert_eq!(client.receive().unwrap().status, 200);
        let exemplar = wait_for(
            "the exemplar",
            || {
                // A request without a trace never replaces it.
                server.get("/");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                let target = format!(
                    "/api/v1/query_exemplars?query=http_request_duration_seconds_bucket&start={}&end={}",
                    now - 600,
                    now + 60
                );
                let series = prometheus.api(&target)["data"].as_array().cloned().unwrap_or_default();
                let mut exemplars = series
                    .iter()
                    .filter_map(|series| series["exemplars"].as_array())
                    .flatten();
                exemplars
                    .find(|exemplar| exemplar["labels"]["trace_id"].is_string())
                    .cloned()
            },
            Option::is_some,
        );
        let exemplar = exemplar.expect("it was found");
        assert_eq!(
            exemplar["labels"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736",
            "{format:?}"
        );
        assert_eq!(exemplar["labels"]["span_id"], "00f067aa0ba902b7");
        assert_eq!(exemplar["labels"]["api"], "/");
    }
}
