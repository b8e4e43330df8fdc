//! The watch: looks every few milliseconds, more seldom while there is nothing to do, whether the dispatcher and the responders
//! keep up, and helps them where they do not.
//!
//! Responders that are stuck on clients that do not read are joined by others: nobody else may be there to notice.
//!
//! Connections that send requests faster than the dispatcher takes them are cut short. Each of tiny_http's connection threads
//! parses as fast as its client sends and puts the requests on a queue without a limit, all of them against the one dispatcher,
//! which must win the queue's lock from them each time. So a hundred clients that pipeline without end would fill the memory
//! before the dispatcher has seen enough of any to refuse it. What tells them apart from clients that merely are many: they have
//! sent more than may be in flight before the first of it is read.
//!
//! What is always true: nothing is cut while the dispatcher finds its queue empty now and then; and no client that has one
//! request at a time is, whatever the load, unless its head is longer than [`UNREAD_MAX`].

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::connections::Former;
use crate::panics;
use crate::pending::{Waiting, abandon, release};
use crate::responders::Responders;
use crate::schedule::Schedule;
use crate::sockets::Sockets;

/// How often the dispatcher is looked at. One that did not find its queue empty from one look to the next is behind.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// How often while no request comes or waits: looking is most of what an idle server does.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_millis(125);

/// Unread bytes of a connection that is a flood: 128 bytes for each request that it may have in flight.
const UNREAD_MAX: usize = 16 * 1024;

/// After a look at all connections in vain at least this many times as long as it took is waited.
const REST: u32 = 20;

/// How far the dispatcher is.
#[derive(Debug, Default)]
pub struct Progress {
    waiting: AtomicBool,
    caught_up: AtomicU64,
}

impl Progress {
    /// Tells that the queue is empty and that the dispatcher waits for the next request.
    pub fn waits(&self) {
        self.caught_up.fetch_add(1, Ordering::Relaxed);
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// Tells that a request has come.
    pub fn goes_on(&self) {
        self.waiting.store(false, Ordering::Relaxed);
    }
}

/// Starts the watch.
///
/// # Errors
///
/// As the system's, where no thread can be had.
pub fn start(
    progress: Arc<Progress>,
    schedule: Arc<Schedule<Waiting>>,
    responders: Arc<Responders>,
    sockets: Arc<Sockets>,
) -> io::Result<()> {
    panics::spawn_vital("watch", move || watch(&progress, &schedule, &responders, &sockets)).map(drop)
}

fn watch(progress: &Progress, schedule: &Schedule<Waiting>, responders: &Arc<Responders>, sockets: &Sockets) {
    let mut caught_up = None;
    let mut floods_after = Instant::now();
    let mut interval = LOOK_INTERVAL;
    loop {
        thread::sleep(interval);
        let start = Instant::now();
        responders.relieve(start);
        let before = caught_up.replace(progress.caught_up.load(Ordering::Relaxed));
        let waiting = progress.waiting.load(Ordering::Relaxed);
        let idle = waiting && before == caught_up && schedule.in_flight() == 0;
        interval = if idle { IDLE_LOOK_INTERVAL } else { LOOK_INTERVAL };
        if before != caught_up || waiting || start < floods_after {
            continue;
        }
        let floods = sockets.ahead(UNREAD_MAX);
        if floods.is_empty() {
            floods_after = start + start.elapsed() * REST;
        } else {
            cut(floods, schedule, sockets, start);
        }
    }
}

fn cut(floods: HashSet<SocketAddr>, schedule: &Schedule<Waiting>, sockets: &Sockets, now: Instant) {
    let unanswered = schedule.shut_out(&floods, now);
    let has_body = unanswered.iter().any(|pending| pending.channel.has_body());
    let mut ended = Vec::new();
    for (peer, socket) in sockets.of(floods) {
        if schedule.ended(peer, Former::new(socket.as_ref(), has_body)) {
            ended.push(peer);
        }
        if let Some(socket) = socket {
            socket.cut_short();
        }
    }
    release(abandon(unanswered));
    for peer in ended {
        schedule.released(peer);
    }
}
