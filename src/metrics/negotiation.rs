//! Which exposition format a scrape gets: the Accept header of RFC 9110, section 12.5.1, with the media types of
//! Prometheus' "Scrape protocol content negotiation".

/// The most media ranges that are looked at; those after them count as absent.
const RANGES_MAX: usize = 64;

/// How a scraper wants names spelt that are outside the old character set (Prometheus' "UTF-8 metric and label
/// name escaping schemes"). All our names are within it, so these three leave them as they are; the fourth scheme,
/// `dots`, would not, and is not offered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Escaping {
    /// `allow-utf-8`
    AllowUtf8,
    /// `underscores`, which is also what is meant where none is named.
    Underscores,
    /// `values`
    Values,
}

/// A format of the exposition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Text004,
    /// The Prometheus text format, version 1.0.0: the same page, as far as names as ours are concerned.
    Text100(Escaping),
    /// OpenMetrics as it was called before its first release: the same page.
    OpenMetrics001,
    /// OpenMetrics 1.0.0, with the escaping scheme if one was asked for (Prometheus 3 does).
    OpenMetrics100(Option<Escaping>),
}

impl Format {
    /// The best format that the client takes.
    ///
    /// Best is what the client rates highest. Among equals it is the one that it names most exactly, and then
    /// OpenMetrics 1.0.0, 0.0.1, text 1.0.0, 0.0.4, as each can say more than the next. A client that names none,
    /// having no Accept header or `*/*`, has not said that it can read anything but the oldest: it gets text
    /// 0.0.4, and so does one that takes none of ours.
    ///
    /// `accept` is the header's value; where there are several, their values joined by commas. Any text will do:
    /// a range that is not well formed counts as absent.
    pub fn negotiate(accept: Option<&str>) -> Format {
        let mut offers = [
            Offer::new(Format::OpenMetrics100(None)),
            Offer::new(Format::OpenMetrics001),
            Offer::new(Format::Text100(Escaping::Underscores)),
            Offer::new(Format::Text004),
        ];
        for range in outside_quotes(accept.unwrap_or_default(), b',').take(RANGES_MAX) {
            let Some(range) = Range::parse(range) else {
                continue;
            };
            for offer in &mut offers {
                offer.consider(&range);
            }
        }
        let best = offers
            .into_iter()
            .filter(|offer| offer.quality > 0)
            // The first of equals, so in the order above.
            .reduce(|best, offer| if offer.rank() > best.rank() { offer } else { best });
        best.map_or(Format::Text004, |offer| offer.format)
    }

    /// The response's Content-Type.
    pub const fn content_type(self) -> &'static str {
        use Escaping::{AllowUtf8, Underscores, Values};
        match self {
            Format::Text004 => "text/plain; version=0.0.4; charset=utf-8",
            Format::Text100(AllowUtf8) => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            Format::Text100(Underscores) => "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
            Format::Text100(Values) => "text/plain; version=1.0.0; charset=utf-8; escaping=values",
            Format::OpenMetrics001 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Format::OpenMetrics100(None) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::OpenMetrics100(Some(AllowUtf8)) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            Format::OpenMetrics100(Some(Underscores)) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            Format::OpenMetrics100(Some(Values)) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=values"
            }
        }
    }

    /// Whether the page is OpenMetrics.
    pub(super) const fn is_openmetrics(self) -> bool {
        matches!(self, Format::OpenMetrics001 | Format::OpenMetrics100(_))
    }

    const fn media_type(self) -> (&'static str, &'static str) {
        if self.is_openmetrics() {
            ("application", "openmetrics-text")
        } else {
            ("text", "plain")
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Format::Text004 => "0.0.4",
            Format::OpenMetrics001 => "0.0.1",
            Format::Text100(_) | Format::OpenMetrics100(_) => "1.0.0",
        }
    }

    /// The version that a media type without a version means.
    const fn is_default_version(self) -> bool {
        matches!(self, Format::Text004 | Format::OpenMetrics100(_))
    }
}

/// How exactly a range names a format. RFC 9110: the most exact range that matches decides on the quality.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Exactness {
    Absent,
    /// `*/*`
    Anything,
    /// `text/*`
    AnySubtype,
    /// `text/plain`
    MediaType,
    /// `text/plain;version=0.0.4`
    Version,
}

/// A format of ours and what the client thinks of it.
struct Offer {
    format: Format,
    exactness: Exactness,
    quality: u16,
}

impl Offer {
    fn new(format: Format) -> Offer {
        Offer {
            format,
            exactness: Exactness::Absent,
            quality: 0,
        }
    }

    fn consider(&mut self, range: &Range) {
        let (kind, subtype) = self.format.media_type();
        let exactness = match (range.kind, range.subtype) {
            ("*", "*") => Exactness::Anything,
            (asked, "*") if asked.eq_ignore_ascii_case(kind) => Exactness::AnySubtype,
            (asked, name) if asked.eq_ignore_ascii_case(kind) && name.eq_ignore_ascii_case(subtype) => {
                match range.version {
                    Some(version) if version == self.format.version() => Exactness::Version,
                    None if self.format.is_default_version() => Exactness::MediaType,
                    _ => return,
                }
            }
            _ => return,
        };
        // What is more exact replaces, what is said twice counts at its best.
        if (exactness, range.quality) <= (self.exactness, self.quality) {
            return;
        }
        if let Ok(format) = self.format.with_escaping(range.escaping) {
            *self = Offer {
                format,
                exactness,
                quality: range.quality,
            };
        }
    }

    fn rank(&self) -> (u16, Exactness, bool) {
        // A wildcard means the media type's default version, and `*/*` the oldest text.
        let meant = match self.exactness {
            Exactness::Anything => self.format == Format::Text004,
            Exactness::AnySubtype => self.format.is_default_version(),
            _ => false,
        };
        (self.quality, self.exactness, meant)
    }
}

/// Names are to be spelt by a scheme that is not offered.
struct NotOffered;

impl Format {
    fn with_escaping(self, asked: Option<&str>) -> Result<Format, NotOffered> {
        let escaping = match asked {
            None => None,
            Some("allow-utf-8") => Some(Escaping::AllowUtf8),
            Some("values") => Some(Escaping::Values),
            Some("dots") => return Err(NotOffered),
            // A scheme that is unknown is answered with the one that every scraper can read.
            Some(_) => Some(Escaping::Underscores),
        };
        Ok(match self {
            Format::Text100(_) => Format::Text100(escaping.unwrap_or(Escaping::Underscores)),
            Format::OpenMetrics100(_) => Format::OpenMetrics100(escaping),
            Format::Text004 | Format::OpenMetrics001 => self,
        })
    }
}

/// A media range of the Accept header with the parameters that matter here.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    escaping: Option<&'a str>,
    /// In thousandths.
    quality: u16,
}

impl Range<'_> {
    fn parse(range: &str) -> Option<Range<'_>> {
        let mut parts = outside_quotes(range, b';');
        let (kind, subtype) = parts.next()?.trim().split_once('/')?;
        let mut range = Range {
            kind,
            subtype,
            version: None,
            escaping: None,
            quality: 1_000,
        };
        for parameter in parts {
            // Empty parameters (`;;`) are allowed, those of unknown meaning are none of ours.
            let Some((name, value)) = parameter.split_once('=') else {
                continue;
            };
            let (name, value) = (name.trim(), unquoted(value.trim()));
            if name.eq_ignore_ascii_case("q") {
                range.quality = quality(value)?;
            } else if name.eq_ignore_ascii_case("version") {
                range.version = Some(value);
            } else if name.eq_ignore_ascii_case("escaping") {
                range.escaping = Some(value);
            }
        }
        Some(range)
    }
}

/// Reads a quality in thousandths: 0 to 1 with at most three decimals (RFC 9110, section 12.4.2).
fn quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = fraction
        .bytes()
        .fold((0, 100), |(sum, place), digit| {
            (sum + u16::from(digit - b'0') * place, place / 10)
        })
        .0;
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1_000),
        _ => None,
    }
}

/// The text of a quoted string. No value that is looked for has a character that needs a backslash.
fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

/// The parts of a text between separators that are not within a quoted string.
fn outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        // The separator is ASCII, so its place is a character's boundary.
        let end = text.bytes().position(|byte| {
            if escaped {
                escaped = false;
            } else if quoted && byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                quoted = !quoted;
            }
            byte == separator && !quoted
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content_type(accept: &str) -> &'static str {
        Format::negotiate(Some(accept)).content_type()
    }

    const TEXT_004: &str = "text/plain; version=0.0.4; charset=utf-8";
    const OPENMETRICS_001: &str = "application/openmetrics-text; version=0.0.1; charset=utf-8";
    const OPENMETRICS_100: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    #[test]
    fn prometheus_2_gets_openmetrics_100_without_escaping() {
        // As 2.42 sends it, and as the versions from 2.5 and from 2.49 on do.
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(content_type(accept), OPENMETRICS_100);
        }
        let oldest = "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(content_type(oldest), OPENMETRICS_001);
    }

    #[test]
    fn prometheus_3_gets_openmetrics_100_with_the_escaping_it_asks_for() {
        for escaping in ["allow-utf-8", "underscores", "values"] {
            let accept = format!(
                "application/openmetrics-text;version=1.0.0;escaping={escaping};q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping={escaping};q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            );
            assert_eq!(content_type(&accept), format!("{OPENMETRICS_100}; escaping={escaping}"));
        }
    }

    #[test]
    fn prometheus_3_that_prefers_protobuf_gets_the_best_text_it_takes() {
        let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                      application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(content_type(accept), format!("{OPENMETRICS_100}; escaping=allow-utf-8"));
    }

    #[test]
    fn prometheus_3_with_one_scrape_protocol_gets_that_one() {
        for (accept, expected) in [
            ("text/plain;version=0.0.4;q=0.6,*/*;q=0.5", TEXT_004),
            (
                "application/openmetrics-text;version=0.0.1;q=0.6,*/*;q=0.5",
                OPENMETRICS_001,
            ),
            (
                "text/plain;version=1.0.0;escaping=underscores;q=0.6,*/*;q=0.5",
                "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
            ),
        ] {
            assert_eq!(content_type(accept), expected);
        }
    }

    #[test]
    fn dots_would_change_our_names_and_is_passed_over() {
        let accept = "application/openmetrics-text;version=1.0.0;escaping=dots;q=0.6,\
                      application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=dots;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(content_type(accept), OPENMETRICS_001);
    }

    #[test]
    fn who_names_no_format_gets_text_004() {
        assert_eq!(Format::negotiate(None), Format::Text004);
        for accept in [
            "",
            "*/*",
            "text/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "application/json",
            "text/plain",
            "text/plain;charset=utf-8",
            "text/plain;version=9.9.9",
            "application/openmetrics-text;version=2.0.0",
            "nonsense",
            ";,;q=,=/=,\"",
        ] {
            assert_eq!(content_type(accept), TEXT_004, "{accept}");
        }
    }

    #[test]
    fn quality_decides_and_zero_forbids() {
        for (accept, expected) in [
            ("application/openmetrics-text;q=0.5,text/plain;q=0.501", TEXT_004),
            (
                "application/openmetrics-text;q=0.502,text/plain;q=0.501",
                OPENMETRICS_100,
            ),
            ("text/plain,application/openmetrics-text", OPENMETRICS_100),
            ("application/*", OPENMETRICS_100),
            ("*/*,text/plain;q=0", OPENMETRICS_100),
            ("application/openmetrics-text;q=0,*/*", TEXT_004),
            (
                "application/openmetrics-text;version=1.0.0;q=0,application/openmetrics-text",
                TEXT_004,
            ),
            (
                "application/openmetrics-text;version=0.0.1;q=0,application/openmetrics-text;version=1.0.0;q=0",
                TEXT_004,
            ),
            ("application/openmetrics-text;q=2", TEXT_004),
            ("application/openmetrics-text;q=1.001", TEXT_004),
            ("application/openmetrics-text;q=-1", TEXT_004),
            ("application/openmetrics-text;q=NaN", TEXT_004),
            ("application/openmetrics-text;q=0.0001", TEXT_004),
            (
                "Application/OpenMetrics-Text; Q=0.7; Version=\"1.0.0\"",
                OPENMETRICS_100,
            ),
            (
                "text/html;a=\"x,application/openmetrics-text;b=\\\",\";q=0.1 , text/plain",
                TEXT_004,
            ),
        ] {
            assert_eq!(content_type(accept), expected, "{accept}");
        }
    }

    #[test]
    fn ranges_past_the_limit_count_as_absent() {
        let many = "a/b,".repeat(RANGES_MAX - 1);
        assert_eq!(
            content_type(&format!("{many}application/openmetrics-text")),
            OPENMETRICS_100
        );
        assert_eq!(
            content_type(&format!("{many}a/b,application/openmetrics-text")),
            TEXT_004
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_header_panics(accept in ".*|([a-z*]{0,4}/?[a-z*]{0,4}(;[a-zq]{0,3}=?[\"\\\\0-9.,]{0,6}){0,3},?){0,8}") {
            let _ = Format::negotiate(Some(&accept));
        }

        #[test]
        fn a_format_that_is_named_alone_is_granted_whatever_else_is_taken(
            format in 0usize..4,
            quality in 1u16..=999,
            noise in proptest::collection::vec("[a-z]{1,9}/[a-z]{1,9}(;[a-p]{1,5}=[a-z0-9]{1,9}){0,2}", 0..8),
            place in 0usize..8,
        ) {
            let (range, expected) = [
                ("text/plain;version=0.0.4", Format::Text004),
                ("text/plain;version=1.0.0", Format::Text100(Escaping::Underscores)),
                ("application/openmetrics-text;version=0.0.1", Format::OpenMetrics001),
                ("application/openmetrics-text;version=1.0.0", Format::OpenMetrics100(None)),
            ][format];
            let mut ranges = noise;
            ranges.insert(place.min(ranges.len()), format!("{range};q=0.{quality:03}"));
            prop_assert_eq!(Format::negotiate(Some(&ranges.join(", "))), expected);
        }
    }
}
