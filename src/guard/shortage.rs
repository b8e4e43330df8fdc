//! What connections take, and the process may have only so much of: descriptors and threads.

use std::time::{Duration, Instant};

use crate::metrics;
use crate::metrics::CloseReason;
use crate::server::limits;

/// Descriptors or threads are short if fewer than one in this many is free.
const FREE_MIN: u64 = 8;

/// Stuck connections are too many if they hold more than one in this many.
const STUCK_MIN: u64 = 4;

/// How often the limit on threads is read: other processes may count for it.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// How long connections go on making room after the last shortage: others wait to be accepted.
const HELD_FOR: Duration = Duration::from_secs(3);

/// Knows what is short.
pub(super) struct Shortage {
    connections: limits::Connections,
    threads_max: u64,
    read_at: Instant,
    /// The last shortage.
    last: Option<(CloseReason, Instant)>,
}

impl Shortage {
    pub(super) fn new(connections: limits::Connections) -> Self {
        Shortage {
            threads_max: connections.threads.max(),
            connections,
            read_at: Instant::now(),
            last: None,
        }
    }

    /// Returns the reason to close connections if `open` descriptors are open and threads or descriptors are short.
    pub(super) fn reason(&mut self, open: Option<u64>) -> Option<CloseReason> {
        self.read();
        // Descriptors may be as few as they are since threads are.
        let descriptors = descriptors_are_short(open);
        if is_short(metrics::threads().unwrap_or(0), self.threads_max) || (descriptors && self.connections.of_threads) {
            Some(CloseReason::Threads)
        } else {
            descriptors.then_some(CloseReason::Descriptors)
        }
    }

    fn read(&mut self) {
        if self.read_at.elapsed() >= READ_INTERVAL {
            (self.threads_max, self.read_at) = (self.connections.threads.max(), Instant::now());
        }
    }

    /// Fits the limit on descriptors to the threads that are left, if those allow the fewest connections (see
    /// [`limits::Connections::fit_descriptors`]).
    pub(super) fn fit_descriptors(&mut self, lowers: bool) {
        if self.connections.of_threads {
            self.read();
            // With the limit as it was, more threads may be needed than there are.
            let _ = self.connections.fit_descriptors(self.threads_max, lowers);
        }
    }

    /// Returns why that many stuck connections are too many, in one line, if they are: they hold more than a [`STUCK_MIN`]th of the threads
    /// or descriptors that there may be.
    pub(super) fn too_many(&self, stuck: u64) -> Option<String> {
        let held = [
            (stuck, self.threads_max, "threads"),
            (stuck * limits::DESCRIPTORS_EACH, limits::descriptors(), "descriptors"),
        ];
        let (held, max, what) = held.into_iter().find(|(held, max, _)| *held > max / STUCK_MIN)?;
        Some(format!(
            "{stuck} stuck connections hold {held} of at most {max} {what}, and only a restart releases them\n"
        ))
    }

    /// Returns the same as [`reason`](Shortage::reason), and for [`HELD_FOR`] after it was the case.
    pub(super) fn held(&mut self, open: Option<u64>, now: Instant) -> Option<CloseReason> {
        if let Some(reason) = self.reason(open) {
            self.last = Some((reason, now));
        }
        let (reason, at) = self.last?;
        (now < at + HELD_FOR).then_some(reason)
    }
}

/// Returns whether descriptors are short if `open` are open. They are if their number is unknown: before Linux 6.2 it takes a
/// descriptor to count them.
pub(super) fn descriptors_are_short(open: Option<u64>) -> bool {
    open.is_none_or(|open| is_short(open, limits::descriptors()))
}

fn is_short(used: u64, max: u64) -> bool {
    used > max - max / FREE_MIN
}
