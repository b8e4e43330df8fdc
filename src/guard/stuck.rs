//! Stuck connections: tiny_http's thread blocks for good, whatever is done to the socket, which therefore stays open.
//!
//! A request of `HTTP/2.0` and a body larger than the address space do that. Only the end of the process releases the thread and
//! the two descriptors. Any other connection is closed by tiny_http soon after it was shut down.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a socket must have been shut down and open to count: far longer than tiny_http takes to close one, also on a busy machine.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The descriptors of a connection whose thread has not ended. A response that waits for its deadline keeps one.
pub(super) const DESCRIPTORS: u32 = 2;

/// The sockets that are shut down and still open.
#[derive(Default)]
pub(super) struct Stuck {
    by_socket: HashMap<u64, Seen>,
}

struct Seen {
    since: Instant,
    /// The time of the last look that found it, and at how many descriptors.
    found_at: Instant,
    descriptors: u32,
}

impl Stuck {
    /// Takes note of a socket that the look at `now` has found shut down, at so many more of its descriptors.
    pub(super) fn found(&mut self, socket: u64, descriptors: u32, now: Instant) {
        let seen = self.by_socket.entry(socket).or_insert(Seen {
            since: now,
            found_at: now,
            descriptors: 0,
        });
        if seen.found_at != now {
            (seen.found_at, seen.descriptors) = (now, 0);
        }
        seen.descriptors += descriptors;
    }

    /// Returns how many connections are stuck, and forgets those that the look at `now` did not find.
    pub(super) fn count(&mut self, now: Instant) -> u64 {
        self.by_socket.retain(|_, seen| seen.found_at == now);
        let stuck = self.by_socket.values();
        stuck
            .filter(|seen| seen.descriptors >= DESCRIPTORS && now - seen.since >= STUCK_AFTER)
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at `now`, and finds these sockets once for each time that they are listed.
    fn look(stuck: &mut Stuck, sockets: &[u64], now: Instant) -> u64 {
        sockets.iter().for_each(|socket| stuck.found(*socket, 1, now));
        stuck.count(now)
    }

    #[test]
    fn a_socket_is_stuck_if_two_descriptors_stay_open_for_five_seconds() {
        let mut stuck = Stuck::default();
        let now = Instant::now();
        assert_eq!(look(&mut stuck, &[1, 2, 1], now), 0);
        assert_eq!(look(&mut stuck, &[1, 2, 1], now + STUCK_AFTER / 2), 0);
        assert_eq!(
            look(&mut stuck, &[1, 2, 1], now + STUCK_AFTER),
            1,
            "2 waits for its response"
        );
        assert_eq!(look(&mut stuck, &[1, 2], now + STUCK_AFTER * 2), 0);
    }

    #[test]
    fn a_socket_that_was_closed_in_between_begins_anew() {
        let mut stuck = Stuck::default();
        let now = Instant::now();
        look(&mut stuck, &[1, 1], now);
        look(&mut stuck, &[], now + STUCK_AFTER / 2);
        assert_eq!(look(&mut stuck, &[1, 1], now + STUCK_AFTER), 0);
        assert_eq!(look(&mut stuck, &[1, 1], now + STUCK_AFTER * 2), 1);
    }
}
