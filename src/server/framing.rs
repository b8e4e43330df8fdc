//! How a request's body is framed, and whether tiny_http has read it.
//!
//! tiny_http reads a body of up to 1,024 bytes before it hands the request over. It leaves a longer one, a chunked one and one
//! that expects to be asked for (`Expect: 100-continue`) to whoever has the request, and cannot parse the next request of the
//! connection meanwhile. Dropping such a request reads the rest of a body with a length, in the thread that drops it, after
//! allocating as much; the rest of a chunked one is parsed as the next request. No endpoint takes a body, so one that
//! is unread is refused and its connection closed. What two parsers could read differently is refused as well (RFC 9112,
//! section 6.3).

use std::io::Write;

use tiny_http::{Header, ReadWrite, Request, Response, StatusCode};

use super::{field_values, panics};

/// The longest body that tiny_http reads by itself, bytes.
const READ_BY_TINY_HTTP_MAX: usize = 1024;

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// None, or one that is read.
    Complete,
    /// Well formed, and not read.
    Unread,
    /// `Content-Length` is not a number, is given twice, or contradicts `Transfer-Encoding`.
    Malformed,
}

/// Returns the framing of a request's body.
pub fn framing(request: &Request) -> Framing {
    let mut lengths = field_values(request, "Content-Length");
    let encoded = field_values(request, "Transfer-Encoding").next().is_some();
    match (lengths.next(), lengths.next()) {
        (_, Some(_)) => Framing::Malformed,
        (Some(_), None) if encoded => Framing::Malformed,
        (Some(length), None) if length.is_empty() || !length.bytes().all(|digit| digit.is_ascii_digit()) => {
            Framing::Malformed
        }
        // tiny_http takes one that overflows for none. It is longer than anything that is read.
        (Some(_), None) if request.body_length().is_none() => Framing::Unread,
        (_, None) if is_unread(request) => Framing::Unread,
        _ => Framing::Complete,
    }
}

/// Returns whether tiny_http has left a body to whoever has the request, by its own rules.
pub fn is_unread(request: &Request) -> bool {
    let has = |name| field_values(request, name).next().is_some();
    match request.body_length() {
        None => has("Transfer-Encoding"),
        Some(length) if length <= READ_BY_TINY_HTTP_MAX => length > 0 && (has("Expect") || upgrades(request)),
        Some(_) => true,
    }
}

/// Returns whether tiny_http takes a request for an upgrade, and so leaves all that follows alone, even when it is dropped.
fn upgrades(request: &Request) -> bool {
    let first = field_values(request, "Connection").next();
    first.is_some_and(|first| first.to_ascii_lowercase().contains("upgrade"))
}

/// A request whose body is unread. It holds its connection: tiny_http parses nothing behind it.
///
/// It should be dropped after its socket is shut down, when there is nothing left to read: before, the drop blocks until the
/// client has sent the rest.
pub struct UnreadBody {
    /// None only while it is taken apart.
    held: Option<Held>,
    /// How much a drop allocates, bytes.
    allocates: usize,
}

enum Held {
    Request(Box<Request>),
    Stream(Box<dyn ReadWrite + Send>),
}

impl UnreadBody {
    /// Takes a request for which [`is_unread`] holds.
    pub fn new(request: Request) -> UnreadBody {
        UnreadBody {
            allocates: if upgrades(&request) {
                0
            } else {
                request.body_length().unwrap_or(0)
            },
            held: Some(Held::Request(Box::new(request))),
        }
    }

    /// Writes a response of plain text, without touching the body. The connection must be closed afterwards.
    ///
    /// Only `upgrade` writes without reading the body first. It adds `Connection: upgrade` and names a protocol to upgrade to,
    /// which any response may (RFC 9110, section 7.8): the one that is spoken already. It takes neither a `Content-Length` nor a
    /// `Connection: close`, but writes the value of any other field as it is: so the two go behind that of `Content-Type`.
    pub fn respond(&mut self, status: u16, text: &str, head_only: bool) {
        let Some(Held::Request(request)) = self.held.take() else {
            return;
        };
        let fields = format!(
            "text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close",
            text.len()
        );
        let content_type = Header::from_bytes("Content-Type", fields).ok();
        let response = Response::empty(StatusCode(status));
        let response = content_type.into_iter().fold(response, Response::with_header);
        let mut stream = request.upgrade("HTTP/1.1", response);
        let body = if head_only { "" } else { text };
        // The connection is closed whether this arrives or not.
        let _ = stream.write_all(body.as_bytes()).and_then(|()| stream.flush());
        self.held = Some(Held::Stream(stream));
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let release = || match held {
            Held::Stream(stream) => drop(stream),
            // Dropped whole, it would be answered.
            Held::Request(request) => drop(request.into_writer()),
        };
        if isize::try_from(self.allocates).is_err() {
            // No allocation may be that long: it panics before it reads, and releases the connection all the same.
            panics::expected(release);
        } else if Vec::<u8>::new().try_reserve_exact(self.allocates).is_ok() {
            // What is allocated is never touched, so it costs addresses, not memory.
            release();
        } else {
            // A failed allocation ends the process, and tiny_http has no other way to release the connection: it leaks.
            std::mem::forget(release);
        }
    }
}
