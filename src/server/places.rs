//! The places of `--concurrency`: at most so many requests are served at a time, and the others wait their turn, first come first served.
//!
//! A request's delay is known when it arrives, and so is the time at which it leaves its place. So the requests that wait need no queue
//! of their own: the times at which the places become free say when each starts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// The places, if there is a limit on them.
///
/// Invariants: `free_at` has at most `limit` times. The start of a request is decided at its arrival and never changes, so a request whose
/// connection is closed keeps its place until it would have been answered.
pub(super) struct Places {
    /// How many there are; 0 is no limit.
    limit: usize,
    /// When the taken places become free, given the requests that have arrived.
    free_at: BinaryHeap<Reverse<Instant>>,
    /// When such requests leave their places.
    abandoned: BinaryHeap<Reverse<Instant>>,
}

impl Places {
    /// Returns that many places, which are free; 0 is no limit.
    pub(super) fn new(limit: usize) -> Places {
        Places {
            limit,
            free_at: BinaryHeap::new(),
            abandoned: BinaryHeap::new(),
        }
    }

    /// Takes the place that becomes free first, for a request that arrives now. Returns when it is served: now, or later.
    pub(super) fn take(&mut self, now: Instant, delay: Duration) -> Instant {
        if self.limit == 0 {
            return now;
        }
        remove_until(&mut self.free_at, now);
        let start = if self.free_at.len() < self.limit {
            now
        } else {
            self.free_at.pop().map_or(now, |Reverse(free_at)| free_at)
        };
        self.free_at.push(Reverse(start + delay));
        start
    }

    /// Records that the connection of a request was closed, which would have been answered at `deadline`.
    pub(super) fn abandon(&mut self, deadline: Instant) {
        if self.limit > 0 {
            self.abandoned.push(Reverse(deadline));
        }
    }

    /// Returns how many requests of closed connections have places, or wait for one.
    pub(super) fn count_abandoned(&mut self, now: Instant) -> usize {
        remove_until(&mut self.abandoned, now);
        self.abandoned.len()
    }
}

fn remove_until(times: &mut BinaryHeap<Reverse<Instant>>, now: Instant) {
    while times.peek().is_some_and(|&Reverse(time)| time <= now) {
        times.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_limit_every_request_is_served_at_once() {
        let now = Instant::now();
        let mut places = Places::new(0);
        assert!((0..100).all(|_| places.take(now, SECOND) == now));
        places.abandon(now + SECOND);
        assert_eq!(places.count_abandoned(now), 0);
        assert!(places.free_at.is_empty());
    }

    #[test]
    fn a_request_starts_when_the_first_place_becomes_free() {
        let now = Instant::now();
        let mut places = Places::new(2);
        assert_eq!(places.take(now, SECOND * 3), now);
        assert_eq!(places.take(now, SECOND), now);
        assert_eq!(places.take(now, SECOND * 5), now + SECOND);
        assert_eq!(places.take(now, SECOND), now + SECOND * 3);
        assert_eq!(places.take(now + SECOND * 10, SECOND), now + SECOND * 10);
        assert_eq!(places.free_at.len(), 1, "those that are free again take no memory");
    }

    #[test]
    fn a_request_of_a_closed_connection_counts_until_it_leaves_its_place() {
        let now = Instant::now();
        let mut places = Places::new(1);
        places.abandon(now + SECOND);
        places.abandon(now + SECOND * 2);
        assert_eq!(places.count_abandoned(now), 2);
        assert_eq!(places.count_abandoned(now + SECOND), 1);
        assert_eq!(places.count_abandoned(now + SECOND * 2), 0);
    }

    proptest! {
        #[test]
        fn any_requests_start_in_their_order_and_no_more_are_served_at_a_time_than_there_are_places(
            limit in 1usize..5,
            requests in prop::collection::vec((0u64..50, 0u64..200), 1..80)
        ) {
            let mut now = Instant::now();
            let mut places = Places::new(limit);
            let mut served: Vec<(Instant, Instant)> = Vec::new();
            for (after_ms, delay_ms) in requests {
                now += Duration::from_millis(after_ms);
                let delay = Duration::from_millis(delay_ms);
                let start = places.take(now, delay);
                let at_start = |time: Instant| served.iter().filter(|(from, to)| *from <= time && time < *to).count();
                prop_assert!(start >= now && at_start(start) < limit);
                prop_assert!(served.last().is_none_or(|(before, _)| *before <= start));
                // No place is left free while a request waits.
                prop_assert!(start == now || at_start(start - Duration::from_nanos(1)) == limit);
                served.push((start, start + delay));
            }
        }
    }
}
