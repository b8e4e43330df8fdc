//! How a request's body is framed, and whether tiny_http has read it.
//!
//! tiny_http reads a body of up to 1,024 bytes before it hands the request over. It does not read a longer one, a chunked one, or one
//! behind `Expect: 100-continue`, and parses no further request of the connection until the request is dropped. The drop allocates the
//! whole length and reads the rest of the body, in the thread that drops; the rest of a chunked body is parsed as the next
//! request. No endpoint takes a body, so an unread one is refused and its connection closed. A framing that two parsers could
//! read differently is refused as well (RFC 9112, section 6.3).

use std::io::Write;

use tiny_http::{Header, ReadWrite, Request, Response, StatusCode};

use super::{field_values, panics};

/// The longest body that tiny_http reads by itself, bytes.
const READ_BY_TINY_HTTP_MAX: usize = 1024;

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, or it was read.
    Complete,
    /// Well formed, but not read.
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
        // tiny_http ignores a length that overflows. Such a body is too long to be read.
        (Some(_), None) if request.body_length().is_none() => Framing::Unread,
        (_, None) if is_unread(request) => Framing::Unread,
        _ => Framing::Complete,
    }
}

/// Returns whether tiny_http has left the body unread, by its own rules.
pub fn is_unread(request: &Request) -> bool {
    let has = |name| field_values(request, name).next().is_some();
    match request.body_length() {
        None => has("Transfer-Encoding"),
        Some(length) if length <= READ_BY_TINY_HTTP_MAX => length > 0 && (has("Expect") || upgrades(request)),
        Some(_) => true,
    }
}

/// Returns whether tiny_http takes a request for an upgrade. Then it reads nothing that follows, even when the request is dropped.
fn upgrades(request: &Request) -> bool {
    let first = field_values(request, "Connection").next();
    first.is_some_and(|first| first.to_ascii_lowercase().contains("upgrade"))
}

/// A request whose body is unread. It holds its connection: tiny_http parses nothing behind it.
///
/// Drop it after its socket is shut down, when nothing is left to read. Before that, the drop blocks until the client has sent
/// the rest.
pub struct UnreadBody {
    /// None only during `respond` and `drop`.
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
    /// Only `upgrade` writes without reading the body first. It adds `Connection: upgrade` and an `Upgrade` field, which any response
    /// may have (RFC 9110, section 7.8); it names the protocol that is spoken already. `upgrade` drops `Content-Length` and
    /// `Connection` fields, but copies any other value as it is, so these two lines follow the value of `Content-Type`.
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
            // `Request::drop` would answer it.
            Held::Request(request) => drop(request.into_writer()),
        };
        if isize::try_from(self.allocates).is_err() {
            // No allocation can be that long: the drop panics before it reads, and still releases the connection.
            panics::expected(release);
        } else if Vec::<u8>::new().try_reserve_exact(self.allocates).is_ok() {
            // The allocation is never touched, so it takes address space, not memory.
            release();
        } else {
            // A failed allocation ends the process, and tiny_http has no other way to release the connection: it leaks.
            std::mem::forget(release);
        }
    }
}
