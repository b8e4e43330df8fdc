//! The access log: what the server recorded, request by request.
//!
//! A test that checks an estimate takes the truth from here. The clients of a test measure with clocks of their own, and see how
//! long the machine made them wait, too.

use std::time::{Duration, SystemTime};

/// The relative error allowed in a quantile that is estimated from buckets.
const TOLERANCE: f64 = 0.05;

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// When the request was recorded, with a precision of 1 ms.
    pub at: SystemTime,
    pub method: String,
    /// The route, as in the exposition.
    pub path: String,
    pub status: u16,
    /// The duration that the histogram has, with a precision of 1 µs.
    pub duration: Duration,
    /// How much of that it waited to be served, with a precision of 1 µs, if there is a limit on concurrency.
    pub queue: Option<Duration>,
}

/// Returns the lines of a log. Panics if the server dropped some, since their requests would be missing from the truth.
pub fn parse(log: &str) -> Vec<Line> {
    log.lines().map(line).collect()
}

fn line(text: &str) -> Line {
    let optional = |name: &str| {
        let mut fields = text.split(' ').filter_map(|field| field.split_once('='));
        Some(fields.find(|(field, _)| *field == name)?.1)
    };
    let field = |name: &str| optional(name).unwrap_or_else(|| panic!("no {name} in {text:?}"));
    let duration = |text: &str| {
        let seconds = text.strip_suffix('s').expect("a duration in seconds");
        Duration::from_secs_f64(seconds.parse().expect("a number of seconds"))
    };
    Line {
        at: humantime::parse_rfc3339(field("ts")).expect("a time"),
        method: field("method").to_owned(),
        path: field("path").to_owned(),
        status: field("status").parse().expect("a status"),
        duration: duration(field("duration")),
        queue: optional("queue").map(duration),
    }
}

/// Durations in ascending order, whether recorded by the server or measured by clients.
#[derive(Clone, Debug, Default)]
pub struct Durations(Vec<Duration>);

impl FromIterator<Duration> for Durations {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Durations {
        let mut durations: Vec<Duration> = durations.into_iter().collect();
        durations.sort_unstable();
        Durations(durations)
    }
}

impl Durations {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns how many are at most a number of seconds, as a bucket with that bound counts.
    pub fn at_most(&self, seconds: f64) -> usize {
        self.0.partition_point(|duration| duration.as_secs_f64() <= seconds)
    }

    /// Returns a quantile, in seconds.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1].as_secs_f64()
    }

    /// Asserts that an estimate of a quantile is close to it, if it was made from buckets with these bounds, in nanoseconds.
    pub fn assert_estimate(&self, what: &str, estimate: f64, q: f64, upper_ns: &[u64]) {
        let truth = self.quantile(q);
        // What is above the largest bound is estimated as that bound.
        let largest = *upper_ns.last().expect("a bound") as f64 / 1e9;
        let expected = truth.min(largest);
        let bucket = |seconds: f64| upper_ns.partition_point(|&ns| (ns as f64 / 1e9) < seconds);
        let line = format!("{what}, quantile {q}: {estimate:.4} s estimated, {truth:.4} s recorded");
        println!("{line}");
        let is_close = (estimate / expected - 1.0).abs() <= TOLERANCE;
        // On a busy machine the answers to the longest delays take more than 2 s. The bucket above is wide and has few of
        // them, so there the bucket is all that an estimate can be right about.
        assert!(is_close || q > 0.95 && bucket(estimate) == bucket(expected), "{line}");
    }

    /// Returns the mean, in seconds.
    pub fn mean(&self) -> f64 {
        self.sum() / self.0.len() as f64
    }

    /// Returns the sum, in seconds.
    pub fn sum(&self) -> f64 {
        self.0.iter().sum::<Duration>().as_secs_f64()
    }
}
