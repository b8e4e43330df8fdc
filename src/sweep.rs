//! The sweep: looks at all connections at a time, and ends those that are in the way. It is the reaper's thread that does it.
//!
//! It ends connections that
//! - had nothing in flight for [`IDLE_MAX`], whether they are silent or dribble a header;
//! - were cut off, and are still open;
//! - are quiet while they send without a pause, and memory is short: a header without an end, which tiny_http reads to it.
//!
//! While descriptors are short, or threads, each connection ends with its next answer. Those that wait for one are shut down
//! for reading at once, so that tiny_http's thread lets go of them and takes what it has parked, and one descriptor is left
//! of two; those that are quiet are ended; and those whose clients have left are answered early.
//!
//! And it tells the schedule which connections are open, so that those that are not are forgotten or forsaken.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::Shutdown;

use crate::connections::{Peers, Swept};
use crate::pending::{Waiting, abandon, release};
use crate::schedule::Schedule;
use crate::shortage::Shortage;
use crate::sockets::{self, SocketId, Sockets};
use crate::tcp_table::TcpTable;

/// How long a connection may have nothing in flight. Together with [`SWEEP_INTERVAL`] less than 30 s.
const IDLE_MAX: Duration = Duration::from_secs(25);

/// How often all connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(2_500);

/// How often it is looked for shortages; and how often at all connections while some are closing, since the next one from the
/// port of one of these waits to be told from it, or may be parked.
const TICK: Duration = Duration::from_millis(250);

/// How often at all connections while requests are in flight: one that was reset must not have the next from its port wait
/// behind it.
const BUSY_TICK: Duration = Duration::from_millis(50);

/// At least this many times as long as a look at all connections took is between two, where that is all the reason for it.
const REST: u32 = 200;

/// How often while descriptors or threads are short: clients wait.
const SHORTAGE_TICK: Duration = Duration::from_millis(20);

/// How long a connection may have nothing in flight while there is a shortage: long enough for the request of one that was just
/// accepted.
const SHORTAGE_IDLE_MAX: Duration = Duration::from_secs(1);

/// How long a connection must have been quiet, with something unread that does not change, to count as parked for good. The
/// doorbell frees those that it can within two seconds.
const PARKED_AFTER: Duration = Duration::from_secs(3);

/// Unread bytes that are counted, at most: those of a parked request are fewer, those of a header without an end are not.
const UNREAD_COUNTED: usize = 4_096;

/// What a sweep needs, and what it remembers for the next.
pub(crate) struct Sweep {
    schedule: Arc<Schedule<Waiting>>,
    sockets: Arc<Sockets>,
    shortage: Arc<Shortage>,
    tcp_table: TcpTable,
    /// The quiet connections that had something unread at the last sweep, and how much.
    unread: HashMap<SocketAddr, usize>,
    /// When the next look for shortages is due, ...
    look_at: Instant,
    /// ... when the next sweep, and ...
    sweep_at: Instant,
    /// ... when, if requests are in flight.
    busy_sweep_at: Instant,
}

/// A connection's descriptors as a sweep finds them.
struct Found {
    /// The first one.
    fd: RawFd,
    count: usize,
}

impl Sweep {
    /// `port` is the one that is listened on.
    pub(crate) fn new(
        schedule: Arc<Schedule<Waiting>>,
        sockets: Arc<Sockets>,
        shortage: Arc<Shortage>,
        port: u16,
    ) -> Self {
        let now = Instant::now();
        Sweep {
            schedule,
            sockets,
            shortage,
            tcp_table: TcpTable::open(port),
            unread: HashMap::new(),
            look_at: now + TICK,
            sweep_at: now + SWEEP_INTERVAL,
            busy_sweep_at: now,
        }
    }

    /// How long there is nothing to do.
    pub(crate) fn rests_for(&self) -> Duration {
        self.look_at.saturating_duration_since(Instant::now())
    }

    /// Makes a sweep due soon: connections have been cut off.
    pub(crate) fn hasten(&mut self, now: Instant) {
        self.sweep_at = self.sweep_at.min(now + TICK);
    }

    /// Looks for shortages and sweeps, where these are due.
    pub(crate) fn look(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        let of_descriptors = self.shortage.of_descriptors();
        let of_memory = self.shortage.of_memory();
        let short = of_descriptors || of_memory || self.shortage.connections_end();
        let busy = self.schedule.in_flight() > 0;
        if short || self.sweep_at <= now || (busy && self.busy_sweep_at <= now) {
            let closing = self.sweep(of_descriptors, of_memory, now);
            let soon = closing || !self.unread.is_empty();
            self.sweep_at = now + if soon { TICK } else { SWEEP_INTERVAL };
            self.busy_sweep_at = now + BUSY_TICK.max(now.elapsed() * REST);
        }
        self.look_at = Instant::now()
            + match (self.shortage.connections_end(), busy) {
                // Of very many connections a look takes long, and must not be all that this thread does.
                (true, _) => SHORTAGE_TICK.max(now.elapsed()),
                (false, true) => BUSY_TICK,
                (false, false) => TICK,
            };
    }

    /// Looks at all connections, and ends those that must; tells whether any are on their way to it.
    fn sweep(&mut self, short_of_descriptors: bool, short_of_memory: bool, now: Instant) -> bool {
        let closing = self.schedule.closing();
        let mut found: HashMap<SocketAddr, Found> = HashMap::new();
        for (fd, peer) in self.sockets.connected() {
            found.entry(peer).or_insert(Found { fd, count: 0 }).count += 1;
        }
        let socket = |peer, fd| closing.contains(&peer).then(|| SocketId::of(fd, peer)).flatten();
        let open: Peers = found
            .iter()
            .map(|(&peer, found)| (peer, socket(peer, found.fd)))
            .collect();
        let Swept {
            quiet,
            over,
            mut held,
            forsaken,
            closing,
            ..
        } = self.schedule.sweep(&open, now);
        let unread = self.unread_of(&quiet, &found);
        let parked = quiet
            .iter()
            .any(|(peer, quiet_for)| *quiet_for >= PARKED_AFTER && self.is_parked(*peer, &unread));
        let short = parked || short_of_descriptors;
        self.shortage.let_connections_end(short);
        let ends = |peer, quiet_for| match unread.get(&peer) {
            _ if quiet_for >= IDLE_MAX => true,
            // Less than that may be the request of one that is parked, and whose client waits.
            Some(unread) => short_of_memory && *unread >= UNREAD_COUNTED,
            None => short && quiet_for >= SHORTAGE_IDLE_MAX,
        };
        let ended = quiet.into_iter().filter(|(peer, quiet_for)| ends(*peer, *quiet_for));
        let ended = ended.map(|(peer, _)| peer).chain(over).collect();
        self.sockets.shut_down(ended, Shutdown::Both);
        if short {
            self.relieve(&found, now);
        }
        self.unread = unread;
        held.extend(forsaken);
        // Of those that are still open the sockets are shut down by now.
        release(abandon(held.into_iter().map(|held| held.request).collect()));
        closing
    }

    /// How much quiet connections have sent that is not read, of those that have.
    fn unread_of(
        &self,
        quiet: &[(SocketAddr, Duration)],
        found: &HashMap<SocketAddr, Found>,
    ) -> HashMap<SocketAddr, usize> {
        let mut counted = [0; UNREAD_COUNTED];
        let unread = quiet.iter().filter_map(|(peer, _)| {
            let unread = sockets::unread(found.get(peer)?.fd, &mut counted);
            (unread > 0).then_some((*peer, unread))
        });
        unread.collect()
    }

    /// Whether what a connection has sent is as much as at the last sweep, so that nobody reads it.
    fn is_parked(&self, peer: SocketAddr, unread: &HashMap<SocketAddr, usize>) -> bool {
        let now = unread.get(&peer);
        now.is_some_and(|unread| *unread < UNREAD_COUNTED) && now == self.unread.get(&peer)
    }

    /// Frees the threads, and one of the two descriptors, of the connections that wait for an answer, and answers those whose
    /// clients have left.
    fn relieve(&mut self, found: &HashMap<SocketAddr, Found>, now: Instant) {
        let busy = self.schedule.busy();
        if busy.is_empty() {
            return;
        }
        let read = busy
            .iter()
            .filter(|peer| found.get(peer).is_some_and(|found| found.count > 1));
        self.sockets.shut_down(read.copied().collect(), Shutdown::Read);
        let left = self.tcp_table.left();
        self.schedule
            .hurry_those_of(&busy.intersection(&left).copied().collect(), now);
    }
}
