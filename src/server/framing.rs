//! How a request's body is framed, and whether tiny_http has read it.
//!
//! tiny_http reads a body of up to 1,024 bytes before it hands the request over. It does not read a longer one, a chunked one, or one
//! behind `Expect: 100-continue`, and parses no further request of the connection until the request is dropped. The drop allocates the
//! whole length and reads the rest of the body, in the thread that drops; the rest of a chunked body is parsed as the next
//! request. No endpoint takes a body, so an unread one is refused and its connection closed. A framing that two parsers could
//! read differently is refused as well (RFC 9112, section 6.3).

use std::io::Write;

use tiny_http::{Header, ReadWrite, Request, Response, StatusCode};

use super::panics;
use super::request::Single;

/// The longest body that tiny_http reads by itself, bytes.
const READ_BY_TINY_HTTP_MAX: usize = 1024;

/// What a request says about its body.
#[derive(Debug, Default, Clone, Copy)]
pub struct BodyFields<'a> {
    /// `Content-Length`.
    pub length: Single<'a>,
    /// The length that tiny_http has read from the first `Content-Length`. None if it overflows or is not a number.
    pub read_length: Option<usize>,
    /// Whether there is a `Transfer-Encoding`.
    pub is_encoded: bool,
    /// Whether there is an `Expect`.
    pub is_expected: bool,
    /// Whether tiny_http takes the request for an upgrade. Then it reads nothing that follows, even when the request is dropped.
    pub upgrades: bool,
}

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, or it was read.
    Complete,
    /// Well formed, and not read.
    Unread,
    /// `Content-Length` is not a number, is given twice, or contradicts `Transfer-Encoding`.
    Malformed,
}

impl BodyFields<'_> {
    /// Returns the framing of the body.
    pub fn framing(&self) -> Framing {
        match self.length {
            Single::Repeated => Framing::Malformed,
            Single::Once(length)
                if self.is_encoded || length.is_empty() || !length.bytes().all(|digit| digit.is_ascii_digit()) =>
            {
                Framing::Malformed
            }
            // tiny_http ignores a length that overflows. Such a body is too long to be read.
            Single::Once(_) if self.read_length.is_none() => Framing::Unread,
            _ if self.is_unread() => Framing::Unread,
            _ => Framing::Complete,
        }
    }

    /// Returns whether tiny_http has left the body unread, by its own rules.
    pub fn is_unread(&self) -> bool {
        match self.read_length {
            None => self.is_encoded,
            Some(length) if length <= READ_BY_TINY_HTTP_MAX => length > 0 && (self.is_expected || self.upgrades),
            Some(_) => true,
        }
    }

    /// Returns how much the drop of the request allocates, bytes.
    pub fn allocates(&self) -> usize {
        if self.upgrades {
            0
        } else {
            self.read_length.unwrap_or(0)
        }
    }
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
    /// Takes a request for which [`BodyFields::is_unread`] holds, with what it [allocates](BodyFields::allocates).
    pub fn new(request: Request, allocates: usize) -> UnreadBody {
        UnreadBody {
            held: Some(Held::Request(Box::new(request))),
            allocates,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_complete_unread_or_malformed_and_unread_by_the_rules_of_tiny_http() {
        use Framing::{Complete, Malformed, Unread};
        let of = |lengths: &[&'static str], read_length| {
            let mut fields = BodyFields {
                read_length,
                ..BodyFields::default()
            };
            fields.length = match lengths {
                [] => Single::Absent,
                [length] => Single::Once(length),
                _ => Single::Repeated,
            };
            fields
        };
        let encoded = |fields| BodyFields {
            is_encoded: true,
            ..fields
        };
        let expected = |fields| BodyFields {
            is_expected: true,
            ..fields
        };
        let upgrade = |fields| BodyFields {
            upgrades: true,
            ..fields
        };
        for (fields, framing, is_unread) in [
            (of(&[], None), Complete, false),
            (of(&["0"], Some(0)), Complete, false),
            (of(&["1024"], Some(1024)), Complete, false),
            (of(&["1025"], Some(1025)), Unread, true),
            (of(&["18446744073709551616"], None), Unread, false),
            (of(&["+5"], Some(5)), Malformed, false),
            (of(&[""], None), Malformed, false),
            (of(&["5", "5"], Some(5)), Malformed, false),
            (of(&["2000", "0"], Some(2000)), Malformed, true),
            (encoded(of(&[], None)), Unread, true),
            (encoded(of(&["5"], None)), Malformed, true),
            (expected(of(&["5"], Some(5))), Unread, true),
            (expected(of(&[], None)), Complete, false),
            (upgrade(of(&["5"], Some(5))), Unread, true),
            (upgrade(of(&["0"], Some(0))), Complete, false),
        ] {
            assert_eq!(
                (fields.framing(), fields.is_unread()),
                (framing, is_unread),
                "{fields:?}"
            );
        }
        assert_eq!(of(&["2000"], Some(2000)).allocates(), 2000);
        assert_eq!(upgrade(of(&["2000"], Some(2000))).allocates(), 0);
    }
}
