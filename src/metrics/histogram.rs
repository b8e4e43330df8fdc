//! The histogram of one series as one thread observes it, and how others read it.

use super::bounds::BOUNDS_MAX;
use super::exemplar::{Exemplar, ExemplarSlot, unix_time_ms};
use super::sync::{Ordering, Word, fence, yield_now};
use super::traceparent::TraceContext;

/// The largest number of buckets: one a bound, and `+Inf`.
pub(super) const BUCKETS_MAX: usize = BOUNDS_MAX + 1;

/// How many observations the log holds. A reader starts over when the writer makes nearly as many while it reads.
#[cfg(not(loom))]
const LOG_LEN: u64 = 64;
#[cfg(loom)]
const LOG_LEN: u64 = 4;

/// How often a reader starts over before it gives its processor away each time.
const READS_BEFORE_YIELD: u32 = 16;

/// One series of one shard: what a single thread observed under one set of labels.
///
/// # The problem
///
/// A histogram is many numbers, and an observation changes two of them, a bucket's count and the sum. A reader
/// that adds up the counts while they change gets a set of observations that never was: a later one without an
/// earlier one, or a sum that does not belong to the count. Locks and hot/cold copies solve that at a price that
/// every observation pays. Here the reader pays.
///
/// # The algorithm
///
/// There is one writer. [`Recorder`](super::Recorder) is not `Clone` and records through `&mut self`, each has
/// a shard of its own, and a shard passes from one to the next only through a release and an acquire. So the
/// writer's loads of its own words ([`Word::own`]) are exact, and plain stores do for read-modify-write.
///
/// Observations are numbered from 1. Observation *n* is written ahead, then published, then applied:
///
/// 1. into `log[n % LOG_LEN]` go its bucket, that bucket's new count and the new sum: absolute values;
/// 2. `published` becomes *n*: from here on the observation is part of the series;
/// 3. the bucket's own `count` becomes the new count.
///
/// A reader
///
/// 1. takes `published` as *first*, copies the counts, and takes `published` again as *last*;
/// 2. replays `log` from *first* to *last* over its copy, and takes the sum from entry *last*;
/// 3. takes `published` once more: if the writer may have come round to entry *first*, it starts over.
///
/// The result is the series after exactly *last* observations:
///
/// - What the copy misses, the log has. At *first*, every observation below *first* is applied; *first* itself
///   and those up to *last* may or may not be, and the replay sets their buckets to what they were after them.
/// - What the copy has beyond *first*, the log has, too: an observation is applied only after it is published,
///   so one that the copy shows is not above *last*.
/// - Entry *m* is overwritten by observation *m* + `LOG_LEN`, whose first store comes after the publication of
///   the one before it. So while `published` is at most *first* + `LOG_LEN` − 2, the entries from *first* on
///   are whole. Entry 0 is the initial state.
///
/// The writer is wait-free: a handful of loads and stores, no loop, no read-modify-write. A reader never waits
/// for a writer: one that is descheduled at any point leaves a series that can be read. It starts over only
/// when `LOG_LEN` − 1 observations were made while it read, which takes it about as long as a few of them.
///
/// # Orderings
///
/// - `published` is stored with release and loaded with acquire, so a reader that saw *n* sees entry *n* and
///   those before it, and what was applied before *n* was published.
/// - A release fence follows the store of `published`. With the reader's acquire fences it makes sure that
///   whoever saw an applied count, or a word of a later entry, sees the `published` before it.
/// - All else is relaxed. Counts and log are atomics only so that a race on them is defined.
///
/// # Exemplars
///
/// Each bucket has a slot with a version of its own. An observation with a trace always becomes the exemplar: the
/// latest wins. One without becomes it once for each scrape, so that the clock need not be read on every observation,
/// and never in place of a traced one that was not scraped yet.
///
/// The writer fills the slot after it has published the observation, and a reader takes the slots before the counts:
/// an exemplar's observation is always part of the counts that are shown beside it.
///
/// # Limits
///
/// Counts are 64 bits and sums 128: neither overflows in any server's life.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Histogram {
    /// How many observations are part of the series.
    published: Word,
    /// Only as many as there are buckets are ever touched.
    buckets: [Bucket; BUCKETS_MAX],
    log: [LogEntry; LOG_LEN as usize],
    /// One a bucket.
    exemplars: Box<[ExemplarSlot]>,
}

#[derive(Debug)]
struct Bucket {
    /// Observations in this bucket alone, not cumulated.
    count: Word,
    /// The scrape that the exemplar was written for. Only the writer reads it; it is here, rather than in the slot,
    /// so that an observation that is no exemplar touches no further cache line.
    exemplar_scrape: Word,
}

/// An observation, written ahead: the state that it leads to. Never across two cache lines.
#[derive(Debug)]
#[repr(align(32))]
struct LogEntry {
    bucket: Word,
    /// The bucket's count with it.
    count: Word,
    /// The sum with it, in nanoseconds.
    sum_ns_low: Word,
    sum_ns_high: Word,
}

impl LogEntry {
    #[inline]
    fn sum_ns(&self, load: impl Fn(&Word) -> u64) -> u128 {
        u128::from(load(&self.sum_ns_high)) << 64 | u128::from(load(&self.sum_ns_low))
    }
}

impl Histogram {
    /// A histogram of that many buckets, at most [`BUCKETS_MAX`], `+Inf` included.
    pub(super) fn new(buckets: usize) -> Histogram {
        Histogram {
            published: Word::zero(),
            buckets: std::array::from_fn(|_| Bucket {
                count: Word::zero(),
                exemplar_scrape: Word::zero(),
            }),
            log: std::array::from_fn(|_| LogEntry {
                bucket: Word::zero(),
                count: Word::zero(),
                sum_ns_low: Word::zero(),
                sum_ns_high: Word::zero(),
            }),
            exemplars: (0..buckets).map(|_| ExemplarSlot::new()).collect(),
        }
    }

    #[inline]
    fn log_entry(&self, observation: u64) -> &LogEntry {
        &self.log[(observation % LOG_LEN) as usize]
    }

    /// Adds an observation. Called by the one writer only; `bucket` is below the number of buckets, and `scrape`
    /// another number after each scrape, never 0.
    #[inline]
    pub(super) fn observe(&self, bucket: usize, duration_ns: u64, scrape: u64, trace: Option<TraceContext>) {
        let observation = self.published.own() + 1;
        let sum_ns = self.log_entry(observation - 1).sum_ns(Word::own) + u128::from(duration_ns);
        let Bucket { count, exemplar_scrape } = &self.buckets[bucket];
        let new_count = count.own() + 1;

        let entry = self.log_entry(observation);
        entry.bucket.store(bucket as u64, Ordering::Relaxed);
        entry.count.store(new_count, Ordering::Relaxed);
        entry.sum_ns_low.store(sum_ns as u64, Ordering::Relaxed);
        entry.sum_ns_high.store((sum_ns >> 64) as u64, Ordering::Relaxed);

        self.published.store(observation, Ordering::Release);
        fence(Ordering::Release);

        count.store(new_count, Ordering::Relaxed);
        if trace.is_some() || exemplar_scrape.own() != scrape {
            exemplar_scrape.store(scrape, Ordering::Relaxed);
            self.write_exemplar(bucket, duration_ns, trace);
        }
    }

    #[cold]
    fn write_exemplar(&self, bucket: usize, duration_ns: u64, trace: Option<TraceContext>) {
        self.exemplars[bucket].write(Exemplar {
            duration_ns,
            timestamp_ms: unix_time_ms(),
            trace,
        });
    }

    /// Adds what this series holds to `total`, as of one moment.
    pub(super) fn add_to(&self, total: &mut Snapshot) {
        // Before the counts: see "Exemplars" above.
        for (latest, slot) in total.exemplars.iter_mut().zip(&self.exemplars) {
            if let Some(exemplar) = slot.read()
                && latest.is_none_or(|latest| latest.timestamp_ms < exemplar.timestamp_ms)
            {
                *latest = Some(exemplar);
            }
        }
        let mut counts = [0; BUCKETS_MAX];
        let counts = &mut counts[..self.exemplars.len()];
        let mut reads = 0;
        let sum_ns = loop {
            if let Some(sum_ns) = self.read(counts) {
                break sum_ns;
            }
            reads += 1;
            if reads % READS_BEFORE_YIELD == 0 {
                yield_now();
            }
        };
        total.sum_ns += sum_ns;
        for (total, count) in total.counts.iter_mut().zip(counts) {
            *total += *count;
        }
    }

    /// Reads counts and sum as of one moment; `None` if the writer came round the log meanwhile.
    pub(super) fn read(&self, counts: &mut [u64]) -> Option<u128> {
        let first = self.published.load(Ordering::Acquire);
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count = bucket.count.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        let last = self.published.load(Ordering::Acquire);
        if last - first > LOG_LEN - 2 {
            return None;
        }
        for observation in first..=last {
            let entry = self.log_entry(observation);
            // Whole or not, the bucket is one that some observation had.
            counts[entry.bucket.load(Ordering::Relaxed) as usize] = entry.count.load(Ordering::Relaxed);
        }
        let sum_ns = self.log_entry(last).sum_ns(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let now = self.published.load(Ordering::Relaxed);
        (now - first <= LOG_LEN - 2).then_some(sum_ns)
    }
}

/// A series of the page: the observations of all shards, each as of one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// By bucket, not cumulated.
    pub counts: [u64; BUCKETS_MAX],
    pub sum_ns: u128,
    /// By bucket, the latest of all shards.
    pub exemplars: [Option<Exemplar>; BUCKETS_MAX],
}

impl Snapshot {
    pub(super) fn new() -> Snapshot {
        Snapshot {
            counts: [0; BUCKETS_MAX],
            sum_ns: 0,
            exemplars: [None; BUCKETS_MAX],
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(histogram: &Histogram) -> Snapshot {
        let mut total = Snapshot::new();
        histogram.add_to(&mut total);
        total
    }

    #[test]
    fn nothing_observed_reads_as_zeros() {
        let total = read(&Histogram::new(3));
        assert_eq!((total.counts, total.sum_ns), ([0; BUCKETS_MAX], 0));
        assert_eq!(total.exemplars, [None; BUCKETS_MAX]);
    }

    #[test]
    fn a_sum_beyond_64_bits_stays_exact() {
        let histogram = Histogram::new(2);
        for _ in 0..5 {
            histogram.observe(1, u64::MAX, 1, None);
        }
        assert_eq!(read(&histogram).sum_ns, 5 * u128::from(u64::MAX));
    }

    fn exemplar(histogram: &Histogram) -> Option<(u64, Option<TraceContext>)> {
        read(histogram).exemplars[0].map(|exemplar| (exemplar.duration_ns, exemplar.trace))
    }

    #[test]
    fn without_a_trace_the_first_after_a_scrape_stays() {
        let histogram = Histogram::new(2);
        assert_eq!(exemplar(&histogram), None);
        histogram.observe(0, 10, 1, None);
        histogram.observe(0, 20, 1, None);
        assert_eq!(exemplar(&histogram), Some((10, None)));
        histogram.observe(0, 30, 2, None);
        assert_eq!(exemplar(&histogram), Some((30, None)));
    }

    #[test]
    fn with_a_trace_the_latest_stays_and_outlives_those_without_until_it_is_scraped() {
        let trace = |id| TraceContext::new(u128::from(id), id);
        let histogram = Histogram::new(2);
        histogram.observe(0, 10, 1, None);
        histogram.observe(0, 20, 1, trace(2));
        histogram.observe(0, 30, 1, trace(3));
        histogram.observe(0, 40, 1, None);
        assert_eq!(exemplar(&histogram), Some((30, trace(3))));
        histogram.observe(0, 50, 2, None);
        assert_eq!(exemplar(&histogram), Some((50, None)));
    }

    #[test]
    fn an_exemplar_tells_when_it_was_recorded() {
        let histogram = Histogram::new(1);
        let before = unix_time_ms();
        histogram.observe(0, 10, 1, None);
        let after = unix_time_ms();
        let exemplar = read(&histogram).exemplars[0].unwrap();
        assert!((before..=after).contains(&exemplar.timestamp_ms));
    }

    proptest! {
        #[test]
        fn whatever_was_observed_is_read_in_full(
            observed in proptest::collection::vec((0usize..5, any::<u64>()), 0..300),
        ) {
            let histogram = Histogram::new(5);
            let mut expected = ([0u64; 5], 0u128);
            for &(bucket, duration_ns) in &observed {
                histogram.observe(bucket, duration_ns, 1, None);
                expected.0[bucket] += 1;
                expected.1 += u128::from(duration_ns);
                let total = read(&histogram);
                prop_assert_eq!((&total.counts[..5], total.sum_ns), (&expected.0[..], expected.1));
            }
        }
    }
}
