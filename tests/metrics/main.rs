//! `/metrics`: what each format says of the observations, and what Prometheus makes of it.

mod exposition;
mod formats;
mod native_histograms;
mod promql;
mod replicas;

use support::access_log::{Durations, Line};
use support::prometheus::Prometheus;
use support::wait_for;

/// The series of delayed responses.
const LABELS: &str = r#"{method="GET",path="/",status="200"}"#;

/// Returns the samples of a series that are at most ten minutes old: their times, in Unix time, and their values.
fn samples(prometheus: &Prometheus, series: &str) -> Vec<(f64, f64)> {
    let mut result = prometheus.query(&format!("{series}[10m]"));
    assert!(result.len() <= 1, "{series} is {} series", result.len());
    let Some(series) = result.pop() else {
        return Vec::new();
    };
    let values = series["values"].as_array().expect("samples");
    values
        .iter()
        .map(|pair| {
            let value = pair[1].as_str().and_then(|value| value.parse().ok());
            (pair[0].as_f64().expect("a time"), value.expect("a value"))
        })
        .collect()
}

/// Blocks until Prometheus has a sample that counts so many delayed responses, and returns the time of the sample.
///
/// A query at that time (`@`) finds it, even if a later scrape has timed out and made all series stale.
fn scraped(prometheus: &Prometheus, responses: usize) -> f64 {
    let series = format!("http_request_duration_seconds_count{LABELS}");
    let last = wait_for(
        &format!("{responses} responses to be scraped"),
        || samples(prometheus, &series).last().copied(),
        |last| last.is_some_and(|(_, count)| count == responses as f64),
    );
    last.expect("a sample").0
}

fn durations<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Durations {
    lines.into_iter().map(|line| line.duration).collect()
}
