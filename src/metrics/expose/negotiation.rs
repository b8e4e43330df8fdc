//! Chooses the format of an exposition by the Accept header (RFC 9110, section 12.5.1), with the media types of
//! Prometheus's "Scrape protocol content negotiation".
//!
//! Prometheus 3 also sends a parameter `escaping`, which says how to escape names outside the legacy character set. It
//! is ignored: all our names are within that set, and such names are left as they are for every scheme, as client
//! libraries leave them. No version of Prometheus reads the parameter in a response.

/// The largest number of media ranges that are considered. Those after them are ignored.
const RANGES_MAX: usize = 64;

/// An exposition format. If a scraper rates several formats equally, the first of them in this order is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// The Prometheus protobuf format: length-delimited messages.
    Protobuf,
    /// OpenMetrics 2.0.0, which is experimental.
    OpenMetrics200,
    /// OpenMetrics 1.0.0.
    OpenMetrics100,
    /// The Prometheus text format, version 0.0.4.
    Text004,
}

impl Format {
    /// All formats, in order of preference.
    pub const ALL: [Format; 4] = [
        Format::Protobuf,
        Format::OpenMetrics200,
        Format::OpenMetrics100,
        Format::Text004,
    ];

    /// Returns the format that the client rates highest.
    ///
    /// A client that names no format, because it sends no Accept header or `*/*`, may understand only the oldest, so it
    /// gets text 0.0.4, or the oldest other format if it refuses text with `q=0`. A client that accepts none of the formats
    /// gets text 0.0.4, too.
    ///
    /// `accept` is the value of the header; the values of several lines are joined by commas. Any text is valid: a
    /// malformed range is ignored.
    pub fn negotiate(accept: Option<&str>) -> Format {
        // The quality of each format that a range names, and of those that none does.
        let (mut named, mut unnamed) = ([None; Format::ALL.len()], None);
        let ranges = accept.unwrap_or_default().split(',').take(RANGES_MAX);
        for (format, quality) in ranges.filter_map(parse_range) {
            let rated = format.map_or(&mut unnamed, |format| &mut named[format as usize]);
            *rated = (*rated).max(Some(quality));
        }
        let text = Format::Text004 as usize;
        named[text] = named[text].or(unnamed);
        let best = named.into_iter().max().flatten();
        let mut formats = Format::ALL.into_iter();
        let chosen = if best > Some(0) {
            formats.find(|format| named[*format as usize] == best)
        } else {
            formats.rfind(|format| unnamed > Some(0) && named[*format as usize].is_none())
        };
        chosen.unwrap_or(Format::Text004)
    }

    /// Returns the Content-Type of a response in this format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Format::OpenMetrics200 => "application/openmetrics-text; version=2.0.0; charset=utf-8",
            Format::OpenMetrics100 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text004 => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Returns the format of a media type with these parameters.
    ///
    /// A missing version means the oldest.
    fn find(media_type: &str, parameters: &Parameters) -> Option<Format> {
        match (media_type, parameters.version) {
            ("text/*", _) | ("text/plain", None | Some("0.0.4")) => Some(Format::Text004),
            ("application/openmetrics-text", None | Some("1.0.0")) => Some(Format::OpenMetrics100),
            ("application/openmetrics-text", Some("2.0.0")) => Some(Format::OpenMetrics200),
            ("application/vnd.google.protobuf", _)
                if parameters.proto == Some("io.prometheus.client.MetricFamily")
                    && parameters.encoding == Some("delimited") =>
            {
                Some(Format::Protobuf)
            }
            _ => None,
        }
    }
}

/// The parameters of a media range that are considered.
#[derive(Debug, Default)]
struct Parameters<'a> {
    version: Option<&'a str>,
    proto: Option<&'a str>,
    encoding: Option<&'a str>,
}

/// Returns the format that a media range names, or None for `*/*`, and its quality in thousandths.
fn parse_range(range: &str) -> Option<(Option<Format>, u16)> {
    let mut parts = range.split(';');
    let media_type = parts.next()?.trim().to_ascii_lowercase();
    let (mut parameters, mut quality) = (Parameters::default(), 1_000);
    // A parameter may be empty (`;;`), and unknown ones are ignored.
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        // No value that is compared needs a separator or a backslash in a quoted string.
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        match name.to_ascii_lowercase().as_str() {
            "q" => quality = parse_quality(value)?,
            "version" => parameters.version = Some(value),
            "proto" => parameters.proto = Some(value),
            "encoding" => parameters.encoding = Some(value),
            _ => {}
        }
    }
    let format = Format::find(&media_type, &parameters);
    (format.is_some() || media_type == "*/*").then_some((format, quality))
}

/// Parses a quality, 0 to 1, in thousandths (RFC 9110, section 12.4.2).
fn parse_quality(text: &str) -> Option<u16> {
    let quality: f32 = text.parse().ok()?;
    (0.0..=1.0)
        .contains(&quality)
        .then_some((quality * 1_000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn negotiate(accept: &str) -> Format {
        Format::negotiate(Some(accept))
    }

    #[test]
    fn prometheus_2_gets_openmetrics() {
        // As 2.42 sends it, and as versions since 2.49 do. Last, the oldest form, since 2.5.
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(negotiate(accept), Format::OpenMetrics100);
        }
        let oldest = "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(negotiate(oldest), Format::Text004);
    }

    #[test]
    fn prometheus_3_gets_openmetrics_whatever_escaping_it_sends() {
        for escaping in ["allow-utf-8", "underscores", "values", "dots"] {
            let accept = format!(
                "application/openmetrics-text;version=1.0.0;escaping={escaping};q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping={escaping};q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            );
            assert_eq!(negotiate(&accept), Format::OpenMetrics100);
        }
    }

    #[test]
    fn prometheus_3_that_scrapes_native_histograms_gets_protobuf() {
        let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                      application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(negotiate(accept), Format::Protobuf);
    }

    #[test]
    fn protobuf_is_sent_only_as_delimited_metric_families() {
        for parameters in [
            "",
            ";proto=io.prometheus.client.MetricFamily",
            ";proto=io.prometheus.client.MetricFamily;encoding=text",
            ";proto=io.prometheus.client.MetricFamily;encoding=compact-text",
            ";proto=other;encoding=delimited",
            ";encoding=delimited",
        ] {
            let accept = format!("application/vnd.google.protobuf{parameters}");
            assert_eq!(negotiate(&accept), Format::Text004, "{accept}");
        }
    }

    #[test]
    fn openmetrics_2_is_sent_only_if_its_version_is_named() {
        let accept = "application/openmetrics-text;version=2.0.0;escaping=allow-utf-8;q=0.8,*/*;q=0.7";
        assert_eq!(negotiate(accept), Format::OpenMetrics200);
        let both = "application/openmetrics-text;version=2.0.0;q=0.5,application/openmetrics-text;version=1.0.0;q=0.6";
        assert_eq!(negotiate(both), Format::OpenMetrics100);
    }

    #[test]
    fn prometheus_3_with_one_scrape_protocol_gets_it_or_text() {
        for (accept, expected) in [
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.5",
                Format::OpenMetrics100,
            ),
            ("text/plain;version=0.0.4;q=0.6,*/*;q=0.5", Format::Text004),
            (
                "application/openmetrics-text;version=0.0.1;q=0.6,*/*;q=0.5",
                Format::Text004,
            ),
            (
                "text/plain;version=1.0.0;escaping=underscores;q=0.6,*/*;q=0.5",
                Format::Text004,
            ),
        ] {
            assert_eq!(negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn a_client_that_names_none_of_the_formats_gets_text() {
        assert_eq!(Format::negotiate(None), Format::Text004);
        for accept in [
            "",
            "*/*",
            "text/*",
            "application/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "application/json",
            "text/plain",
            "text/plain;charset=utf-8",
            "text/plain;version=9.9.9",
            "application/openmetrics-text;version=9.9.9",
            "nonsense",
            ";,;q=,=/=,\"",
        ] {
            assert_eq!(negotiate(accept), Format::Text004, "{accept}");
        }
    }

    #[test]
    fn the_highest_quality_wins_and_zero_excludes() {
        use Format::{OpenMetrics100, OpenMetrics200, Text004};
        for (accept, expected) in [
            ("application/openmetrics-text;q=0.5,text/plain;q=0.501", Text004),
            (
                "application/openmetrics-text;q=0.502,text/plain;q=0.501",
                OpenMetrics100,
            ),
            ("text/plain,application/openmetrics-text", OpenMetrics100),
            ("application/openmetrics-text,*/*", OpenMetrics100),
            ("application/openmetrics-text;q=0.5,*/*;q=0.6", Text004),
            (
                "application/openmetrics-text;q=0.5,*/*;q=0.6,text/plain;q=0.4",
                OpenMetrics100,
            ),
            ("application/openmetrics-text;q=0,*/*", Text004),
            ("application/openmetrics-text;q=0.1,text/plain;q=0", OpenMetrics100),
            ("text/plain;q=0, */*", OpenMetrics100),
            ("*/*;q=0.1, text/*;q=0", OpenMetrics100),
            (
                "text/plain;q=0, application/openmetrics-text;version=1.0.0;q=0, */*",
                OpenMetrics200,
            ),
            ("text/plain;q=0, */*;q=0", Text004),
            ("application/openmetrics-text;q=2", Text004),
            ("application/openmetrics-text;q=1.001", Text004),
            ("application/openmetrics-text;q=-1", Text004),
            ("application/openmetrics-text;q=NaN", Text004),
            ("application/openmetrics-text;q=0.0001", Text004),
            ("Application/OpenMetrics-Text; Q=0.7; Version=\"1.0.0\"", OpenMetrics100),
        ] {
            assert_eq!(negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn ranges_after_the_limit_are_ignored() {
        let many = "a/b,".repeat(RANGES_MAX - 1);
        let (within, beyond) = ("application/openmetrics-text", "a/b,application/openmetrics-text");
        assert_eq!(negotiate(&format!("{many}{within}")), Format::OpenMetrics100);
        assert_eq!(negotiate(&format!("{many}{beyond}")), Format::Text004);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn negotiation_never_panics(accept in ".*|([a-z*]{0,4}/?[a-z*]{0,4}(;[a-zq]{0,3}=?[\"\\\\0-9.,]{0,6}){0,3},?){0,8}") {
            let _ = Format::negotiate(Some(&accept));
        }

        #[test]
        fn the_only_accepted_format_is_chosen(
            format in 0usize..4,
            quality in 1u16..=999,
            noise in proptest::collection::vec("[a-z]{1,9}/[a-z]{1,9}(;[a-p]{1,5}=[a-z0-9]{1,9}){0,2}", 0..8),
            place in 0usize..8,
        ) {
            let (range, expected) = [
                ("text/plain;version=0.0.4", Format::Text004),
                ("application/openmetrics-text;version=1.0.0", Format::OpenMetrics100),
                ("application/openmetrics-text;version=2.0.0", Format::OpenMetrics200),
                (
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
                    Format::Protobuf,
                ),
            ][format];
            let mut ranges = noise;
            ranges.insert(place.min(ranges.len()), format!("{range};q=0.{quality:03}"));
            prop_assert_eq!(negotiate(&ranges.join(", ")), expected);
        }
    }
}
