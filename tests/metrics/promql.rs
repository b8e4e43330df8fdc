//! Compares the results of a real Prometheus with the access log.

use httpserver::metrics::Bounds;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::{LABELS, durations, scraped};
use support::client::load;
use support::prometheus::{Major, Prometheus};
use support::server::Server;
use support::wait_for;

#[test]
fn promql_agrees_with_the_access_log() {
    /// The log rounds durations to 1 µs.
    const ROUNDING_S: f64 = 1e-6;
    const WINDOW_S: f64 = 600.0;
    let server = Server::start(&[]);
    let prometheus = Prometheus::scraping(&[server.address]);
    wait_for("the first scrape", || prometheus.value("up"), |up| *up == Some(1.0));
    let seen = load(server.address, "/", 200, Duration::from_secs(15));
    assert_eq!(seen.lost, 0);
    let recorded = durations(&server.logged(seen.latencies.count()));
    assert_eq!(recorded.count(), seen.latencies.count());

    // The window has the first sample of each series, which is 0, and ends with the last one: `rate` extrapolates nothing.
    let at = scraped(&prometheus, recorded.count());
    let rate =
        |what: &str| format!("sum by (le) (rate(http_request_duration_seconds_{what}{LABELS}[{WINDOW_S}s] @ {at}))");
    let value = |promql: &str| {
        let value = prometheus.value(promql);
        value.unwrap_or_else(|| panic!("no answer to {promql}"))
    };
    let count = value(&rate("count")) * WINDOW_S;
    assert_eq!(count.round(), recorded.count() as f64);
    let mean = value(&format!("{} / {}", rate("sum"), rate("count")));
    assert!(
        (mean - recorded.mean()).abs() <= ROUNDING_S,
        "{mean} by PromQL, {} recorded",
        recorded.mean()
    );
    let buckets = prometheus.query(&rate("bucket"));
    assert_eq!(buckets.len(), 13, "{buckets:?}");
    for bucket in buckets {
        let [bound, rate] = [&bucket["metric"]["le"], &bucket["value"][1]].map(|number| {
            number
                .as_str()
                .and_then(|number| number.parse::<f64>().ok())
                .expect("a number")
        });
        let count = (rate * WINDOW_S).round() as usize;
        let within = recorded.at_most(bound - ROUNDING_S)..=recorded.at_most(bound + ROUNDING_S);
        assert!(
            within.contains(&count),
            "le {bound}: {count} by PromQL, {within:?} recorded"
        );
    }
    for q in [0.5, 0.9, 0.99] {
        let estimate = value(&format!("histogram_quantile({q}, {})", rate("bucket")));
        recorded.assert_estimate("all requests", estimate, q, Bounds::default().upper_ns());
    }
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
