//! The schedule: requests wait here for their deadline, as entries of a queue, not as threads.
//!
//! Invariants:
//! - At most one worker leads. Only the leader takes requests from tiny_http, so those of a connection arrive in their order. The
//!   lock is free while it waits.
//! - A worker that is awake takes one due request after the other, and another is woken only if it is needed (see
//!   [`super::pool`]). So a request costs one wake-up at most, and less than that under load.
//! - No socket is touched under the lock, which is held for a few steps in the queue and the table, or a walk through one of them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pool::{Help, Leader, Pool};
use super::requests::{Refusal, Requests, Scheduled, Ticket};

/// The shortest wait of the leader. The requests that become due within it share a wake-up.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The longest wait of the leader, if nothing is on the schedule.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long a worker is idle before it ends, if there are more than at the start.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// What a worker does next.
#[derive(Debug)]
pub enum Turn<T> {
    /// Answer this request, which is due.
    Answer(Scheduled<T>, Ticket),
    /// Start one more worker, and ask again. If it cannot be started, call [`Schedule::not_started`].
    Start,
    /// End: the caller has been idle for long.
    End,
    /// Take requests from tiny_http. The caller leads.
    Receive,
    /// Wait for a request from tiny_http, at most until then, and call [`Schedule::woken`]. The caller leads.
    Wait(Instant),
}

struct State<T> {
    requests: Requests<T>,
    pool: Pool,
    /// Whether a thread waits for `all_answered`.
    awaited: bool,
}

/// The deadline queue between tiny_http and the responses.
pub struct Schedule<T> {
    state: Mutex<State<T>>,
    /// Wakes an idle worker.
    idle: Condvar,
    /// Signalled when nothing is in flight any more.
    all_answered: Condvar,
}

impl<T> Schedule<T> {
    /// Returns a schedule of these requests, for that many workers at first.
    pub fn new(requests: Requests<T>, workers: u32) -> Self {
        Schedule {
            state: Mutex::new(State {
                requests,
                pool: Pool::new(workers),
                awaited: false,
            }),
            idle: Condvar::new(),
            all_answered: Condvar::new(),
        }
    }

    /// A panic under the lock ends the process (see [`super::panics`]), so a poisoned lock is never used for long.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request on the schedule (see [`Requests::push`]).
    pub fn push(&self, scheduled: Scheduled<T>, now: Instant, refuse: impl Fn(&mut T, Refusal)) -> Option<T> {
        self.lock().requests.push(scheduled, now, refuse)
    }

    /// Blocks until there is something to do for a worker that does not lead. `answered` is the request that it has just answered, if its
    /// connection stays open.
    pub fn next(&self, answered: Option<Ticket>) -> Turn<T> {
        let mut state = self.lock();
        if let Some(answered) = answered {
            state.requests.answered(answered);
            self.signal_if_all_answered(&state);
        }
        loop {
            if state.pool.leader == Leader::Nobody {
                state.pool.leader = Leader::Receives;
                return Turn::Receive;
            }
            let now = Instant::now();
            if let Some(turn) = self.take_due(&mut state, now) {
                return turn;
            }
            let until = state.next_deadline(now);
            let wait = match state.pool.leader {
                // The leader wakes up too late for it.
                Leader::WaitsUntil(leader) if until < leader => until - now,
                _ => IDLE_MAX,
            };
            state.pool.rest();
            let (woken, timeout) = self
                .idle
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            let was_woken = state.pool.wake_up();
            if timeout.timed_out() && !was_woken && wait == IDLE_MAX && state.pool.end() {
                return Turn::End;
            }
        }
    }

    /// Returns what the leader does next, after it has taken requests from tiny_http. If it is to answer one, it leads no more.
    pub fn next_of_leader(&self) -> Turn<T> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(turn) = self.take_due(&mut state, now) {
            if matches!(turn, Turn::Answer(..)) {
                state.pool.leader = Leader::Nobody;
            }
            return turn;
        }
        let until = state.next_deadline(now);
        state.pool.lead_until(until);
        Turn::Wait(until)
    }

    /// Records that the leader has waited.
    pub fn woken(&self) {
        self.lock().pool.receive();
    }

    /// Takes the earliest request if it is due, unless one more worker has to be started first.
    fn take_due(&self, state: &mut State<T>, now: Instant) -> Option<Turn<T>> {
        if state.requests.earliest()? > now {
            return None;
        }
        if self.help(state, now) {
            return Some(Turn::Start);
        }
        let (scheduled, ticket) = state.requests.pop()?;
        Some(Turn::Answer(scheduled, ticket))
    }

    /// Wakes one more worker if that is needed. Returns whether one has to be started instead.
    fn help(&self, state: &mut State<T>, now: Instant) -> bool {
        let help = state.pool.help(state.requests.earliest(), now);
        if help == Help::Wake {
            self.idle.notify_one();
        }
        help == Help::Start
    }

    /// Records that the caller stalls at a client that does not read. Returns whether one more worker has to be started in its place.
    pub fn stall(&self) -> bool {
        let state = &mut *self.lock();
        state.pool.stall();
        self.help(state, Instant::now())
    }

    /// Records that the caller does not stall any more.
    pub fn go_on(&self) {
        self.lock().pool.go_on();
    }

    /// Records that a worker that was to be started could not be.
    pub fn not_started(&self) {
        self.lock().pool.not_started(Instant::now());
    }

    /// Closes the connection of a request that the caller has just answered (see [`Requests::close_after`]).
    pub fn close_after(&self, answered: Ticket) -> Vec<T> {
        self.close_by(|requests| requests.close_after(answered))
    }

    /// Closes a connection (see [`Requests::close`]).
    pub fn close(&self, peer: SocketAddr) -> Vec<T> {
        self.close_by(|requests| requests.close(peer))
    }

    fn close_by(&self, close: impl FnOnce(&mut Requests<T>) -> Vec<T>) -> Vec<T> {
        let mut state = self.lock();
        let unanswered = close(&mut state.requests);
        self.signal_if_all_answered(&state);
        unanswered
    }

    /// Refuses further requests of a request's connection, unless some wait behind it already. Returns whether it does.
    pub fn close_if_alone(&self, ticket: Ticket) -> bool {
        self.lock().requests.close_if_alone(ticket)
    }

    /// Expires every deadline, also those of requests to come: all are due now. The leader has to be woken.
    pub fn expire(&self) {
        self.lock().requests.expire(Instant::now());
    }

    /// Returns how many requests have arrived so far, including refused ones.
    pub fn arrivals(&self) -> u64 {
        self.lock().requests.arrivals()
    }

    /// Returns the peers of the connections that have requests in flight.
    pub fn busy(&self) -> HashSet<SocketAddr> {
        self.lock().requests.busy()
    }

    /// Returns how many requests are admitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.lock().requests.in_flight()
    }

    /// Blocks until no request is in flight, at most until `deadline`. Returns whether none is.
    pub fn wait_until_all_answered(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.awaited = true;
        let left = deadline.saturating_duration_since(Instant::now());
        let in_flight = |state: &mut State<T>| state.requests.in_flight() > 0;
        let waited = self.all_answered.wait_timeout_while(state, left, in_flight);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.requests.in_flight() == 0
    }

    fn signal_if_all_answered(&self, state: &State<T>) {
        if state.awaited && state.requests.in_flight() == 0 {
            self.all_answered.notify_all();
        }
    }
}

impl<T> State<T> {
    /// Returns when a worker that waits from now on should look again.
    fn next_deadline(&self, now: Instant) -> Instant {
        self.requests.earliest().unwrap_or(now + WAIT_MAX).max(now + WAIT_MIN)
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

    /// A request, with its number and why it was refused.
    type Noted = (usize, Option<Refusal>);

    fn schedule(delayed_max: usize, concurrency: usize, workers: u32) -> Schedule<Noted> {
        Schedule::new(Requests::new(delayed_max, concurrency), workers)
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn request(port: u16, deadline: Instant, number: usize) -> Scheduled<Noted> {
        Scheduled {
            peer: peer(port),
            start: deadline,
            delay: Duration::ZERO,
            delayed: true,
            last: false,
            request: (number, None),
        }
    }

    fn last_request(port: u16, deadline: Instant, number: usize) -> Scheduled<Noted> {
        Scheduled {
            last: true,
            ..request(port, deadline, number)
        }
    }

    /// Returns the number of the request that gets no response.
    fn push(schedule: &Schedule<Noted>, scheduled: Scheduled<Noted>, now: Instant) -> Option<usize> {
        let unanswered = schedule.push(scheduled, now, |request, refusal| request.1 = Some(refusal));
        unanswered.map(|request| request.0)
    }

    /// Does what a worker does until a request is due, with the leader's waits cut short as by requests that arrive.
    fn next(schedule: &Schedule<Noted>, answered: Option<Ticket>) -> (Scheduled<Noted>, Ticket) {
        let mut turn = schedule.next(answered);
        loop {
            turn = match turn {
                Turn::Answer(scheduled, ticket) => return (scheduled, ticket),
                Turn::Start => {
                    schedule.not_started();
                    schedule.next_of_leader()
                }
                Turn::End => unreachable!("no worker was started"),
                Turn::Receive => schedule.next_of_leader(),
                Turn::Wait(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    thread::sleep(left.min(Duration::from_millis(1)));
                    schedule.woken();
                    schedule.next_of_leader()
                }
            };
        }
    }

    fn next_number(schedule: &Schedule<Noted>) -> usize {
        next(schedule, None).0.request.0
    }

    #[test]
    fn what_is_due_first_is_answered_first_and_not_before() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        let soon = now + Duration::from_millis(30);
        push(&schedule, request(1, soon, 2), now);
        push(&schedule, request(2, now, 1), now);
        assert_eq!(next_number(&schedule), 1);
        assert_eq!(next_number(&schedule), 2);
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn the_leader_waits_until_the_earliest_deadline_and_leads_on_until_it_answers() {
        let schedule = schedule(10, 0, 1);
        assert!(matches!(schedule.next(None), Turn::Receive));
        let now = Instant::now();
        push(&schedule, request(1, now + MINUTE, 1), now);
        push(&schedule, request(2, now + MINUTE / 2, 2), now);
        assert!(matches!(schedule.next_of_leader(), Turn::Wait(until) if until == now + MINUTE / 2));
        schedule.woken();
        push(&schedule, request(3, now, 3), now);
        assert!(matches!(schedule.next_of_leader(), Turn::Answer(due, _) if due.request.0 == 3));
        assert!(matches!(schedule.next(None), Turn::Receive));
    }

    #[test]
    fn requests_that_become_due_within_a_millisecond_share_a_wake_up() {
        let schedule = schedule(10, 0, 1);
        schedule.next(None);
        let now = Instant::now();
        push(&schedule, request(1, now + Duration::from_micros(500), 1), now);
        match schedule.next_of_leader() {
            Turn::Wait(until) => assert!(until >= now + WAIT_MIN),
            // This thread was preempted.
            turn => assert!(matches!(turn, Turn::Answer(..)) && now.elapsed() >= Duration::from_micros(500)),
        }
    }

    /// Returns a schedule whose leader is the caller, and waits. Calls `then` with it while another worker is idle, and returns that
    /// worker's turn.
    fn with_an_idle_worker(then: impl FnOnce(&Schedule<Noted>)) -> Turn<Noted> {
        let schedule = schedule(usize::MAX, 0, 2);
        assert!(matches!(schedule.next(None), Turn::Receive));
        assert!(matches!(schedule.next_of_leader(), Turn::Wait(_)));
        thread::scope(|scope| {
            let idle = scope.spawn(|| schedule.next(None));
            while !schedule.lock().pool.is_at_rest() {
                thread::yield_now();
            }
            then(&schedule);
            idle.join().unwrap()
        })
    }

    #[test]
    fn an_idle_worker_leads_if_the_one_that_led_stalls() {
        let turn = with_an_idle_worker(|schedule| {
            schedule.woken();
            let now = Instant::now();
            push(schedule, request(1, now, 1), now);
            assert!(matches!(schedule.next_of_leader(), Turn::Answer(..)));
            assert!(!schedule.stall(), "there is an idle one");
        });
        assert!(matches!(turn, Turn::Receive));
    }

    #[test]
    fn an_idle_worker_is_woken_if_a_request_is_overdue() {
        let turn = with_an_idle_worker(|schedule| {
            schedule.woken();
            let now = Instant::now();
            push(schedule, request(1, now - MINUTE, 1), now);
            assert!(matches!(schedule.next_of_leader(), Turn::Answer(..)));
        });
        assert!(matches!(turn, Turn::Receive));
    }

    #[test]
    fn an_idle_worker_answers_what_is_due_before_the_leader_wakes_up() {
        let schedule = schedule(10, 0, 2);
        schedule.next(None);
        schedule.next_of_leader();
        let now = Instant::now();
        push(&schedule, request(1, now + Duration::from_millis(20), 1), now);
        let mut turn = schedule.next(None);
        // A busy machine wakes it up so late that one more is wanted.
        while matches!(turn, Turn::Start) {
            schedule.not_started();
            turn = schedule.next(None);
        }
        assert!(matches!(turn, Turn::Answer(due, _) if due.request.0 == 1));
        assert!(now.elapsed() < MINUTE);
    }

    #[test]
    fn a_worker_is_started_if_all_stall() {
        let schedule = schedule(10, 0, 1);
        assert!(schedule.stall());
        schedule.go_on();
    }

    #[test]
    fn delayed_requests_past_the_limit_are_refused_until_one_is_answered() {
        let schedule = schedule(2, 0, 1);
        let now = Instant::now();
        let late = now + MINUTE;
        push(&schedule, request(1, now, 1), now);
        push(&schedule, request(2, late, 2), now);
        push(&schedule, request(3, late, 3), now);
        let probe = Scheduled {
            delayed: false,
            ..request(4, now, 4)
        };
        push(&schedule, probe, now);
        let (first, ticket) = next(&schedule, None);
        assert_eq!(first.request, (1, None));
        let (refused, of_refused) = next(&schedule, None);
        assert_eq!(refused.request, (3, Some(Refusal::Overload)), "it is answered at once");
        assert_eq!(next_number(&schedule), 4);
        push(&schedule, request(5, late, 5), now);
        assert_eq!(
            next(&schedule, Some(of_refused)).0.request,
            (5, Some(Refusal::Overload))
        );
        push(&schedule, request(6, late, 6), now);
        assert_eq!(next(&schedule, Some(ticket)).0.request, (6, Some(Refusal::Overload)));
        push(&schedule, request(7, now, 7), now);
        assert_eq!(next_number(&schedule), 7);
        assert_eq!(schedule.arrivals(), 7, "refused ones have arrived too");
    }

    #[test]
    fn requests_of_closed_connections_count_against_the_limit_as_long_as_they_have_their_places() {
        let schedule = schedule(2, 1, 1);
        let now = Instant::now();
        let slow = |port, number| Scheduled {
            delay: MINUTE,
            ..request(port, now, number)
        };
        for number in 1..=2 {
            push(&schedule, slow(number, usize::from(number)), now);
            assert_eq!(schedule.close(peer(number)).len(), 1);
        }
        assert_eq!(schedule.in_flight(), 0);
        push(&schedule, slow(3, 3), now);
        assert_eq!(next(&schedule, None).0.request, (3, Some(Refusal::Overload)));
        let later = now + MINUTE * 2;
        let after = Scheduled {
            start: later,
            ..slow(4, 4)
        };
        push(&schedule, after, later);
        schedule.expire();
        assert_eq!(next(&schedule, None).0.request, (4, None));
    }

    #[test]
    fn at_most_as_many_delayed_requests_are_served_at_a_time_as_there_are_places() {
        const DELAY: Duration = Duration::from_millis(10);
        let schedule = schedule(usize::MAX, 2, 1);
        let now = Instant::now();
        for number in 0..6 {
            let delayed = Scheduled {
                delay: DELAY,
                ..request(number, now, usize::from(number))
            };
            push(&schedule, delayed, now);
        }
        let probe = Scheduled {
            delayed: false,
            ..request(9, now, 9)
        };
        push(&schedule, probe, now);
        assert_eq!(next_number(&schedule), 9, "it takes no place");
        for number in 0..6 {
            let (due, _) = next(&schedule, None);
            assert_eq!((due.request.0, due.start), (number, now + DELAY * (number as u32 / 2)));
        }
    }

    #[test]
    fn a_full_connection_gets_one_last_response() {
        let schedule = schedule(usize::MAX, 0, 1);
        let now = Instant::now();
        for number in 0..=CONNECTION_IN_FLIGHT_MAX {
            assert_eq!(push(&schedule, request(1, now, number), now), None);
        }
        assert_eq!(push(&schedule, request(1, now, 902), now), None, "it is kept");
        assert_eq!(push(&schedule, last_request(1, now, 903), now), Some(902));
        let mut answered = None;
        for expected in 0..=CONNECTION_IN_FLIGHT_MAX {
            let (due, ticket) = next(&schedule, answered);
            let refusal = (expected == CONNECTION_IN_FLIGHT_MAX).then_some(Refusal::ConnectionFull);
            assert_eq!((due.request, due.last), ((expected, refusal), refusal.is_some()));
            answered = Some(ticket);
        }
        assert_eq!(schedule.close_after(answered.unwrap()), [(903, None)]);
        assert_eq!(schedule.in_flight(), 0);
        assert_eq!(push(&schedule, request(1, now, 904), now), Some(904));
    }

    #[test]
    fn a_connection_closed_after_a_response_gives_back_the_requests_behind_it() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        for number in 0..3 {
            push(&schedule, request(1, now, number), now);
        }
        let (_, first) = next(&schedule, None);
        assert_eq!(schedule.close_after(first), [(1, None), (2, None)]);
        assert_eq!(schedule.in_flight(), 0);
        assert!(schedule.wait_until_all_answered(Instant::now()));
    }

    #[test]
    fn a_closed_connection_gives_back_all_of_its_requests_and_its_successor_is_served() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        push(&schedule, request(1, now + MINUTE, 1), now);
        push(&schedule, request(2, now, 10), now);
        push(&schedule, request(1, now, 2), now);
        push(&schedule, last_request(1, now, 3), now);
        push(&schedule, request(1, now, 4), now);
        let mut given_back: Vec<usize> = schedule.close(peer(1)).into_iter().map(|request| request.0).collect();
        given_back.sort_unstable();
        assert_eq!(given_back, [1, 2, 3, 4]);
        assert_eq!(schedule.busy(), HashSet::from([peer(2)]));
        assert_eq!(schedule.in_flight(), 1);
        assert_eq!(push(&schedule, request(1, now, 5), now), Some(5), "it is of the first");
        let later = Instant::now() + DISCARD_FOR;
        push(&schedule, request(1, now, 6), later);
        let (first, ticket) = next(&schedule, None);
        let (second, _) = next(&schedule, Some(ticket));
        let mut answered = [first.request.0, second.request.0];
        answered.sort_unstable();
        assert_eq!(answered, [6, 10]);
    }

    #[test]
    fn a_response_to_a_closed_connection_does_not_concern_its_successor() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        push(&schedule, request(1, now, 1), now);
        let (_, of_first) = next(&schedule, None);
        assert!(schedule.close(peer(1)).is_empty(), "a worker is at it");
        assert_eq!(schedule.in_flight(), 1);
        let later = Instant::now() + DISCARD_FOR;
        push(&schedule, request(1, now, 2), later);
        push(&schedule, request(1, now, 3), later);
        assert!(!schedule.close_if_alone(of_first));
        assert!(schedule.close_after(of_first).is_empty());
        let (second, of_second) = next(&schedule, None);
        assert_eq!(second.request.0, 2);
        assert_eq!(next(&schedule, Some(of_second)).0.request.0, 3);
    }

    #[test]
    fn a_connection_closed_if_alone_takes_no_more_requests() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        push(&schedule, request(1, now, 1), now);
        push(&schedule, request(1, now, 2), now);
        let (_, first) = next(&schedule, None);
        assert!(!schedule.close_if_alone(first), "another request waits");
        let (_, second) = next(&schedule, Some(first));
        assert!(schedule.close_if_alone(second));
        assert_eq!(push(&schedule, request(1, now, 3), now), None, "it is kept");
        assert_eq!(schedule.close_after(second), [(3, None)]);
    }

    #[test]
    fn a_connection_that_pipelines_takes_turns_with_the_others() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        for number in 0..3 {
            push(&schedule, request(1, now, number), now);
        }
        push(&schedule, request(2, now, 10), now);
        let (_, first) = next(&schedule, None);
        assert_eq!(next(&schedule, Some(first)).0.request.0, 10);
        assert_eq!(next_number(&schedule), 1);
    }

    #[test]
    fn after_expire_everything_is_due_in_the_order_of_its_connection() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        for (port, number) in [(1, 1), (2, 2), (1, 3)] {
            push(&schedule, request(port, now + MINUTE, number), now);
        }
        schedule.expire();
        push(&schedule, request(3, now + MINUTE, 4), now);
        let mut answered = Vec::new();
        let mut ticket = None;
        for _ in 0..4 {
            let (due, of_due) = next(&schedule, ticket);
            answered.push(due.request.0);
            ticket = Some(of_due);
        }
        let place = |number| answered.iter().position(|answered| *answered == number);
        assert!(
            place(1) < place(3) && place(2).is_some() && place(4).is_some(),
            "{answered:?}"
        );
        assert!(now.elapsed() < MINUTE);
    }

    #[test]
    fn whoever_waits_for_the_last_response_is_notified() {
        let schedule = schedule(10, 0, 1);
        let now = Instant::now();
        assert!(schedule.wait_until_all_answered(now), "nothing is in flight");
        push(&schedule, request(1, now, 1), now);
        assert!(!schedule.wait_until_all_answered(now));
        let (_, ticket) = next(&schedule, None);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| schedule.wait_until_all_answered(now + MINUTE));
            schedule.close_after(ticket);
            assert!(waiting.join().unwrap());
        });
        assert!(now.elapsed() < MINUTE);
    }

    #[test]
    fn many_workers_answer_everything_in_the_order_of_each_connection() {
        const CONNECTIONS: u16 = 50;
        const REQUESTS: usize = 200;
        let schedule = Arc::new(schedule(usize::MAX, 0, 4));
        let seen: Arc<Mutex<HashMap<SocketAddr, usize>>> = Arc::default();
        for _ in 0..4 {
            let (schedule, seen) = (Arc::clone(&schedule), Arc::clone(&seen));
            // It waits for one more when the test ends.
            thread::spawn(move || {
                let mut answered = None;
                loop {
                    let (due, ticket) = next(&schedule, answered);
                    let mut seen = seen.lock().unwrap();
                    let expected = seen.entry(due.peer).or_default();
                    assert_eq!(*expected, due.request.0, "out of order");
                    *expected += 1;
                    answered = Some(ticket);
                }
            });
        }
        let mut random = fastrand::Rng::with_seed(7);
        for number in 0..REQUESTS {
            for port in 0..CONNECTIONS {
                let now = Instant::now();
                let deadline = now + Duration::from_micros(random.u64(0..500));
                while schedule.lock().requests.is_full(peer(port)) {
                    thread::yield_now();
                }
                assert_eq!(push(&schedule, request(port, deadline, number), now), None);
            }
        }
        assert!(schedule.wait_until_all_answered(Instant::now() + MINUTE));
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), usize::from(CONNECTIONS));
        assert!(seen.values().all(|count| *count == REQUESTS), "{seen:?}");
    }

    proptest! {
        #[test]
        fn any_requests_leave_once_each_by_deadline_and_in_the_order_of_their_connection(
            arrivals in prop::collection::vec((0u16..5, 0u64..1_000), 1..60)
        ) {
            let schedule = schedule(usize::MAX, 0, 1);
            let now = Instant::now();
            let past = now - Duration::from_secs(1);
            for (number, (port, after_us)) in arrivals.iter().enumerate() {
                let deadline = past + Duration::from_micros(*after_us);
                push(&schedule, request(*port, deadline, number), now);
            }
            let mut left: Vec<(u16, usize)> = Vec::new();
            let mut answered = None;
            while left.len() < arrivals.len() {
                let (due, ticket) = next(&schedule, answered);
                left.push((due.peer.port(), due.request.0));
                answered = Some(ticket);
            }
            for port in 0..5 {
                let order: Vec<usize> = left.iter().filter(|(of, _)| *of == port).map(|(_, number)| *number).collect();
                let arrived: Vec<usize> = (0..arrivals.len()).filter(|number| arrivals[*number].0 == port).collect();
                prop_assert_eq!(order, arrived);
            }
            // The first one of each connection waits for nothing but its deadline.
            let firsts_by_deadline = firsts(&arrivals);
            let first_out: Vec<usize> = left.iter().take(firsts_by_deadline.len()).map(|(_, number)| *number).collect();
            prop_assert_eq!(first_out, firsts_by_deadline);
            prop_assert!(schedule.close_after(answered.unwrap()).is_empty());
            prop_assert_eq!(schedule.in_flight(), 0);
        }
    }

    /// Returns the numbers of the first request of each connection, by deadline.
    fn firsts(arrivals: &[(u16, u64)]) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut firsts: Vec<usize> = (0..arrivals.len())
            .filter(|number| seen.insert(arrivals[*number].0))
            .collect();
        firsts.sort_by_key(|number| (arrivals[*number].1, *number));
        firsts
    }
}
