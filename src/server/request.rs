//! A request: everything that a later room asks of tiny_http's, read in one pass over its header fields.

use std::borrow::Cow;
use std::net::SocketAddr;

use tiny_http::{HTTPVersion, Method as RequestMethod};

use super::framing::BodyFields;
use super::response::Persistence;
use crate::metrics::{Method, TraceContext};

/// A header field of which only one value is valid.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Single<'a> {
    /// No line has it.
    #[default]
    Absent,
    /// One line has it.
    Once(&'a str),
    /// Several lines have it.
    Repeated,
}

impl<'a> Single<'a> {
    fn add(&mut self, value: &'a str) {
        *self = match self {
            Single::Absent => Single::Once(value),
            _ => Single::Repeated,
        };
    }
}

/// A parsed request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The address of its client.
    pub peer: SocketAddr,
    /// The label of its method.
    pub method: Method,
    /// Whether its method, for which the label is [`Method::Other`], is `OPTIONS`.
    pub is_options: bool,
    /// The path of its target.
    pub path: &'a str,
    /// The query of its target, without the question mark.
    pub query: &'a str,
    /// Whether `Host` is as it has to be.
    pub has_valid_host: bool,
    /// The members of `Accept`, over all its lines.
    pub accept: Option<Cow<'a, str>>,
    /// The trace that it is part of.
    pub trace: Option<TraceContext>,
    /// What it asks for its connection.
    pub persistence: Persistence,
    /// What frames its body.
    pub body: BodyFields<'a>,
}

impl<'a> Request<'a> {
    /// Returns None for a request without a peer, which a TCP listener never yields.
    pub fn parse(request: &'a tiny_http::Request) -> Option<Request<'a>> {
        let (mut host, mut traceparent) = (Single::Absent, Single::Absent);
        let mut accept: Option<Cow<'a, str>> = None;
        let mut connection = ConnectionList::default();
        let mut body = BodyFields {
            read_length: request.body_length(),
            ..BodyFields::default()
        };
        for header in request.headers() {
            let (value, is) = (header.value.as_str(), |name| header.field.equiv(name));
            if is("Host") {
                host.add(value);
            } else if is("Connection") {
                connection.add(value);
            } else if is("Accept") {
                // Several lines are one list (RFC 9110, section 5.3).
                match &mut accept {
                    None => accept = Some(Cow::Borrowed(value)),
                    Some(list) => list.to_mut().extend([", ", value]),
                }
            } else if is("traceparent") {
                traceparent.add(value);
            } else if is("Content-Length") {
                body.length.add(value);
            } else if is("Transfer-Encoding") {
                body.is_encoded = true;
            } else if is("Expect") {
                body.is_expected = true;
            }
        }
        body.upgrades = connection.first_has("upgrade");
        let version = request.http_version();
        let (path, query) = split_target(request.url());
        Some(Request {
            peer: *request.remote_addr()?,
            method: match request.method() {
                RequestMethod::Get => Method::Get,
                RequestMethod::Head => Method::Head,
                _ => Method::Other,
            },
            is_options: *request.method() == RequestMethod::Options,
            path,
            query,
            has_valid_host: match host {
                Single::Absent => *version <= HTTPVersion(1, 0),
                Single::Once(host) => host.bytes().all(is_host_byte),
                Single::Repeated => false,
            },
            accept,
            // Not a list: neither of two lines can be trusted.
            trace: match traceparent {
                Single::Once(value) => TraceContext::parse(value),
                _ => None,
            },
            persistence: connection.persistence(version),
            body,
        })
    }
}

/// Splits a target into path and query. Takes the absolute form too, as a server must (RFC 9112, section 3.2.2). Nothing is decoded:
/// no path or parameter of this server needs an escape.
fn split_target(target: &str) -> (&str, &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = match path.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |start| &rest[start..]),
        _ => path,
    };
    (path, query)
}

/// Returns whether a byte may be in a host and port (RFC 3986, sections 3.2.2 and 3.2.3).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&byte)
}

/// The `Connection` field: a list over all its lines (RFC 9110, section 7.6.1).
///
/// But tiny_http searches the first line for substrings, and the response must announce what tiny_http then does.
#[derive(Debug, Default)]
struct ConnectionList<'a> {
    first: Option<&'a str>,
    has_close: bool,
    has_keep_alive: bool,
}

impl<'a> ConnectionList<'a> {
    fn add(&mut self, line: &'a str) {
        for member in line.split(',').map(str::trim) {
            self.has_close |= member.eq_ignore_ascii_case("close");
            self.has_keep_alive |= member.eq_ignore_ascii_case("keep-alive");
        }
        self.first.get_or_insert(line);
    }

    fn first_has(&self, word: &str) -> bool {
        let mut windows = self.first.unwrap_or_default().as_bytes().windows(word.len());
        windows.any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    }

    fn persistence(&self, version: &HTTPVersion) -> Persistence {
        let is_persistent = *version > HTTPVersion(1, 0);
        if self.first_has("close")
            || self.first_has("upgrade")
            || (*version == HTTPVersion(1, 0) && !self.first_has("keep-alive"))
        {
            Persistence::ClosedByTinyHttp
        } else if self.has_close || !(is_persistent || self.has_keep_alive) {
            Persistence::ClosedByServer
        } else if is_persistent {
            Persistence::Default
        } else {
            Persistence::KeepAlive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::{Header, TestRequest};

    #[test]
    fn the_connection_field_is_a_list_over_all_lines_and_what_tiny_http_does_is_announced() {
        use Persistence::{ClosedByServer, ClosedByTinyHttp, Default, KeepAlive};
        let (old, new) = (HTTPVersion(1, 0), HTTPVersion(1, 1));
        for (version, lines, expected) in [
            (&new, &[][..], Default),
            (&new, &["keep-alive"], Default),
            (&new, &["Close"], ClosedByTinyHttp),
            (&new, &["x-trace, close"], ClosedByTinyHttp),
            (&new, &["x-trace", "close"], ClosedByServer),
            (&new, &["keep-alive, close"], ClosedByTinyHttp),
            (&new, &["keep-alive", "close"], ClosedByServer),
            (&new, &["x-close-hint"], ClosedByTinyHttp),
            (&new, &["x-trace", "x-close-hint"], Default),
            (&new, &["Upgrade, HTTP2-Settings"], ClosedByTinyHttp),
            (&new, &["HTTP2-Settings", "upgrade"], Default),
            (&old, &[], ClosedByTinyHttp),
            (&old, &["Keep-Alive"], KeepAlive),
            (&old, &["x-trace", "keep-alive"], ClosedByTinyHttp),
            (&old, &["x-keep-alive"], ClosedByServer),
            (&old, &["keep-alive, close"], ClosedByTinyHttp),
            (&HTTPVersion(0, 9), &[], ClosedByServer),
        ] {
            let mut list = ConnectionList::default();
            lines.iter().for_each(|line| list.add(line));
            assert_eq!(list.persistence(version), expected, "{version} {lines:?}");
        }
    }

    #[test]
    fn of_two_lines_of_a_field_that_has_one_neither_is_used() {
        const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (lines, has_trace) in [
            (&[][..], false),
            (&[TRACE], true),
            (&[TRACE, TRACE], false),
            (&[TRACE, ""], false),
            (&["", TRACE], false),
        ] {
            let request = lines.iter().fold(TestRequest::new(), |request, line| {
                request.with_header(Header::from_bytes("Traceparent", *line).unwrap())
            });
            let request = tiny_http::Request::from(request);
            let trace = Request::parse(&request).unwrap().trace;
            assert_eq!(trace, TraceContext::parse(TRACE).filter(|_| has_trace), "{lines:?}");
        }
    }

    #[test]
    fn a_target_is_split_at_its_first_question_mark_and_nothing_is_decoded() {
        for (target, path, query) in [
            ("/", "/", ""),
            ("/?a=b?c", "/", "a=b?c"),
            ("/%6Detrics?a=%7e", "/%6Detrics", "a=%7e"),
            ("http://example.org?x", "/", "x"),
            ("http://example.org/ui", "/ui", ""),
            ("/http://example.org/ui", "/http://example.org/ui", ""),
            ("*", "*", ""),
        ] {
            assert_eq!(split_target(target), (path, query), "{target}");
        }
    }
}
