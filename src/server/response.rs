//! A response in bytes, composed by hand into a buffer that is used again. tiny_http's own response does not let us set `Connection`,
//! hides a failed write, and allocates every field.

use std::io::Write;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;
use tiny_http::StatusCode;

use super::endpoint::{Body, Response, live_page};
use crate::metrics::{Format, Status};

/// What becomes of a connection after a response, and so what the response says about it (RFC 9112, section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open. HTTP/1.1 needs no field for that.
    Default,
    /// It stays open, as an HTTP/1.0 client asked with `Connection: keep-alive`.
    KeepAlive,
    /// The client should close it: the server is about to end.
    ClosedByClient,
    /// tiny_http closes it, since the request says so.
    ClosedByTinyHttp,
    /// The server sends it to be closed (see [`Close`](super::Close)), and no later request of it gets a response.
    ClosedByServer,
}

/// The `Content-Type` of a line of text.
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

/// The methods that every endpoint takes.
const ALLOW: (&str, &str) = ("Allow", "GET, HEAD, OPTIONS");

/// How long a client that was refused should wait, seconds.
const RETRY_AFTER: (&str, &str) = ("Retry-After", "1");

/// A scheme for which browsers show no dialog.
const AUTHENTICATE: (&str, &str) = ("WWW-Authenticate", "Bearer realm=\"httpserver\"");

/// Composes responses.
#[derive(Default)]
pub struct Composer {
    /// The head of the response, and then all of it.
    bytes: Vec<u8>,
    body: Vec<u8>,
}

impl Composer {
    /// Returns a response in one piece, so that it leaves in one system call. `took` is the time since the arrival of the request, `queue`
    /// its part before the request was served, if there is a limit on concurrency; `expose` appends an exposition.
    pub fn compose(
        &mut self,
        response: &Response,
        persistence: Persistence,
        is_head: bool,
        took: Duration,
        queue: Option<Duration>,
        expose: impl FnOnce(Format, &mut Vec<u8>),
    ) -> &[u8] {
        let Composer { bytes, body } = self;
        bytes.clear();
        body.clear();
        let timing;
        let fields: &[(&str, &str)] = match &response.body {
            Body::Delay => {
                // Writing to a vector cannot fail.
                let _ = writeln!(body, "answered after {:.6} s", took.as_secs_f64());
                timing = server_timing(took, queue);
                &[TEXT, ("Server-Timing", &timing)]
            }
            Body::Line(line) => {
                body.extend_from_slice(line.as_bytes());
                &[TEXT]
            }
            Body::Allow => &[ALLOW],
            Body::Exposition(format) => {
                expose(*format, body);
                &[("Content-Type", format.content_type()), ("Vary", "Accept")]
            }
            Body::LivePage => {
                body.extend_from_slice(live_page::PAGE);
                &live_page::HEADERS
            }
        };
        // 204 has neither a body nor a Content-Length (RFC 9110, section 8.6).
        let content_length = (!matches!(response.body, Body::Allow)).then_some(body.len());
        let fields = fields.iter().chain(fields_of(response.status));
        write_head(bytes, response.status.code(), content_length, persistence, fields);
        if !is_head {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

/// Returns the value of `Server-Timing` (W3C Server Timing), in milliseconds.
fn server_timing(took: Duration, queue: Option<Duration>) -> String {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    match queue {
        None => format!("delay;dur={:.3}", milliseconds(took)),
        Some(queue) => {
            let delay = took.saturating_sub(queue);
            format!(
                "queue;dur={:.3}, delay;dur={:.3}",
                milliseconds(queue),
                milliseconds(delay)
            )
        }
    }
}

/// Returns the fields that a response with that status must or should have, whatever endpoint it is from (RFC 9110, section 15;
/// RFC 6585, section 4).
fn fields_of(status: Status) -> &'static [(&'static str, &'static str)] {
    match status {
        Status::UNAUTHORIZED => &[AUTHENTICATE],
        Status::METHOD_NOT_ALLOWED => &[ALLOW],
        Status::TOO_MANY_REQUESTS | Status::SERVICE_UNAVAILABLE => &[RETRY_AFTER],
        _ => &[],
    }
}

/// Appends the status line and the fields, up to and with the empty line.
fn write_head<'a>(
    bytes: &mut Vec<u8>,
    status: u16,
    content_length: Option<usize>,
    persistence: Persistence,
    fields: impl IntoIterator<Item = &'a (&'a str, &'a str)>,
) {
    let reason = StatusCode(status).default_reason_phrase();
    let date = HttpDate::from(SystemTime::now());
    // Writing to a vector cannot fail.
    let _ = write!(bytes, "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n");
    if let Some(length) = content_length {
        let _ = write!(bytes, "Content-Length: {length}\r\n");
    }
    let connection = match persistence {
        Persistence::Default => None,
        Persistence::KeepAlive => Some(&("Connection", "keep-alive")),
        _ => Some(&("Connection", "close")),
    };
    for &(name, value) in fields.into_iter().chain(connection) {
        for part in [name, ": ", value, "\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    bytes.extend_from_slice(b"\r\n");
}
