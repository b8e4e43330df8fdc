//! Counts the connections that tiny_http never releases.
//!
//! Once a connection is shut down or reset, tiny_http's thread reads its end and closes it, unless the thread is blocked for good
//! (docs/robustness.md has the requests that do that). Only the end of the process releases such a connection.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a connection may stay open once it is over. Longer than a lingering close takes, and than a parked connection usually waits
/// for a thread.
const STUCK_AFTER: Duration = Duration::from_secs(10);

struct Over {
    since: Instant,
    /// The time of the last look that found it.
    found_at: Instant,
}

/// The connections that are over, by the kernel's cookie of each, and still open.
#[derive(Default)]
pub(super) struct Stuck {
    by_cookie: HashMap<u64, Over>,
}

impl Stuck {
    /// Takes note of a connection that the look at `now` found: it is shut down or reset, and none of its requests is in flight.
    pub(super) fn found(&mut self, cookie: u64, now: Instant) {
        let over = Over {
            since: now,
            found_at: now,
        };
        self.by_cookie.entry(cookie).or_insert(over).found_at = now;
    }

    /// Forgets those that the look at `now` did not find. Returns how many of the others are stuck.
    pub(super) fn count(&mut self, now: Instant) -> u64 {
        self.by_cookie.retain(|_, over| over.found_at == now);
        let stuck = self.by_cookie.values().filter(|over| over.since + STUCK_AFTER <= now);
        stuck.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn a_connection_is_stuck_if_each_look_finds_it_for_long_enough() {
        let mut stuck = Stuck::default();
        let begun = Instant::now();
        let look = |stuck: &mut Stuck, at: Instant, cookies: &[u64]| {
            for cookie in cookies {
                // It has two descriptors.
                stuck.found(*cookie, at);
                stuck.found(*cookie, at);
            }
            stuck.count(at)
        };
        assert_eq!(look(&mut stuck, begun, &[1, 2]), 0);
        assert_eq!(look(&mut stuck, begun + STUCK_AFTER - TICK, &[1, 2, 3]), 0);
        assert_eq!(look(&mut stuck, begun + STUCK_AFTER, &[1, 2, 3]), 2);
        // The second has been closed; its cookie does not come back, but would count anew.
        assert_eq!(look(&mut stuck, begun + STUCK_AFTER + TICK, &[1, 3]), 1);
        assert_eq!(look(&mut stuck, begun + 2 * STUCK_AFTER, &[1, 2, 3]), 2);
        assert_eq!(look(&mut stuck, begun + 2 * STUCK_AFTER + TICK, &[]), 0);
    }
}
