//! The request target, and the host it is sent to (RFC 3986; RFC 9112, section 3.2).

use std::borrow::Cow;

/// A request target, with its unreserved characters decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) path: Cow<'a, str>,
    pub(super) query: Cow<'a, str>,
}

impl<'a> Target<'a> {
    /// Splits a target in path and query. Takes the absolute form too, as a server must (RFC 9112, section 3.2.2).
    ///
    /// Returns None if an escape is invalid.
    pub(super) fn parse(target: &'a str) -> Option<Target<'a>> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = match path.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |start| &rest[start..]),
            _ => path,
        };
        Some(Target {
            path: decode_unreserved(path)?,
            query: decode_unreserved(query)?,
        })
    }
}

/// Decodes the escapes of unreserved characters, which mean the characters (RFC 3986, section 6.2.2.2). Others stay as they are:
/// an escaped separator is not a separator.
fn decode_unreserved(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let digits = after
            .get(..2)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        match u8::from_str_radix(digits, 16).ok()? {
            unreserved if is_unreserved(unreserved) => decoded.push(char::from(unreserved)),
            _ => {
                decoded.push('%');
                decoded.push_str(digits);
            }
        }
        rest = &after[2..];
    }
    decoded.push_str(rest);
    Some(Cow::Owned(decoded))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Returns whether `host` is a valid value of `Host`: a host and an optional port, or nothing (RFC 9110, section 7.2).
pub(super) fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, port)) if is_ip_literal(address) => {
                (None, port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), Some("")),
        },
    };
    name.is_none_or(is_registered_name) && port.is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit()))
}

fn is_ip_literal(address: &str) -> bool {
    let zoneless = address.split('%').next().unwrap_or_default();
    let future = || {
        address.starts_with(['v', 'V'])
            && address
                .bytes()
                .all(|byte| is_unreserved(byte) || is_sub_delimiter(byte) || byte == b':')
    };
    zoneless.parse::<std::net::Ipv6Addr>().is_ok() || future()
}

fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            _ => is_unreserved(byte) || is_sub_delimiter(byte),
        };
        if !valid {
            return false;
        }
    }
    true
}

fn is_sub_delimiter(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unreserved_characters_mean_the_same_escaped_or_not() {
        for (target, path, query) in [
            ("/%6Detrics", "/metrics", ""),
            ("/%6detrics?a=%7e", "/metrics", "a=~"),
            ("/?delay=1%2E5s", "/", "delay=1.5s"),
            ("/%2Fhealthz", "/%2Fhealthz", ""),
            ("/%3Fdelay=1s", "/%3Fdelay=1s", ""),
            ("/?a%3D1%26b", "/", "a%3D1%26b"),
            ("http://example.org?x", "/", "x"),
            ("http://example.org/%75i", "/ui", ""),
            ("*", "*", ""),
        ] {
            let parsed = Target::parse(target).unwrap();
            assert_eq!((&*parsed.path, &*parsed.query), (path, query), "{target}");
        }
        for target in ["/%", "/%4", "/%zz", "/?a=%+1", "/%é0"] {
            assert_eq!(Target::parse(target), None, "{target}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for valid in [
            "",
            "example.org",
            "example.org:80",
            "[::1]:19004",
            "[::1]",
            "10.0.0.1:1",
            "a%20b",
            "x:",
            "[v1.a:b]",
        ] {
            assert!(is_host(valid), "{valid}");
        }
        for invalid in [
            "a b", "a/b", "a@b", "a,b c", "[::1", "::1", "a:b", "[::1]x", "[zz]", "a%2", "a?b", "é",
        ] {
            assert!(!is_host(invalid), "{invalid}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_target_and_host_is_parsed_or_refused(text in "(\\PC|%[0-9a-fA-F]{0,3}|[/?:\\[\\]]){0,20}") {
            let _ = Target::parse(&text);
            let _ = is_host(&text);
        }
    }
}
