//! The response's head, written by hand into the responder's one buffer: tiny_http's own response keeps the `Connection`
//! header from us, hides a failed write, and allocates every header.

use std::io::Write;
use std::time::SystemTime;

use httpdate::HttpDate;
use tiny_http::StatusCode;

/// What becomes of the connection after a response (RFC 9112, section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1 that stays open, which goes without saying.
    Implied,
    /// HTTP/1.0 whose client asked to keep it open, and must be told that it is.
    Told,
    /// The last response of its connection.
    Close,
}

/// Appends the status line and the headers, up to and with the empty line. `headers` are names and values.
pub fn write_head(
    buffer: &mut Vec<u8>,
    status: u16,
    content_length: usize,
    persistence: Persistence,
    headers: &[(&str, &str)],
) {
    let reason = StatusCode(status).default_reason_phrase();
    let date = HttpDate::from(SystemTime::now());
    // Writing to a vector can not fail.
    let _ = write!(
        buffer,
        "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\nContent-Length: {content_length}\r\n"
    );
    let connection = match persistence {
        Persistence::Implied => None,
        Persistence::Told => Some(("Connection", "keep-alive")),
        Persistence::Close => Some(("Connection", "close")),
    };
    for (name, value) in headers.iter().copied().chain(connection) {
        for part in [name, ": ", value, "\r\n"] {
            buffer.extend_from_slice(part.as_bytes());
        }
    }
    buffer.extend_from_slice(b"\r\n");
}
