//! The reaper: closes connections, which tiny_http has no way to do.
//!
//! It shuts a connection's socket down (see [`crate::sockets`]); tiny_http's thread then reads its end and lets go of it.
//!
//! Connections that were cut off are shut down for writing first, so that their clients learn of it, then, [`LINGER`] later, for
//! good: a client that still sends would otherwise get a reset before it has read its last answer.
//!
//! In between it sweeps: see [`crate::sweep`].

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::Shutdown;

use crate::connections::Former;
use crate::panics;
use crate::pending::{Remains, Waiting, abandon, release};
use crate::schedule::Schedule;
use crate::shortage::Shortage;
use crate::sockets::{Socket, Sockets};
use crate::sweep::Sweep;

/// How long a connection that was cut off may still send.
const LINGER: Duration = Duration::from_millis(500);

/// Connections that are cut off within this time are ended together: each time, all sockets are looked at.
const GATHER: Duration = Duration::from_millis(5);

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
    sweep: Sweep,
    lingering: Vec<Lingering>,
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
            sweep: Sweep::new(Arc::clone(&schedule), Arc::clone(&sockets), shortage, port),
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
        loop {
            let fresh = self.reaper.wait(self.sweep.rests_for());
            if !fresh.is_empty() {
                thread::sleep(GATHER);
            }
            let now = Instant::now();
            if !fresh.is_empty() {
                self.sweep.hasten(now);
            }
            self.end_lingering(now);
            self.let_linger(fresh, now);
            self.sweep.look(now);
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
            let former = Former::new(socket.as_ref(), with_body.contains(&peer));
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
}
