//! The requests in flight: which are admitted, which is due next, and which are refused or get no response. Guarded by the schedule's
//! lock.
//!
//! Invariants:
//! - At most one request of a connection is in the queue or with a worker (see [`super::connections`]).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connections::{Closed, Connections, Place};
use super::places::Places;
use super::queue::Queue;

/// A request with the time of its response.
#[derive(Debug)]
pub struct Scheduled<T> {
    /// The address of its client.
    pub peer: SocketAddr,
    /// When it is served: its arrival, or later if it is delayed and every place is taken.
    pub start: Instant,
    /// How long after that its response is due.
    pub delay: Duration,
    /// Whether it counts against the limit on delayed requests, and takes a place.
    pub delayed: bool,
    /// Whether its connection is closed after the response.
    pub last: bool,
    /// The request itself.
    pub request: T,
}

impl<T> Scheduled<T> {
    fn deadline(&self) -> Instant {
        self.start + self.delay
    }

    /// Makes its response due now, without a place.
    fn answer_at_once(&mut self, now: Instant) {
        (self.start, self.delay, self.delayed) = (now, Duration::ZERO, false);
    }
}

/// Identifies a request that a worker has taken.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    peer: SocketAddr,
    /// The number of its connection: by the time the response is sent, another may have the same peer.
    connection: u64,
    delayed: bool,
}

/// Why a request is answered at once, with a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The maximum of delayed requests is in flight.
    Overload,
    /// Its connection has the maximum of requests in flight. It is closed after the refusal.
    ConnectionFull,
}

/// The requests that have arrived and are not answered.
pub struct Requests<T> {
    queue: Queue<(Scheduled<T>, Ticket)>,
    connections: Connections<Scheduled<T>>,
    places: Places,
    /// How many have arrived.
    arrivals: u64,
    /// How many are admitted and not answered.
    in_flight: usize,
    /// How many of them count against `delayed_max`.
    delayed: usize,
    delayed_max: usize,
}

impl<T> Requests<T> {
    /// Returns none, to admit at most `delayed_max` delayed requests at a time, and to serve at most `concurrency` of them; 0 is no limit.
    pub fn new(delayed_max: usize, concurrency: usize) -> Self {
        Requests {
            queue: Queue::new(),
            connections: Connections::new(),
            places: Places::new(concurrency),
            arrivals: 0,
            in_flight: 0,
            delayed: 0,
            delayed_max,
        }
    }

    /// Admits a request, to be answered at its deadline and after the earlier ones of its connection. At a limit, `refuse` turns it into
    /// its refusal, which is answered at once.
    ///
    /// Returns a request that gets no response, since its connection gets none any more. It is this one, if the connection is closed. If it
    /// is closing, this one is kept until it is closed, and the one that was kept before is returned.
    pub fn push(&mut self, mut scheduled: Scheduled<T>, now: Instant, refuse: impl Fn(&mut T, Refusal)) -> Option<T> {
        self.arrivals += 1;
        if scheduled.delayed && self.delayed + self.places.count_abandoned(now) >= self.delayed_max {
            refuse(&mut scheduled.request, Refusal::Overload);
            scheduled.answer_at_once(now);
        }
        let peer = scheduled.peer;
        let mut place = self.connections.arrive(peer, scheduled.last, now);
        if place == Place::Full {
            refuse(&mut scheduled.request, Refusal::ConnectionFull);
            scheduled.answer_at_once(now);
            scheduled.last = true;
            place = self.connections.arrive(peer, true, now);
        }
        match place {
            Place::First(connection) => {
                self.admit(&mut scheduled);
                let due = scheduled.deadline();
                self.insert(scheduled, connection, due);
                None
            }
            Place::Behind => {
                self.admit(&mut scheduled);
                self.connections.wait(peer, scheduled);
                None
            }
            Place::Closing => self.connections.discard(peer, scheduled).map(|before| before.request),
            Place::Full | Place::Closed => Some(scheduled.request),
        }
    }

    /// Returns when the first request is due.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.queue.earliest()
    }

    /// Takes the first request, for a worker to answer.
    pub(super) fn pop(&mut self) -> Option<(Scheduled<T>, Ticket)> {
        self.queue.pop()
    }

    /// Records that a request was answered and its connection stays open. The one behind it is next.
    pub(super) fn answered(&mut self, answered: Ticket) {
        self.count_out(answered.delayed);
        if let Some(next) = self.connections.answered(answered.peer, answered.connection) {
            // Not before what is due already: a connection that pipelines takes turns with the others.
            let due = next.deadline().max(Instant::now());
            self.insert(next, answered.connection, due);
        }
    }

    /// Closes the connection of a request that was just answered. Returns the requests behind it, which get no response.
    pub(super) fn close_after(&mut self, answered: Ticket) -> Vec<T> {
        self.count_out(answered.delayed);
        let closed = self
            .connections
            .close(answered.peer, Some(answered.connection), Instant::now());
        // The scheduled one was answered.
        closed.map_or_else(Vec::new, |closed| self.give_back(closed, None))
    }

    /// Closes a connection. Returns its requests, which get no response, except one that a worker is answering.
    pub(super) fn close(&mut self, peer: SocketAddr) -> Vec<T> {
        let Some(closed) = self.connections.close(peer, None, Instant::now()) else {
            return Vec::new();
        };
        let number = closed.number;
        let mut queued = None;
        if closed.scheduled {
            queued = self.queue.extract(|(_, ticket)| ticket.connection == number).next();
        }
        self.give_back(closed, queued.map(|(scheduled, _)| scheduled))
    }

    /// Gives back the requests of a closed connection, with the one that was in the queue.
    fn give_back(&mut self, closed: Closed<Scheduled<T>>, queued: Option<Scheduled<T>>) -> Vec<T> {
        let unanswered: Vec<_> = closed.waiting.into_iter().chain(queued).collect();
        for scheduled in &unanswered {
            self.count_out(scheduled.delayed);
            if scheduled.delayed {
                self.places.abandon(scheduled.deadline());
            }
        }
        let requests = unanswered.into_iter().chain(closed.discarded);
        requests.map(|scheduled| scheduled.request).collect()
    }

    /// Refuses further requests of a request's connection, unless some wait behind it already. Returns whether it does.
    pub(super) fn close_if_alone(&mut self, ticket: Ticket) -> bool {
        self.connections.close_if_alone(ticket.peer, ticket.connection)
    }

    /// Makes every request due, also those to come.
    pub(super) fn expire(&mut self, now: Instant) {
        self.queue.expire(now);
    }

    /// Returns how many have arrived so far, including refused ones.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Returns the peers of the connections that have requests in flight.
    pub(super) fn busy(&self) -> HashSet<SocketAddr> {
        self.connections.busy().collect()
    }

    /// Returns how many are admitted and not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether the connection of `peer` has no room for one more.
    #[cfg(test)]
    pub(super) fn is_full(&self, peer: SocketAddr) -> bool {
        self.connections.is_full(peer)
    }

    /// Counts a request, and gives it a place if it is delayed.
    fn admit(&mut self, scheduled: &mut Scheduled<T>) {
        self.in_flight += 1;
        if scheduled.delayed {
            self.delayed += 1;
            scheduled.start = self.places.take(scheduled.start, scheduled.delay);
        }
    }

    fn count_out(&mut self, delayed: bool) {
        self.in_flight -= 1;
        self.delayed -= usize::from(delayed);
    }

    fn insert(&mut self, scheduled: Scheduled<T>, connection: u64, due: Instant) {
        let ticket = Ticket {
            peer: scheduled.peer,
            connection,
            delayed: scheduled.delayed,
        };
        self.queue.insert(due, (scheduled, ticket));
    }
}
