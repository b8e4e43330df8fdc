//! The schedule: requests wait here for their deadline, as heap entries, not as threads.
//!
//! Invariants:
//! - At most one request of a connection is in the queue or with a responder (see [`super::connections`]).
//! - At most one responder, the leader, sleeps until the earliest deadline; the other idle ones sleep until they are woken. The one
//!   that became idle last is woken first, since its memory is still in the processor's cache.
//! - A leader that takes a request wakes another responder only if more requests are due. It answers and leads again: so a request
//!   costs one wake-up. While it answers, nobody leads. If its client does not read, that takes up to the write timeout, and
//!   the next arrival or the end of that answer sets things going again.
//! - No socket is touched under the lock, which is held for a few heap steps, or a walk through the queue or the table.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::connections::{Closed, Connections, Place};

/// How long a request may be overdue before an arrival wakes one more responder: those that are awake may be stuck on clients
/// that do not read.
const OVERDUE_MAX: Duration = Duration::from_millis(2);

/// A request with the time its response is due.
#[derive(Debug)]
pub struct Scheduled<T> {
    /// Whose request it is.
    pub peer: SocketAddr,
    /// When its response is due.
    pub deadline: Instant,
    /// Whether it counts against the limit on delayed requests.
    pub delayed: bool,
    /// Whether its connection is closed after it.
    pub last: bool,
    /// What the responder needs.
    pub request: T,
}

/// Identifies a request that a responder has taken.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    peer: SocketAddr,
    /// The number of its connection: another may have the same peer by the time the response is sent.
    connection: u64,
    delayed: bool,
}

/// Why a request was not admitted; returns it.
#[derive(Debug)]
pub enum Refused<T> {
    /// As many delayed requests as may be are in flight.
    Overload(Scheduled<T>),
    /// Its connection has as many requests in flight as one may have.
    ConnectionFull(Scheduled<T>),
    /// Its connection gets no more responses. Returns the request if the connection is closed; if it is still closing, keeps
    /// it and returns the one that was kept before.
    ConnectionClosed(Option<T>),
}

struct Entry<T> {
    scheduled: Scheduled<T>,
    /// Orders entries of one deadline by arrival.
    sequence: u64,
    connection: u64,
}

impl<T> Entry<T> {
    fn key(&self) -> (Instant, u64) {
        (self.scheduled.deadline, self.sequence)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest: `BinaryHeap` pops the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

struct State<T> {
    queue: BinaryHeap<Entry<T>>,
    connections: Connections<Scheduled<T>>,
    /// How many requests have arrived.
    arrivals: u64,
    /// Admitted and not answered.
    in_flight: usize,
    /// Those of them that count against `delayed_max`.
    delayed: usize,
    /// Whether every deadline counts as passed.
    expired: bool,
    /// Whether somebody waits for the last response.
    awaited: bool,
    leader: Option<Thread>,
    /// The idle responders that do not lead; the one that became idle last is at the end.
    idle: Vec<Thread>,
}

/// The deadline queue between the dispatchers and the responders.
pub struct Schedule<T> {
    state: Mutex<State<T>>,
    /// Signalled when nothing is in flight any more.
    all_answered: Condvar,
    delayed_max: usize,
}

impl<T> Schedule<T> {
    /// Returns a schedule that admits at most `delayed_max` delayed requests at a time.
    pub fn new(delayed_max: usize) -> Self {
        Schedule {
            state: Mutex::new(State {
                queue: BinaryHeap::new(),
                connections: Connections::new(),
                arrivals: 0,
                in_flight: 0,
                delayed: 0,
                expired: false,
                awaited: false,
                leader: None,
                idle: Vec::new(),
            }),
            all_answered: Condvar::new(),
            delayed_max,
        }
    }

    /// A panic under the lock ends the process (see [`super::panics`]), so a poisoned lock is never used for long.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a request, to be answered at its deadline, or once the earlier ones of its connection are.
    ///
    /// # Errors
    ///
    /// Returns the request if a limit is reached or its connection is closed.
    pub fn push(&self, scheduled: Scheduled<T>, now: Instant) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        state.arrivals += 1;
        if scheduled.delayed && state.delayed >= self.delayed_max {
            return Err(Refused::Overload(scheduled));
        }
        let peer = scheduled.peer;
        match state.connections.arrive(peer, scheduled.last, now) {
            Place::First(connection) => {
                state.count_in(&scheduled);
                state.insert(scheduled, connection);
                let woken = state.responder_to_wake(now);
                drop(state);
                if let Some(thread) = woken {
                    thread.unpark();
                }
                Ok(())
            }
            Place::Behind => {
                state.count_in(&scheduled);
                state.connections.wait(peer, scheduled);
                Ok(())
            }
            Place::Full => Err(Refused::ConnectionFull(scheduled)),
            Place::Closing => {
                let before = state.connections.discard(peer, scheduled);
                Err(Refused::ConnectionClosed(before.map(|before| before.request)))
            }
            Place::Closed => Err(Refused::ConnectionClosed(Some(scheduled.request))),
        }
    }

    /// Blocks until a request is due. `answered` is the one that the caller has just answered, whose connection stays open.
    pub fn next(&self, answered: Option<Ticket>) -> (Scheduled<T>, Ticket) {
        let this_thread = thread::current();
        let mut state = self.lock();
        if let Some(answered) = answered {
            self.settle(&mut state, answered, Instant::now());
        }
        loop {
            let now = Instant::now();
            match state.queue.peek().map(|entry| entry.scheduled.deadline) {
                Some(deadline) if state.expired || deadline <= now => {
                    let Some(entry) = state.queue.pop() else { continue };
                    let more = state.expired || state.queue.peek().is_some_and(|next| next.scheduled.deadline <= now);
                    let woken = if more { state.idle.pop() } else { None };
                    drop(state);
                    if let Some(thread) = woken {
                        thread.unpark();
                    }
                    let Entry {
                        scheduled, connection, ..
                    } = entry;
                    let (peer, delayed) = (scheduled.peer, scheduled.delayed);
                    let ticket = Ticket {
                        peer,
                        connection,
                        delayed,
                    };
                    return (scheduled, ticket);
                }
                Some(deadline) if state.leader.is_none() => {
                    state.leader = Some(this_thread.clone());
                    drop(state);
                    thread::park_timeout(deadline - now);
                    state = self.lock();
                    state.leader = None;
                }
                _ => {
                    state.idle.push(this_thread.clone());
                    drop(state);
                    thread::park();
                    state = self.lock();
                    // It is still there if it woke by itself.
                    state.idle.retain(|thread| thread.id() != this_thread.id());
                }
            }
        }
    }

    fn settle(&self, state: &mut State<T>, answered: Ticket, now: Instant) {
        state.count_out(answered.delayed);
        if let Some(mut next) = state.connections.answered(answered.peer, answered.connection) {
            // Behind what is due already: a connection that pipelines takes turns with the others.
            next.deadline = next.deadline.max(now);
            state.insert(next, answered.connection);
        }
        self.signal_if_all_answered(state);
    }

    /// Closes the connection of a request that the caller has just answered. Returns the requests behind it, which get no
    /// response.
    pub fn close_after(&self, answered: Ticket) -> Vec<T> {
        let mut state = self.lock();
        state.count_out(answered.delayed);
        self.close_connection(state, answered.peer, Some(answered.connection))
    }

    /// Closes a connection. Returns its requests, which get no response, but for one that a responder is at.
    pub fn close(&self, peer: SocketAddr) -> Vec<T> {
        self.close_connection(self.lock(), peer, None)
    }

    fn close_connection(&self, mut state: MutexGuard<'_, State<T>>, peer: SocketAddr, number: Option<u64>) -> Vec<T> {
        let Some(closed) = state.connections.close(peer, number, Instant::now()) else {
            self.signal_if_all_answered(&state);
            return Vec::new();
        };
        let Closed {
            number: of_closed,
            scheduled,
            waiting,
            discarded,
        } = closed;
        let mut unanswered = Vec::from(waiting);
        // If the number was given, the scheduled request is with the caller.
        if scheduled && number.is_none() {
            let (queued, others) = std::mem::take(&mut state.queue)
                .into_iter()
                .partition::<Vec<_>, _>(|entry| entry.connection == of_closed);
            state.queue = BinaryHeap::from(others);
            unanswered.extend(queued.into_iter().map(|entry| entry.scheduled));
        }
        for scheduled in &unanswered {
            state.count_out(scheduled.delayed);
        }
        self.signal_if_all_answered(&state);
        drop(state);
        let requests = unanswered.into_iter().chain(discarded);
        requests.map(|scheduled| scheduled.request).collect()
    }

    /// Closes the connection of a request for those to come, unless others wait behind it. Returns whether it did.
    pub fn close_if_alone(&self, ticket: Ticket) -> bool {
        self.lock().connections.close_if_alone(ticket.peer, ticket.connection)
    }

    /// Lets every request be answered at once, whatever its deadline, from now on.
    pub fn expire(&self) {
        let mut state = self.lock();
        state.expired = true;
        let woken: Vec<Thread> = state.leader.clone().into_iter().chain(state.idle.drain(..)).collect();
        drop(state);
        for thread in woken {
            thread.unpark();
        }
    }

    /// The number of requests that have arrived so far, refused ones included.
    pub fn arrivals(&self) -> u64 {
        self.lock().arrivals
    }

    /// The peers of the connections that have requests in flight.
    pub fn busy(&self) -> HashSet<SocketAddr> {
        self.lock().connections.busy().collect()
    }

    /// The number of requests that are admitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Blocks until no request is in flight, at most until `deadline`. Returns whether none is.
    pub fn wait_until_all_answered(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.awaited = true;
        while state.in_flight > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .all_answered
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    fn signal_if_all_answered(&self, state: &State<T>) {
        if state.awaited && state.in_flight == 0 {
            self.all_answered.notify_all();
        }
    }
}

impl<T> State<T> {
    fn count_in(&mut self, scheduled: &Scheduled<T>) {
        self.in_flight += 1;
        self.delayed += usize::from(scheduled.delayed);
    }

    fn count_out(&mut self, delayed: bool) {
        self.in_flight -= 1;
        self.delayed -= usize::from(delayed);
    }

    fn insert(&mut self, scheduled: Scheduled<T>, connection: u64) {
        let sequence = self.arrivals;
        self.queue.push(Entry {
            scheduled,
            sequence,
            connection,
        });
    }

    /// Returns the responder that the last arrival concerns: it may be due before all others.
    fn responder_to_wake(&mut self, now: Instant) -> Option<Thread> {
        let earliest = self.queue.peek()?;
        if earliest.sequence == self.arrivals {
            let leader = self.leader.clone();
            return leader.or_else(|| self.idle.pop());
        }
        let stuck = self.leader.is_none() && earliest.scheduled.deadline + OVERDUE_MAX <= now;
        if stuck { self.idle.pop() } else { None }
    }
}
