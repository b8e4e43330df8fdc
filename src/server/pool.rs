//! Who of the pool's workers is awake: the counts by which one more is woken or started.
//!
//! A worker is awake, or idle (it sleeps until it is woken), or it stalls at a client that does not read, or it leads and waits
//! for tiny_http's next request. At most one leads at a time. While one worker keeps up, no other is woken.

use std::time::{Duration, Instant};

/// The most workers. With more, clients that do not read delay others less; with fewer, less memory is used.
pub(super) const WORKERS_MAX: u32 = 64;

/// How long a request may be overdue for each worker that is awake, before one more is woken. If all were awake as soon as
/// requests queue up, they would take the processors from tiny_http's threads, and new requests would wait for them.
const OVERDUE_MAX: Duration = Duration::from_millis(10);

/// How long no worker is started after one could not be: threads are short.
const START_PAUSE: Duration = Duration::from_secs(1);

/// What the leader does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leader {
    /// There is none.
    Nobody,
    /// It takes requests from tiny_http.
    Receives,
    /// It waits for one, at most until then.
    WaitsUntil(Instant),
}

/// How the need for one more worker is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Help {
    /// There is no need, or there are no more workers.
    None,
    /// An idle worker was counted as awake and is to be woken.
    Wake,
    /// A worker was counted as awake and is to be started.
    Start,
}

/// The counts, guarded by the schedule's lock.
pub(super) struct Pool {
    pub(super) leader: Leader,
    awake: u32,
    idle: u32,
    /// How many were idle, count as awake, and have not noticed yet.
    woken: u32,
    started: u32,
    at_start: u32,
    /// When the next worker may be started, if one could not be.
    start_from: Option<Instant>,
}

impl Pool {
    /// Returns a pool in which that many workers start, all awake.
    pub(super) fn new(at_start: u32) -> Self {
        Pool {
            leader: Leader::Nobody,
            awake: at_start,
            idle: 0,
            woken: 0,
            started: at_start,
            at_start,
            start_from: None,
        }
    }

    /// Counts one more worker as awake if those that are awake are not enough for requests of which the first is due at `earliest`.
    pub(super) fn help(&mut self, earliest: Option<Instant>, now: Instant) -> Help {
        let is_needed = match (self.awake, self.leader) {
            // The leader takes what is due when it wakes up.
            (0, Leader::WaitsUntil(until)) => earliest.is_some_and(|earliest| earliest < until),
            // Nobody receives.
            (0, _) => true,
            (awake, _) => earliest.is_some_and(|earliest| earliest + OVERDUE_MAX * awake <= now),
        };
        if !is_needed {
            return Help::None;
        }
        if self.idle > 0 {
            self.idle -= 1;
            self.woken += 1;
            self.awake += 1;
            Help::Wake
        } else if self.started < WORKERS_MAX && self.start_from.is_none_or(|from| from <= now) {
            self.started += 1;
            self.awake += 1;
            Help::Start
        } else {
            Help::None
        }
    }

    /// Takes back the count of a worker that could not be started.
    pub(super) fn not_started(&mut self, now: Instant) {
        self.started -= 1;
        self.awake -= 1;
        self.start_from = Some(now + START_PAUSE);
    }

    /// The caller leads from now on, and waits until then.
    pub(super) fn lead_until(&mut self, until: Instant) {
        self.leader = Leader::WaitsUntil(until);
        self.awake -= 1;
    }

    /// The leader does not wait any more.
    pub(super) fn receive(&mut self) {
        self.leader = Leader::Receives;
        self.awake += 1;
    }

    /// The caller stalls.
    pub(super) fn stall(&mut self) {
        self.awake -= 1;
    }

    /// The caller does not stall any more.
    pub(super) fn go_on(&mut self) {
        self.awake += 1;
    }

    /// The caller is idle.
    pub(super) fn rest(&mut self) {
        self.awake -= 1;
        self.idle += 1;
    }

    /// Returns whether the leader waits and every other worker is idle.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.awake == 0
    }

    /// The caller, which is awake, ends, if there are more workers than at the start. Returns whether it does.
    pub(super) fn end(&mut self) -> bool {
        let ends = self.started > self.at_start;
        if ends {
            self.started -= 1;
            self.awake -= 1;
        }
        ends
    }

    /// The caller was idle, and is not any more. Returns whether it was woken.
    pub(super) fn wake_up(&mut self) -> bool {
        let was_woken = self.woken > 0;
        if was_woken {
            self.woken -= 1;
        } else {
            self.idle -= 1;
            self.awake += 1;
        }
        was_woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Returns a pool of two workers: one leads and waits for a minute, the other is idle.
    fn at_rest(now: Instant) -> Pool {
        let mut pool = Pool::new(2);
        pool.lead_until(now + MINUTE);
        pool.rest();
        pool
    }

    #[test]
    fn a_leader_that_waits_needs_help_only_with_what_is_due_before_it_wakes_up() {
        let now = Instant::now();
        let mut pool = at_rest(now);
        assert_eq!(pool.help(None, now), Help::None);
        assert_eq!(pool.help(Some(now + MINUTE), now), Help::None);
        assert_eq!(pool.help(Some(now), now), Help::Wake);
        assert_eq!(pool.help(Some(now), now), Help::None, "one is on its way");
    }

    #[test]
    fn one_more_worker_is_needed_for_each_ten_milliseconds_that_a_request_is_overdue() {
        let now = Instant::now();
        let mut pool = at_rest(now);
        pool.receive();
        assert_eq!(pool.help(Some(now), now + OVERDUE_MAX / 2), Help::None);
        assert_eq!(pool.help(Some(now), now + OVERDUE_MAX), Help::Wake);
        pool.wake_up();
        assert_eq!(pool.help(Some(now), now + OVERDUE_MAX), Help::None);
        assert_eq!(pool.help(Some(now), now + OVERDUE_MAX * 2), Help::Start);
    }

    #[test]
    fn a_worker_is_woken_or_started_for_the_last_one_that_stalls_until_there_are_64() {
        let now = Instant::now();
        let mut pool = at_rest(now);
        pool.receive();
        pool.leader = Leader::Nobody;
        pool.stall();
        assert_eq!(pool.help(None, now), Help::Wake);
        pool.wake_up();
        for _ in 2..WORKERS_MAX {
            pool.stall();
            assert_eq!(pool.help(None, now), Help::Start);
        }
        pool.stall();
        assert_eq!(pool.help(None, now), Help::None);
        pool.go_on();
        assert_eq!(pool.awake, 1);
    }

    #[test]
    fn workers_beyond_those_of_the_start_may_end() {
        let mut pool = Pool::new(1);
        assert!(!pool.end());
        pool.stall();
        assert_eq!(pool.help(None, Instant::now()), Help::Start);
        pool.go_on();
        assert!(pool.end());
        assert!(!pool.end());
    }

    #[test]
    fn after_a_worker_could_not_be_started_none_is_for_a_second() {
        let now = Instant::now();
        let mut pool = Pool::new(1);
        pool.stall();
        assert_eq!(pool.help(None, now), Help::Start);
        pool.not_started(now);
        assert_eq!(pool.help(None, now), Help::None);
        assert_eq!(pool.help(None, now + START_PAUSE), Help::Start);
    }
}
