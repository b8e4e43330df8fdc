//! The metric families, each described once for all formats. To add one, add it here.

use super::{Label, State, decimal};
use crate::metrics::record::CloseReason;
use std::sync::atomic::Ordering;

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
    One(fn(&State) -> Option<Value>),
    /// A sample for each call, with one label.
    Each(fn(&State, Sample)),
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

/// All families, in the order of the exposition. The first one is the histogram.
pub(super) static FAMILIES: [Family; 14] = [
    Family {
        name: "http_request_duration_seconds",
        kind: Kind::Histogram,
        help: "A histogram of the HTTP request durations in seconds.",
        samples: Samples::Durations,
    },
    Family {
        name: "http_requests_in_flight",
        kind: Kind::Gauge,
        help: "HTTP requests received and not yet responded to.",
        samples: Samples::One(|state| Some(Value::Integer(state.in_flight as u64))),
    },
    Family {
        name: "httpserver_max_in_flight",
        kind: Kind::Gauge,
        help: "The largest number of HTTP requests in flight; more get a 503.",
        samples: Samples::One(|state| Some(Value::Integer(state.metrics.config.max_in_flight as u64))),
    },
    Family {
        name: "httpserver_connections_closed_total",
        kind: Kind::Counter,
        help: "Connections that the server closed, by reason.",
        samples: Samples::Each(|state, sample| {
            for reason in CloseReason::ALL {
                let closed = state.metrics.closed[reason as usize].load(Ordering::Relaxed);
                sample(("reason", reason.as_str()), Value::Integer(closed));
            }
        }),
    },
    Family {
        name: "httpserver_delay_quantile_seconds",
        kind: Kind::Gauge,
        help: "Quantiles of the configured delay of GET / with status 200.",
        samples: Samples::Each(|state, sample| {
            for (q, delay) in ["0.5", "0.9", "0.99"]
                .into_iter()
                .zip(state.metrics.config.delay_quantiles)
            {
                // A delay is at most an hour.
                sample(("q", q), Value::Nanoseconds(delay.as_nanos() as u64));
            }
        }),
    },
    Family {
        name: "httpserver_build_info",
        kind: Kind::Info,
        help: "The version of the running server.",
        samples: Samples::Each(|_, sample| sample(("version", env!("CARGO_PKG_VERSION")), Value::Integer(1))),
    },
    Family {
        name: "httpserver_start_time_seconds",
        kind: Kind::Gauge,
        help: "Start time of the process since unix epoch in seconds, by its clock at the start; it never changes.",
        samples: Samples::One(|state| Some(Value::UnixMilliseconds(state.metrics.started_at_ms()))),
    },
    Family {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        help: "Total user and system CPU time spent in seconds.",
        samples: Samples::One(|state| state.usage.cpu_ns.map(Value::Nanoseconds)),
    },
    Family {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        help: "Resident memory size in bytes.",
        samples: Samples::One(|state| state.usage.resident_memory_bytes.map(Value::Integer)),
    },
    Family {
        name: "process_virtual_memory_bytes",
        kind: Kind::Gauge,
        help: "Virtual memory size in bytes.",
        samples: Samples::One(|state| state.usage.virtual_memory_bytes.map(Value::Integer)),
    },
    Family {
        name: "process_open_fds",
        kind: Kind::Gauge,
        help: "Number of open file descriptors.",
        samples: Samples::One(|state| state.usage.open_fds.map(Value::Integer)),
    },
    Family {
        name: "process_max_fds",
        kind: Kind::Gauge,
        help: "Maximum number of open file descriptors.",
        samples: Samples::One(|state| state.usage.max_fds.map(Value::Integer)),
    },
    Family {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        help: "Start time of the process since unix epoch in seconds.",
        samples: Samples::One(|state| state.usage.start_time_ms.map(Value::UnixMilliseconds)),
    },
    Family {
        name: "process_threads",
        kind: Kind::Gauge,
        help: "Number of OS threads in the process.",
        samples: Samples::One(|state| state.usage.threads.map(Value::Integer)),
    },
];

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
    fn the_values_of_the_label_q_are_the_exposed_quantiles() {
        assert_eq!(
            ["0.5", "0.9", "0.99"].map(|q| q.parse::<f64>().unwrap()),
            crate::metrics::DELAY_QUANTILES
        );
    }

    #[test]
    fn no_help_text_needs_escaping() {
        for family in &FAMILIES {
            assert!(!family.help.contains(['\\', '"', '\n']), "{}", family.name);
        }
    }
}
