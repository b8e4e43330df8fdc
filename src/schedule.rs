//! The schedule: requests wait here for their deadline, as heap entries, not as threads.
//!
//! What is always true:
//! - At most one request of a connection is in the queue or with a responder (see [`crate::connections`]).
//! - While the queue has entries and a responder is idle, one responder, the leader, waits with the earliest deadline as its
//!   timeout; the others wait without one. A leader that takes a request first passes the lead on.
//! - Nothing here touches a socket, so the lock is never held for longer than a few heap steps, or a walk through the table of
//!   connections.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::connections::{Connections, Former, Peers, Place, Swept};

/// How many unanswered requests one connection may have; pipelining clients get one 503 past it, and no more.
pub const CONNECTION_IN_FLIGHT_MAX: usize = 128;

/// A responder that has been at one request for this long counts as stuck on its client.
const STUCK_AFTER: Duration = Duration::from_millis(5);

/// A request with the time its answer is due.
#[derive(Debug)]
pub struct Scheduled<T> {
    /// Whose request it is.
    pub peer: SocketAddr,
    /// When its answer is due.
    pub deadline: Instant,
    /// Whether it counts against the limit on delayed requests.
    pub delayed: bool,
    /// What the responder needs.
    pub request: T,
}

/// What a request that a responder answers is known by to the schedule.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    peer: SocketAddr,
    /// The number of its connection.
    connection: u64,
    /// Whether it counts against the limit on delayed requests.
    delayed: bool,
}

/// Why a request was not taken; gives it back.
#[derive(Debug)]
pub enum Refused<T> {
    /// As many delayed requests as may be are waiting.
    Overload(T),
    /// Its connection has as many requests in flight as one may have.
    ConnectionFull(T),
    /// Its connection is closing: the request gets no answer, and is held until the connection is closed. Gives the one that
    /// was held before.
    ConnectionClosed(Option<T>),
}

/// What a responder does next.
#[derive(Debug)]
pub enum Next<T> {
    /// Answer this request, whose time has come.
    Answer(Scheduled<T>, Ticket),
    /// End: there was nothing to do for as long as a spare responder waits.
    Leave,
}

struct Entry<T> {
    scheduled: Scheduled<T>,
    /// Orders entries of one deadline by arrival.
    sequence: u64,
    /// The number of its connection.
    connection: u64,
}

impl<T> Entry<T> {
    fn ticket(&self) -> Ticket {
        Ticket {
            peer: self.scheduled.peer,
            connection: self.connection,
            delayed: self.scheduled.delayed,
        }
    }

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
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

struct State<T> {
    queue: BinaryHeap<Entry<T>>,
    connections: Connections<Scheduled<T>>,
    sequence: u64,
    /// Taken and not answered, all of them.
    in_flight: usize,
    /// Those of them that count against `delayed_max`.
    delayed: usize,
    /// Every deadline counts as passed.
    hurried: bool,
    /// Somebody waits for the last answer.
    hushing: bool,
    leading: bool,
    followers: usize,
    /// What each responder is at, by its number.
    responders: Vec<Activity>,
}

/// What a responder is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// It has left; its number is free.
    Left,
    /// It waits for a deadline.
    Idle,
    /// It is at a request since then.
    AnsweringSince(Instant),
}

/// The deadline queue between the dispatchers and the responders.
pub struct Schedule<T> {
    state: Mutex<State<T>>,
    /// Wakes the leader: an earlier deadline has come in.
    lead: Condvar,
    /// Wakes a follower: to take the lead, or a request that is due.
    follow: Condvar,
    /// Wakes whoever waits for the last answer.
    quiet: Condvar,
    delayed_max: usize,
}

impl<T> Schedule<T> {
    /// A schedule that takes at most `delayed_max` delayed requests at a time.
    pub fn new(delayed_max: usize) -> Self {
        Schedule {
            state: Mutex::new(State {
                queue: BinaryHeap::new(),
                connections: Connections::new(CONNECTION_IN_FLIGHT_MAX),
                sequence: 0,
                in_flight: 0,
                delayed: 0,
                hurried: false,
                hushing: false,
                leading: false,
                followers: 0,
                responders: Vec::new(),
            }),
            lead: Condvar::new(),
            follow: Condvar::new(),
            quiet: Condvar::new(),
            delayed_max,
        }
    }

    /// A panic under the lock ends the process (see [`crate::panics`]), so a poisoned lock is never used for long.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request, to be answered at its deadline, or once the earlier ones of its connection are.
    ///
    /// Tells whether requests are overdue with no responder free: then [`Schedule::relief`] should be asked.
    ///
    /// # Errors
    ///
    /// Gives the request back where a limit is reached or its connection is closing.
    pub fn push(&self, scheduled: Scheduled<T>, now: Instant) -> Result<bool, Refused<T>> {
        let state = self.lock();
        if scheduled.delayed && state.delayed >= self.delayed_max {
            return Err(Refused::Overload(scheduled.request));
        }
        let overdue = state.overdue(now);
        self.admit(state, scheduled, now)?;
        Ok(overdue)
    }

    fn admit(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        scheduled: Scheduled<T>,
        now: Instant,
    ) -> Result<(), Refused<T>> {
        let peer = scheduled.peer;
        match state.connections.arrive(peer, now) {
            Place::First(connection) => {
                state.count_in(&scheduled);
                self.enqueue(state, scheduled, connection);
            }
            Place::Behind => {
                state.count_in(&scheduled);
                state.connections.wait(peer, scheduled);
            }
            Place::Full => return Err(Refused::ConnectionFull(scheduled.request)),
            Place::Closed => return Err(state.hold(scheduled, false)),
        }
        Ok(())
    }

    /// Takes the last request that its connection gets an answer to, past the connection's limit; later ones are refused.
    pub fn push_last(&self, scheduled: Scheduled<T>, now: Instant) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        let peer = scheduled.peer;
        match state.connections.arrive(peer, now) {
            Place::Closed => return Err(state.hold(scheduled, true)),
            Place::First(connection) => {
                state.connections.close_after(peer);
                state.count_in(&scheduled);
                self.enqueue(state, scheduled, connection);
            }
            Place::Behind | Place::Full => {
                state.connections.close_after(peer);
                state.count_in(&scheduled);
                state.connections.wait(peer, scheduled);
            }
        }
        Ok(())
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State<T>>, scheduled: Scheduled<T>, connection: u64) {
        let deadline = scheduled.deadline;
        let earliest = state
            .queue
            .peek()
            .is_none_or(|first| deadline < first.scheduled.deadline);
        state.insert(scheduled, connection);
        if !earliest {
            return;
        }
        let (leading, followers) = (state.leading, state.followers);
        drop(state);
        if leading {
            self.lead.notify_one();
        } else if followers > 0 {
            self.follow.notify_one();
        }
    }

    /// Waits for the next request that is due, on behalf of `responder`, after the one that it has just answered.
    ///
    /// A responder with `spare_for` leaves when it was idle for that long.
    pub fn next(&self, responder: Responder, answered: Option<Ticket>, spare_for: Option<Duration>) -> Next<T> {
        let mut state = self.lock();
        let mut now = Instant::now();
        if let Some(answered) = answered {
            state.settle(answered, now);
            self.tell_quiet(&state);
        }
        state.responders[responder.0] = Activity::Idle;
        let idle_since = now;
        loop {
            let earliest = state.queue.peek().map(|entry| entry.scheduled.deadline);
            match earliest {
                Some(deadline) if state.hurried || deadline <= now => {
                    let Some(entry) = state.queue.pop() else {
                        continue;
                    };
                    state.responders[responder.0] = Activity::AnsweringSince(now);
                    let pass_on = !state.queue.is_empty() && !state.leading && state.followers > 0;
                    drop(state);
                    if pass_on {
                        self.follow.notify_one();
                    }
                    let ticket = entry.ticket();
                    return Next::Answer(entry.scheduled, ticket);
                }
                Some(deadline) if !state.leading => {
                    state.leading = true;
                    state = self
                        .lead
                        .wait_timeout(state, deadline - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    state.leading = false;
                }
                _ => {
                    state.followers += 1;
                    state = match spare_for {
                        None => self.follow.wait(state).unwrap_or_else(PoisonError::into_inner),
                        Some(spare_for) => {
                            self.follow
                                .wait_timeout(state, spare_for)
                                .unwrap_or_else(PoisonError::into_inner)
                                .0
                        }
                    };
                    state.followers -= 1;
                    if spare_for.is_some_and(|spare_for| idle_since.elapsed() >= spare_for)
                        && (state.leading || state.queue.is_empty())
                    {
                        state.responders[responder.0] = Activity::Left;
                        return Next::Leave;
                    }
                }
            }
            now = Instant::now();
        }
    }

    /// Registers a responder, unless there are `responders_max`.
    pub fn join(&self, responders_max: usize) -> Option<Responder> {
        let responders = &mut self.lock().responders;
        if let Some(number) = responders.iter().position(|activity| *activity == Activity::Left) {
            responders[number] = Activity::Idle;
            return Some(Responder(number));
        }
        if responders.len() >= responders_max {
            return None;
        }
        responders.push(Activity::Idle);
        Some(Responder(responders.len() - 1))
    }

    /// Takes a responder's registration back that could not be started.
    pub fn leave(&self, responder: Responder) {
        self.lock().responders[responder.0] = Activity::Left;
    }

    /// How many responders must be added while requests are overdue: so that `free_min` are not stuck on a client, and as many
    /// as are stuck, since each that is added may meet another client that does not read.
    pub fn relief(&self, free_min: usize, now: Instant) -> usize {
        let state = self.lock();
        if !state.overdue(now) {
            return 0;
        }
        let (mut free, mut stuck) = (0_usize, 0);
        for activity in &state.responders {
            match activity {
                Activity::Left => {}
                Activity::AnsweringSince(since) if *since + STUCK_AFTER <= now => stuck += 1,
                Activity::Idle | Activity::AnsweringSince(_) => free += 1,
            }
        }
        if free < free_min { stuck.max(free_min - free) } else { 0 }
    }

    /// Lets the requests of `peers` be answered at once, whatever their deadlines.
    pub fn hurry_those_of(&self, peers: &HashSet<SocketAddr>, now: Instant) {
        let mut state = self.lock();
        let mut queue = std::mem::take(&mut state.queue).into_vec();
        for entry in queue.iter_mut().filter(|entry| peers.contains(&entry.scheduled.peer)) {
            entry.scheduled.deadline = entry.scheduled.deadline.min(now);
        }
        state.queue = BinaryHeap::from(queue);
        drop(state);
        self.lead.notify_one();
    }

    /// Lets every request be answered at once, whatever its deadline, from now on.
    pub fn hurry(&self) {
        self.lock().hurried = true;
        self.lead.notify_all();
        self.follow.notify_all();
    }

    /// How many requests are taken and not answered.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Waits until no request is in flight, at most until `deadline`; tells whether that came about.
    pub fn wait_quiet(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.hushing = true;
        while state.in_flight > 0 {
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            state = self
                .quiet
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Tells that a request was answered and that its connection must not be written to again, because it is done with or
    /// its client does not read; gives its other requests, to be dropped where a slow drop holds nobody up. None where the
    /// client has reset it, and another may have its port.
    pub fn cut(&self, answered: Ticket) -> Option<Vec<T>> {
        let mut state = self.lock();
        state.count_out(answered.delayed);
        let behind = state.connections.cut(answered.peer, answered.connection);
        for scheduled in behind.iter().flatten() {
            state.count_out(scheduled.delayed);
        }
        self.tell_quiet(&state);
        drop(state);
        behind.map(|behind| behind.into_iter().map(|behind| behind.request).collect())
    }

    /// Lets nothing further of these connections in; gives their requests that wait behind another, to be dropped.
    pub fn shut_out(&self, peers: &HashSet<SocketAddr>, now: Instant) -> Vec<T> {
        let mut state = self.lock();
        let mut dropped = Vec::new();
        for &peer in peers {
            for scheduled in state.connections.shut_out(peer, now) {
                state.count_out(scheduled.delayed);
                dropped.push(scheduled.request);
            }
        }
        self.tell_quiet(&state);
        dropped
    }

    fn tell_quiet(&self, state: &State<T>) {
        if state.in_flight == 0 && state.hushing {
            self.quiet.notify_all();
        }
    }

    /// The peers of the connections that are closing.
    pub(crate) fn closing(&self) -> HashSet<SocketAddr> {
        self.lock().connections.closing()
    }

    /// The peers of the connections that have requests in flight.
    pub(crate) fn busy(&self) -> HashSet<SocketAddr> {
        self.lock().connections.busy()
    }

    /// Takes note that a connection that was cut off was shut down, and of its socket. False where it was before, and whoever
    /// did that has not let go of it yet.
    pub(crate) fn ended(&self, peer: SocketAddr, former: Former) -> bool {
        self.lock().connections.ended(peer, former)
    }

    /// Takes note that nothing holds its thread any more, which may end now.
    pub(crate) fn released(&self, peer: SocketAddr) {
        self.lock().connections.released(peer);
    }

    /// Compares the table of connections with the sockets that are open (see [`Connections::sweep`]). Requests that turn out to
    /// be a new connection's are taken.
    pub(crate) fn sweep(&self, open: &Peers, now: Instant) -> Swept<Scheduled<T>> {
        let mut state = self.lock();
        let mut swept = state.connections.sweep(open, now);
        for scheduled in &swept.forsaken {
            state.count_out(scheduled.delayed);
        }
        self.tell_quiet(&state);
        drop(state);
        for scheduled in swept.succeeded.drain(..) {
            // Its connection was closed until now, and so has room.
            let _ = self.admit(self.lock(), scheduled, now);
        }
        swept
    }
}

/// A responder's registration with the schedule.
#[derive(Debug, Clone, Copy)]
pub struct Responder(usize);

impl<T> State<T> {
    fn count_in(&mut self, scheduled: &Scheduled<T>) {
        self.in_flight += 1;
        self.delayed += usize::from(scheduled.delayed);
    }

    fn count_out(&mut self, delayed: bool) {
        self.in_flight -= 1;
        self.delayed -= usize::from(delayed);
    }

    fn hold(&mut self, scheduled: Scheduled<T>, last: bool) -> Refused<T> {
        let before = self.connections.hold(scheduled.peer, scheduled, last);
        Refused::ConnectionClosed(before.map(|before| before.request))
    }

    fn overdue(&self, now: Instant) -> bool {
        !self.leading
            && self.followers == 0
            && self
                .queue
                .peek()
                .is_some_and(|entry| entry.scheduled.deadline + STUCK_AFTER <= now)
    }

    fn insert(&mut self, scheduled: Scheduled<T>, connection: u64) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.queue.push(Entry {
            scheduled,
            sequence,
            connection,
        });
    }

    fn settle(&mut self, answered: Ticket, now: Instant) {
        self.count_out(answered.delayed);
        if let Some(mut next) = self.connections.answered(answered.peer, answered.connection, now) {
            // Behind what is due already: a connection that pipelines takes turns with the others.
            next.deadline = next.deadline.max(now);
            self.insert(next, answered.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::thread;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn request<T>(port: u16, deadline: Instant, request: T) -> Scheduled<T> {
        Scheduled {
            peer: peer(port),
            deadline,
            delayed: true,
            request,
        }
    }

    /// Takes the next request that is due, as a responder that leaves when there is none.
    fn take<T>(schedule: &Schedule<T>, after: Option<Ticket>) -> Option<(Scheduled<T>, Ticket)> {
        let responder = schedule.join(1).expect("a free number");
        let next = schedule.next(responder, after, Some(Duration::ZERO));
        schedule.leave(responder);
        match next {
            Next::Answer(scheduled, ticket) => Some((scheduled, ticket)),
            Next::Leave => None,
        }
    }

    #[test]
    fn what_is_due_first_is_answered_first_and_not_before() {
        let schedule = Schedule::new(10);
        let now = Instant::now();
        let soon = now + Duration::from_millis(30);
        schedule.push(request(1, soon, "soon"), now).unwrap();
        schedule.push(request(2, now, "now"), now).unwrap();
        assert_eq!(take(&schedule, None).unwrap().0.request, "now");
        assert_eq!(take(&schedule, None).unwrap().0.request, "soon");
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn a_later_request_with_an_earlier_deadline_wakes_the_leader() {
        let schedule = Arc::new(Schedule::new(10));
        let now = Instant::now();
        schedule
            .push(request(1, now + Duration::from_secs(60), "late"), now)
            .unwrap();
        let waiting = Arc::clone(&schedule);
        let leader = thread::spawn(move || {
            let responder = waiting.join(1).unwrap();
            match waiting.next(responder, None, None) {
                Next::Answer(scheduled, _) => scheduled.request,
                Next::Leave => "left",
            }
        });
        while !schedule.lock().leading {
            thread::yield_now();
        }
        schedule.push(request(2, now, "early"), Instant::now()).unwrap();
        assert_eq!(leader.join().unwrap(), "early");
    }

    #[test]
    fn limits_refuse_what_is_past_them() {
        let schedule = Schedule::new(2);
        let now = Instant::now();
        schedule.push(request(1, now, 1), now).unwrap();
        schedule.push(request(2, now, 2), now).unwrap();
        assert!(matches!(
            schedule.push(request(3, now, 3), now),
            Err(Refused::Overload(3))
        ));
        let probe = Scheduled {
            delayed: false,
            ..request(3, now, 4)
        };
        schedule.push(probe, now).unwrap();
        let (_, first) = take(&schedule, None).unwrap();
        let (second, _) = take(&schedule, Some(first)).unwrap();
        schedule.push(request(4, now, 5), now).unwrap();
        assert_eq!(second.request, 2);
    }

    #[test]
    fn a_connection_has_so_many_in_flight_and_one_last_answer() {
        let schedule = Schedule::new(usize::MAX);
        let now = Instant::now();
        for number in 0..CONNECTION_IN_FLIGHT_MAX {
            schedule.push(request(1, now, number), now).unwrap();
        }
        let over = schedule.push(request(1, now, 900), now);
        assert!(matches!(over, Err(Refused::ConnectionFull(900))));
        schedule.push_last(request(1, now, 901), now).unwrap();
        let closed = schedule.push(request(1, now, 902), now);
        assert!(matches!(closed, Err(Refused::ConnectionClosed(None))));
        assert!(schedule.push_last(request(1, now, 903), now).is_err());
        let mut last = None;
        for expected in (0..CONNECTION_IN_FLIGHT_MAX).chain([901]) {
            let (next, ticket) = take(&schedule, last).expect("one more");
            assert_eq!(next.request, expected);
            last = Some(ticket);
        }
        assert_eq!(schedule.cut(last.unwrap()), Some(vec![]));
        assert_eq!(schedule.in_flight(), 0);
    }

    #[test]
    fn a_cut_gives_back_what_gets_no_answer() {
        let schedule = Schedule::new(10);
        let now = Instant::now();
        for number in 0..3 {
            schedule.push(request(1, now, number), now).unwrap();
        }
        let (_, first) = take(&schedule, None).unwrap();
        assert_eq!(schedule.cut(first), Some(vec![1, 2]));
        assert_eq!(schedule.in_flight(), 0);
        assert!(schedule.wait_quiet(Instant::now()));
    }

    #[test]
    fn the_next_connection_from_the_port_of_one_that_was_reset_does_not_wait_behind_it() {
        let schedule = Schedule::new(10);
        let now = Instant::now();
        let late = now + Duration::from_secs(60);
        schedule.push(request(1, late, "of the first"), now).unwrap();
        schedule.push(request(1, now, "behind it"), now).unwrap();
        let later = now + Duration::from_millis(1);
        assert!(
            schedule.sweep(&Peers::new(), later).forsaken.is_empty(),
            "it may be found yet"
        );
        let swept = schedule.sweep(&Peers::new(), later);
        assert_eq!(swept.forsaken[0].request, "behind it");
        assert_eq!(schedule.in_flight(), 1);
        schedule.push(request(1, later, "of the second"), later).unwrap();
        let (second, ticket) = take(&schedule, None).unwrap();
        assert_eq!(second.request, "of the second");
        schedule.hurry();
        let (first, first_ticket) = take(&schedule, Some(ticket)).unwrap();
        assert_eq!(first.request, "of the first");
        schedule.push(request(1, late, "one more"), later).unwrap();
        assert_eq!(schedule.cut(first_ticket), None, "the second one is not cut off");
        assert_eq!(take(&schedule, None).unwrap().0.request, "one more");
    }

    #[test]
    fn a_hurry_for_some_leaves_the_others_their_deadlines() {
        let schedule = Schedule::new(10);
        let now = Instant::now();
        let late = now + Duration::from_secs(60);
        schedule.push(request(1, late, "waits"), now).unwrap();
        schedule.push(request(2, late, "hurries"), now).unwrap();
        schedule.hurry_those_of(&HashSet::from([peer(2)]), now);
        assert_eq!(take(&schedule, None).unwrap().0.request, "hurries");
        assert!(!schedule.wait_quiet(now));
        assert_eq!(schedule.lock().queue.peek().unwrap().scheduled.deadline, late);
    }

    #[test]
    fn a_hurry_answers_what_is_not_due() {
        let schedule = Schedule::new(10);
        let now = Instant::now();
        let late = now + Duration::from_secs(60);
        schedule.push(request(1, late, ()), now).unwrap();
        schedule.push(request(1, late, ()), now).unwrap();
        assert!(!schedule.wait_quiet(now));
        schedule.hurry();
        let (_, first) = take(&schedule, None).unwrap();
        let (_, second) = take(&schedule, Some(first)).unwrap();
        assert!(take(&schedule, Some(second)).is_none());
        assert!(schedule.wait_quiet(now));
    }

    #[test]
    fn relief_makes_up_for_the_responders_that_are_stuck() {
        let schedule = Schedule::new(10);
        let now = Instant::now();
        let responders: Vec<Responder> = (0..3).map_while(|_| schedule.join(3)).collect();
        assert!(schedule.join(3).is_none(), "no more than there may be");
        for port in 1..5 {
            schedule.push(request(port, now, port), now).unwrap();
        }
        for responder in responders {
            assert!(matches!(schedule.next(responder, None, None), Next::Answer(..)));
        }
        assert_eq!(schedule.relief(3, now), 0, "nobody is stuck yet");
        let later = Instant::now() + STUCK_AFTER;
        assert_eq!(schedule.relief(3, later), 3);
        assert!(
            schedule.push(request(9, later, 9), later).unwrap(),
            "a push tells that relief is due"
        );
    }

    #[test]
    fn many_threads_answer_everything_in_the_order_of_each_connection() {
        const CONNECTIONS: u16 = 50;
        const REQUESTS: u32 = 400;
        let schedule = Arc::new(Schedule::new(usize::MAX));
        let seen: Arc<Mutex<HashMap<SocketAddr, u32>>> = Arc::default();
        for _ in 0..4 {
            let (schedule, seen) = (Arc::clone(&schedule), Arc::clone(&seen));
            thread::spawn(move || {
                let responder = schedule.join(4).unwrap();
                let mut last = None;
                while let Next::Answer(scheduled, ticket) = schedule.next(responder, last, None) {
                    let mut seen = seen.lock().unwrap();
                    let expected = seen.entry(scheduled.peer).or_default();
                    assert_eq!(*expected, scheduled.request, "out of order");
                    *expected += 1;
                    drop(seen);
                    last = Some(ticket);
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
                                next = request(port, deadline, back);
                                thread::yield_now();
                            }
                        }
                    }
                });
            }
        });
        assert!(schedule.wait_quiet(Instant::now() + Duration::from_secs(20)));
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), usize::from(CONNECTIONS));
        assert!(seen.values().all(|count| *count == REQUESTS), "{seen:?}");
    }

    proptest! {
        #[test]
        fn any_requests_leave_once_each_by_deadline_and_in_the_order_of_their_connection(
            arrivals in prop::collection::vec((0u16..5, 0u64..1_000), 1..60)
        ) {
            let schedule = Schedule::new(usize::MAX);
            let now = Instant::now();
            let past = now - Duration::from_secs(1);
            for (number, (port, after_ms)) in arrivals.iter().enumerate() {
                let deadline = past + Duration::from_micros(*after_ms);
                schedule.push(request(*port, deadline, number), now).unwrap();
            }
            let mut left: Vec<(u16, usize)> = Vec::new();
            let mut last = None;
            while let Some((next, ticket)) = take(&schedule, last.take()) {
                left.push((next.peer.port(), next.request));
                last = Some(ticket);
            }
            prop_assert_eq!(left.len(), arrivals.len());
            for port in 0..5 {
                let order: Vec<usize> = left.iter().filter(|(of, _)| *of == port).map(|(_, number)| *number).collect();
                prop_assert!(order.is_sorted(), "{:?}", order);
            }
            prop_assert_eq!(schedule.in_flight(), 0);
        }
    }
}
