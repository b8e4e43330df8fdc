//! How a request's body is framed, and so what tiny_http will do when the request is dropped.
//!
//! tiny_http buffers a body of up to 1,024 bytes before it hands the request over. A longer one it reads when the request
//! is dropped, in the thread that drops it, after allocating all that is left. A chunked one it does not read at all:
//! what is left of it is parsed as the next request. No route here takes a body, so all that matters is to tell the harmless
//! ones from the rest, strictly: what two parsers could read differently is refused (RFC 9112, section 6.3).

use tiny_http::Request;

/// The longest body that tiny_http buffers.
const BUFFERED_MAX: u64 = 1024;

/// The longest body whose allocation can do no harm when tiny_http drops its request.
const DRAINABLE_MAX: usize = 1024 * 1024;

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// None, or one that is read already.
    Complete,
    /// One that is not read yet: the request gets 413 and its connection ends.
    Unread,
    /// A `Content-Length` that is no number, or more than one: the request gets 400 and its connection ends.
    Malformed,
}

/// Finds out the framing of a request from its headers.
pub fn of(request: &Request) -> Framing {
    let (mut chunked, mut expects, mut length) = (false, false, None);
    for header in request.headers() {
        if header.field.equiv("Transfer-Encoding") {
            chunked = true;
        } else if header.field.equiv("Expect") {
            expects = true;
        } else if header.field.equiv("Content-Length") {
            let value = header.value.as_str();
            if length.is_some() || value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                return Framing::Malformed;
            }
            // What overflows is longer than anything that is buffered.
            length = Some(value.parse().unwrap_or(u64::MAX));
        }
    }
    match length {
        _ if chunked => Framing::Unread,
        None | Some(0) => Framing::Complete,
        Some(length) if length <= BUFFERED_MAX && !expects => Framing::Complete,
        Some(_) => Framing::Unread,
    }
}

/// Whether a request may be dropped once its socket is shut down: then there is nothing to wait for, only to allocate.
///
/// If not, it must be forgotten, which leaks its connection's thread and descriptors: tiny_http has no way to let go of it.
pub fn droppable(request: &Request) -> bool {
    request.body_length().is_none_or(|length| length <= DRAINABLE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::{Header, TestRequest};

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = TestRequest::new().with_body("12345");
        for (name, value) in headers {
            request = request.with_header(Header::from_bytes(*name, *value).unwrap());
        }
        request.into()
    }

    #[test]
    fn only_what_tiny_http_has_read_is_complete() {
        let cases: [(&[(&str, &str)], Framing); 13] = [
            (&[("Content-Length", "0")], Framing::Complete),
            (&[("Content-Length", "1025")], Framing::Unread),
            (&[("Content-Length", "18446744073709551615")], Framing::Unread),
            (&[("Content-Length", "18446744073709551616")], Framing::Unread),
            (&[("content-length", "-1")], Framing::Malformed),
            (&[("Content-Length", "+5")], Framing::Malformed),
            (&[("Content-Length", "")], Framing::Malformed),
            (&[("Content-Length", "1, 1")], Framing::Malformed),
            (&[("Content-Length", "0"), ("Content-Length", "0")], Framing::Malformed),
            (&[("Content-Length", "5"), ("Expect", "100-continue")], Framing::Unread),
            (&[("Transfer-Encoding", "chunked")], Framing::Unread),
            (
                &[("Transfer-Encoding", "identity"), ("Content-Length", "0")],
                Framing::Unread,
            ),
            (
                &[("Content-Length", "0"), ("Expect", "100-continue")],
                Framing::Complete,
            ),
        ];
        for (headers, expected) in cases {
            let request = request(headers);
            assert_eq!(of(&request), expected, "{headers:?}");
            // What a drop would drain does not matter here; that it would allocate does.
            if !droppable(&request) {
                std::mem::forget(request);
            }
        }
    }

    #[test]
    fn a_body_is_droppable_up_to_what_may_be_allocated() {
        for (length, expected) in [("1048576", true), ("1048577", false), ("18446744073709551615", false)] {
            let request = request(&[("Content-Length", length)]);
            assert_eq!(droppable(&request), expected, "{length}");
            std::mem::forget(request);
        }
    }
}
