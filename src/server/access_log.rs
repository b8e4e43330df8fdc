//! The access log: one logfmt line for each request, on standard output.
//!
//! Workers never wait for the reader of standard output: lines queue for one thread that writes them. If the queue is full, lines
//! are dropped, and a later line says how many.

use std::io::{self, Write};
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::panics;
use crate::metrics::{Labels, TraceContext};

/// Lines that may wait to be written.
const QUEUE_MAX: usize = 4096;

/// How long lines gather before they are written together.
const GATHER: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Counts {
    /// Lines that are queued, or being written.
    unwritten: AtomicUsize,
    /// Lines that found the queue full since the last warning.
    dropped: AtomicU64,
}

/// The log.
pub struct AccessLog {
    queue: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl AccessLog {
    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn start() -> io::Result<AccessLog> {
        let (queue, queued) = sync_channel(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        panics::spawn_vital("access-log", move || write(&queued, &counted))?;
        Ok(AccessLog { queue, counts })
    }

    /// Appends the line of a request: its route, never what the client sent, and the time from its arrival to the end of the write of its
    /// response, `queue` of which it waited to be served if there is a limit on concurrency. Does not wait for it to be written.
    pub fn append(
        &self,
        labels: Labels,
        duration: Duration,
        queue: Option<Duration>,
        peer: SocketAddr,
        trace: Option<TraceContext>,
    ) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        // An IPv4 client of an IPv6 socket is shown by its IPv4 address.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let mut line = Vec::new();
        // Writing to a vector cannot fail.
        let _ = write!(
            line,
            "ts={now} method={} path={} status={} duration={:.6}s",
            labels.method.as_str(),
            labels.path.as_str(),
            labels.status.code(),
            duration.as_secs_f64(),
        );
        if let Some(queue) = queue {
            let _ = write!(line, " queue={:.6}s", queue.as_secs_f64());
        }
        let _ = write!(line, " peer={peer}");
        if let Some(trace) = trace {
            let _ = write!(line, " trace_id={:032x}", trace.trace_id());
        }
        line.push(b'\n');
        self.counts.unwritten.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(line).is_err() {
            self.counts.unwritten.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Blocks until every line is written, for at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        // What is not written by then is lost.
        while self.counts.unwritten.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(GATHER);
        }
    }
}

fn write(queued: &Receiver<Vec<u8>>, counts: &Counts) {
    let mut lines = Vec::new();
    while let Ok(first) = queued.recv() {
        thread::sleep(GATHER);
        let mut count = 0;
        for line in iter::once(first).chain(queued.try_iter().take(QUEUE_MAX)) {
            lines.extend(line);
            count += 1;
        }
        let dropped = counts.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            let warning = "level=warn msg=\"access log is read too slowly\"";
            let _ = writeln!(lines, "ts={now} {warning} dropped_lines={dropped}");
        }
        // The server outlives the reader of its log.
        let _ = io::stdout().write_all(&lines);
        lines.clear();
        counts.unwritten.fetch_sub(count, Ordering::Relaxed);
    }
}
