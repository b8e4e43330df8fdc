//! The metric families, each described once for all formats. To add one, add it here.

use crate::metrics::process::Usage;
use crate::metrics::{CloseReason, DELAY_QUANTILES, Metrics, decimal};
use std::sync::atomic::Ordering;

/// Everything that is exposed, as of one scrape.
pub(crate) struct Scrape<'a> {
    pub metrics: &'a Metrics,
    pub in_flight: usize,
    pub usage: Usage,
}

/// A label's name and value. No value needs escaping.
pub(super) type Label<'a> = (&'a str, &'a str);

/// A metric family.
pub(super) struct Family {
    /// The name of its samples. Those of a histogram add a suffix to it.
    pub name: &'static str,
    pub kind: Kind,
    /// One line without a backslash or a quotation mark, which would need escaping.
    pub help: &'static str,
    pub samples: Samples,
}

impl Family {
    /// Returns the unit at the end of the name, before the suffix of its kind, if it has one.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let base = self.name.strip_suffix(self.kind.suffix())?;
        ["seconds", "bytes"].into_iter().find(|unit| base.ends_with(unit))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Kind {
    /// Returns the suffix that OpenMetrics requires of a sample's name.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }
}

/// Where the samples of a family come from.
pub(super) enum Samples {
    /// Every series of the histogram.
    Durations,
    /// One sample without labels, or none if the value is not available.
    One(fn(&Scrape) -> Option<Value>),
    /// A sample for each call, with one label.
    Each(fn(&Scrape, Sample)),
}

/// Called with a sample's label and value.
type Sample<'a> = &'a mut dyn FnMut(Label, Value);

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Integer(u64),
    /// Exposed as seconds.
    Nanoseconds(u64),
    /// A Unix time, exposed as seconds.
    UnixMilliseconds(u64),
}

impl Value {
    /// Returns the nearest float64.
    pub(super) fn to_f64(self) -> f64 {
        match self {
            Value::Integer(value) => value as f64,
            Value::Nanoseconds(ns) => ns as f64 / 1e9,
            Value::UnixMilliseconds(ms) => ms as f64 / 1e3,
        }
    }

    /// Appends the value as decimal text.
    pub(super) fn append(self, out: &mut Vec<u8>) {
        match self {
            Value::Integer(value) => decimal::integer(out, value),
            Value::Nanoseconds(ns) => decimal::seconds(out, u128::from(ns)),
            Value::UnixMilliseconds(ms) => decimal::timestamp(out, ms),
        }
    }
}

/// All families, in the order of the exposition.
pub(super) static FAMILIES: [Family; 17] = [
    family(
        Kind::Histogram,
        "http_request_duration_seconds",
        "A histogram of the HTTP request durations in seconds.",
        Samples::Durations,
    ),
    gauge(
        "http_requests_in_flight",
        "HTTP requests received and not yet responded to.",
        |scrape| Some(Value::Integer(scrape.in_flight as u64)),
    ),
    gauge(
        "httpserver_max_in_flight",
        "The largest number of HTTP requests in flight; more get a 503.",
        |scrape| Some(Value::Integer(scrape.metrics.config.max_in_flight as u64)),
    ),
    gauge(
        "httpserver_concurrency",
        "The largest number of HTTP requests to / served at a time; the others wait their turn.",
        |scrape| {
            (scrape.metrics.config.concurrency > 0).then_some(Value::Integer(scrape.metrics.config.concurrency as u64))
        },
    ),
    family(
        Kind::Counter,
        "httpserver_queue_seconds_total",
        "Total time that answered HTTP requests to / waited until they were served, in seconds.",
        Samples::One(|scrape| {
            (scrape.metrics.config.concurrency > 0)
                .then(|| Value::Nanoseconds(scrape.metrics.queued_ns.load(Ordering::Relaxed)))
        }),
    ),
    family(
        Kind::Counter,
        "httpserver_connections_closed_total",
        "Connections that the server closed, by reason.",
        Samples::Each(|scrape, sample| {
            for (reason, closed) in CloseReason::ALL.iter().zip(&scrape.metrics.closed) {
                sample(
                    ("reason", reason.as_str()),
                    Value::Integer(closed.load(Ordering::Relaxed)),
                );
            }
        }),
    ),
    gauge(
        "httpserver_connections_stuck",
        "Connections whose threads and descriptors only the end of the process releases.",
        |scrape| Some(Value::Integer(scrape.metrics.stuck.load(Ordering::Relaxed))),
    ),
    family(
        Kind::Gauge,
        "httpserver_delay_quantile_seconds",
        "Quantiles of the configured delay of GET / with status 200.",
        Samples::Each(|scrape, sample| {
            for ((_, q), delay) in DELAY_QUANTILES.into_iter().zip(scrape.metrics.config.delay_quantiles) {
                // A delay is at most an hour.
                sample(("q", q), Value::Nanoseconds(delay.as_nanos() as u64));
            }
        }),
    ),
    family(
        Kind::Info,
        "httpserver_build_info",
        "The version of the running server.",
        Samples::Each(|_, sample| sample(("version", env!("CARGO_PKG_VERSION")), Value::Integer(1))),
    ),
    gauge(
        "httpserver_start_time_seconds",
        "Start time of the process since unix epoch in seconds, by its clock at the start; it never changes.",
        |scrape| Some(Value::UnixMilliseconds(scrape.metrics.process.started_at_ms())),
    ),
    family(
        Kind::Counter,
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        Samples::One(|scrape| scrape.usage.cpu_ns.map(Value::Nanoseconds)),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        |scrape| scrape.usage.resident_memory_bytes.map(Value::Integer),
    ),
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        |scrape| scrape.usage.virtual_memory_bytes.map(Value::Integer),
    ),
    gauge("process_open_fds", "Number of open file descriptors.", |scrape| {
        scrape.usage.open_fds.map(Value::Integer)
    }),
    gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        |scrape| scrape.usage.max_fds.map(Value::Integer),
    ),
    gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        |scrape| Some(Value::UnixMilliseconds(scrape.metrics.process.started_at_ms())),
    ),
    gauge("process_threads", "Number of OS threads in the process.", |scrape| {
        scrape.usage.threads.map(Value::Integer)
    }),
];

/// Returns a gauge of one sample without labels, or none if the value is not available.
const fn gauge(name: &'static str, help: &'static str, value: fn(&Scrape) -> Option<Value>) -> Family {
    family(Kind::Gauge, name, help, Samples::One(value))
}

const fn family(kind: Kind, name: &'static str, help: &'static str, samples: Samples) -> Family {
    Family {
        name,
        kind,
        help,
        samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_ends_in_the_suffix_of_its_kind() {
        for family in &FAMILIES {
            assert!(family.name.ends_with(family.kind.suffix()), "{}", family.name);
        }
    }

    #[test]
    fn no_help_text_needs_escaping() {
        for family in &FAMILIES {
            assert!(!family.help.contains(['\\', '"', '\n']), "{}", family.name);
        }
    }
}
