//! The guard: protects the server from hostile clients and from tiny_http.
//!
//! One thread looks at all connections, tick by tick: [`sockets`] finds them, [`rules`] decides which to close, and [`closer`]
//! closes those that the server sends to be closed. [`stuck`] counts those that stay open nevertheless. Another thread rings the
//! [`doorbell`], which may block.

mod closer;
mod doorbell;
mod rules;
mod shortage;
mod sockets;
mod stuck;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use self::closer::Closer;
use self::doorbell::Doorbell;
use self::rules::{Rules, Situation};
use self::shortage::Shortage;
use self::sockets::{Connection, Sockets, State};
use self::stuck::Stuck;
use crate::metrics::{self, CloseReason};
use crate::server::limits::Connections;
use crate::server::{Close, Server, panics};

/// The time between two looks while requests arrive.
const TICK_BUSY: Duration = Duration::from_millis(25);

/// The time between two looks otherwise: looks are most of the work of an idle server.
const TICK_QUIET: Duration = Duration::from_millis(100);

/// The least time between two looks, for each open descriptor, so that looks take a small share of a processor. The time that a
/// look takes would be a bad measure: under load it is preempted, and looks would become rare just when they are needed.
const TICK_PER_DESCRIPTOR: Duration = Duration::from_micros(100);

/// The server is behind if at least this many requests arrived since the last look and it has not caught up in between. A flood
/// brings hundreds. On a busy machine, a few requests with long heads may find the leader waiting for a processor.
const BEHIND_ARRIVALS: u64 = 64;

struct Guard {
    server: Arc<Server>,
    closes: Receiver<Close>,
    sockets: Sockets,
    rules: Rules,
    closer: Closer,
    shortage: Shortage,
    stuck: Stuck,
    /// The arrivals at the last look.
    arrivals: u64,
}

/// Starts to guard `server`: closes the connections in `closes`, those that are idle for `idle_timeout`, and hostile ones. Within
/// `limits`, connections make room for others.
///
/// # Errors
///
/// Returns the error of the system call.
pub fn start(
    server: &Arc<Server>,
    closes: Receiver<Close>,
    idle_timeout: Duration,
    limits: Connections,
) -> io::Result<()> {
    let guard = Guard {
        sockets: Sockets::of_port(server.address().port())?,
        rules: Rules::new(idle_timeout),
        closer: Closer::default(),
        shortage: Shortage::new(limits),
        stuck: Stuck::default(),
        closes,
        server: Arc::clone(server),
        arrivals: 0,
    };
    panics::spawn_vital("guard", move || guard.run())?;
    let doorbell = Doorbell::of(Arc::clone(server), limits);
    panics::spawn_vital("doorbell", move || doorbell.run())
}

impl Guard {
    fn run(mut self) {
        let mut tick = TICK_QUIET;
        loop {
            if self.receive(Instant::now() + tick).is_err() {
                return;
            }
            tick = self.look();
        }
    }

    /// Takes the connections that the server sends to be closed, until `deadline`.
    fn receive(&mut self, deadline: Instant) -> Result<(), RecvTimeoutError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.closes.recv_timeout(left) {
                Ok(close) => {
                    if close.unread_body.is_some() {
                        self.server.count_closed(CloseReason::RefusedBody);
                    }
                    self.closer.take(close);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(disconnected) => return Err(disconnected),
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Looks at all connections. Returns the time until the next look.
    fn look(&mut self) -> Duration {
        let open = metrics::open_fds();
        let arrivals = self.server.arrivals();
        let arrived = arrivals - std::mem::replace(&mut self.arrivals, arrivals);
        let caught_up = self.server.has_caught_up();
        let now = Instant::now();
        let situation = Situation {
            now,
            busy: self.server.busy(),
            behind: arrived >= BEHIND_ARRIVALS && !caught_up,
            short: self.shortage.held(open, now).or_else(|| {
                let waits = self.server.acceptor().ended() | self.rules.any_parked();
                waits.then_some(CloseReason::Descriptors)
            }),
        };
        self.server.set_keep_alive(situation.short.is_none());
        let Guard {
            server,
            rules,
            closer,
            stuck,
            ..
        } = self;
        self.sockets.for_each(|connection| {
            let state = connection.state();
            if state != State::Ended && closer.close(connection, now) {
                return;
            }
            if state == State::Open {
                if let Some(reason) = rules.reason_to_close(connection, &situation) {
                    close(server, connection, reason);
                }
            } else if !situation.busy.contains(&connection.peer())
                && let Some(cookie) = connection.cookie()
            {
                // A request in flight would hold it until its response is due.
                stuck.found(cookie, now);
            }
        });
        rules.forget_gone(now);
        closer.forget_gone(now);
        let stuck = stuck.count(now);
        server.set_stuck(stuck, self.shortage.too_many(stuck));

        let busy = arrived > 0 || self.closer.is_closing() || situation.short.is_some();
        let tick = if busy { TICK_BUSY } else { TICK_QUIET };
        tick.max(TICK_PER_DESCRIPTOR * u32::try_from(open.unwrap_or(0)).unwrap_or(u32::MAX))
    }
}

/// Closes a connection, for a reason that the server has not given.
fn close(server: &Server, connection: Connection<'_>, reason: CloseReason) {
    // `drop_requests_of` discards what arrives from this peer for a while. An idle connection has no requests to discard, and its
    // client may connect from the same port again.
    let idle = matches!(
        reason,
        CloseReason::Idle | CloseReason::SlowHead | CloseReason::Descriptors | CloseReason::Threads
    );
    let unread_body = if idle {
        None
    } else {
        server.drop_requests_of(connection.peer())
    };
    connection.close();
    drop(unread_body);
    server.count_closed(reason);
}
