//! The open connections as the schedule sees them, each with its requests in the order of their arrival.
//!
//! tiny_http writes the responses of a connection in the order of its requests, and makes a thread that comes too early
//! wait. So at most one request of a connection may be with the schedule or a responder at a time; the others stand here
//! behind it. Whoever breaks that rule lets responders wait on each other.
//!
//! A connection is known by its peer's address. The kernel keeps that unique among open sockets, so an entry stays until
//! the reaper has seen the socket gone, and what is decided about a connection (that it is cut off, say) can not hit the
//! next one from the same port.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long after its last answer a connection that was cut off may be open, and hold a request: longer than the reaper
/// lets it linger.
const HELD_FOR: Duration = Duration::from_secs(1);

/// What a request that just arrived must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Go onto the schedule: nothing of its connection is before it.
    First,
    /// Wait here: an earlier request of its connection is not answered yet.
    Behind,
    /// Be refused: as many requests of its connection as may be are in flight.
    Full,
    /// Be held unanswered: its connection is closing.
    Closed,
}

struct Connection<T> {
    /// True while one of its requests is on the schedule or with a responder.
    scheduled: bool,
    /// The requests behind that one, oldest first.
    waiting: VecDeque<T>,
    /// No request after those that are in flight is answered.
    closing: bool,
    /// The last request that came while it was closing. tiny_http takes a request that is let go of for one that was
    /// answered, and would write what it has to say itself, a 400 for example, before the answers that are still due.
    held: Option<T>,
    /// It was closing, and its socket was not found when it was last looked for.
    gone: bool,
    /// When its last request arrived or was answered, or else when it was first seen.
    active_at: Instant,
}

impl<T> Connection<T> {
    fn seen_at(now: Instant) -> Self {
        Connection {
            scheduled: false,
            waiting: VecDeque::new(),
            closing: false,
            held: None,
            gone: false,
            active_at: now,
        }
    }

    fn in_flight(&self) -> usize {
        usize::from(self.scheduled) + self.waiting.len()
    }
}

/// The table of connections. It has no lock of its own: the schedule's guards it.
pub(crate) struct Connections<T> {
    by_peer: HashMap<SocketAddr, Connection<T>>,
    in_flight_max: usize,
}

impl<T> Connections<T> {
    /// `in_flight_max` is how many unanswered requests one connection may have.
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Connections {
            by_peer: HashMap::new(),
            in_flight_max,
        }
    }

    /// Finds the place of a request from `peer`; `First` makes it the scheduled one.
    pub(crate) fn arrive(&mut self, peer: SocketAddr, now: Instant) -> Place {
        let connection = self.by_peer.entry(peer).or_insert_with(|| Connection::seen_at(now));
        if connection.closing {
            return Place::Closed;
        }
        connection.active_at = now;
        if connection.in_flight() >= self.in_flight_max {
            Place::Full
        } else if connection.scheduled {
            Place::Behind
        } else {
            connection.scheduled = true;
            Place::First
        }
    }

    /// Puts a request behind those of its connection.
    pub(crate) fn wait(&mut self, peer: SocketAddr, request: T) {
        if let Some(connection) = self.by_peer.get_mut(&peer) {
            connection.waiting.push_back(request);
        }
    }

    /// Holds a request of a closing connection, in place of the one that was held before, which can go.
    pub(crate) fn hold(&mut self, peer: SocketAddr, request: T) -> Option<T> {
        self.by_peer.get_mut(&peer)?.held.replace(request)
    }

    /// Lets no request in after those that are in flight.
    pub(crate) fn close_after(&mut self, peer: SocketAddr) {
        if let Some(connection) = self.by_peer.get_mut(&peer) {
            connection.closing = true;
        }
    }

    /// Tells that the scheduled request was answered, and gives the next one, which is the scheduled one from now on.
    pub(crate) fn answered(&mut self, peer: SocketAddr, now: Instant) -> Option<T> {
        let connection = self.by_peer.get_mut(&peer)?;
        connection.active_at = now;
        let next = connection.waiting.pop_front();
        connection.scheduled = next.is_some();
        next
    }

    /// Cuts a connection off after its scheduled request: gives the requests behind it, which are not to be answered.
    pub(crate) fn cut(&mut self, peer: SocketAddr) -> VecDeque<T> {
        let Some(connection) = self.by_peer.get_mut(&peer) else {
            return VecDeque::new();
        };
        connection.closing = true;
        connection.scheduled = false;
        std::mem::take(&mut connection.waiting)
    }

    /// Lets nothing further of a connection in: gives the requests behind the scheduled one, which are not to be answered.
    pub(crate) fn shut_out(&mut self, peer: SocketAddr, now: Instant) -> VecDeque<T> {
        let connection = self.by_peer.entry(peer).or_insert_with(|| Connection::seen_at(now));
        connection.closing = true;
        std::mem::take(&mut connection.waiting)
    }

    /// Forgets the connections that are no longer open, takes note of those that are, and gives the ones of these that
    /// had nothing in flight for `idle_max`, the longest idle first.
    ///
    /// One that was cut off is forgotten only the second time that it is not found: its thread may not have handed over yet
    /// what it had read.
    pub(crate) fn sweep(&mut self, open: &HashSet<SocketAddr>, now: Instant, idle_max: Duration) -> Swept<T> {
        let mut held = Vec::new();
        let mut going = false;
        self.by_peer.retain(|peer, connection| {
            if connection.in_flight() > 0 || open.contains(peer) {
                connection.gone = false;
            } else if connection.closing && !connection.gone {
                connection.gone = true;
                going = true;
            } else {
                held.extend(connection.held.take().map(|request| (*peer, request)));
                return false;
            }
            if connection.in_flight() == 0 && now.saturating_duration_since(connection.active_at) >= HELD_FOR {
                held.extend(connection.held.take().map(|request| (*peer, request)));
            }
            true
        });
        for peer in open {
            self.by_peer.entry(*peer).or_insert_with(|| Connection::seen_at(now));
        }
        let mut idle: Vec<(Instant, SocketAddr)> = self
            .by_peer
            .iter()
            .filter(|(peer, connection)| {
                let idle_max = if connection.closing { HELD_FOR } else { idle_max };
                connection.in_flight() == 0
                    && open.contains(peer)
                    && now.saturating_duration_since(connection.active_at) >= idle_max
            })
            .map(|(peer, connection)| (connection.active_at, *peer))
            .collect();
        idle.sort_unstable();
        Swept {
            idle: idle.into_iter().map(|(_, peer)| peer).collect(),
            held,
            going,
        }
    }
}

/// What a look at all connections found.
pub(crate) struct Swept<T> {
    /// The connections to be closed, the longest idle first.
    pub(crate) idle: Vec<SocketAddr>,
    /// What was held of connections that are closed, or that must be.
    pub(crate) held: Vec<(SocketAddr, T)>,
    /// Whether connections wait to be forgotten.
    pub(crate) going: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn requests_of_a_connection_leave_in_the_order_they_came() {
        let now = Instant::now();
        let mut connections = Connections::new(3);
        assert_eq!(connections.arrive(peer(1), now), Place::First);
        for request in ["second", "third"] {
            assert_eq!(connections.arrive(peer(1), now), Place::Behind);
            connections.wait(peer(1), request);
        }
        assert_eq!(connections.arrive(peer(1), now), Place::Full);
        assert_eq!(
            connections.arrive(peer(2), now),
            Place::First,
            "another connection is not concerned"
        );
        assert_eq!(connections.answered(peer(1), now), Some("second"));
        assert_eq!(connections.answered(peer(1), now), Some("third"));
        assert_eq!(connections.answered(peer(1), now), None);
        assert_eq!(connections.arrive(peer(1), now), Place::First);
    }

    #[test]
    fn a_connection_that_is_cut_stays_cut_until_its_socket_is_gone() {
        let now = Instant::now();
        let mut connections = Connections::new(8);
        connections.arrive(peer(1), now);
        connections.arrive(peer(1), now);
        connections.wait(peer(1), "behind");
        assert_eq!(connections.cut(peer(1)), ["behind"]);
        let open = HashSet::from([peer(1)]);
        connections.sweep(&open, now, Duration::MAX);
        assert_eq!(connections.arrive(peer(1), now), Place::Closed);
        assert!(connections.sweep(&HashSet::new(), now, Duration::MAX).going);
        assert_eq!(
            connections.arrive(peer(1), now),
            Place::Closed,
            "its thread may have more"
        );
        assert!(!connections.sweep(&HashSet::new(), now, Duration::MAX).going);
        assert_eq!(connections.arrive(peer(1), now), Place::First);
    }

    #[test]
    fn the_last_request_of_a_closing_connection_is_held_until_it_is_closed() {
        let now = Instant::now();
        let mut connections = Connections::new(8);
        connections.arrive(peer(1), now);
        connections.close_after(peer(1));
        assert_eq!(connections.hold(peer(1), "second"), None);
        assert_eq!(connections.hold(peer(1), "third"), Some("second"));
        let open = HashSet::from([peer(1)]);
        let later = now + HELD_FOR;
        assert!(
            connections.sweep(&open, later, Duration::MAX).held.is_empty(),
            "an answer is due"
        );
        connections.cut(peer(1));
        let swept = connections.sweep(&open, later, Duration::MAX);
        assert_eq!(swept.held, [(peer(1), "third")]);
        assert_eq!(swept.idle, [peer(1)], "it must be closed first");
    }

    #[test]
    fn only_connections_without_a_request_in_flight_are_idle() {
        let start = Instant::now();
        let mut connections: Connections<()> = Connections::new(8);
        connections.arrive(peer(1), start);
        let open = HashSet::from([peer(1), peer(2)]);
        let idle_max = Duration::from_secs(25);
        assert_eq!(connections.sweep(&open, start, idle_max).idle, []);
        let later = start + idle_max;
        assert_eq!(connections.sweep(&open, later, idle_max).idle, [peer(2)]);
        connections.answered(peer(1), later);
        assert_eq!(connections.sweep(&open, later, idle_max).idle, [peer(2)]);
    }
}
