//! An exemplar of one bucket, as one writer leaves it and any reader finds it.

use super::sync::{Ordering, Word, fence};
use super::traceparent::TraceContext;
use std::time::SystemTime;

/// One observation, told of beside the count that it is part of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Exemplar {
    /// What was observed.
    pub duration_ns: u64,
    /// When it was recorded, in Unix time.
    pub timestamp_ms: u64,
    /// Whose request it was, if that is known.
    pub trace: Option<TraceContext>,
}

/// Milliseconds of Unix time; 0 where the clock says it is before 1970.
pub(super) fn unix_time_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last exemplar of a bucket, on a cache line of its own.
///
/// One writer, by construction ([`Recorder`](super::Recorder)), and any number of readers. `version` is odd
/// while the words below it are being replaced and 0 before they were ever written. Neither side blocks:
///
/// - the writer makes `version` odd, stores the words and makes it even again, whoever reads;
/// - a reader takes `version`, the words, and `version` again. An odd or a changed one means that its words may
///   be torn, and it goes without. An exemplar is a sample: the next scrape has another one.
///
/// Orderings. A reader that saw one word of a later write must see that `version` has moved: the release fence
/// after the odd store and the acquire fence before the second look order them. A reader that saw `version` even
/// must see the words stored before it: its release store and acquire load.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct ExemplarSlot {
    version: Word,
    duration_ns: Word,
    timestamp_ms: Word,
    trace_id_high: Word,
    trace_id_low: Word,
    span_id: Word,
}

impl ExemplarSlot {
    pub(super) fn new() -> ExemplarSlot {
        ExemplarSlot {
            version: Word::zero(),
            duration_ns: Word::zero(),
            timestamp_ms: Word::zero(),
            trace_id_high: Word::zero(),
            trace_id_low: Word::zero(),
            span_id: Word::zero(),
        }
    }

    /// Replaces the exemplar. Called by the one writer only.
    pub(super) fn write(&self, exemplar: Exemplar) {
        let (trace_id, span_id) = exemplar
            .trace
            .map_or((0, 0), |trace| (trace.trace_id(), trace.span_id()));
        let version = self.version.own();
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.duration_ns.store(exemplar.duration_ns, Ordering::Relaxed);
        self.timestamp_ms.store(exemplar.timestamp_ms, Ordering::Relaxed);
        self.trace_id_high.store((trace_id >> 64) as u64, Ordering::Relaxed);
        self.trace_id_low.store(trace_id as u64, Ordering::Relaxed);
        self.span_id.store(span_id, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    /// The exemplar, whole; `None` where there is none yet or it is being replaced at this moment.
    pub(super) fn read(&self) -> Option<Exemplar> {
        let version = self.version.load(Ordering::Acquire);
        if version == 0 || version % 2 == 1 {
            return None;
        }
        let duration_ns = self.duration_ns.load(Ordering::Relaxed);
        let timestamp_ms = self.timestamp_ms.load(Ordering::Relaxed);
        let trace_id_high = self.trace_id_high.load(Ordering::Relaxed);
        let trace_id_low = self.trace_id_low.load(Ordering::Relaxed);
        let span_id = self.span_id.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if self.version.load(Ordering::Relaxed) != version {
            return None;
        }
        let trace_id = u128::from(trace_id_high) << 64 | u128::from(trace_id_low);
        Some(Exemplar {
            duration_ns,
            timestamp_ms,
            trace: TraceContext::new(trace_id, span_id),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_exemplar_reads_as_it_was_written() {
        let slot = ExemplarSlot::new();
        assert_eq!(slot.read(), None);
        for trace in [
            None,
            TraceContext::new(u128::MAX - 1, 7),
            TraceContext::new(1, u64::MAX),
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
    fn readers_never_see_a_torn_exemplar() {
        let whole = |id: u64| Exemplar {
            duration_ns: id,
            timestamp_ms: id,
            trace: TraceContext::new(u128::from(id) << 64 | u128::from(id), id),
        };
        let slot = ExemplarSlot::new();
        let last = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut read = 0;
                while read < 100_000 {
                    if let Some(exemplar) = slot.read() {
                        assert_eq!(exemplar, whole(exemplar.duration_ns));
                        read += 1;
                    }
                }
            });
            let mut id = 0;
            while !reader.is_finished() {
                id += 1;
                slot.write(whole(id));
                // Longer and longer, up to a time in which a reader on any machine gets one whole.
                (0..id % 256).for_each(|_| std::hint::spin_loop());
            }
            id
        });
        assert_eq!(slot.read(), Some(whole(last)));
    }
}
