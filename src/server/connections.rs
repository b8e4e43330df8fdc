//! The connections that have requests in flight, each with its requests in the order of their arrival.
//!
//! tiny_http writes the responses of a connection in the order of its requests, and blocks a thread that writes too early. So
//! at most one request of a connection is on the schedule or with a worker at a time; the others wait here behind it.
//! Otherwise workers would block each other.
//!
//! A connection is identified by its peer's address. A closed one is remembered for [`DISCARD_FOR`], since requests that tiny_http
//! had already read from it may still arrive. Later requests from the same peer belong to a new connection.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How many unanswered requests one connection may have. A client that pipelines more gets the responses to
/// these, then a 503, and the connection is closed: no later request was accepted.
pub const CONNECTION_IN_FLIGHT_MAX: usize = 128;

/// How long requests of a closed connection are discarded. Longer than a lingering close takes.
const DISCARD_FOR: Duration = Duration::from_millis(750);

/// Where a request that just arrived goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the schedule: it is the first of its connection, whose number this is.
    First(u64),
    /// Behind an earlier request of its connection.
    Behind,
    /// Nowhere: its connection has [`CONNECTION_IN_FLIGHT_MAX`] requests in flight.
    Full,
    /// Nowhere: its connection gets no response after those in flight. The request must be kept until they are sent: if it is
    /// dropped, tiny_http answers it, too early.
    Closing,
    /// Nowhere: its connection is closed.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The last request that gets a response has arrived.
    Closing,
    Closed {
        at: Instant,
    },
}

struct Connection<T> {
    /// Distinguishes it from other connections of the same peer.
    number: u64,
    /// Whether one of its requests is on the schedule or with a worker.
    scheduled: bool,
    /// The requests behind that one, oldest first.
    waiting: VecDeque<T>,
    /// The last request that arrived while the connection was closing.
    discarded: Option<T>,
    state: State,
}

/// The requests of a connection that was just closed. They get no response.
pub(super) struct Closed<T> {
    pub(super) number: u64,
    /// Whether one more is on the schedule or with a worker.
    pub(super) scheduled: bool,
    /// The requests that waited behind that one.
    pub(super) waiting: VecDeque<T>,
    /// A request that was never admitted.
    pub(super) discarded: Option<T>,
}

/// The table of connections, guarded by the schedule's lock.
pub(super) struct Connections<T> {
    by_peer: HashMap<SocketAddr, Connection<T>>,
    /// The closed ones, oldest first.
    closed: VecDeque<(Instant, SocketAddr)>,
    /// How many there have been.
    count: u64,
}

impl<T> Connections<T> {
    pub(super) fn new() -> Self {
        Connections {
            by_peer: HashMap::new(),
            closed: VecDeque::new(),
            count: 0,
        }
    }

    /// Returns the place of a request from `peer`. After [`Place::First`] it is the scheduled one. If it is the `last` one that gets a
    /// response, there is always room for it.
    pub(super) fn arrive(&mut self, peer: SocketAddr, last: bool, now: Instant) -> Place {
        let connection = self.by_peer.entry(peer).or_insert_with(|| {
            self.count += 1;
            Connection::new(self.count)
        });
        match connection.state {
            State::Closing => return Place::Closing,
            State::Closed { at } if now < at + DISCARD_FOR => return Place::Closed,
            State::Closed { .. } => {
                self.count += 1;
                *connection = Connection::new(self.count);
            }
            State::Open => {}
        }
        if !last && usize::from(connection.scheduled) + connection.waiting.len() >= CONNECTION_IN_FLIGHT_MAX {
            return Place::Full;
        }
        if last {
            connection.state = State::Closing;
        }
        if connection.scheduled {
            return Place::Behind;
        }
        connection.scheduled = true;
        Place::First(connection.number)
    }

    /// Returns whether a further request of `peer` would find no room.
    #[cfg(test)]
    pub(super) fn is_full(&self, peer: SocketAddr) -> bool {
        let connection = self.by_peer.get(&peer);
        connection.is_some_and(|connection| connection.waiting.len() + 1 >= CONNECTION_IN_FLIGHT_MAX)
    }

    /// Puts a request behind those of its connection.
    pub(super) fn wait(&mut self, peer: SocketAddr, request: T) {
        if let Some(connection) = self.by_peer.get_mut(&peer) {
            connection.waiting.push_back(request);
        }
    }

    /// Keeps a request of a closing connection. Returns the one that was kept before.
    pub(super) fn discard(&mut self, peer: SocketAddr, request: T) -> Option<T> {
        self.by_peer.get_mut(&peer)?.discarded.replace(request)
    }

    /// Closes a connection for further requests, unless requests wait behind the scheduled one. Returns whether it did.
    pub(super) fn close_if_alone(&mut self, peer: SocketAddr, number: u64) -> bool {
        match self.get_mut(peer, number) {
            Some(connection) if connection.waiting.is_empty() => {
                connection.state = State::Closing;
                true
            }
            _ => false,
        }
    }

    /// Records that the scheduled request of a connection was answered and that the connection stays open. Returns the next
    /// request, which is now the scheduled one. If there is none, forgets the connection.
    pub(super) fn answered(&mut self, peer: SocketAddr, number: u64) -> Option<T> {
        let connection = self.get_mut(peer, number)?;
        let next = connection.waiting.pop_front();
        if next.is_none() && connection.state == State::Open {
            self.by_peer.remove(&peer);
        } else {
            connection.scheduled = next.is_some();
        }
        next
    }

    /// Closes the connection of `peer`, only if it has this `number` if one is given. Returns None if there is no such connection or
    /// it is closed already.
    pub(super) fn close(&mut self, peer: SocketAddr, number: Option<u64>, now: Instant) -> Option<Closed<T>> {
        self.forget_closed(now);
        let connection = match number {
            Some(number) => self.get_mut(peer, number)?,
            None => self.by_peer.entry(peer).or_insert_with(|| {
                self.count += 1;
                Connection::new(self.count)
            }),
        };
        if matches!(connection.state, State::Closed { .. }) {
            return None;
        }
        connection.state = State::Closed { at: now };
        let closed = Closed {
            number: connection.number,
            scheduled: std::mem::take(&mut connection.scheduled),
            waiting: std::mem::take(&mut connection.waiting),
            discarded: connection.discarded.take(),
        };
        self.closed.push_back((now, peer));
        Some(closed)
    }

    /// Returns the peers that have requests in flight.
    pub(super) fn busy(&self) -> impl Iterator<Item = SocketAddr> {
        let busy = self.by_peer.iter().filter(|(_, connection)| connection.scheduled);
        busy.map(|(peer, _)| *peer)
    }

    fn get_mut(&mut self, peer: SocketAddr, number: u64) -> Option<&mut Connection<T>> {
        let connection = self.by_peer.get_mut(&peer)?;
        (connection.number == number).then_some(connection)
    }

    /// Forgets the connections that have been closed for long enough.
    fn forget_closed(&mut self, now: Instant) {
        while let Some(&(at, peer)) = self.closed.front()
            && at + DISCARD_FOR <= now
        {
            self.closed.pop_front();
            if let Some(connection) = self.by_peer.get(&peer)
                && connection.state == (State::Closed { at })
            {
                self.by_peer.remove(&peer);
            }
        }
    }
}

impl<T> Connection<T> {
    fn new(number: u64) -> Self {
        Connection {
            number,
            scheduled: false,
            waiting: VecDeque::new(),
            discarded: None,
            state: State::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the first connection.
    const FIRST: u64 = 1;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn requests_of_a_connection_leave_in_the_order_they_came() {
        let now = Instant::now();
        let mut connections = Connections::new();
        assert_eq!(connections.arrive(peer(1), false, now), Place::First(FIRST));
        for request in ["second", "third"] {
            assert_eq!(connections.arrive(peer(1), false, now), Place::Behind);
            connections.wait(peer(1), request);
        }
        assert_eq!(connections.answered(peer(1), FIRST), Some("second"));
        assert_eq!(connections.answered(peer(1), FIRST), Some("third"));
        assert_eq!(connections.answered(peer(1), FIRST), None);
        assert!(connections.by_peer.is_empty(), "an idle connection takes no room");
    }

    #[test]
    fn a_full_connection_has_room_for_its_last_request_alone() {
        let now = Instant::now();
        let mut connections = Connections::new();
        connections.arrive(peer(1), false, now);
        for _ in 1..CONNECTION_IN_FLIGHT_MAX {
            assert_eq!(connections.arrive(peer(1), false, now), Place::Behind);
            connections.wait(peer(1), ());
        }
        assert_eq!(connections.arrive(peer(1), false, now), Place::Full);
        assert_eq!(
            connections.arrive(peer(2), false, now),
            Place::First(FIRST + 1),
            "another connection is not concerned"
        );
        assert_eq!(connections.arrive(peer(1), true, now), Place::Behind);
        assert_eq!(connections.arrive(peer(1), false, now), Place::Closing);
        assert_eq!(connections.arrive(peer(1), true, now), Place::Closing);
    }

    #[test]
    fn a_closing_connection_keeps_what_arrived_last_until_it_is_closed() {
        let now = Instant::now();
        let mut connections = Connections::new();
        connections.arrive(peer(1), true, now);
        assert_eq!(connections.discard(peer(1), "second"), None);
        assert_eq!(connections.discard(peer(1), "third"), Some("second"));
        assert_eq!(connections.answered(peer(1), FIRST), None);
        assert_eq!(
            connections.arrive(peer(1), false, now),
            Place::Closing,
            "it is not closed yet"
        );
        let closed = connections.close(peer(1), Some(FIRST), now).unwrap();
        assert_eq!(closed.discarded, Some("third"));
        assert_eq!(connections.arrive(peer(1), false, now), Place::Closed);
    }

    #[test]
    fn a_closed_connection_has_a_successor_after_a_while() {
        let now = Instant::now();
        let mut connections = Connections::new();
        connections.arrive(peer(1), false, now);
        connections.arrive(peer(1), false, now);
        connections.wait(peer(1), "behind");
        let closed = connections.close(peer(1), None, now).unwrap();
        assert_eq!((closed.number, closed.scheduled), (FIRST, true));
        assert_eq!(closed.waiting, ["behind"]);
        assert!(connections.close(peer(1), None, now).is_none(), "it is closed already");
        let before = now + DISCARD_FOR - Duration::from_nanos(1);
        assert_eq!(connections.arrive(peer(1), false, before), Place::Closed);
        let after = now + DISCARD_FOR;
        assert_eq!(connections.arrive(peer(1), false, after), Place::First(FIRST + 1));
        assert_eq!(connections.answered(peer(1), FIRST), None);
        assert!(connections.close(peer(1), Some(FIRST), after).is_none());
        assert_eq!(
            connections.arrive(peer(1), false, after),
            Place::Behind,
            "what ends its predecessor does not concern it"
        );
    }

    #[test]
    fn a_connection_without_requests_can_be_closed_too() {
        let now = Instant::now();
        let mut connections = Connections::<()>::new();
        let closed = connections.close(peer(1), None, now).unwrap();
        assert!(!closed.scheduled && closed.waiting.is_empty() && closed.discarded.is_none());
        assert_eq!(connections.arrive(peer(1), false, now), Place::Closed);
        assert!(connections.close(peer(2), Some(7), now).is_none(), "no such number");
    }

    #[test]
    fn closed_connections_are_forgotten_but_their_successors_are_not() {
        let now = Instant::now();
        let after = now + DISCARD_FOR;
        let mut connections = Connections::<()>::new();
        for port in 1..=100 {
            connections.close(peer(port), None, now);
        }
        connections.arrive(peer(1), false, after);
        connections.close(peer(200), None, after);
        assert_eq!((connections.by_peer.len(), connections.closed.len()), (2, 1));
        assert_eq!(connections.arrive(peer(1), false, after), Place::Behind);
    }

    #[test]
    fn only_a_connection_with_nothing_behind_its_request_is_closed_if_alone() {
        let now = Instant::now();
        let mut connections = Connections::new();
        connections.arrive(peer(1), false, now);
        connections.arrive(peer(1), false, now);
        connections.wait(peer(1), ());
        assert!(!connections.close_if_alone(peer(1), FIRST));
        connections.answered(peer(1), FIRST);
        assert!(!connections.close_if_alone(peer(1), FIRST + 1), "another's number");
        assert!(connections.close_if_alone(peer(1), FIRST));
        assert_eq!(connections.arrive(peer(1), false, now), Place::Closing);
    }

    #[test]
    fn only_connections_with_requests_in_flight_are_busy() {
        let now = Instant::now();
        let mut connections = Connections::<()>::new();
        connections.arrive(peer(1), false, now);
        connections.arrive(peer(2), false, now);
        connections.close(peer(3), None, now);
        connections.answered(peer(2), FIRST + 1);
        assert_eq!(connections.busy().collect::<Vec<_>>(), [peer(1)]);
        connections.close(peer(1), None, now);
        assert_eq!(connections.busy().count(), 0);
    }
}
