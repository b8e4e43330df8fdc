//! The metric families of the page: what both formats say of each.

/// A metric family's metadata.
#[derive(Debug)]
pub(super) struct Family {
    /// The name without the suffixes of its samples: OpenMetrics 1.0, "Suffixes".
    pub name: &'static str,
    pub kind: Kind,
    /// The unit that the name ends in; empty where there is none.
    pub unit: &'static str,
    /// One line without a backslash or a quotation mark, which would need escaping.
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Kind {
    /// What the one sample of a metric has after the family's name; a histogram's samples each have their own.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }
}

pub(super) const REQUEST_DURATION: Family = Family {
    name: "http_request_duration_seconds",
    kind: Kind::Histogram,
    unit: "seconds",
    help: "A histogram of the HTTP request durations in seconds.",
};

pub(super) const REQUESTS_IN_FLIGHT: Family = Family {
    name: "http_requests_in_flight",
    kind: Kind::Gauge,
    unit: "",
    help: "HTTP requests taken and not yet answered.",
};

pub(super) const BUILD: Family = Family {
    name: "httpserver_build",
    kind: Kind::Info,
    unit: "",
    help: "The version of the running server.",
};

pub(super) const CPU: Family = Family {
    name: "process_cpu_seconds",
    kind: Kind::Counter,
    unit: "seconds",
    help: "Total user and system CPU time spent in seconds.",
};

pub(super) const RESIDENT_MEMORY: Family = Family {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    unit: "bytes",
    help: "Resident memory size in bytes.",
};

pub(super) const VIRTUAL_MEMORY: Family = Family {
    name: "process_virtual_memory_bytes",
    kind: Kind::Gauge,
    unit: "bytes",
    help: "Virtual memory size in bytes.",
};

pub(super) const OPEN_FDS: Family = Family {
    name: "process_open_fds",
    kind: Kind::Gauge,
    unit: "",
    help: "Number of open file descriptors.",
};

pub(super) const MAX_FDS: Family = Family {
    name: "process_max_fds",
    kind: Kind::Gauge,
    unit: "",
    help: "Maximum number of open file descriptors.",
};

pub(super) const START_TIME: Family = Family {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    unit: "seconds",
    help: "Start time of the process since unix epoch in seconds.",
};

pub(super) const THREADS: Family = Family {
    name: "process_threads",
    kind: Kind::Gauge,
    unit: "",
    help: "Number of OS threads in the process.",
};
