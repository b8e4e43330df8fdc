//! What OpenMetrics says in its own way. Source: the OpenMetrics 1.0 specification, by its section names;
//! version 0.0.1 is its draft and reads the same page.

use super::decimal;
use super::exemplar::Exemplar;
use super::families::{Family, Kind};

/// Appends the lines TYPE, UNIT and HELP, in this order ("MetricFamily metadata"). They name the family.
pub(super) fn metadata(page: &mut Vec<u8>, family: &Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    };
    for part in ["# TYPE ", family.name, " ", kind, "\n"] {
        page.extend_from_slice(part.as_bytes());
    }
    if !family.unit.is_empty() {
        for part in ["# UNIT ", family.name, " ", family.unit, "\n"] {
            page.extend_from_slice(part.as_bytes());
        }
    }
    for part in ["# HELP ", family.name, " ", family.help, "\n"] {
        page.extend_from_slice(part.as_bytes());
    }
}

/// Appends a bound as the value of a label `le` ("Considerations: Canonical Numbers"): the exact decimal, always
/// recognisable as a float, with an exponent below 0.0001. Bounds end far below 10^6, where exponents begin again.
pub(super) fn bound(page: &mut Vec<u8>, upper_ns: u64) {
    if upper_ns >= 100_000 {
        decimal::seconds(page, u128::from(upper_ns));
        if upper_ns.is_multiple_of(decimal::NS_PER_SECOND) {
            page.extend_from_slice(b".0");
        }
        return;
    }
    let start = page.len();
    decimal::integer(page, upper_ns);
    // 12300 is 1.23e-05: of n digits the first counts 10^(n - 10) seconds.
    let exponent = 10 - (page.len() - start);
    while page.len() > start + 1 && page.last() == Some(&b'0') {
        page.pop();
    }
    if page.len() > start + 1 {
        page.insert(start + 1, b'.');
    }
    page.extend_from_slice(b"e-0");
    decimal::integer(page, exponent as u64);
}

/// Appends an exemplar after a bucket's value ("Exemplars"): its labels, value and time.
///
/// The labels have at most 74 characters together where 128 are allowed.
pub(super) fn exemplar(page: &mut Vec<u8>, api: &str, exemplar: &Exemplar) {
    page.extend_from_slice(b" # {api=\"");
    page.extend_from_slice(api.as_bytes());
    if let Some(trace) = exemplar.trace {
        page.extend_from_slice(b"\",trace_id=\"");
        hex(page, (trace.trace_id() >> 64) as u64);
        hex(page, trace.trace_id() as u64);
        page.extend_from_slice(b"\",span_id=\"");
        hex(page, trace.span_id());
    }
    page.extend_from_slice(b"\"} ");
    decimal::seconds(page, u128::from(exemplar.duration_ns));
    page.push(b' ');
    decimal::timestamp(page, exemplar.timestamp_ms);
}

/// Appends the last line ("Overall Structure").
pub(super) fn eof(page: &mut Vec<u8>) {
    page.extend_from_slice(b"# EOF\n");
}

fn hex(page: &mut Vec<u8>, value: u64) {
    for place in (0..16).rev() {
        let digit = (value >> (4 * place)) as u8 & 0xf;
        page.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{families, traceparent::TraceContext};
    use super::*;

    #[test]
    fn metadata_names_the_family_and_its_unit() {
        let mut page = Vec::new();
        metadata(&mut page, &families::CPU);
        metadata(&mut page, &families::BUILD);
        assert_eq!(
            str::from_utf8(&page).unwrap(),
            "# TYPE process_cpu_seconds counter\n\
             # UNIT process_cpu_seconds seconds\n\
             # HELP process_cpu_seconds Total user and system CPU time spent in seconds.\n\
             # TYPE httpserver_build info\n\
             # HELP httpserver_build The version of the running server.\n"
        );
    }

    #[test]
    fn bounds_are_canonical() {
        for (upper_ns, expected) in [
            (1, "1e-09"),
            (10, "1e-08"),
            (12_345, "1.2345e-05"),
            (99_999, "9.9999e-05"),
            (100_000, "0.0001"),
            (150_000_000, "0.15"),
            (1_000_000_000, "1.0"),
            (10_000_000_000, "10.0"),
            (2_500_000_000, "2.5"),
            (100_000_000_000_000, "100000.0"),
        ] {
            let mut page = Vec::new();
            bound(&mut page, upper_ns);
            assert_eq!(str::from_utf8(&page).unwrap(), expected);
        }
    }

    #[test]
    fn an_exemplar_tells_api_trace_value_and_time() {
        let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let mut page = Vec::new();
        exemplar(
            &mut page,
            "/",
            &Exemplar {
                duration_ns: 67_000_000,
                timestamp_ms: 1_520_879_607_789,
                trace,
            },
        );
        exemplar(
            &mut page,
            "/ui",
            &Exemplar {
                duration_ns: 1,
                timestamp_ms: 0,
                trace: None,
            },
        );
        assert_eq!(
            str::from_utf8(&page).unwrap(),
            " # {api=\"/\",trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\",span_id=\"00f067aa0ba902b7\"} 0.067 \
             1520879607.789 # {api=\"/ui\"} 0.000000001 0.000"
        );
    }
}
