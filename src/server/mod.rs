//! The plain server: complete and correct for well-behaved clients.
//!
//! The files are in the order in which a request travels: `listener`, `acceptor`, `dispatcher`, `endpoint`, `framing`, `connections`,
//! `schedule`, `responders`, `response`, `access_log`. `drain` is the end, `panics` what must not happen.
//!
//! tiny_http has no way to close a connection. So whatever must be closed is sent down a channel to whoever can: see [`Close`].
//! If nobody can, the response says `Connection: close`, and the client does.

mod acceptor;
mod access_log;
pub mod connections;
mod dispatcher;
pub mod drain;
pub mod endpoint;
mod framing;
pub mod listener;
pub mod panics;
mod responders;
mod response;
pub mod schedule;

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::Request;

pub use self::acceptor::Acceptor;
use self::access_log::AccessLog;
use self::dispatcher::{Dispatch, PendingRequest};
use self::endpoint::query::DELAY_OVERRIDE_MAX;
pub use self::framing::UnreadBody;
use self::responders::Responders;
use self::schedule::Schedule;
use crate::diagnostics::report;
use crate::flags::Flags;
use crate::metrics::{CloseReason, Config, DELAY_QUANTILES, Metrics};

/// How long after its idle timeout a connection may be open, until it is closed.
const IDLE_SLACK: Duration = Duration::from_secs(10);

/// How long the last lines of the access log may take.
const FLUSH_MAX: Duration = Duration::from_millis(100);

/// A request on the schedule: boxed, since the schedule's heap moves it about.
type PendingRequests = Box<PendingRequest>;

/// A connection that should be closed. There is one at most for each open connection, and one more for each unread body.
pub struct Close {
    /// Whose connection it is.
    pub peer: SocketAddr,
    /// Holds tiny_http's thread of the connection. To be dropped once the socket is shut down.
    pub unread_body: Option<UnreadBody>,
    /// Whether the client should get to read a response that was just sent (RFC 9112, section 9.6).
    pub lingers: bool,
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    schedule: Arc<Schedule<PendingRequests>>,
    acceptor: Arc<Acceptor>,
    log: Option<Arc<AccessLog>>,
    draining: Arc<AtomicBool>,
    keep_alive: Arc<AtomicBool>,
}

impl Server {
    /// Starts to serve on `listener`. Returns the server, and the connections that it wants closed.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn start(flags: &Flags, listener: TcpListener) -> io::Result<(Arc<Server>, Receiver<Close>)> {
        panics::install();
        let (closes, to_close) = channel();
        let draining = Arc::new(AtomicBool::new(false));
        let keep_alive = Arc::new(AtomicBool::new(true));
        let schedule = Arc::new(Schedule::new(flags.max_in_flight));
        let log = flags.access_log.then(AccessLog::start).transpose()?;
        let delay = flags.delay_distribution().map_err(io::Error::other)?;
        let metrics = Arc::new(Metrics::new(Config {
            bounds: flags.buckets.clone(),
            max_in_flight: flags.max_in_flight,
            delay_quantiles: DELAY_QUANTILES.map(|q| delay.quantile(q)),
        }));
        let responders = Responders {
            schedule: Arc::clone(&schedule),
            metrics: Arc::clone(&metrics),
            closes: closes.clone(),
            log: log.clone(),
            draining: Arc::clone(&draining),
            keep_alive: Arc::clone(&keep_alive),
            requests_per_connection: flags.requests_per_connection,
        };
        responders.start()?;
        let dispatch = Arc::new(Dispatch {
            schedule: Arc::clone(&schedule),
            closes,
            draining: Arc::clone(&draining),
            delay,
            error_rate: flags.error_rate,
            silence_max: flags.idle_timeout + flags.delay_max.max(DELAY_OVERRIDE_MAX) + IDLE_SLACK,
        });
        let acceptor = Acceptor::open(listener, dispatch)?;
        let server = Server {
            address: acceptor.address()?,
            metrics,
            schedule,
            acceptor,
            log,
            draining,
            keep_alive,
        };
        Ok((Arc::new(server), to_close))
    }

    /// Returns the address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what accepts connections.
    pub fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// Returns how many requests have arrived so far.
    pub fn arrivals(&self) -> u64 {
        self.schedule.arrivals()
    }

    /// Returns the peers of the connections that have requests in flight.
    pub fn busy(&self) -> HashSet<SocketAddr> {
        self.schedule.busy()
    }

    /// Marks a connection closed: its requests get no response from now on. Returns what must be dropped after its socket is shut
    /// down, if there is anything.
    pub fn close(&self, peer: SocketAddr) -> Option<UnreadBody> {
        let unanswered = self.schedule.close(peer).into_iter();
        unanswered.filter_map(|request| request.into_unread_body()).last()
    }

    /// Sets whether connections may stay open after a response.
    pub fn set_keep_alive(&self, keep_alive: bool) {
        self.keep_alive.store(keep_alive, Ordering::Relaxed);
    }

    /// Counts a connection that was closed for `reason`.
    pub fn closed(&self, reason: CloseReason) {
        self.metrics.connection_closed(reason);
    }

    /// Returns whether the server is draining.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Drains: refuses new connections and blocks until every request is answered, those that still wait after `timeout` early.
    pub fn drain(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.draining.store(true, Ordering::Relaxed);
        thread::sleep(drain::ACCEPT_FOR.min(timeout));
        if let Err(error) = self.acceptor.close() {
            report(format_args!("cannot close the listening socket: {error}"));
        }
        if !drain::answer_all(&self.schedule, deadline) {
            report(format_args!(
                "ending with {} requests unanswered: their clients do not read",
                self.schedule.in_flight()
            ));
        }
        if let Some(log) = &self.log {
            log.flush(FLUSH_MAX);
        }
    }
}

/// Returns the values of a field's lines, in their order.
fn field_values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    let lines = request.headers().iter().filter(move |header| header.field.equiv(name));
    lines.map(|header| header.value.as_str())
}
