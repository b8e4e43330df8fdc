//! What the Prometheus text format says in its own way. Source: Prometheus' "Exposition formats", section
//! "Text-based format", version 0.0.4; version 1.0.0 differs only in names that ours are not.

use super::decimal;
use super::families::{Family, Kind};

/// Appends the lines HELP and TYPE ("Comments, help text, and type information").
///
/// They name the sample, which for a counter has its suffix. The format knows no info metrics; such a one is a
/// gauge by convention.
pub(super) fn metadata(page: &mut Vec<u8>, family: &Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::Info => "gauge",
        Kind::Histogram => "histogram",
    };
    let suffix = family.kind.suffix();
    for part in [
        "# HELP ",
        family.name,
        suffix,
        " ",
        family.help,
        "\n# TYPE ",
        family.name,
        suffix,
        " ",
        kind,
        "\n",
    ] {
        page.extend_from_slice(part.as_bytes());
    }
}

/// Appends a bound as the value of a label `le`: the exact decimal, `1` and not `1.0`, as client libraries do.
pub(super) fn bound(page: &mut Vec<u8>, upper_ns: u64) {
    decimal::seconds(page, u128::from(upper_ns));
}

#[cfg(test)]
mod tests {
    use super::super::families;
    use super::*;

    #[test]
    fn metadata_names_the_sample() {
        let mut page = Vec::new();
        metadata(&mut page, &families::CPU);
        metadata(&mut page, &families::BUILD);
        assert_eq!(
            str::from_utf8(&page).unwrap(),
            "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n\
             # TYPE process_cpu_seconds_total counter\n\
             # HELP httpserver_build_info The version of the running server.\n\
             # TYPE httpserver_build_info gauge\n"
        );
    }
}
