//! The schedule: requests wait here for their deadline, as entries of a queue, not as threads.
//!
//! Invariants:
//! - At most one request of a connection is in the queue or with a responder (see [`super::connections`]).
//! - At most one responder, the leader, sleeps until the earliest deadline; the other idle ones sleep until they are woken.
//! - A responder that is awake takes one due request after the other. An idle one is woken if none leads, and a request is overdue
//!   (see [`OVERDUE_MAX`]) or all that are awake stall at clients that do not read. So a request costs one wake-up at most, and
//!   less than that under load.
//! - No socket is touched under the lock, which is held for a few steps in the queue and the table, or a walk through one of them.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connections::{Connections, Place};

/// How long a request may be overdue for each responder that is awake, before one more is woken. If all were awake as soon as
/// requests queue up, they would take the processors from the dispatcher, and new requests would wait for it.
const OVERDUE_MAX: Duration = Duration::from_millis(10);

/// The shortest sleep of a leader. The requests that become due within it share a wake-up.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// A request with the deadline of its response.
#[derive(Debug)]
pub struct Scheduled<T> {
    /// The address of its client.
    pub peer: SocketAddr,
    /// When its response is due.
    pub deadline: Instant,
    /// Whether it counts against the limit on delayed requests.
    pub delayed: bool,
    /// Whether its connection is closed after the response.
    pub last: bool,
    /// The request itself.
    pub request: T,
}

/// Identifies a request that a responder has taken.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    peer: SocketAddr,
    /// The number of its connection: by the time the response is sent, another may have the same peer.
    connection: u64,
    delayed: bool,
}

/// Why a request was not admitted, with the request.
#[derive(Debug)]
pub enum Refused<T> {
    /// The maximum of delayed requests is in flight.
    Overload(Scheduled<T>),
    /// Its connection has the maximum of requests in flight.
    ConnectionFull(Scheduled<T>),
    /// Its connection gets no more responses. Has the request if the connection is closed. If it is still closing, the request is
    /// kept, and this has the one that was kept before.
    ConnectionClosed(Option<T>),
}

struct State<T> {
    /// Keyed by deadline and, for equal deadlines, by order of insertion.
    queue: BTreeMap<(Instant, u64), (Scheduled<T>, Ticket)>,
    connections: Connections<Scheduled<T>>,
    /// How many requests have arrived.
    arrivals: u64,
    /// How many requests have been inserted into the queue.
    inserted: u64,
    /// How many requests are admitted and not answered.
    in_flight: usize,
    /// How many of them count against `delayed_max`.
    delayed: usize,
    /// Whether every deadline counts as passed.
    expired: bool,
    /// Whether a thread waits for `all_answered`.
    awaited: bool,
    /// Whether a responder leads.
    leads: bool,
    /// How many responders neither sleep nor stall.
    awake: u32,
}

/// The deadline queue between the dispatchers and the responders.
pub struct Schedule<T> {
    state: Mutex<State<T>>,
    /// Wakes the leader.
    leader: Condvar,
    /// Wakes the idle responders that do not lead.
    idle: Condvar,
    /// Signalled when nothing is in flight any more.
    all_answered: Condvar,
    delayed_max: usize,
}

impl<T> Schedule<T> {
    /// Returns a schedule for that many responders, which admits at most `delayed_max` delayed requests at a time.
    pub fn new(delayed_max: usize, responders: u32) -> Self {
        Schedule {
            state: Mutex::new(State {
                queue: BTreeMap::new(),
                connections: Connections::new(),
                arrivals: 0,
                inserted: 0,
                in_flight: 0,
                delayed: 0,
                expired: false,
                awaited: false,
                leads: false,
                awake: responders,
            }),
            leader: Condvar::new(),
            idle: Condvar::new(),
            all_answered: Condvar::new(),
            delayed_max,
        }
    }

    /// A panic under the lock ends the process (see [`super::panics`]), so a poisoned lock is never used for long.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a request, to be answered at its deadline and after the earlier ones of its connection.
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
                let deadline = scheduled.deadline;
                let is_earliest = state.earliest_deadline().is_none_or(|earliest| deadline < earliest);
                state.count_in(&scheduled);
                state.insert(scheduled, connection);
                if is_earliest && state.leads {
                    drop(state);
                    self.leader.notify_one();
                } else {
                    self.wake_another(state, now);
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

    /// Blocks until a request is due. `answered` is the request that the caller has just answered, if its connection stays open.
    pub fn next(&self, answered: Option<Ticket>) -> (Scheduled<T>, Ticket) {
        let mut state = self.lock();
        if let Some(answered) = answered {
            self.settle(&mut state, answered, Instant::now());
        }
        let mut yielded = false;
        loop {
            let now = Instant::now();
            if let Some(next) = state.take_due(now) {
                self.wake_another(state, now);
                return next;
            }
            if !yielded {
                yielded = true;
                // On a busy system, a request becomes due meanwhile, and needs no wake-up.
                drop(state);
                std::thread::yield_now();
                state = self.lock();
                continue;
            }
            state.awake -= 1;
            match state.earliest_deadline() {
                Some(deadline) if !state.leads => {
                    state.leads = true;
                    let woken = self.leader.wait_timeout(state, (deadline - now).max(SLEEP_MIN));
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                    state.leads = false;
                }
                _ => state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
            state.awake += 1;
        }
    }

    /// Wakes an idle responder if those that are awake are not enough for the requests in the queue.
    fn wake_another(&self, state: MutexGuard<'_, State<T>>, now: Instant) {
        let needed = state.earliest_deadline().is_some_and(|deadline| {
            !state.leads && (state.awake == 0 || state.expired || deadline + OVERDUE_MAX * state.awake <= now)
        });
        drop(state);
        if needed {
            self.idle.notify_one();
        }
    }

    fn settle(&self, state: &mut State<T>, answered: Ticket, now: Instant) {
        state.count_out(answered.delayed);
        if let Some(mut next) = state.connections.answered(answered.peer, answered.connection) {
            // Not before what is due already: a connection that pipelines takes turns with the others.
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

    /// Closes a connection. Returns its requests, which get no response, except one that a responder is answering.
    pub fn close(&self, peer: SocketAddr) -> Vec<T> {
        self.close_connection(self.lock(), peer, None)
    }

    fn close_connection(&self, mut state: MutexGuard<'_, State<T>>, peer: SocketAddr, number: Option<u64>) -> Vec<T> {
        let Some(closed) = state.connections.close(peer, number, Instant::now()) else {
            self.signal_if_all_answered(&state);
            return Vec::new();
        };
        let mut unanswered = Vec::from(closed.waiting);
        // If the number was given, the scheduled request is with the caller.
        if closed.scheduled && number.is_none() {
            let queue = &mut state.queue;
            let queued = queue.extract_if(.., |_, (_, ticket)| ticket.connection == closed.number);
            unanswered.extend(queued.map(|(_, (scheduled, _))| scheduled));
        }
        for scheduled in &unanswered {
            state.count_out(scheduled.delayed);
        }
        self.signal_if_all_answered(&state);
        drop(state);
        let requests = unanswered.into_iter().chain(closed.discarded);
        requests.map(|scheduled| scheduled.request).collect()
    }

    /// Calls `wait`, which blocks until a client reads. Another responder is woken in place of the caller if none is awake.
    pub fn stall<R>(&self, wait: impl FnOnce() -> R) -> R {
        let mut state = self.lock();
        state.awake -= 1;
        self.wake_another(state, Instant::now());
        let waited = wait();
        self.lock().awake += 1;
        waited
    }

    /// Refuses further requests of a request's connection, unless some wait behind it already. Returns whether it does.
    pub fn close_if_alone(&self, ticket: Ticket) -> bool {
        self.lock().connections.close_if_alone(ticket.peer, ticket.connection)
    }

    /// Expires every deadline, also those of requests to come: all are answered at once.
    pub fn expire(&self) {
        self.lock().expired = true;
        self.leader.notify_all();
        self.idle.notify_all();
    }

    /// Returns how many requests have arrived so far, including refused ones.
    pub fn arrivals(&self) -> u64 {
        self.lock().arrivals
    }

    /// Returns the peers of the connections that have requests in flight.
    pub fn busy(&self) -> HashSet<SocketAddr> {
        self.lock().connections.busy().collect()
    }

    /// Returns how many requests are admitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Blocks until no request is in flight, at most until `deadline`. Returns whether none is.
    pub fn wait_until_all_answered(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.awaited = true;
        let left = deadline.saturating_duration_since(Instant::now());
        let in_flight = |state: &mut State<T>| state.in_flight > 0;
        let waited = self.all_answered.wait_timeout_while(state, left, in_flight);
        waited.unwrap_or_else(PoisonError::into_inner).0.in_flight == 0
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
        let ticket = Ticket {
            peer: scheduled.peer,
            connection,
            delayed: scheduled.delayed,
        };
        self.inserted += 1;
        self.queue
            .insert((scheduled.deadline, self.inserted), (scheduled, ticket));
    }

    /// Takes the earliest request if it is due.
    fn take_due(&mut self, now: Instant) -> Option<(Scheduled<T>, Ticket)> {
        let due = self.expired || self.earliest_deadline()? <= now;
        if due {
            self.queue.pop_first().map(|(_, next)| next)
        } else {
            None
        }
    }

    fn earliest_deadline(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|(&(deadline, _), _)| deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::super::connections::CONNECTION_IN_FLIGHT_MAX;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::thread;

    /// How long requests of a closed connection are discarded.
    const DISCARD_FOR: Duration = Duration::from_millis(750);

    const MINUTE: Duration = Duration::from_secs(60);

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn request<T>(port: u16, deadline: Instant, request: T) -> Scheduled<T> {
        Scheduled {
            peer: peer(port),
            deadline,
            delayed: true,
            last: false,
            request,
        }
    }

    fn last_request<T>(port: u16, deadline: Instant, of: T) -> Scheduled<T> {
        Scheduled {
            last: true,
            ..request(port, deadline, of)
        }
    }

    #[test]
    fn what_is_due_first_is_answered_first_and_not_before() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        let soon = now + Duration::from_millis(30);
        schedule.push(request(1, soon, "soon"), now).unwrap();
        schedule.push(request(2, now, "now"), now).unwrap();
        assert_eq!(schedule.next(None).0.request, "now");
        assert_eq!(schedule.next(None).0.request, "soon");
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn a_later_request_with_an_earlier_deadline_wakes_the_leader() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        schedule.push(request(1, now + MINUTE, "late"), now).unwrap();
        thread::scope(|scope| {
            let leader = scope.spawn(|| schedule.next(None).0.request);
            while !schedule.lock().leads {
                thread::yield_now();
            }
            schedule.push(request(2, now, "early"), Instant::now()).unwrap();
            assert_eq!(leader.join().unwrap(), "early");
        });
        assert!(now.elapsed() < MINUTE);
    }

    #[test]
    fn an_arrival_wakes_a_responder_that_waits_without_a_deadline() {
        let schedule = Schedule::new(10, 1);
        thread::scope(|scope| {
            let idle = scope.spawn(|| schedule.next(None).0.request);
            while schedule.lock().awake > 0 {
                thread::yield_now();
            }
            let now = Instant::now();
            let soon = now + Duration::from_millis(5);
            schedule.push(request(1, soon, "first"), now).unwrap();
            assert_eq!(idle.join().unwrap(), "first");
            assert!(Instant::now() >= soon);
        });
    }

    #[test]
    fn an_awake_responder_takes_all_due_requests_and_another_is_woken_only_in_its_place() {
        let schedule = Schedule::new(usize::MAX, 2);
        thread::scope(|scope| {
            let idle = scope.spawn(|| schedule.next(None).0.request);
            while schedule.lock().awake > 1 {
                thread::yield_now();
            }
            let mut answered = None;
            for number in 0..1_000 {
                let now = Instant::now();
                schedule.push(request(1, now, number), now).unwrap();
                schedule.push(request(2, now, number), now).unwrap();
                for _ in 0..2 {
                    let (next, ticket) = schedule.next(answered);
                    assert_eq!(next.request, number);
                    answered = Some(ticket);
                }
            }
            let now = Instant::now();
            schedule.push(request(3, now, 1_000), now).unwrap();
            assert_eq!(schedule.stall(|| idle.join().unwrap()), 1_000);
        });
    }

    #[test]
    fn an_arrival_wakes_one_more_responder_if_requests_are_overdue() {
        let schedule = Schedule::new(10, 2);
        thread::scope(|scope| {
            let idle = scope.spawn(|| schedule.next(None).0.request);
            while schedule.lock().awake > 1 {
                thread::yield_now();
            }
            let now = Instant::now();
            schedule.push(request(1, now, "overdue"), now).unwrap();
            let later = now + OVERDUE_MAX;
            schedule.push(request(2, later + MINUTE, "late"), later).unwrap();
            assert_eq!(idle.join().unwrap(), "overdue");
        });
    }

    #[test]
    fn requests_that_become_due_while_the_leader_sleeps_share_its_wake_up() {
        // The leader may be preempted before it sleeps, or after.
        let shared = (0..21).filter(|_| {
            let schedule = Schedule::new(10, 1);
            let now = Instant::now();
            let deadlines = [300, 500, 700].map(|after_us| now + Duration::from_micros(after_us));
            for (port, deadline) in (1..).zip(deadlines) {
                schedule.push(request(port, deadline, port), now).unwrap();
            }
            assert_eq!(schedule.next(None).0.request, 1);
            Instant::now() >= deadlines[2]
        });
        assert!(shared.count() > 10);
    }

    #[test]
    fn delayed_requests_past_the_limit_are_refused_until_one_is_answered() {
        let schedule = Schedule::new(2, 1);
        let now = Instant::now();
        schedule.push(request(1, now, 1), now).unwrap();
        schedule.push(request(2, now, 2), now).unwrap();
        let over = schedule.push(request(3, now, 3), now);
        assert!(matches!(over, Err(Refused::Overload(Scheduled { request: 3, .. }))));
        let probe = Scheduled {
            delayed: false,
            ..request(3, now, 4)
        };
        schedule.push(probe, now).unwrap();
        let (_, first) = schedule.next(None);
        assert_eq!(schedule.next(Some(first)).0.request, 2);
        schedule.push(request(4, now, 5), now).unwrap();
        assert_eq!(schedule.arrivals(), 5, "refused ones have arrived too");
    }

    #[test]
    fn a_full_connection_gets_one_last_response() {
        let schedule = Schedule::new(usize::MAX, 1);
        let now = Instant::now();
        for number in 0..CONNECTION_IN_FLIGHT_MAX {
            schedule.push(request(1, now, number), now).unwrap();
        }
        let over = schedule.push(request(1, now, 900), now);
        assert!(matches!(
            over,
            Err(Refused::ConnectionFull(Scheduled { request: 900, .. }))
        ));
        schedule.push(last_request(1, now, 901), now).unwrap();
        let kept = schedule.push(request(1, now, 902), now);
        assert!(matches!(kept, Err(Refused::ConnectionClosed(None))));
        let next_kept = schedule.push(last_request(1, now, 903), now);
        assert!(matches!(next_kept, Err(Refused::ConnectionClosed(Some(902)))));
        let mut answered = None;
        for expected in (0..CONNECTION_IN_FLIGHT_MAX).chain([901]) {
            let (next, ticket) = schedule.next(answered);
            assert_eq!(next.request, expected);
            answered = Some(ticket);
        }
        assert_eq!(schedule.close_after(answered.unwrap()), [903]);
        assert_eq!(schedule.in_flight(), 0);
        let closed = schedule.push(request(1, now, 904), now);
        assert!(matches!(closed, Err(Refused::ConnectionClosed(Some(904)))));
    }

    #[test]
    fn a_connection_closed_after_a_response_gives_back_the_requests_behind_it() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        for number in 0..3 {
            schedule.push(request(1, now, number), now).unwrap();
        }
        let (_, first) = schedule.next(None);
        assert_eq!(schedule.close_after(first), [1, 2]);
        assert_eq!(schedule.in_flight(), 0);
        assert!(schedule.wait_until_all_answered(Instant::now()));
    }

    #[test]
    fn a_closed_connection_gives_back_all_of_its_requests_and_its_successor_is_served() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        let late = now + MINUTE;
        schedule.push(request(1, late, "first"), now).unwrap();
        schedule.push(request(2, now, "another's"), now).unwrap();
        schedule.push(request(1, now, "second"), now).unwrap();
        schedule.push(last_request(1, now, "last"), now).unwrap();
        assert!(schedule.push(request(1, now, "kept"), now).is_err());
        let mut given_back = schedule.close(peer(1));
        given_back.sort_unstable();
        assert_eq!(given_back, ["first", "kept", "last", "second"]);
        assert_eq!(schedule.busy(), HashSet::from([peer(2)]));
        assert_eq!(schedule.in_flight(), 1);
        let too_early = schedule.push(request(1, now, "of the first"), now);
        assert!(matches!(
            too_early,
            Err(Refused::ConnectionClosed(Some("of the first")))
        ));
        let later = Instant::now() + DISCARD_FOR;
        schedule.push(request(1, now, "of its successor"), later).unwrap();
        let (first, ticket) = schedule.next(None);
        let (second, _) = schedule.next(Some(ticket));
        let mut answered = [first.request, second.request];
        answered.sort_unstable();
        assert_eq!(answered, ["another's", "of its successor"]);
    }

    #[test]
    fn a_response_to_a_closed_connection_does_not_concern_its_successor() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        schedule.push(request(1, now, "answered late"), now).unwrap();
        let (_, of_first) = schedule.next(None);
        assert!(schedule.close(peer(1)).is_empty(), "a responder is at it");
        assert_eq!(schedule.in_flight(), 1);
        let later = Instant::now() + DISCARD_FOR;
        schedule.push(request(1, now, "second"), later).unwrap();
        schedule.push(request(1, now, "third"), later).unwrap();
        assert!(!schedule.close_if_alone(of_first));
        assert!(schedule.close_after(of_first).is_empty());
        let (second, of_second) = schedule.next(None);
        assert_eq!(second.request, "second");
        assert_eq!(schedule.next(Some(of_second)).0.request, "third");
    }

    #[test]
    fn a_connection_closed_if_alone_takes_no_more_requests() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        schedule.push(request(1, now, 1), now).unwrap();
        schedule.push(request(1, now, 2), now).unwrap();
        let (_, first) = schedule.next(None);
        assert!(!schedule.close_if_alone(first), "another request waits");
        let (_, second) = schedule.next(Some(first));
        assert!(schedule.close_if_alone(second));
        let kept = schedule.push(request(1, now, 3), now);
        assert!(matches!(kept, Err(Refused::ConnectionClosed(None))));
        assert_eq!(schedule.close_after(second), [3]);
    }

    #[test]
    fn a_connection_that_pipelines_takes_turns_with_the_others() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        for number in 0..3 {
            schedule.push(request(1, now, number), now).unwrap();
        }
        schedule.push(request(2, now, 10), now).unwrap();
        let (_, first) = schedule.next(None);
        assert_eq!(schedule.next(Some(first)).0.request, 10);
        assert_eq!(schedule.next(None).0.request, 1);
    }

    #[test]
    fn after_expire_everything_is_answered_at_once() {
        let schedule = Schedule::new(10, 3);
        let now = Instant::now();
        let late = now + MINUTE;
        for port in 1..=3 {
            schedule.push(request(port, late, port), now).unwrap();
        }
        thread::scope(|scope| {
            let responders = [(); 3].map(|()| scope.spawn(|| schedule.next(None)));
            while schedule.lock().awake > 0 {
                thread::yield_now();
            }
            schedule.expire();
            let mut answered = responders.map(|responder| responder.join().unwrap().0.request);
            answered.sort_unstable();
            assert_eq!(answered, [1, 2, 3]);
        });
        schedule.push(request(4, late, 4), now).unwrap();
        schedule.push(request(4, late, 5), now).unwrap();
        let (_, fourth) = schedule.next(None);
        assert_eq!(schedule.next(Some(fourth)).0.request, 5);
        assert!(now.elapsed() < MINUTE);
    }

    #[test]
    fn whoever_waits_for_the_last_response_is_notified() {
        let schedule = Schedule::new(10, 1);
        let now = Instant::now();
        assert!(schedule.wait_until_all_answered(now), "nothing is in flight");
        schedule.push(request(1, now, ()), now).unwrap();
        assert!(!schedule.wait_until_all_answered(now));
        let (_, ticket) = schedule.next(None);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| schedule.wait_until_all_answered(now + MINUTE));
            schedule.close_after(ticket);
            assert!(waiting.join().unwrap());
        });
        assert!(now.elapsed() < MINUTE);
    }

    #[test]
    fn many_threads_answer_everything_in_the_order_of_each_connection() {
        const CONNECTIONS: u16 = 50;
        const REQUESTS: u32 = 400;
        let schedule = Arc::new(Schedule::new(usize::MAX, 4));
        let seen: Arc<Mutex<HashMap<SocketAddr, u32>>> = Arc::default();
        for _ in 0..4 {
            let (schedule, seen) = (Arc::clone(&schedule), Arc::clone(&seen));
            // It waits for one more when the test ends.
            thread::spawn(move || {
                let mut answered = None;
                loop {
                    let (scheduled, ticket) = schedule.next(answered);
                    let mut seen = seen.lock().unwrap();
                    let expected = seen.entry(scheduled.peer).or_default();
                    assert_eq!(*expected, scheduled.request, "out of order");
                    *expected += 1;
                    drop(seen);
                    answered = Some(ticket);
                }
            });
        }
        thread::scope(|scope| {
            for first in 0..2 {
                let schedule = &schedule;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(u64::from(first));
                    for number in 0..REQUESTS {
                        for port in (first..CONNECTIONS).step_by(2) {
                            let now = Instant::now();
                            let deadline = now + Duration::from_micros(random.u64(0..500));
                            let mut next = request(port, deadline, number);
                            while let Err(Refused::ConnectionFull(back)) = schedule.push(next, now) {
                                next = back;
                                thread::yield_now();
                            }
                        }
                    }
                });
            }
        });
        assert!(schedule.wait_until_all_answered(Instant::now() + Duration::from_secs(20)));
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), usize::from(CONNECTIONS));
        assert!(seen.values().all(|count| *count == REQUESTS), "{seen:?}");
    }

    proptest! {
        #[test]
        fn any_requests_leave_once_each_by_deadline_and_in_the_order_of_their_connection(
            arrivals in prop::collection::vec((0u16..5, 0u64..1_000), 1..60)
        ) {
            let schedule = Schedule::new(usize::MAX, 1);
            let now = Instant::now();
            let past = now - Duration::from_secs(1);
            for (number, (port, after_us)) in arrivals.iter().enumerate() {
                let deadline = past + Duration::from_micros(*after_us);
                schedule.push(request(*port, deadline, number), now).unwrap();
            }
            let mut left: Vec<(u16, usize)> = Vec::new();
            let mut answered = None;
            while left.len() < arrivals.len() {
                let (next, ticket) = schedule.next(answered);
                left.push((next.peer.port(), next.request));
                answered = Some(ticket);
            }
            for port in 0..5 {
                let order: Vec<usize> = left.iter().filter(|(of, _)| *of == port).map(|(_, number)| *number).collect();
                let arrived: Vec<usize> = (0..arrivals.len()).filter(|number| arrivals[*number].0 == port).collect();
                prop_assert_eq!(order, arrived);
            }
            // The first one of each connection waits for nothing but its deadline.
            let connections = schedule_heads(&arrivals);
            let firsts: Vec<usize> = left.iter().take(connections.len()).map(|(_, number)| *number).collect();
            prop_assert_eq!(firsts, connections);
            prop_assert!(schedule.close_after(answered.unwrap()).is_empty());
            prop_assert_eq!(schedule.in_flight(), 0);
        }
    }

    /// Returns the numbers of the first request of each connection, by deadline.
    fn schedule_heads(arrivals: &[(u16, u64)]) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut heads: Vec<usize> = (0..arrivals.len())
            .filter(|number| seen.insert(arrivals[*number].0))
            .collect();
        heads.sort_by_key(|number| (arrivals[*number].1, *number));
        heads
    }
}
