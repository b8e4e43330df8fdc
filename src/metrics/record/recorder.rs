//! The list of shards, and the recorders, each of which writes to one of them.

use super::buckets::NATIVE_BUCKETS;
use super::histogram::Histogram;
use super::labels::{Labels, SERIES_MAX};
use super::sync::{AtomicBool, Ordering};
use super::traceparent::TraceContext;
use crate::metrics::Metrics;
use once_cell::race::OnceBox;
use std::sync::Arc;

/// The histograms that one recorder at a time writes to, and that every scrape reads.
///
/// Shards form a list that only grows, so that it can be walked without a lock. A shard whose recorder was dropped
/// keeps its counts and passes to the next recorder, so there are never more shards than there were recorders at the
/// same time.
pub(crate) struct Shard {
    taken: AtomicBool,
    series: [OnceBox<Histogram>; SERIES_MAX],
    next: OnceBox<Arc<Shard>>,
}

impl Shard {
    pub(crate) fn new_taken(taken: bool) -> Shard {
        Shard {
            taken: AtomicBool::new(taken),
            series: std::array::from_fn(|_| OnceBox::new()),
            next: OnceBox::new(),
        }
    }

    /// Returns the series at an index, or `None` if this shard has no observation of it.
    #[inline]
    pub(crate) fn series(&self, index: usize) -> Option<&Histogram> {
        self.series[index].get()
    }

    /// Returns this shard and all after it in the list.
    pub(crate) fn list(&self) -> impl Iterator<Item = &Shard> {
        std::iter::successors(Some(self), |shard| shard.next.get().map(Arc::as_ref))
    }

    /// Releases the shard to the next writer.
    pub(crate) fn release(&self) {
        // Release: see `take`.
        self.taken.store(false, Ordering::Release);
    }

    /// Takes a free shard, or appends one to the list.
    pub(crate) fn take(first: &Arc<Shard>) -> Arc<Shard> {
        let mut shard = first;
        loop {
            // Acquire: the new writer continues from everything that the last one wrote before its release. The load
            // comes first so that the cache line of a shard in use does not bounce.
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
                    // Another thread appended first. No one has seen ours, so continue along the list.
                    continue;
                }
            };
        }
    }
}

/// Records the observations of one thread.
///
/// It is not `Clone`, and [`record`](Recorder::record) takes `&mut self`, so each shard has one writer at a time, as
/// the histogram's algorithm requires. Created by [`Metrics::recorder`]. Observations outlive their recorder.
pub struct Recorder {
    metrics: Arc<Metrics>,
    shard: Arc<Shard>,
}

impl Recorder {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Recorder {
        let shard = Shard::take(&metrics.shards);
        Recorder { metrics, shard }
    }

    /// Adds a request of the given duration to its series.
    ///
    /// If `trace` is sampled, it becomes the exemplar of its bucket and stays until the next sampled one. The ids of a
    /// trace that is not sampled are never exposed, since no tracing backend has that trace.
    ///
    /// Wait-free. Allocates only at the first observation of a series in this recorder's shard.
    // Always inlined: it is some sixty instructions, and a call would add a quarter. The rare paths are not inlined.
    #[inline(always)]
    pub fn record(&mut self, labels: Labels, duration_ns: u64, trace: Option<TraceContext>) {
        let place = self.metrics.buckets.of(duration_ns);
        let index = labels.index();
        let trace = trace.filter(|trace| trace.is_sampled());
        let series = match self.shard.series(index) {
            Some(series) => series,
            None => self.create(index),
        };
        let next_scrape = self.metrics.next_scrape.0.load(Ordering::Relaxed);
        series.observe(place, duration_ns, next_scrape, trace);
    }

    #[cold]
    fn create(&self, index: usize) -> &Histogram {
        let native = match self.metrics.create(index).has_native {
            true => NATIVE_BUCKETS,
            false => 0,
        };
        let classic = self.metrics.buckets.classic_count();
        self.shard.series[index].get_or_init(|| Box::new(Histogram::new(classic, native)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shard.release();
    }
}
