//! The access log: one logfmt line for each request, on standard output.
//!
//! Responders append to a bounded buffer and never wait for the reader of standard output; one thread writes. If the buffer is
//! full, lines are dropped, and a later line says how many.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::panics;
use crate::metrics::{Labels, TraceContext};

/// Bytes that may wait to be written.
const BUFFER_MAX: usize = 1024 * 1024;

/// How long lines gather before they are written together.
const GATHER: Duration = Duration::from_millis(5);

/// A line of the log.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Method, path (the route, never what the client sent) and status.
    pub labels: &'a Labels,
    /// From the arrival of the request to the end of the write of its response.
    pub duration: Duration,
    /// The client's address.
    pub peer: SocketAddr,
    /// The trace that the request is part of.
    pub trace: Option<&'a TraceContext>,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    dropped: u64,
    writing: bool,
}

/// The log.
pub struct AccessLog {
    buffer: Mutex<Buffer>,
    filled: Condvar,
    written: Condvar,
}

impl AccessLog {
    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn start() -> std::io::Result<Arc<AccessLog>> {
        let log = Arc::new(AccessLog {
            buffer: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
        });
        let writer = Arc::clone(&log);
        panics::spawn_vital("access-log", move || writer.write())?;
        Ok(log)
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a line. Does not wait for it to be written.
    pub fn append(&self, entry: &Entry<'_>) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let mut buffer = self.lock();
        if buffer.lines.len() >= BUFFER_MAX {
            buffer.dropped += 1;
            return;
        }
        let wake = buffer.lines.is_empty() && !buffer.writing;
        let Entry {
            labels,
            duration,
            peer,
            trace,
        } = entry;
        // An IPv4 client of an IPv6 socket is shown by its IPv4 address.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // Writing to a vector cannot fail.
        let _ = write!(
            buffer.lines,
            "ts={now} method={} path={} status={} duration={:.6}s peer={peer}",
            labels.method.as_str(),
            labels.path.as_str(),
            labels.status.code(),
            duration.as_secs_f64(),
        );
        if let Some(trace) = trace {
            let _ = write!(buffer.lines, " trace_id={:032x}", trace.trace_id());
        }
        buffer.lines.push(b'\n');
        drop(buffer);
        if wake {
            self.filled.notify_one();
        }
    }

    fn write(&self) {
        let mut lines = Vec::new();
        loop {
            {
                let mut buffer = self.lock();
                buffer.writing = false;
                self.written.notify_all();
                while buffer.lines.is_empty() {
                    buffer = self.filled.wait(buffer).unwrap_or_else(PoisonError::into_inner);
                }
                buffer.writing = true;
            }
            std::thread::sleep(GATHER);
            let dropped = {
                let mut buffer = self.lock();
                std::mem::swap(&mut buffer.lines, &mut lines);
                std::mem::take(&mut buffer.dropped)
            };
            if dropped > 0 {
                let _ = writeln!(
                    lines,
                    "ts={} level=warn msg=\"access log is read too slowly\" dropped_lines={dropped}",
                    humantime::format_rfc3339_millis(SystemTime::now()),
                );
            }
            // The server outlives the reader of its log.
            let _ = std::io::stdout().write_all(&lines);
            lines.clear();
            lines.shrink_to(BUFFER_MAX);
        }
    }

    /// Blocks until every line is written, for at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let unwritten = |buffer: &mut Buffer| buffer.writing || !buffer.lines.is_empty();
        // What is not written by then is lost.
        let _ = self.written.wait_timeout_while(self.lock(), timeout, unwritten);
    }
}
