//! The Prometheus text format. Source: Prometheus's "Exposition formats", section "Text-based format", version 0.0.4.

use super::families::{Family, Kind};
use super::lines::{Dialect, put};
use crate::metrics::decimal;

pub(super) static DIALECT: Dialect = Dialect {
    metadata,
    bound,
    exemplar: None,
    end: "",
};

/// Appends the lines HELP and TYPE ("Comments, help text, and type information").
///
/// The format has no info metrics: by convention they are gauges.
fn metadata(out: &mut Vec<u8>, family: &Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::Info => "gauge",
        Kind::Histogram => "histogram",
    };
    put(out, &["# HELP ", family.name, " ", family.help, "\n"]);
    put(out, &["# TYPE ", family.name, " ", kind, "\n"]);
}

/// Appends a bound as client libraries do: the exact decimal, `1` and not `1.0`.
fn bound(out: &mut Vec<u8>, upper_ns: u64) {
    decimal::seconds(out, u128::from(upper_ns));
}
