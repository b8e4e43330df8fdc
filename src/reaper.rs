//! The reaper: closes connections, which tiny_http has no way to do.
//!
//! It shuts a connection's socket down (see [`crate::sockets`]); tiny_http's thread then reads its end and lets go of it.
//!
//! It ends connections that
//! - were cut off: first for writing, so that the client learns of it, then, [`LINGER`] later, for good (a client that
//!   still sends would otherwise get a reset before it has read its last answer);
//! - had nothing in flight for [`IDLE_MAX`], whether they are silent or dribble a header;
//! - are quiet while they send without a pause, and memory is short: a header without an end, which tiny_http reads to it.
//!
//! While descriptors are short, or threads, each connection ends with its next answer. Those that wait for one are shut down
//! for reading at once, so that tiny_http's thread lets go of them and takes what it has parked, and one descriptor is left
//! of two; those that are quiet are ended; and those whose clients have left are answered early.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::Shutdown;

use crate::connections::{Former, Peers, Swept};
use crate::panics;
use crate::pending::{Remains, Waiting};
use crate::schedule::Schedule;
use crate::shortage::Shortage;
use crate::sockets::{self, Socket, SocketId, Sockets};
use crate::tcp_table::TcpTable;

/// How long a connection that was cut off may still send.
const LINGER: Duration = Duration::from_millis(500);

/// How long a connection may have nothing in flight. Together with [`SWEEP_INTERVAL`] less than 30 s.
const IDLE_MAX: Duration = Duration::from_secs(25);

/// How often all connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(2_500);

/// How often it is looked for shortages.
const TICK: Duration = Duration::from_millis(250);

/// How often all connections are looked at while requests are in flight: one that was reset must not have the next from its
/// port wait behind it.
const BUSY_TICK: Duration = Duration::from_millis(50);

/// At least this many times as long as a look at all connections took is between two, where that is all the reason for it.
const REST: u32 = 50;

/// How often while there is one: clients wait.
const SHORTAGE_TICK: Duration = Duration::from_millis(20);

/// Connections that are cut off within this time are ended together: each time, all sockets are looked at.
const GATHER: Duration = Duration::from_millis(5);

/// How long a connection may have nothing in flight while there is a shortage: long enough for the request of one that was just
/// accepted.
const SHORTAGE_IDLE_MAX: Duration = Duration::from_secs(1);

/// How long a connection must have been quiet, with something unread that does not change, to count as parked for good. The
/// doorbell frees those that it can within two seconds.
const PARKED_AFTER: Duration = Duration::from_secs(3);

/// Unread bytes that are counted, at most: those of a parked request are fewer, those of a header without an end are not.
const UNREAD_COUNTED: usize = 4_096;

/// Sockets that are kept pinned at a time, each with a descriptor.
const PINNED_MAX: usize = 64;

/// A connection that was cut off.
struct Closing {
    peer: SocketAddr,
    remains: Vec<Remains>,
    unanswered: Vec<Waiting>,
}

impl Closing {
    /// Whether it was sent a body that is not read to its end.
    fn has_body(&self) -> bool {
        !self.remains.is_empty() || self.unanswered.iter().any(|pending| pending.channel.has_body())
    }
}

/// One that was shut down for writing.
struct Lingering {
    peer: SocketAddr,
    remains: Vec<Remains>,
    /// Its socket, if it could be pinned: a new connection from the same port is not taken for it then.
    socket: Option<Socket>,
    /// When it is shut down for good.
    ends_at: Instant,
}

/// The queue of connections to end.
#[derive(Default)]
pub struct Reaper {
    cut: Mutex<Vec<Closing>>,
    more: Condvar,
}

/// The thread that ends them.
struct Reaping {
    reaper: Arc<Reaper>,
    schedule: Arc<Schedule<Waiting>>,
    sockets: Arc<Sockets>,
    shortage: Arc<Shortage>,
    tcp_table: TcpTable,
    lingering: Vec<Lingering>,
    /// The quiet connections that had something unread at the last sweep, and how much.
    unread: HashMap<SocketAddr, usize>,
}

/// A connection's descriptors as a sweep finds them.
struct Found {
    /// The first one.
    fd: RawFd,
    count: usize,
}

impl Reaper {
    /// Starts the thread. `port` is the one that is listened on.
    ///
    /// # Errors
    ///
    /// As the system's, where no thread can be had.
    pub fn start(
        schedule: Arc<Schedule<Waiting>>,
        sockets: Arc<Sockets>,
        shortage: Arc<Shortage>,
        port: u16,
    ) -> std::io::Result<Arc<Reaper>> {
        let reaper = Arc::new(Reaper::default());
        let mut reaping = Reaping {
            reaper: Arc::clone(&reaper),
            schedule,
            sockets,
            shortage,
            tcp_table: TcpTable::open(port),
            lingering: Vec::new(),
            unread: HashMap::new(),
        };
        panics::spawn_vital("reaper", move || reaping.reap())?;
        Ok(reaper)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Closing>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a connection that was cut off; drops its requests without an answer, here rather than in a responder, since a
    /// drop may write what is left in tiny_http's buffer.
    pub fn close(&self, peer: SocketAddr, remains: Option<Remains>, unanswered: Vec<Waiting>) {
        self.lock().push(Closing {
            peer,
            remains: remains.into_iter().collect(),
            unanswered,
        });
        self.more.notify_one();
    }

    /// Waits for connections to be cut off, for at most `tick`.
    fn wait(&self, tick: Duration) -> Vec<Closing> {
        let mut cut = self.lock();
        if cut.is_empty() {
            cut = self
                .more
                .wait_timeout(cut, tick)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        std::mem::take(&mut *cut)
    }
}

impl Reaping {
    fn reap(&mut self) {
        let mut sweep_at = Instant::now() + SWEEP_INTERVAL;
        let mut busy_sweep_at = Instant::now();
        let mut look_at = Instant::now() + TICK;
        loop {
            let fresh = self.reaper.wait(look_at.saturating_duration_since(Instant::now()));
            if !fresh.is_empty() {
                thread::sleep(GATHER);
                sweep_at = sweep_at.min(Instant::now() + TICK);
            }
            let now = Instant::now();
            self.end_lingering(now);
            self.let_linger(fresh, now);
            if now < look_at {
                continue;
            }
            let short = self.shortage.of_descriptors() || self.shortage.connections_end();
            let short_of_memory = self.shortage.of_memory();
            let busy = self.schedule.in_flight() > 0;
            if short || short_of_memory || sweep_at <= now || (busy && busy_sweep_at <= now) {
                let closing = self.sweep(short_of_memory, now);
                // A new connection from the port of one that is closing waits to be told from it, and one that may be parked to
                // be freed.
                let soon = closing || !self.unread.is_empty();
                sweep_at = now + if soon { TICK } else { SWEEP_INTERVAL };
                busy_sweep_at = now + BUSY_TICK.max(now.elapsed() * REST);
            }
            // Of very many connections a look takes long, and must not be all that this thread does.
            look_at = Instant::now()
                + match (self.shortage.connections_end(), busy) {
                    (true, _) => SHORTAGE_TICK.max(now.elapsed()),
                    (false, true) => BUSY_TICK,
                    (false, false) => TICK,
                };
        }
    }

    /// The first step: tells the clients that nothing more will come, by shutting down for writing.
    fn let_linger(&mut self, fresh: Vec<Closing>, now: Instant) {
        let mut pins_left = PINNED_MAX.saturating_sub(self.lingering.len());
        let mut pinned = HashMap::new();
        let with_body: HashSet<SocketAddr> = fresh
            .iter()
            .filter(|closing| closing.has_body())
            .map(|closing| closing.peer)
            .collect();
        for (peer, socket) in self.sockets.of(fresh.iter().map(|closing| closing.peer).collect()) {
            let former = former(socket.as_ref(), with_body.contains(&peer));
            self.schedule.ended(peer, former);
            if let Some(socket) = socket {
                socket.shut_down(Shutdown::Write);
                if socket.is_pinned() && pins_left > 0 {
                    pins_left -= 1;
                    pinned.insert(peer, socket);
                }
            }
        }
        self.lingering.extend(fresh.into_iter().map(|mut closing| {
            closing.remains.extend(abandon(closing.unanswered));
            Lingering {
                peer: closing.peer,
                remains: closing.remains,
                socket: pinned.remove(&closing.peer),
                ends_at: now + LINGER,
            }
        }));
    }

    /// The second step, for those that have lingered long enough.
    fn end_lingering(&mut self, now: Instant) {
        let ended: Vec<Lingering> = self
            .lingering
            .extract_if(.., |closing| closing.ends_at <= now)
            .collect();
        let mut by_peer = HashSet::new();
        for closing in &ended {
            match &closing.socket {
                Some(socket) => socket.shut_down(Shutdown::Both),
                None => {
                    by_peer.insert(closing.peer);
                }
            }
        }
        self.sockets.shut_down(by_peer, Shutdown::Both);
        for closing in ended {
            release(closing.remains);
            self.schedule.released(closing.peer);
        }
    }

    /// Looks at all connections, and ends those that must; tells whether any are on their way to it.
    fn sweep(&mut self, short_of_memory: bool, now: Instant) -> bool {
        let closing = self.schedule.closing();
        let mut open = Peers::new();
        let mut found: HashMap<SocketAddr, Found> = HashMap::new();
        for (fd, peer) in self.sockets.connected() {
            found.entry(peer).or_insert(Found { fd, count: 0 }).count += 1;
            open.entry(peer)
                .or_insert_with(|| closing.contains(&peer).then(|| SocketId::of(fd, peer)).flatten());
        }
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
        let short = parked || self.shortage.of_descriptors();
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
        let read = busy
            .iter()
            .filter(|peer| found.get(peer).is_some_and(|found| found.count > 1));
        self.sockets.shut_down(read.copied().collect(), Shutdown::Read);
        let left = self.tcp_table.left();
        self.schedule
            .hurry_those_of(&busy.intersection(&left).copied().collect(), now);
    }
}

/// What tells the next connection from the same port from one that is ended.
pub(crate) fn former(socket: Option<&Socket>, has_body: bool) -> Former {
    match socket {
        _ if has_body => Former::Unknown,
        None => Former::Gone,
        Some(socket) => socket.id().map_or(Former::Unknown, Former::Socket),
    }
}

/// Drops requests that are not to be answered, but for what must wait until their sockets are shut down.
pub(crate) fn abandon(unanswered: Vec<Waiting>) -> Vec<Remains> {
    unanswered
        .into_iter()
        .filter_map(|pending| pending.channel.abandon())
        .collect()
}

/// Lets go of connections whose sockets are shut down.
pub(crate) fn release(remains: Vec<Remains>) {
    for remains in remains {
        remains.release();
    }
}
