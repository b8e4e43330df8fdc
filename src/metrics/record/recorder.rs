//! The list of shards, and the recorders, each of which writes to one of them.

use super::bounds::Bounds;
use super::buckets::{Buckets, NATIVE_BUCKETS};
use super::exemplar::unix_time_ms;
use super::histogram::{Histogram, Snapshot};
use super::labels::{Labels, SERIES_MAX};
use super::sync::{AtomicBool, Ordering};
use super::traceparent::TraceContext;
use once_cell::race::OnceBox;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The histograms that one recorder at a time writes to, and that every scrape reads.
///
/// Shards form a list that only grows, so that it can be walked without a lock. A shard whose recorder was dropped
/// keeps its counts and passes to the next recorder, so there are never more shards than there were recorders at the
/// same time. A series takes 6.3 KiB of a shard with the default bounds, and 10.7 KiB with 63.
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

/// All series, of all recorders.
pub(crate) struct Recorded {
    buckets: Buckets,
    /// The Unix time just before each series' first observation, by its [index](Labels::index): its start timestamp. The
    /// series that have one exist.
    created_ms: [OnceBox<u64>; SERIES_MAX],
    shards: Arc<Shard>,
    /// The ages of exemplars are counted from here.
    started: Instant,
}

impl Recorded {
    /// Returns series without observations, of which the given ones exist.
    pub(crate) fn new(bounds: &Bounds, initial: impl IntoIterator<Item = Labels>) -> Recorded {
        let recorded = Recorded {
            buckets: Buckets::new(bounds),
            created_ms: std::array::from_fn(|_| OnceBox::new()),
            shards: Arc::new(Shard::new_taken(false)),
            started: Instant::now(),
        };
        for labels in initial {
            recorded.create(labels.index());
        }
        recorded
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn shards(&self) -> &Shard {
        &self.shards
    }

    fn create(&self, index: usize) {
        self.created_ms[index].get_or_init(|| Box::new(unix_time_ms()));
    }

    /// Returns the series that exist and their start timestamps, in the order of the exposition.
    pub(crate) fn series(&self) -> impl Iterator<Item = (Labels, u64)> {
        Labels::all().filter_map(|labels| Some((labels, *self.created_ms[labels.index()].get()?)))
    }

    /// Returns a series, merged from all shards.
    pub(crate) fn snapshot(&self, labels: Labels, with_native: bool) -> Snapshot {
        let mut total = Snapshot::new(with_native);
        for series in self.shards.list().filter_map(|shard| shard.series(labels.index())) {
            series.add_to(&mut total);
        }
        total
    }
}

/// Records the observations of one thread.
///
/// It is not `Clone`, and [`record`](Recorder::record) takes `&mut self`, so each shard has one writer at a time, as
/// the histogram's algorithm requires. Created by [`Metrics::recorder`](crate::metrics::Metrics::recorder). Observations
/// outlive their recorder.
pub struct Recorder {
    recorded: Arc<Recorded>,
    shard: Arc<Shard>,
    /// Whole seconds since [`Recorded::started`], and when the next one begins. An observation then costs a comparison
    /// instead of a subtraction of times, which takes half as long as all the rest.
    now_s: u64,
    next_second: Instant,
}

impl Recorder {
    pub(crate) fn new(recorded: Arc<Recorded>) -> Recorder {
        let shard = Shard::take(&recorded.shards);
        Recorder {
            next_second: recorded.started,
            recorded,
            shard,
            now_s: 0,
        }
    }

    /// Adds a request of the given duration to its series.
    ///
    /// `now` is the time at which it ended, which the caller has anyway; it says how old an exemplar is. If `trace` is
    /// sampled, it becomes the exemplar of its bucket and stays until the next sampled one, or for an hour if there is
    /// none. The ids of a trace that is not sampled are never exposed, since no tracing backend has that trace.
    ///
    /// Wait-free. Allocates only at the first observation of a series in this recorder's shard.
    // Always inlined: it is some sixty instructions, and a call would add a quarter. The rare paths are not inlined.
    #[inline(always)]
    pub fn record(&mut self, labels: Labels, duration_ns: u64, trace: Option<TraceContext>, now: Instant) {
        if now >= self.next_second {
            self.count_seconds(now);
        }
        let place = self.recorded.buckets.of(duration_ns);
        let index = labels.index();
        let trace = trace.filter(|trace| trace.is_sampled());
        let series = match self.shard.series(index) {
            Some(series) => series,
            None => self.create(index),
        };
        series.observe(place, duration_ns, self.now_s, trace);
    }

    #[cold]
    fn count_seconds(&mut self, now: Instant) {
        self.now_s = now.saturating_duration_since(self.recorded.started).as_secs();
        self.next_second = self.recorded.started + Duration::from_secs(self.now_s + 1);
    }

    #[cold]
    fn create(&self, index: usize) -> &Histogram {
        self.recorded.create(index);
        let classic = self.recorded.buckets.classic_count();
        self.shard.series[index].get_or_init(|| Box::new(Histogram::new(classic, NATIVE_BUCKETS)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shard.release();
    }
}
