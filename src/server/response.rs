//! The response's head, written by hand into the responder's buffer. tiny_http's own response does not let us set `Connection`, hides
//! a failed write, and allocates every field.

use std::io::Write;
use std::time::SystemTime;

use httpdate::HttpDate;
use tiny_http::StatusCode;

use crate::metrics::Status;

/// What a response says about its connection (RFC 9112, section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: HTTP/1.1 stays open by default.
    Default,
    /// `Connection: keep-alive`, which an HTTP/1.0 client asked for.
    KeepAlive,
    /// `Connection: close`: this is the last response.
    Close,
}

/// The `Content-Type` of a line of text.
pub const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

/// The methods that every endpoint takes.
pub const ALLOW: (&str, &str) = ("Allow", "GET, HEAD, OPTIONS");

/// How long a client that was refused should wait, seconds.
const RETRY_AFTER: (&str, &str) = ("Retry-After", "1");

/// A scheme for which browsers show no dialog.
const AUTHENTICATE: (&str, &str) = ("WWW-Authenticate", "Bearer realm=\"httpserver\"");

/// Returns the fields that a response with that status must or should have, whatever endpoint it is from (RFC 9110, section 15;
/// RFC 6585, section 4). 408 should say `Connection: close` as well.
pub fn fields_of(status: Status) -> &'static [(&'static str, &'static str)] {
    match status {
        Status::UNAUTHORIZED => &[AUTHENTICATE],
        Status::METHOD_NOT_ALLOWED => &[ALLOW],
        Status::TOO_MANY_REQUESTS | Status::SERVICE_UNAVAILABLE => &[RETRY_AFTER],
        _ => &[],
    }
}

/// Appends the status line and the fields, up to and with the empty line. Without a `content_length`, there is no body and no
/// `Content-Length`, as 204 demands (RFC 9110, section 8.6).
pub fn write_head<'a>(
    buffer: &mut Vec<u8>,
    status: u16,
    content_length: Option<usize>,
    persistence: Persistence,
    fields: impl IntoIterator<Item = &'a (&'a str, &'a str)>,
) {
    let reason = StatusCode(status).default_reason_phrase();
    let date = HttpDate::from(SystemTime::now());
    // Writing to a vector cannot fail.
    let _ = write!(buffer, "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n");
    if let Some(length) = content_length {
        let _ = write!(buffer, "Content-Length: {length}\r\n");
    }
    let connection = match persistence {
        Persistence::Default => None,
        Persistence::KeepAlive => Some(&("Connection", "keep-alive")),
        Persistence::Close => Some(&("Connection", "close")),
    };
    for &(name, value) in fields.into_iter().chain(connection) {
        for part in [name, ": ", value, "\r\n"] {
            buffer.extend_from_slice(part.as_bytes());
        }
    }
    buffer.extend_from_slice(b"\r\n");
}
