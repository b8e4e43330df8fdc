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

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::Shutdown;

use crate::connections::Swept;
use crate::panics;
use crate::pending::{Remains, Waiting};
use crate::schedule::Schedule;
use crate::sockets;

/// How long a connection that was cut off may still send.
const LINGER: Duration = Duration::from_millis(500);

/// How long a connection may have nothing in flight. Together with [`SWEEP_INTERVAL`] less than 30 s.
const IDLE_MAX: Duration = Duration::from_secs(25);

/// How often all connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(2_500);

/// How often the number of descriptors is looked at.
const TICK: Duration = Duration::from_millis(250);

/// Connections that are cut off within this time are ended together: each time, all sockets are looked at.
const GATHER: Duration = Duration::from_millis(5);

/// Descriptors are short when fewer than one in this many is free.
const SHORTAGE: u64 = 8;

/// How long a connection may have nothing in flight while descriptors are short: long enough for the request of one that was
/// just accepted.
const SHORTAGE_IDLE_MAX: Duration = Duration::from_secs(1);

/// A connection that was cut off.
struct Closing {
    peer: SocketAddr,
    remains: Vec<Remains>,
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
            remains: remains.into_iter().collect(),
            unanswered,
            ends_at: None,
        });
        self.more.notify_one();
    }

    fn reap(&self, schedule: &Schedule<Waiting>) {
        let mut lingering: Vec<Closing> = Vec::new();
        let mut sweep_at = Instant::now() + SWEEP_INTERVAL;
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
            if !fresh.is_empty() {
                thread::sleep(GATHER);
            }
            let now = Instant::now();
            let mut soon = end(&mut lingering, fresh, now);
            let shortage = descriptors_short();
            if shortage || sweep_at <= now {
                soon |= sweep(schedule, shortage, now);
                sweep_at = now + SWEEP_INTERVAL;
            }
            if soon {
                // A new connection from the port of one that has ended must not be taken for it.
                sweep_at = sweep_at.min(now + TICK);
            }
        }
    }
}

/// Takes each connection that was cut off a step further; tells whether one ended.
fn end(lingering: &mut Vec<Closing>, fresh: Vec<Closing>, now: Instant) -> bool {
    let ended: Vec<Closing> = lingering
        .extract_if(.., |closing| closing.ends_at.is_some_and(|at| at <= now))
        .collect();
    sockets::shut_down(peers(&ended), Shutdown::Both);
    sockets::shut_down(peers(&fresh), Shutdown::Write);
    let any = !ended.is_empty();
    for closing in ended {
        release(closing.remains);
    }
    lingering.extend(fresh.into_iter().map(|mut closing| {
        closing.remains.extend(abandon(std::mem::take(&mut closing.unanswered)));
        closing.ends_at = Some(now + LINGER);
        closing
    }));
    any
}

fn peers(closing: &[Closing]) -> HashSet<SocketAddr> {
    closing.iter().map(|closing| closing.peer).collect()
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

/// Looks at all connections, and ends those that must; tells whether to look again soon.
fn sweep(schedule: &Schedule<Waiting>, shortage: bool, now: Instant) -> bool {
    let mut open = HashSet::new();
    // Of a connection that tiny_http reads no more from, only the descriptor that its answer waits for is left.
    let mut ending = HashSet::new();
    for (_, peer) in sockets::connected() {
        if open.insert(peer) {
            ending.insert(peer);
        } else {
            ending.remove(&peer);
        }
    }
    let Swept { mut idle, held, going } = schedule.sweep(&open, now, IDLE_MAX);
    if shortage {
        // Most of their clients are gone; while new ones can not come in, nobody waits for them.
        schedule.hurry_those_of(&ending, now);
    }
    if idle.is_empty() && shortage {
        // All of them: one that tiny_http has parked keeps its descriptors until another that is served lets go of a thread.
        idle = schedule.sweep(&open, now, SHORTAGE_IDLE_MAX).idle;
    }
    sockets::shut_down(idle.into_iter().collect(), Shutdown::Both);
    // Those that are still open were among the idle ones.
    release(abandon(held.into_iter().map(|(_, held)| held.request).collect()));
    going
}

/// Whether descriptors are short.
fn descriptors_short() -> bool {
    // An older kernel does not tell, which is no shortage.
    let limit = sockets::descriptor_limit();
    sockets::open_descriptors().is_some_and(|open| open > limit - limit / SHORTAGE)
}
