//! The open connections as the schedule sees them, each with its requests in the order of their arrival.
//!
//! tiny_http writes the responses of a connection in the order of its requests, and makes a thread that comes too early
//! wait. So at most one request of a connection may be with the schedule or a responder at a time; the others stand here
//! behind it. Whoever breaks that rule lets responders wait on each other.
//!
//! A connection is known by its peer's address, which the kernel keeps unique among open sockets. What is decided about one
//! (that it is cut off, say) must not hit the next one from the same port. So the entry of one that is closing stays until the
//! reaper has seen its socket gone; a request that comes from its peer by then is held, and taken after all if the reaper
//! finds another socket at that address than the one that it has ended. And one whose client has reset it is forsaken: its
//! scheduled request goes on by itself, known by the connection's number, and the next from its peer is another connection's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::sockets::{Socket, SocketId};

/// How long after its last answer a connection that was cut off may be open, and hold a request: longer than the reaper
/// lets it linger.
const HELD_FOR: Duration = Duration::from_secs(1);

/// How long a connection has nothing in flight before it is told of as quiet.
const QUIET_AFTER: Duration = Duration::from_millis(250);

/// What a request that just arrived must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Go onto the schedule: nothing of its connection, which has this number, is before it.
    First(u64),
    /// Wait here: an earlier request of its connection is not answered yet.
    Behind,
    /// Be refused: as many requests of its connection as may be are in flight.
    Full,
    /// Be held unanswered: its connection is closing.
    Closed,
}

/// The peers that are connected, with their sockets where these were asked for.
pub(crate) type Peers = HashMap<SocketAddr, Option<SocketId>>;

/// How far a connection's end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Requests are let in.
    Open,
    /// No request after those that are in flight is answered.
    Closing,
    /// The same, and its socket was shut down, at least for writing. What remains of its requests still holds its thread.
    Lingering(Former),
    /// The same, and nothing holds its thread any more.
    Released(Former),
}

/// The socket of a connection that was ended, by which the next one from the same port is told from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Former {
    /// This one.
    Socket(SocketId),
    /// It was closed before it could be ended.
    Gone,
    /// The kernel did not tell; or what its thread takes for requests may be part of a body, and must not be answered.
    Unknown,
}

impl Former {
    /// That of a connection whose socket was found to be ended, or not, and that may have been sent a body.
    pub(crate) fn new(socket: Option<&Socket>, has_body: bool) -> Self {
        match socket {
            _ if has_body => Former::Unknown,
            None => Former::Gone,
            Some(socket) => socket.id().map_or(Former::Unknown, Former::Socket),
        }
    }
}

/// What has come since a connection was ended: its successor's, perhaps.
enum Held<T> {
    Nothing,
    /// One request, which can be answered if it is the successor's.
    One(T),
    /// The last of several, or one after which the connection would have had to end.
    Last(T),
}

impl<T> Held<T> {
    fn take(&mut self) -> Option<T> {
        match std::mem::replace(self, Held::Nothing) {
            Held::Nothing => None,
            Held::One(request) | Held::Last(request) => Some(request),
        }
    }
}

struct Connection<T> {
    /// Tells it from others of the same peer.
    number: u64,
    /// True while one of its requests is on the schedule or with a responder.
    scheduled: bool,
    /// The requests behind that one, oldest first.
    waiting: VecDeque<T>,
    end: End,
    /// The last request that came while it was closing. tiny_http takes a request that is let go of for one that was
    /// answered, and would write what it has to say itself, a 400 for example, before the answers that are still due.
    held: Option<T>,
    /// What has come since it was ended.
    held_since: Held<T>,
    /// Its socket was not found when it was last looked for.
    gone: bool,
    /// When its last request arrived or was answered, or else when it was first seen.
    active_at: Instant,
}

impl<T> Connection<T> {
    fn new(number: u64, now: Instant) -> Self {
        Connection {
            number,
            scheduled: false,
            waiting: VecDeque::new(),
            end: End::Open,
            held: None,
            held_since: Held::Nothing,
            gone: false,
            active_at: now,
        }
    }

    fn in_flight(&self) -> usize {
        usize::from(self.scheduled) + self.waiting.len()
    }

    fn is_closing(&self) -> bool {
        self.end != End::Open
    }

    fn close(&mut self) {
        if self.end == End::Open {
            self.end = End::Closing;
        }
    }

    /// What is held, which is not to be answered any more.
    fn let_go(&mut self) -> impl Iterator<Item = T> {
        self.held.take().into_iter().chain(self.held_since.take())
    }

    /// Whether the open socket is not the one that was ended, but a new connection's whose requests can be answered.
    fn is_succeeded_by(&self, open: Option<SocketId>) -> bool {
        let Some(open) = open.filter(|_| !matches!(self.held_since, Held::Last(_))) else {
            return false;
        };
        match self.end {
            End::Open | End::Closing => false,
            End::Lingering(former) | End::Released(former) => match former {
                Former::Socket(socket) => socket != open,
                Former::Gone => true,
                Former::Unknown => false,
            },
        }
    }

    /// Whether it can be forgotten, told that its socket is not open: mostly the second time, since its thread may not have handed
    /// over yet what it had read.
    fn is_gone(&mut self) -> bool {
        match self.end {
            End::Open if self.in_flight() == 0 => true,
            End::Open => std::mem::replace(&mut self.gone, true),
            End::Lingering(_) => false,
            End::Closing | End::Released(_) => self.in_flight() == 0 && std::mem::replace(&mut self.gone, true),
        }
    }
}

/// The table of connections. It has no lock of its own: the schedule's guards it.
pub(crate) struct Connections<T> {
    by_peer: HashMap<SocketAddr, Connection<T>>,
    /// How many there have been.
    count: u64,
    in_flight_max: usize,
}

impl<T> Connections<T> {
    /// `in_flight_max` is how many unanswered requests one connection may have.
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Connections {
            by_peer: HashMap::new(),
            count: 0,
            in_flight_max,
        }
    }

    fn at(&mut self, peer: SocketAddr, now: Instant) -> &mut Connection<T> {
        self.by_peer.entry(peer).or_insert_with(|| {
            self.count += 1;
            Connection::new(self.count, now)
        })
    }

    /// Finds the place of a request from `peer`; `First` makes it the scheduled one.
    pub(crate) fn arrive(&mut self, peer: SocketAddr, now: Instant) -> Place {
        let in_flight_max = self.in_flight_max;
        let connection = self.at(peer, now);
        if connection.is_closing() {
            return Place::Closed;
        }
        connection.active_at = now;
        if connection.in_flight() >= in_flight_max {
            Place::Full
        } else if connection.scheduled {
            Place::Behind
        } else {
            connection.scheduled = true;
            Place::First(connection.number)
        }
    }

    /// Puts a request behind those of its connection.
    pub(crate) fn wait(&mut self, peer: SocketAddr, request: T) {
        if let Some(connection) = self.by_peer.get_mut(&peer) {
            connection.waiting.push_back(request);
        }
    }

    /// Holds a request of a closing connection, in place of the one that was held before, which can go. `last` is one after
    /// which its connection must end.
    pub(crate) fn hold(&mut self, peer: SocketAddr, request: T, last: bool) -> Option<T> {
        let connection = self.by_peer.get_mut(&peer)?;
        if matches!(connection.end, End::Open | End::Closing) {
            return connection.held.replace(request);
        }
        let before = connection.held_since.take();
        connection.held_since = if last || before.is_some() {
            Held::Last(request)
        } else {
            Held::One(request)
        };
        before
    }

    /// Lets no request in after those that are in flight.
    pub(crate) fn close_after(&mut self, peer: SocketAddr) {
        if let Some(connection) = self.by_peer.get_mut(&peer) {
            connection.close();
        }
    }

    /// Tells that the scheduled request of the connection with that number was answered, and gives the next one, which is the
    /// scheduled one from now on.
    pub(crate) fn answered(&mut self, peer: SocketAddr, number: u64, now: Instant) -> Option<T> {
        let connection = self
            .by_peer
            .get_mut(&peer)
            .filter(|connection| connection.number == number)?;
        connection.active_at = now;
        let next = connection.waiting.pop_front();
        connection.scheduled = next.is_some();
        next
    }

    /// Cuts a connection off after its scheduled request: gives the requests behind it, which are not to be answered. None where
    /// it is forsaken.
    pub(crate) fn cut(&mut self, peer: SocketAddr, number: u64) -> Option<VecDeque<T>> {
        let connection = self
            .by_peer
            .get_mut(&peer)
            .filter(|connection| connection.number == number)?;
        connection.close();
        connection.scheduled = false;
        Some(std::mem::take(&mut connection.waiting))
    }

    /// Lets nothing further of a connection in: gives the requests behind the scheduled one, which are not to be answered.
    pub(crate) fn shut_out(&mut self, peer: SocketAddr, now: Instant) -> VecDeque<T> {
        let connection = self.at(peer, now);
        connection.close();
        std::mem::take(&mut connection.waiting)
    }

    /// The peers of the connections that are closing.
    pub(crate) fn closing(&self) -> HashSet<SocketAddr> {
        let closing = self.by_peer.iter().filter(|(_, connection)| connection.is_closing());
        closing.map(|(peer, _)| *peer).collect()
    }

    /// The peers of the connections that have requests in flight.
    pub(crate) fn busy(&self) -> HashSet<SocketAddr> {
        let busy = self.by_peer.iter().filter(|(_, connection)| connection.in_flight() > 0);
        busy.map(|(peer, _)| *peer).collect()
    }

    /// Takes note that a connection that was cut off was shut down, and of its socket. False where it was before, and whoever
    /// did that has not let go of it yet.
    pub(crate) fn ended(&mut self, peer: SocketAddr, former: Former) -> bool {
        match self.by_peer.get_mut(&peer) {
            Some(connection) if matches!(connection.end, End::Closing | End::Released(_)) => {
                connection.end = End::Lingering(former);
                true
            }
            _ => false,
        }
    }

    /// Takes note that nothing holds its thread any more.
    pub(crate) fn released(&mut self, peer: SocketAddr) {
        if let Some(connection) = self.by_peer.get_mut(&peer)
            && let End::Lingering(former) = connection.end
        {
            connection.end = End::Released(former);
        }
    }

    /// Forgets the connections of which nothing can come any more, takes note of those that are open, and tells which of these
    /// are quiet. `open` are the peers that were found connected in a look that began at `now`, with the socket for those of
    /// [`Connections::closing`].
    pub(crate) fn sweep(&mut self, open: &Peers, now: Instant) -> Swept<T> {
        let mut swept = Swept {
            quiet: Vec::new(),
            over: Vec::new(),
            held: Vec::new(),
            forsaken: Vec::new(),
            succeeded: Vec::new(),
            closing: false,
        };
        self.by_peer.retain(|&peer, connection| {
            let is_open = open.contains_key(&peer);
            if connection.is_succeeded_by(open.get(&peer).copied().flatten()) {
                connection.end = End::Open;
                connection.active_at = now;
                swept.succeeded.extend(connection.held_since.take());
                swept.held.extend(connection.held.take());
            }
            // What has come since may be of a connection that was not looked at.
            if is_open || connection.active_at >= now {
                connection.gone = false;
            } else if connection.is_gone() {
                swept.held.extend(connection.let_go());
                swept.forsaken.extend(connection.waiting.drain(..));
                return false;
            }
            swept.closing |= connection.is_closing();
            let idle_for = now.saturating_duration_since(connection.active_at);
            if connection.in_flight() == 0 && idle_for >= HELD_FOR {
                swept.held.extend(connection.let_go());
            }
            if connection.in_flight() == 0 && is_open {
                if !connection.is_closing() && idle_for >= QUIET_AFTER {
                    swept.quiet.push((peer, idle_for));
                } else if connection.is_closing() && idle_for >= HELD_FOR {
                    swept.over.push(peer);
                }
            }
            true
        });
        for peer in open.keys() {
            self.at(*peer, now);
        }
        swept
    }
}

/// What a look at all connections found.
pub(crate) struct Swept<T> {
    /// The connections that have had nothing in flight for [`QUIET_AFTER`], and for how long.
    pub(crate) quiet: Vec<(SocketAddr, Duration)>,
    /// The connections that were cut off and are still open.
    pub(crate) over: Vec<SocketAddr>,
    /// What was held of connections that are closed, or that must be.
    pub(crate) held: Vec<T>,
    /// What waited behind requests of connections that were reset.
    pub(crate) forsaken: Vec<T>,
    /// What was held of new connections from the ports of closed ones: to be taken after all.
    pub(crate) succeeded: Vec<T>,
    /// Whether connections are closing.
    pub(crate) closing: bool,
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
        let mut connections = Connections::new(3);
        assert!(matches!(connections.arrive(peer(1), now), Place::First(_)));
        for request in ["second", "third"] {
            assert_eq!(connections.arrive(peer(1), now), Place::Behind);
            connections.wait(peer(1), request);
        }
        assert_eq!(connections.arrive(peer(1), now), Place::Full);
        assert!(
            matches!(connections.arrive(peer(2), now), Place::First(_)),
            "another connection is not concerned"
        );
        assert_eq!(connections.answered(peer(1), FIRST, now), Some("second"));
        assert_eq!(connections.answered(peer(1), FIRST, now), Some("third"));
        assert_eq!(connections.answered(peer(1), FIRST, now), None);
        assert!(matches!(connections.arrive(peer(1), now), Place::First(_)));
    }

    #[test]
    fn a_connection_that_is_cut_stays_cut_until_its_socket_is_gone() {
        let now = Instant::now();
        let mut connections = Connections::new(8);
        connections.arrive(peer(1), now);
        connections.arrive(peer(1), now);
        connections.wait(peer(1), "behind");
        assert_eq!(connections.cut(peer(1), FIRST).unwrap(), ["behind"]);
        let later = now + Duration::from_millis(1);
        let open = Peers::from([(peer(1), Some(SocketId(7)))]);
        connections.sweep(&open, later);
        assert_eq!(connections.arrive(peer(1), now), Place::Closed);
        connections.ended(peer(1), Former::Socket(SocketId(7)));
        assert!(connections.sweep(&open, later).closing);
        for _ in 0..3 {
            let swept = connections.sweep(&Peers::new(), later);
            assert!(swept.closing, "what remains of it still holds its thread");
        }
        assert!(!connections.ended(peer(1), Former::Gone), "it was ended already");
        assert_eq!(connections.arrive(peer(1), now), Place::Closed);
        connections.released(peer(1));
        assert!(connections.sweep(&Peers::new(), later).closing);
        assert_eq!(
            connections.arrive(peer(1), now),
            Place::Closed,
            "its thread may have more"
        );
        assert!(!connections.sweep(&Peers::new(), later).closing);
        assert!(matches!(connections.arrive(peer(1), now), Place::First(_)));
    }

    #[test]
    fn a_new_connection_from_the_port_of_one_that_was_cut_is_served() {
        let now = Instant::now();
        for former in [Former::Socket(SocketId(7)), Former::Gone] {
            let mut connections = Connections::new(8);
            connections.arrive(peer(1), now);
            connections.cut(peer(1), FIRST);
            assert_eq!(connections.arrive(peer(1), now), Place::Closed);
            connections.hold(peer(1), "of the former", false);
            assert_eq!(connections.closing(), HashSet::from([peer(1)]));
            let other = Peers::from([(peer(1), Some(SocketId(8)))]);
            let unlooked = connections.sweep(&other, now);
            assert!(unlooked.closing, "it is not known yet which one was ended");
            connections.ended(peer(1), former);
            connections.hold(peer(1), "of the next", false);
            let swept = connections.sweep(&other, now);
            assert_eq!(swept.succeeded, ["of the next"]);
            assert_eq!(swept.held, ["of the former"]);
            assert!(!swept.closing);
            assert!(matches!(connections.arrive(peer(1), now), Place::First(_)));
        }
    }

    #[test]
    fn of_what_was_held_only_one_whole_request_is_taken_after_all() {
        let now = Instant::now();
        let other = Peers::from([(peer(1), Some(SocketId(8)))]);
        for (second, last) in [("later", false), ("a body", true)] {
            let mut connections = Connections::new(8);
            connections.shut_out(peer(1), now);
            connections.ended(peer(1), Former::Socket(SocketId(7)));
            connections.hold(peer(1), "held", false);
            connections.hold(peer(1), second, last);
            let swept = connections.sweep(&other, now);
            assert!(swept.closing && swept.succeeded.is_empty());
        }
        for (former, last) in [(Former::Socket(SocketId(7)), true), (Former::Unknown, false)] {
            let mut connections = Connections::new(8);
            connections.shut_out(peer(1), now);
            connections.ended(peer(1), former);
            connections.hold(peer(1), "part of a body", last);
            assert!(connections.sweep(&other, now).succeeded.is_empty());
        }
    }

    #[test]
    fn the_last_request_of_a_closing_connection_is_held_until_it_is_closed() {
        let now = Instant::now();
        let mut connections = Connections::new(8);
        connections.arrive(peer(1), now);
        connections.close_after(peer(1));
        assert_eq!(connections.hold(peer(1), "second", false), None);
        assert_eq!(connections.hold(peer(1), "third", false), Some("second"));
        let open = Peers::from([(peer(1), None)]);
        let later = now + HELD_FOR;
        assert!(connections.sweep(&open, later).held.is_empty(), "an answer is due");
        connections.cut(peer(1), FIRST);
        let swept = connections.sweep(&open, later);
        assert_eq!(swept.held, ["third"]);
        assert_eq!(swept.over, [peer(1)], "it must be closed first");
    }

    #[test]
    fn only_connections_without_a_request_in_flight_are_quiet() {
        let start = Instant::now();
        let mut connections: Connections<()> = Connections::new(8);
        connections.arrive(peer(1), start);
        let open = Peers::from([(peer(1), None), (peer(2), None)]);
        assert_eq!(connections.sweep(&open, start).quiet, []);
        let later = start + QUIET_AFTER;
        assert_eq!(connections.sweep(&open, later).quiet, [(peer(2), QUIET_AFTER)]);
        assert_eq!(connections.busy(), HashSet::from([peer(1)]));
        connections.answered(peer(1), FIRST, later);
        assert_eq!(connections.sweep(&open, later).quiet, [(peer(2), QUIET_AFTER)]);
        assert_eq!(connections.busy(), HashSet::new());
    }

    #[test]
    fn a_connection_that_was_reset_is_forsaken_unless_it_may_have_come_since_the_look() {
        let now = Instant::now();
        let later = now + Duration::from_millis(1);
        let mut connections = Connections::new(8);
        connections.arrive(peer(1), now);
        connections.arrive(peer(1), now);
        connections.wait(peer(1), "behind");
        for look_at in [now, now, later] {
            assert!(connections.sweep(&Peers::new(), look_at).forsaken.is_empty());
        }
        let open = Peers::from([(peer(1), None)]);
        assert!(connections.sweep(&open, later).forsaken.is_empty());
        assert!(connections.sweep(&Peers::new(), later).forsaken.is_empty());
        assert_eq!(connections.sweep(&Peers::new(), later).forsaken, ["behind"]);
        assert_eq!(connections.arrive(peer(1), later), Place::First(FIRST + 1));
        assert_eq!(connections.answered(peer(1), FIRST, later), None);
        assert_eq!(connections.cut(peer(1), FIRST), None);
        assert_eq!(connections.arrive(peer(1), later), Place::Behind);
    }
}
