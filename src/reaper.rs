//! The reaper: closes connections, which tiny_http has no way to do.
//!
//! It finds a connection's socket among the process's own descriptors by its peer's address and shuts it down; tiny_http's
//! thread then reads its end and lets go of it. `shutdown` only ends the conversation: the descriptor stays tiny_http's to
//! close. So nothing dangles, and the worst that a race with a port's reuse can do is to end a connection too many.
//!
//! It ends connections that
//! - were cut off: first for writing, so that the client learns of it, then, [`LINGER`] later, for good (a client that
//!   still sends would otherwise get a reset before it has read its last answer);
//! - had nothing in flight for [`IDLE_MAX`], whether they are silent or dribble a header;
//! - were idle the longest, while descriptors run short.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{Shutdown, SockaddrStorage, getpeername, shutdown};

use crate::panics;
use crate::pending::{Remains, Waiting};
use crate::schedule::Schedule;

/// How long a connection that was cut off may still send.
const LINGER: Duration = Duration::from_millis(500);

/// How long a connection may have nothing in flight. Together with [`SWEEP_INTERVAL`] less than 30 s.
const IDLE_MAX: Duration = Duration::from_secs(25);

/// How often all connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(2_500);

/// How often the number of descriptors is looked at.
const TICK: Duration = Duration::from_millis(250);

/// Descriptors are short when fewer than one in this many is free.
const SHORTAGE: u64 = 8;

/// A connection that was cut off.
struct Closing {
    peer: SocketAddr,
    remains: Option<Remains>,
    unanswered: Vec<Waiting>,
    /// When it is shut down for good; none before the first step.
    ends_at: Option<Instant>,
}

/// The queue of connections to end, and the thread that ends them.
pub struct Reaper {
    cut: Mutex<Vec<Closing>>,
    more: Condvar,
}

impl Reaper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// As the system's, where no thread can be had.
    pub fn start(schedule: Arc<Schedule<Waiting>>) -> std::io::Result<Arc<Reaper>> {
        let reaper = Arc::new(Reaper {
            cut: Mutex::default(),
            more: Condvar::new(),
        });
        let reaping = Arc::clone(&reaper);
        panics::spawn_vital("reaper", move || reaping.reap(&schedule))?;
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
            remains,
            unanswered,
            ends_at: None,
        });
        self.more.notify_one();
    }

    fn reap(&self, schedule: &Schedule<Waiting>) {
        let mut lingering: Vec<Closing> = Vec::new();
        let mut swept_at = Instant::now();
        loop {
            let fresh = {
                let mut cut = self.lock();
                if cut.is_empty() {
                    cut = self
                        .more
                        .wait_timeout(cut, TICK)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                std::mem::take(&mut *cut)
            };
            let now = Instant::now();
            lingering = end(lingering, fresh, now);
            let shortage = descriptors_short();
            if shortage > 0 || now.duration_since(swept_at) >= SWEEP_INTERVAL {
                swept_at = now;
                sweep(schedule, shortage, now);
            }
        }
    }
}

/// Takes each connection that was cut off a step further.
fn end(lingering: Vec<Closing>, fresh: Vec<Closing>, now: Instant) -> Vec<Closing> {
    let (ended, mut lingering): (Vec<_>, Vec<_>) = lingering
        .into_iter()
        .partition(|closing| closing.ends_at.is_some_and(|at| at <= now));
    shut_down(ended.iter().map(|closing| closing.peer), Shutdown::Both);
    for closing in ended {
        if let Some(remains) = closing.remains {
            remains.release();
        }
    }
    shut_down(fresh.iter().map(|closing| closing.peer), Shutdown::Write);
    lingering.extend(fresh.into_iter().map(|mut closing| {
        closing.unanswered.clear();
        closing.ends_at = Some(now + LINGER);
        closing
    }));
    lingering
}

fn sweep(schedule: &Schedule<Waiting>, shortage: usize, now: Instant) {
    let open = sockets().map(|(_, peer)| peer).collect();
    let idle = schedule.sweep(&open, now, IDLE_MAX);
    if !idle.is_empty() {
        shut_down(idle.into_iter(), Shutdown::Both);
    } else if shortage > 0 {
        let longest = schedule.sweep(&open, now, Duration::ZERO);
        // A connection has two descriptors.
        shut_down(longest.into_iter().take(shortage.div_ceil(2)), Shutdown::Both);
    }
}

/// By how many descriptors the process is above what it should have open.
fn descriptors_short() -> usize {
    // Since Linux 6.2 the folder's size is the number of its entries; before, it is 0, which is no shortage.
    let open = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(open.saturating_sub(limit - limit / SHORTAGE)).unwrap_or(usize::MAX)
}

/// The process's connected sockets.
fn sockets() -> impl Iterator<Item = (RawFd, SocketAddr)> {
    fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|fd: RawFd| Some((fd, peer_of(fd)?)))
}

fn peer_of(fd: RawFd) -> Option<SocketAddr> {
    let peer: SockaddrStorage = getpeername(fd).ok()?;
    if let Some(peer) = peer.as_sockaddr_in() {
        return Some(SocketAddr::V4((*peer).into()));
    }
    Some(SocketAddr::V6((*peer.as_sockaddr_in6()?).into()))
}

fn shut_down(peers: impl Iterator<Item = SocketAddr>, how: Shutdown) {
    let peers: HashSet<SocketAddr> = peers.collect();
    if peers.is_empty() {
        return;
    }
    for (fd, peer) in sockets() {
        if peers.contains(&peer) {
            // It may have ended by itself since.
            let _ = shutdown(fd, how);
        }
    }
}
