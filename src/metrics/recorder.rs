//! Who records: the list of shards, and the right to write to one of them.

use super::Metrics;
use super::histogram::Histogram;
use super::labels::{Labels, SERIES_MAX};
use super::sync::{AtomicBool, Ordering};
use super::traceparent::TraceContext;
use once_cell::race::OnceBox;
use std::sync::Arc;

/// What one recorder at a time writes to, and every scrape reads.
///
/// Shards form a list that only grows, so that it can be walked without a lock. A shard whose recorder is gone
/// keeps its counts and is given to the next recorder that is asked for: there are never more shards than there
/// were recorders at once.
pub(super) struct Shard {
    taken: AtomicBool,
    series: [OnceBox<Histogram>; SERIES_MAX],
    next: OnceBox<Arc<Shard>>,
}

impl Shard {
    pub(super) fn new_taken(taken: bool) -> Shard {
        Shard {
            taken: AtomicBool::new(taken),
            series: std::array::from_fn(|_| OnceBox::new()),
            next: OnceBox::new(),
        }
    }

    /// The series at that place of the page, if this shard has observed any of it.
    #[inline]
    pub(super) fn series(&self, index: usize) -> Option<&Histogram> {
        self.series[index].get()
    }

    /// This shard and all after it.
    pub(super) fn list(&self) -> impl Iterator<Item = &Shard> {
        std::iter::successors(Some(self), |shard| shard.next.get().map(Arc::as_ref))
    }

    /// Lets go of the shard, for the next writer to take.
    pub(super) fn release(&self) {
        // Release: see `take`.
        self.taken.store(false, Ordering::Release);
    }

    /// Takes a shard that no one has, or appends one.
    pub(super) fn take(first: &Arc<Shard>) -> Arc<Shard> {
        let mut shard = first;
        loop {
            // Acquire: the new writer continues from all that the last one wrote before it let go. The load
            // first spares those in use a cache line that bounces.
            if !shard.taken.load(Ordering::Relaxed)
                && shard
                    .taken
                    .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Arc::clone(shard);
            }
            shard = match shard.next.get() {
                Some(next) => next,
                None => {
                    let new = Arc::new(Shard::new_taken(true));
                    if shard.next.set(Box::new(Arc::clone(&new))).is_ok() {
                        return new;
                    }
                    // Another thread appended first. Ours was never seen; go on along the list.
                    continue;
                }
            };
        }
    }
}

/// The right of one thread to record observations.
///
/// Not `Clone`, and [`record`](Recorder::record) takes `&mut self`: each shard has one writer at a time, which is
/// what the histogram's algorithm rests on. Made by [`Metrics::recorder`]; what was recorded outlives it.
pub struct Recorder {
    metrics: Arc<Metrics>,
    shard: Arc<Shard>,
}

impl Recorder {
    pub(super) fn new(metrics: Arc<Metrics>) -> Recorder {
        let shard = Shard::take(metrics.shards());
        Recorder { metrics, shard }
    }

    /// Adds a request that took that long to its series, as the request of `trace` if that is known.
    ///
    /// Wait-free, and without allocation but for the first observation of a series by this recorder's shard.
    // Always: it is some sixty instructions, and the call would add a quarter. What is rare is not inlined.
    #[inline(always)]
    pub fn record(&mut self, labels: Labels, duration_ns: u64, trace: Option<TraceContext>) {
        let bucket = self.metrics.buckets.of(duration_ns);
        let index = labels.index();
        let series = match self.shard.series(index) {
            Some(series) => series,
            None => self.create(index),
        };
        series.observe(bucket, duration_ns, self.metrics.scrape(), trace);
    }

    #[cold]
    fn create(&self, index: usize) -> &Histogram {
        self.metrics.mark_created(index);
        let buckets = self.metrics.buckets.count();
        self.shard.series[index].get_or_init(|| Box::new(Histogram::new(buckets)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shard.release();
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}
