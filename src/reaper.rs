//! The reaper: closes connections, which tiny_http has no way to do.
//!
//! It shuts a connection's socket down (see [`crate::sockets`]); tiny_http's thread then reads its end and lets go of it.
//!
//! It ends connections that
//! - were cut off: first for writing, so that the client learns of it, then, [`LINGER`] later, for good (a client that
//!   still sends would otherwise get a reset before it has read its last answer);
//! - had nothing in flight for [`IDLE_MAX`], whether they are silent or dribble a header;
//! - had nothing in flight for [`SHORTAGE_IDLE_MAX`], while descriptors run short. Then it also has those answered early that
//!   end with their answer anyway, as do all whose clients have left.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::Shutdown;

use crate::connections::{Peers, Swept};
use crate::panics;
use crate::pending::{Remains, Waiting};
use crate::schedule::Schedule;
use crate::sockets::{self, Socket, SocketId, Sockets};

/// How long a connection that was cut off may still send.
const LINGER: Duration = Duration::from_millis(500);

/// How long a connection may have nothing in flight. Together with [`SWEEP_INTERVAL`] less than 30 s.
const IDLE_MAX: Duration = Duration::from_secs(25);

/// How often all connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(2_500);

/// How often the number of descriptors is looked at.
const TICK: Duration = Duration::from_millis(250);

/// How often while they are short: clients wait.
const SHORTAGE_TICK: Duration = Duration::from_millis(50);

/// Connections that are cut off within this time are ended together: each time, all sockets are looked at.
const GATHER: Duration = Duration::from_millis(5);

/// Descriptors are short when fewer than one in this many is free.
const SHORTAGE: u64 = 8;

/// How long a connection may have nothing in flight while descriptors are short: long enough for the request of one that was
/// just accepted.
const SHORTAGE_IDLE_MAX: Duration = Duration::from_secs(1);

/// Sockets that are kept pinned at a time, each with a descriptor.
const PINNED_MAX: usize = 64;

/// A connection that was cut off.
struct Closing {
    peer: SocketAddr,
    remains: Vec<Remains>,
    unanswered: Vec<Waiting>,
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
    lingering: Vec<Lingering>,
}

impl Reaper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// As the system's, where no thread can be had.
    pub fn start(schedule: Arc<Schedule<Waiting>>, sockets: Arc<Sockets>) -> std::io::Result<Arc<Reaper>> {
        let reaper = Arc::new(Reaper::default());
        let mut reaping = Reaping {
            reaper: Arc::clone(&reaper),
            schedule,
            sockets,
            lingering: Vec::new(),
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
        let mut tick = TICK;
        loop {
            let fresh = self.reaper.wait(tick);
            if !fresh.is_empty() {
                thread::sleep(GATHER);
            }
            let now = Instant::now();
            self.end_lingering(now);
            self.let_linger(fresh, now);
            let shortage = descriptors_short();
            if shortage || sweep_at <= now {
                let closing = self.sweep(shortage, now);
                // A new connection from the port of one that is closing waits to be told from it.
                sweep_at = now + if closing { TICK } else { SWEEP_INTERVAL };
            } else if !self.lingering.is_empty() {
                sweep_at = sweep_at.min(now + TICK);
            }
            // Of very many connections a look takes long, and must not be all that this thread does.
            tick = if shortage {
                SHORTAGE_TICK.max(now.elapsed())
            } else {
                TICK
            };
        }
    }

    /// The first step: tells the clients that nothing more will come, by shutting down for writing.
    fn let_linger(&mut self, fresh: Vec<Closing>, now: Instant) {
        let mut pins_left = PINNED_MAX.saturating_sub(self.lingering.len());
        let mut pinned = HashMap::new();
        for (peer, socket) in self.sockets.of(fresh.iter().map(|closing| closing.peer).collect()) {
            self.schedule.ended(peer, socket.as_ref().and_then(Socket::id));
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
        }
    }

    /// Looks at all connections, and ends those that must; tells whether to look again soon.
    fn sweep(&self, shortage: bool, now: Instant) -> bool {
        let closing = self.schedule.closing();
        let mut open = Peers::new();
        // Of a connection that tiny_http reads no more from, only the descriptor that its answer waits for is left.
        let mut ending = HashSet::new();
        for (fd, peer) in self.sockets.connected() {
            match open.entry(peer) {
                Entry::Vacant(unseen) => {
                    let socket = closing.contains(&peer).then(|| SocketId::of(fd, peer));
                    unseen.insert(socket.flatten());
                    ending.insert(peer);
                }
                Entry::Occupied(_) => {
                    ending.remove(&peer);
                }
            }
        }
        let Swept {
            mut idle,
            held,
            closing,
            ..
        } = self.schedule.sweep(&open, now, IDLE_MAX);
        if shortage {
            // Most of their clients are gone; while new ones can not come in, nobody waits for them.
            self.schedule.hurry_those_of(&ending, now);
        }
        if idle.is_empty() && shortage {
            // All of them: one that tiny_http has parked keeps its descriptors until another that is served lets go of a thread.
            idle = self.schedule.sweep(&open, now, SHORTAGE_IDLE_MAX).idle;
        }
        self.sockets
            .shut_down(idle.into_iter().map(|(_, peer)| peer).collect(), Shutdown::Both);
        // Those that are still open were among the idle ones.
        release(abandon(held.into_iter().map(|held| held.request).collect()));
        closing
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

/// Whether descriptors are short.
fn descriptors_short() -> bool {
    // An older kernel does not tell, which is no shortage.
    let limit = sockets::descriptor_limit();
    sockets::open_descriptors().is_some_and(|open| open > limit - limit / SHORTAGE)
}
