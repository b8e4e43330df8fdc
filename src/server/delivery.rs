//! The delivery of a response to a client that may not read.
//!
//! A write blocks while the client's socket is full, for at most the listener's write timeout. The rest of the response may take
//! [`STALL_MAX`], during which the worker counts as stalled. A client that reads more slowly is never written to again. So a
//! client that does not read blocks a worker only briefly, and a pool of fixed size is enough.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long a response may take after its first write, if one write was not enough.
const STALL_MAX: Duration = Duration::from_millis(100);

/// Writes as much of `rest` as the socket takes within its write timeout. Returns whether that was all.
///
/// # Errors
///
/// Returns the error of the write, except an interruption or the timeout.
pub(super) fn write_some(writer: &mut dyn Write, rest: &mut &[u8]) -> io::Result<bool> {
    let written = writer.write(rest).and_then(|len| {
        *rest = &rest[len..];
        if rest.is_empty() {
            writer.flush()
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    });
    match written {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the rest of a response, for at most [`STALL_MAX`].
///
/// The socket's write timeout alone is not enough: a write of a single byte within it is a success.
///
/// # Errors
///
/// Returns the error of the write, or [`TimedOut`](io::ErrorKind::TimedOut).
pub(super) fn write_rest(writer: &mut dyn Write, mut rest: &[u8]) -> io::Result<()> {
    let stalled_at = Instant::now();
    while stalled_at.elapsed() < STALL_MAX {
        if write_some(writer, &mut rest)? {
            return Ok(());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Returns whether an error says that the client has closed the connection.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}
