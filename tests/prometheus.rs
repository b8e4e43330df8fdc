//! Compares the results of a real Prometheus with what the clients measured.

mod support;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use support::client::load;
use support::prometheus::{Major, Prometheus};
use support::server::Server;
use support::wait_for;

/// The relative difference allowed between Prometheus and the clients.
const TOLERANCE: f64 = 0.05;

#[test]
fn promql_agrees_with_the_clients() {
    let server = Server::start(&[]);
    let prometheus = Prometheus::scraping(&[server.address]);
    wait_for("the first scrape", Duration::from_secs(10), || {
        (prometheus.value("up")? == 1.0).then_some(())
    });
    let seen = load(server.address, "/", 200, Duration::from_secs(30));
    assert_eq!(seen.lost, 0);
    // The window ends within the load and leaves out its first cycle.
    let series = r#"http_request_duration_seconds"#;
    let labels = r#"{method="GET",path="/",status="200"}"#;
    let within = |what: &str, promql: String, truth: f64| {
        let result = prometheus
            .value(&promql)
            .unwrap_or_else(|| panic!("no result for {promql}"));
        println!("{what}: PromQL {result:.4}, clients {truth:.4}");
        assert!(
            (result / truth - 1.0).abs() <= TOLERANCE,
            "{what}: PromQL {result}, clients {truth}"
        );
    };
    for (what, q) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let buckets = format!("sum by (le) (rate({series}_bucket{labels}[25s] offset 3s))");
        within(what, format!("histogram_quantile({q}, {buckets})"), seen.quantile(q));
    }
    within(
        "rate",
        format!("sum(rate({series}_count{labels}[25s] offset 3s))"),
        200.0 / mean(&seen.latencies),
    );
    within(
        "mean",
        format!("sum(rate({series}_sum{labels}[25s] offset 3s)) / sum(rate({series}_count{labels}[25s] offset 3s))"),
        mean(&seen.latencies),
    );
    // Nothing is lost: once the load has ended, the counter equals the clients' count.
    let answered = seen.latencies.len() as f64;
    wait_for("the last scrape", Duration::from_secs(5), || {
        (prometheus.value(&format!("{series}_count{labels}"))? == answered).then_some(())
    });
}

fn mean(latencies: &[Duration]) -> f64 {
    latencies.iter().sum::<Duration>().as_secs_f64() / latencies.len() as f64
}

#[test]
fn promtool_has_no_complaint_about_the_exposition() {
    let server = Server::start(&["--delay-max", "10ms"]);
    for target in ["/", "/?status=503", "/nothing", "/healthz", "/?x"] {
        server.get(target);
    }
    let file = std::env::temp_dir().join(format!("httpserver-exposition-{}", server.address.port()));
    fs::write(&file, server.metrics()).unwrap();
    let output = Major::Three
        .promtool()
        .args(["check", "metrics"])
        .stdin(Stdio::from(fs::File::open(&file).unwrap()))
        .output()
        .expect("promtool starts");
    fs::remove_file(&file).unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.is_empty(), "{printed}");
}
