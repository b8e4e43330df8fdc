//! The rules by which the guard closes connections that the server has not asked to close.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::sockets::{Connection, Traffic};
use crate::metrics::CloseReason;

/// Bytes that a client may send since its last response. No honest head is longer, and tiny_http reads heads without a bound.
const UNANSWERED_MAX: u64 = 64 * 1024;

/// Unread bytes at which a connection counts as flooding while the server is behind: 128 bytes for each request that it may have
/// in flight.
const FLOOD_UNREAD: usize = 16 * 1024;

/// How long a connection may take to send its first whole request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may be idle while descriptors are short. Long enough for the first request of a new connection.
const SHORT_IDLE_MAX: Duration = Duration::from_secs(1);

/// How long the number of unread bytes must not change for a connection to count as parked. The doorbell frees most within two
/// seconds. The others belong to an accept loop that has ended, and get a thread when other connections close.
const PARKED_AFTER: Duration = Duration::from_secs(3);

/// The state of the server at a look.
pub(super) struct Situation {
    pub(super) now: Instant,
    /// The peers that have requests in flight.
    pub(super) busy: HashSet<SocketAddr>,
    /// Whether requests arrive faster than the server takes them from tiny_http.
    pub(super) behind: bool,
    /// Why idle connections have to make room, if they have to: descriptors or threads are short.
    pub(super) short: Option<CloseReason>,
}

/// What one look remembers of a connection for the next.
struct Seen {
    first_at: Instant,
    /// When it last had a request in flight or was sent something.
    active_at: Instant,
    /// At the last look that found something sent.
    traffic: Traffic,
    unread: usize,
    /// Since when it has had that many unread bytes.
    unread_since: Instant,
    /// The time of the last look that found it.
    found_at: Instant,
}

/// Decides which connections to close, by their traffic.
pub(super) struct Rules {
    idle_timeout: Duration,
    seen: HashMap<SocketAddr, Seen>,
    /// Whether a parked connection was found since that was last asked.
    parked: bool,
    /// A buffer to count unread bytes in.
    counted: Vec<u8>,
}

impl Rules {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Rules {
            idle_timeout,
            seen: HashMap::new(),
            parked: false,
            counted: vec![0; FLOOD_UNREAD],
        }
    }

    /// Returns why a connection should be closed, if it should.
    pub(super) fn reason_to_close(&mut self, connection: Connection<'_>, situation: &Situation) -> Option<CloseReason> {
        let now = situation.now;
        let traffic = connection.traffic()?;
        let fresh = || Seen::new(traffic, now);
        let seen = self.seen.entry(connection.peer()).or_insert_with(fresh);
        if traffic.sent < seen.traffic.sent || traffic.received < seen.traffic.received {
            // It is a new connection from the same port.
            *seen = fresh();
        }
        seen.found_at = now;
        let busy = situation.busy.contains(&connection.peer());
        if busy || traffic.sent != seen.traffic.sent {
            seen.active_at = now;
        }
        if traffic.sent != seen.traffic.sent {
            seen.traffic = traffic;
        }
        let unanswered = traffic.received - seen.traffic.received;
        if unanswered >= UNANSWERED_MAX {
            return Some(CloseReason::OversizedHead);
        }
        // If nothing was received since the last response, nothing is unread: this saves a system call.
        let unread = if unanswered > 0 {
            connection.unread(&mut self.counted)
        } else {
            0
        };
        // Without a request in flight, it may be one long head.
        if busy && situation.behind && unread >= FLOOD_UNREAD {
            return Some(CloseReason::Flood);
        }
        if unread != seen.unread {
            (seen.unread, seen.unread_since) = (unread, now);
        }
        if busy {
            return None;
        }
        if unread > 0 && unread < FLOOD_UNREAD && seen.unread_since + PARKED_AFTER <= now {
            self.parked = true;
            // It is not the client that is slow.
            seen.first_at = now;
        }
        let idle_for = now - seen.active_at;
        if idle_for >= self.idle_timeout {
            Some(CloseReason::Idle)
        } else if unread > 0 {
            // It is parked: its client waits for a response.
            None
        } else if traffic.sent == 0 && now - seen.first_at >= FIRST_REQUEST_WITHIN {
            Some(CloseReason::SlowHead)
        } else if idle_for.min(now - seen.unread_since) >= SHORT_IDLE_MAX {
            // Not sooner: a request that was just read may not have reached the server yet.
            situation.short
        } else {
            None
        }
    }

    /// Forgets the connections that the look at `now` did not find.
    pub(super) fn forget_gone(&mut self, now: Instant) {
        self.seen.retain(|_, seen| seen.found_at == now);
    }

    /// Returns whether a parked connection was found since the last call.
    pub(super) fn any_parked(&mut self) -> bool {
        std::mem::take(&mut self.parked)
    }
}

impl Seen {
    fn new(traffic: Traffic, now: Instant) -> Self {
        // If nothing was sent yet, everything received is unanswered.
        let answered = if traffic.sent == 0 { 0 } else { traffic.received };
        Seen {
            first_at: now,
            active_at: now,
            traffic: Traffic {
                received: answered,
                ..traffic
            },
            unread: 0,
            unread_since: now,
            found_at: now,
        }
    }
}
