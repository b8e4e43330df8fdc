//! How a request's body is framed, and so what tiny_http will do when the request is dropped.
//!
//! tiny_http buffers a body of up to 1,024 bytes before it hands the request over. A longer one it reads when the request
//! is dropped, in the thread that drops it, after allocating all that is left. A chunked one it does not read at all:
//! what is left of it is parsed as the next request. No route here takes a body, so all that matters is to tell the harmless
//! ones from the rest, strictly: what two parsers could read differently is refused (RFC 9112, section 6.3).

use tiny_http::Request;

/// The longest body that tiny_http buffers.
const BUFFERED_MAX: u64 = 1024;

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

/// What comes of dropping a request once its socket is shut down: there is nothing to wait for then, only to allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// It ends at once. What is allocated is never touched, so it costs addresses, not memory.
    Harmless,
    /// It panics before it allocates, and what it holds comes free all the same.
    Panics,
    /// It ends the process. So it must be forgotten, which leaks its connection's thread and descriptors: tiny_http has no way
    /// to let go of it.
    Deadly,
}

/// Finds out what comes of dropping a request, by trying to allocate as much.
pub fn drop_of(request: &Request) -> Drop {
    let left = request.body_length().unwrap_or(0);
    if isize::try_from(left).is_err() {
        // No vector may be longer.
        Drop::Panics
    } else if Vec::<u8>::new().try_reserve_exact(left).is_ok() {
        Drop::Harmless
    } else {
        Drop::Deadly
    }
}
