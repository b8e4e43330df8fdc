//! The connections that have requests in flight, each with its requests in the order of their arrival.
//!
//! tiny_http writes the responses of a connection in the order of its requests, and makes a thread that comes too early
//! wait. So at most one request of a connection may be with the schedule or a responder at a time; the others wait here
//! behind it. Whoever breaks that rule lets responders wait for each other.
//!
//! A connection is known by its peer's address. A closed one is remembered for [`DISCARD_FOR`], since requests that tiny_http
//! had read from it may still arrive; what arrives from the same peer later belongs to its successor.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How many unanswered requests one connection may have. A client that pipelines more gets its responses, then a 503 and the
/// end of the connection: what it sent behind that was never accepted.
pub const CONNECTION_IN_FLIGHT_MAX: usize = 128;

/// How long requests of a closed connection are discarded: longer than a lingering close takes.
const DISCARD_FOR: Duration = Duration::from_millis(750);

/// Where a request that just arrived goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the schedule: no request of its connection, which has this number, is before it.
    First(u64),
    /// Behind an earlier request of its connection.
    Behind,
    /// Nowhere: its connection has [`CONNECTION_IN_FLIGHT_MAX`] requests in flight.
    Full,
    /// Nowhere, since its connection gets no response after those that are in flight. It must be kept until they are sent:
    /// tiny_http takes a request that is dropped for one that is answered, and would write a response of its own too early.
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
    /// Tells it from others of the same peer.
    number: u64,
    /// Whether one of its requests is on the schedule or with a responder.
    scheduled: bool,
    /// The requests behind that one, oldest first.
    waiting: VecDeque<T>,
    /// The last request that arrived while it was closing.
    discarded: Option<T>,
    state: State,
}

/// A connection that was just closed, with its requests that get no response.
pub(super) struct Closed<T> {
    pub(super) number: u64,
    /// Whether a further one is on the schedule or with a responder.
    pub(super) scheduled: bool,
    /// Those that waited behind that one.
    pub(super) waiting: VecDeque<T>,
    /// One that was never admitted.
    pub(super) discarded: Option<T>,
}

/// The table of connections. It has no lock of its own: the schedule's guards it.
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

    /// Returns the place of a request from `peer`. `First` makes it the scheduled one; `last` makes it the last one that
    /// gets a response, for which there is always room.
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

    /// Notes that the scheduled request of a connection was answered and that the connection stays open. Returns the next request,
    /// which is the scheduled one from now on; forgets the connection if there is none.
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

    /// Closes a connection: the one with that number, if a number is given. Returns None if there is none, or if it is closed
    /// already.
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

    /// The peers that have requests in flight.
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
