//! The plain server: complete and correct for well-behaved clients.
//!
//! The files are in the order in which a request travels: `listener`, `acceptor`, `intake`, `request`, `framing`, `endpoint`,
//! `schedule` with its `pool`, `requests` with their `queue`, `connections` and `places`, `worker`, `response`, `delivery`,
//! `access_log`. `drain` ends the server; `panics` handles what must not happen.
//!
//! tiny_http offers no way to close a connection. So the server sends those that should be closed down a channel: see [`Close`].
//! If nobody receives, the client closes the connection, since the response says `Connection: close`.

mod acceptor;
mod access_log;
pub mod connections;
mod delivery;
pub mod drain;
pub mod endpoint;
mod framing;
pub mod health;
mod intake;
pub mod limits;
pub mod listener;
pub mod panics;
mod pending;
mod places;
mod pool;
mod queue;
mod request;
mod requests;
mod response;
pub mod schedule;
mod worker;

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub use self::acceptor::Acceptor;
use self::access_log::AccessLog;
use self::endpoint::delay::Distribution;
pub use self::framing::UnreadBody;
use self::health::Health;
use self::intake::Intake;
use self::pending::PendingRequest;
use self::requests::Requests;
use self::schedule::Schedule;
use self::worker::{WORKERS_AT_START, Worker};
use crate::diagnostics::report;
use crate::flags::Flags;
use crate::metrics::{CloseReason, Config, DELAY_QUANTILES, Metrics};

/// How long the last lines of the access log may take.
const FLUSH_MAX: Duration = Duration::from_millis(100);

/// The threads that it takes to start: two workers, tiny_http's five, the access log, two that watch over connections, one for
/// signals, and some for the first connections.
const THREADS_MIN: usize = 16;

/// A connection that should be closed. At most one is sent for each open connection, and one for each unread body.
pub struct Close {
    /// The address of its client.
    pub peer: SocketAddr,
    /// Blocks tiny_http's thread of the connection. Drop it once the socket is shut down.
    pub unread_body: Option<UnreadBody>,
    /// Whether the close lingers, so that the client can read the response that was just sent (RFC 9112, section 9.6).
    pub lingers: bool,
}

/// What the server's threads share.
struct Shared {
    flags: Flags,
    delay: Distribution,
    metrics: Arc<Metrics>,
    acceptor: Acceptor,
    /// Boxed, since the schedule's queue moves its requests about.
    schedule: Schedule<Box<PendingRequest>>,
    closes: Sender<Close>,
    log: Option<AccessLog>,
    health: Health,
    /// Whether connections may stay open after a response.
    keep_alive: AtomicBool,
    /// Whether tiny_http's queue was found empty since that was last looked at.
    caught_up: AtomicBool,
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Starts to serve on `listener`. Returns the server, and the connections that should be closed as they come up.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call, and what it was about.
    pub fn start(flags: &Flags, listener: TcpListener) -> io::Result<(Arc<Server>, Receiver<Close>)> {
        panics::install();
        limits::try_threads(THREADS_MIN).map_err(|error| {
            let subject = "the threads that it needs cannot be had; see the limit on processes and threads";
            io::Error::other(format!("{subject} ({THREADS_MIN} threads: {error})"))
        })?;
        let (closes, to_close) = channel();
        let delay = flags.delay_distribution().map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            metrics: Arc::new(Metrics::new(Config {
                bounds: flags.buckets.clone(),
                max_in_flight: flags.max_in_flight,
                concurrency: flags.concurrency,
                delay_quantiles: DELAY_QUANTILES.map(|(q, _)| delay.quantile(q)),
            })),
            delay,
            acceptor: Acceptor::open(listener).map_err(about("the acceptor"))?,
            schedule: Schedule::new(Requests::new(flags.max_in_flight, flags.concurrency), WORKERS_AT_START),
            closes,
            log: flags
                .access_log
                .then(AccessLog::start)
                .transpose()
                .map_err(about("the access log"))?,
            health: Health::default(),
            keep_alive: AtomicBool::new(true),
            caught_up: AtomicBool::new(true),
            flags: flags.clone(),
        });
        for _ in 0..WORKERS_AT_START {
            Worker::start(&shared).map_err(about("the workers"))?;
        }
        let address = shared
            .acceptor
            .address()
            .map_err(about("the listening socket's address"))?;
        Ok((Arc::new(Server { address, shared }), to_close))
    }

    /// Returns the address of the listening socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the acceptor.
    pub fn acceptor(&self) -> &Acceptor {
        &self.shared.acceptor
    }

    /// Reopens the acceptor (see [`Acceptor::reopen`]).
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn reopen(&self) -> io::Result<()> {
        self.shared.acceptor.reopen(Intake::new(Arc::clone(&self.shared)))
    }

    /// Returns how many requests have arrived so far.
    pub fn arrivals(&self) -> u64 {
        self.shared.schedule.arrivals()
    }

    /// Returns whether all requests that tiny_http had parsed were taken at some time since the last call.
    pub fn has_caught_up(&self) -> bool {
        self.shared.caught_up.swap(false, Ordering::Relaxed)
    }

    /// Returns the peers of the connections that have requests in flight.
    pub fn busy(&self) -> HashSet<SocketAddr> {
        self.shared.schedule.busy()
    }

    /// Drops the requests of a connection, which get no response from now on. Returns its unread body, if there is one, to be dropped
    /// after the socket is shut down.
    pub fn drop_requests_of(&self, peer: SocketAddr) -> Option<UnreadBody> {
        unread_body_of(self.shared.schedule.close(peer))
    }

    /// Sets whether connections may stay open after a response.
    pub fn set_keep_alive(&self, keep_alive: bool) {
        self.shared.keep_alive.store(keep_alive, Ordering::Relaxed);
    }

    /// Counts a connection that was closed for `reason`.
    pub fn count_closed(&self, reason: CloseReason) {
        self.shared.metrics.connection_closed(reason);
    }

    /// Sets how many connections are stuck, and why they are too many, in one line, if they are.
    pub fn set_stuck(&self, stuck: u64, too_many: Option<String>) {
        self.shared.metrics.set_stuck(stuck);
        self.shared.health.set_fault(too_many);
    }

    /// Returns whether the server is draining.
    pub fn is_draining(&self) -> bool {
        self.shared.health.is_draining()
    }

    /// Drains: refuses new connections, and blocks until every request is answered. Those that still wait after `timeout` are
    /// answered early.
    pub fn drain(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.shared.health.start_to_drain();
        thread::sleep(drain::ACCEPT_FOR.min(timeout));
        if let Err(error) = self.shared.acceptor.close() {
            report(format_args!("cannot close the listening socket: {error}"));
        }
        if !drain::answer_all(&self.shared, deadline) {
            report(format_args!(
                "ending with {} requests unanswered: their clients do not read",
                self.shared.schedule.in_flight()
            ));
        }
        if let Some(log) = &self.shared.log {
            log.flush(FLUSH_MAX);
        }
    }
}

/// Returns a function that adds to an error what it was about.
fn about(subject: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{subject}: {error}"))
}

impl Shared {
    /// Sends a connection to whoever closes connections. Without a guard, nobody does.
    fn send_close(&self, close: Close) {
        // Fails only if there is no guard.
        let _ = self.closes.send(close);
    }
}

/// Returns the unread body among the requests of one connection. tiny_http parses nothing after it, so there is at most one.
fn unread_body_of(requests: impl IntoIterator<Item = Box<PendingRequest>>) -> Option<UnreadBody> {
    requests
        .into_iter()
        .filter_map(|request| request.into_unread_body())
        .last()
}
