//! The exemplar of one bucket: one writer, any number of readers.

use super::sync::{Ordering, Word, fence};
use super::traceparent::TraceContext;
use std::time::SystemTime;

/// One observation, exposed beside the count that it is part of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Exemplar {
    /// The observed duration.
    pub duration_ns: u64,
    /// The Unix time at which it was recorded.
    pub timestamp_ms: u64,
    /// The trace that the request belongs to, if it is known.
    pub trace: Option<TraceContext>,
}

/// Returns the Unix time in milliseconds, or 0 if the clock is before 1970.
pub(crate) fn unix_time_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last exemplar of a bucket.
///
/// There is one writer ([`Recorder`](super::Recorder)). Exemplars are numbered from 1 and written alternately into two
/// copies; `published` is the number of the last complete one. Neither side waits for the other:
///
/// - the writer fills the copy that is not published, then publishes it;
/// - a reader reads `published`, that copy, and `published` again. If the number has changed, the copy may be torn, and
///   the reader starts over with the newer one, which is complete.
///
/// Orderings. A reader that saw `published` must see the words stored before it: hence its release store and acquire
/// load. A reader that saw a word of a later exemplar in its copy must see that `published` has changed: the release
/// fence before the words and the acquire fence after them order the publication in between.
#[derive(Debug, Default)]
pub(crate) struct ExemplarSlot {
    published: Word,
    /// In each copy: the duration, the timestamp, the two halves of the trace id, and the span id.
    copies: [[Word; 5]; 2],
}

impl ExemplarSlot {
    fn copy(&self, number: u64) -> &[Word; 5] {
        &self.copies[(number % 2) as usize]
    }

    /// Replaces the exemplar. For the writer only.
    pub(crate) fn write(&self, exemplar: Exemplar) {
        let (trace_id, span_id) = exemplar
            .trace
            .map_or((0, 0), |trace| (trace.trace_id(), trace.span_id()));
        let number = self.published.own() + 1;
        fence(Ordering::Release);
        let trace_id = [(trace_id >> 64) as u64, trace_id as u64];
        let values = [
            exemplar.duration_ns,
            exemplar.timestamp_ms,
            trace_id[0],
            trace_id[1],
            span_id,
        ];
        for (word, value) in self.copy(number).iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.published.store(number, Ordering::Release);
    }

    /// Returns the last exemplar, or `None` if there is none yet.
    pub(crate) fn read(&self) -> Option<Exemplar> {
        let mut number = self.published.load(Ordering::Acquire);
        while number != 0 {
            let copy = self.copy(number).each_ref();
            let [duration_ns, timestamp_ms, trace_id_high, trace_id_low, span_id] =
                copy.map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            let now = self.published.load(Ordering::Acquire);
            if now == number {
                let trace_id = u128::from(trace_id_high) << 64 | u128::from(trace_id_low);
                return Some(Exemplar {
                    duration_ns,
                    timestamp_ms,
                    trace: TraceContext::sampled(trace_id, span_id),
                });
            }
            number = now;
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_exemplar_is_read_as_it_was_written() {
        let slot = ExemplarSlot::default();
        assert_eq!(slot.read(), None);
        for trace in [
            None,
            TraceContext::sampled(u128::MAX - 1, 7),
            TraceContext::sampled(1, u64::MAX),
        ] {
            let exemplar = Exemplar {
                duration_ns: 10,
                timestamp_ms: 20,
                trace,
            };
            slot.write(exemplar);
            assert_eq!(slot.read(), Some(exemplar));
        }
    }

    #[test]
    fn readers_never_see_a_torn_or_older_exemplar_or_none() {
        let whole = |id: u64| Exemplar {
            duration_ns: id,
            timestamp_ms: id,
            trace: TraceContext::sampled(u128::from(id) << 64 | u128::from(id), id),
        };
        let slot = ExemplarSlot::default();
        slot.write(whole(1));
        let last = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 1;
                for _ in 0..100_000 {
                    let exemplar = slot.read().expect("one was written");
                    assert_eq!(exemplar, whole(exemplar.duration_ns));
                    assert!(exemplar.duration_ns >= last);
                    last = exemplar.duration_ns;
                }
            });
            let mut id = 1;
            while !reader.is_finished() {
                id += 1;
                slot.write(whole(id));
                // Pauses of different lengths: after a long one a reader finds a complete exemplar at the first
                // attempt.
                (0..id % 256).for_each(|_| std::hint::spin_loop());
            }
            id
        });
        assert_eq!(slot.read(), Some(whole(last)));
    }
}
