//! OpenMetrics 1.0.0. Source: its specification, whose sections are cited by name.

use super::encoder::with_exemplar_labels;
use super::families::{Family, Kind};
use super::lines::{Dialect, put, put_labels};
use crate::metrics::decimal;
use crate::metrics::record::Exemplar;

pub(super) static DIALECT: Dialect = Dialect {
    metadata,
    bound,
    exemplar: Some(exemplar),
    end: "# EOF\n",
};

/// Appends the lines TYPE, UNIT and HELP, in this order ("MetricFamily metadata"). The name of the family lacks the
/// suffix of its samples ("Suffixes").
fn metadata(out: &mut Vec<u8>, family: &Family) {
    let suffix = family.kind.suffix();
    put_metadata(out, family, family.name.strip_suffix(suffix).unwrap_or(family.name));
}

/// Appends the metadata of a family under the given name.
pub(super) fn put_metadata(out: &mut Vec<u8>, family: &Family, name: &str) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    };
    put(out, &["# TYPE ", name, " ", kind, "\n"]);
    if let Some(unit) = family.unit() {
        put(out, &["# UNIT ", name, " ", unit, "\n"]);
    }
    put(out, &["# HELP ", name, " ", family.help, "\n"]);
}

/// Appends a bound ("Considerations: Canonical Numbers"): the exact decimal, recognizable as a float. No bound is so small
/// or so large that its canonical form has an exponent.
pub(super) fn bound(out: &mut Vec<u8>, upper_ns: u64) {
    decimal::seconds(out, u128::from(upper_ns));
    if upper_ns.is_multiple_of(decimal::NS_PER_SECOND) {
        out.extend_from_slice(b".0");
    }
}

/// Appends an exemplar ("Exemplars"): its labels, value and timestamp.
///
/// The labels have at most 74 characters together; 128 are allowed.
pub(super) fn exemplar(out: &mut Vec<u8>, path: &str, exemplar: &Exemplar) {
    put(out, &[" # "]);
    with_exemplar_labels(path, exemplar, |labels| put_labels(out, labels));
    put(out, &[" "]);
    decimal::seconds(out, u128::from(exemplar.duration_ns));
    put(out, &[" "]);
    decimal::timestamp(out, exemplar.timestamp_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::record::{BOUND_MAX_NS, BOUND_MIN_NS, TraceContext};

    #[test]
    fn bounds_are_canonical() {
        for (upper_ns, expected) in [
            (BOUND_MIN_NS, "0.0001"),
            (123_450, "0.00012345"),
            (150_000_000, "0.15"),
            (1_000_000_000, "1.0"),
            (10_000_000_000, "10.0"),
            (2_500_000_000, "2.5"),
            (BOUND_MAX_NS, "100000.0"),
        ] {
            let mut out = Vec::new();
            bound(&mut out, upper_ns);
            assert_eq!(str::from_utf8(&out).unwrap(), expected);
        }
    }

    #[test]
    fn an_exemplar_has_api_trace_value_and_timestamp() {
        let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let mut out = Vec::new();
        exemplar(
            &mut out,
            "/",
            &Exemplar {
                duration_ns: 67_000_000,
                timestamp_ms: 1_520_879_607_789,
                trace,
            },
        );
        exemplar(
            &mut out,
            "/ui",
            &Exemplar {
                duration_ns: 1,
                timestamp_ms: 0,
                trace: None,
            },
        );
        assert_eq!(
            str::from_utf8(&out).unwrap(),
            " # {api=\"/\",trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\",span_id=\"00f067aa0ba902b7\"} 0.067 \
             1520879607.789 # {api=\"/ui\"} 0.000000001 0.000"
        );
    }
}
