//! The histogram of one series in one shard: written by one thread, read by any.

use super::bounds::BOUNDS_MAX;
use super::exemplar::{Exemplar, ExemplarSlot, unix_time_ms};
use super::sync::{Ordering, Word, fence, yield_now};
use super::traceparent::TraceContext;

/// The largest number of buckets: one a bound, and `+Inf`.
pub(crate) const BUCKETS_MAX: usize = BOUNDS_MAX + 1;

/// The number of observations in the log. A reader starts over if the writer makes nearly as many while it reads.
#[cfg(not(loom))]
const LOG_LEN: u64 = 64;
#[cfg(loom)]
const LOG_LEN: u64 = 4;

/// The mark of an exemplar with a sampled trace: above the number of any scrape.
const SAMPLED: u64 = u64::MAX;

/// After so many attempts a reader yields its processor, and again after as many more.
const READS_BEFORE_YIELD: u32 = 16;

/// One series of one shard: what one thread observed under one set of labels.
///
/// # The problem
///
/// A histogram is many numbers, and an observation changes several of them: a bucket's count and the sum. A reader that
/// copies the numbers while they change gets a set of observations that never was: a later one without an earlier one,
/// or a sum that does not belong to the count. With locks, or a hot and a cold copy, every observation pays for the
/// solution. Here the reader pays.
///
/// # The algorithm
///
/// There is one writer. [`Recorder`](super::Recorder) is not `Clone` and records through `&mut self`, each recorder has
/// a shard of its own, and a shard passes from one to the next only through a release and an acquire. So the writer's
/// loads of its own words ([`Word::own`]) are exact, and a load and a store replace an atomic read-modify-write.
///
/// Observations are numbered from 1. Observation *n* is written ahead, then published, then applied:
///
/// 1. `log[n % LOG_LEN]` gets its bucket, that bucket's new count and the new sum, as absolute values;
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
/// - What the copy lacks, the log has. At *first*, every observation below *first* is applied. *first* itself and those
///   up to *last* may or may not be, and the replay sets their buckets to what they were after them.
/// - What the copy has beyond *first*, the log has, too: an observation is applied only after it is published, so one
///   that is in the copy is not above *last*.
/// - Entry *m* is overwritten by observation *m* + `LOG_LEN`, whose first store comes after the publication of the one
///   before it. So while `published` is at most *first* + `LOG_LEN` − 2, the entries from *first* on are whole. Entry 0
///   is the initial state.
///
/// The writer is wait-free: a few loads and stores, no loop, no read-modify-write. A reader never waits for a writer: one
/// that is descheduled at any point leaves a series that can be read. A reader starts over only if `LOG_LEN` − 1
/// observations were made while it read, which takes it about as long as a few of them.
///
/// # Orderings
///
/// - `published` is stored with release and loaded with acquire, so a reader that saw *n* sees entry *n* and those before
///   it, and what was applied before *n* was published.
/// - A release fence follows the store of `published`. With the reader's acquire fences it ensures that a reader that
///   saw an applied count, or a word of a later entry, sees the `published` before it.
/// - All else is relaxed. Counts and log are atomics only so that a race on them is defined.
///
/// # Exemplars
///
/// Each bucket has an [`ExemplarSlot`]. A sampled trace always becomes the exemplar and stays until the next sampled one
/// of its bucket, whatever is scraped meanwhile. Until a bucket has one, the first observation after each scrape becomes
/// its exemplar, so that the clock is not read on every observation.
///
/// The writer fills the slot after it has published the observation, and a reader takes the slots before the counts: the
/// observation of an exemplar is always part of the counts beside it.
///
/// # Limits
///
/// Counts have 64 bits and sums 128: neither overflows in the life of a server.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Histogram {
    /// The number of observations that are part of the series.
    published: Word,
    /// Only as many as there are buckets are ever touched.
    buckets: [Bucket; BUCKETS_MAX],
    log: [LogEntry; LOG_LEN as usize],
    /// One for each bucket.
    exemplars: Box<[ExemplarSlot]>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Observations in this bucket alone, not cumulative.
    count: Word,
    /// The scrape for which the exemplar was written; [`SAMPLED`] if it has a trace. Only the writer reads it. It is here
    /// rather than in the slot, so that an observation that is no exemplar touches no further cache line.
    exemplar_scrape: Word,
}

/// An observation, written ahead: the state that it leads to. Never across two cache lines.
#[derive(Debug, Default)]
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
    /// Returns an empty histogram of that many buckets, at most [`BUCKETS_MAX`], `+Inf` included.
    pub(crate) fn new(buckets: usize) -> Histogram {
        Histogram {
            published: Word::default(),
            buckets: std::array::from_fn(|_| Bucket::default()),
            log: std::array::from_fn(|_| LogEntry::default()),
            exemplars: (0..buckets).map(|_| ExemplarSlot::default()).collect(),
        }
    }

    #[inline]
    fn log_entry(&self, observation: u64) -> &LogEntry {
        &self.log[(observation % LOG_LEN) as usize]
    }

    /// Adds an observation. For the writer only. `bucket` is below the number of buckets, and `scrape` the number of the
    /// next scrape, from 1. `trace` is one that is sampled.
    #[inline]
    pub(crate) fn observe(&self, bucket: usize, duration_ns: u64, scrape: u64, trace: Option<TraceContext>) {
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
        if trace.is_some() || exemplar_scrape.own() < scrape {
            let written_for = if trace.is_some() { SAMPLED } else { scrape };
            exemplar_scrape.store(written_for, Ordering::Relaxed);
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

    /// Adds this series, as of one moment, to `total`.
    pub(crate) fn add_to(&self, total: &mut Snapshot) {
        // Before the counts: see "Exemplars" above.
        for (latest, slot) in total.exemplars.iter_mut().zip(&self.exemplars) {
            // A sampled trace wins over an untraced exemplar, then the later one wins.
            let rank = |exemplar: &Exemplar| (exemplar.trace.is_some(), exemplar.timestamp_ms);
            *latest = (*latest).into_iter().chain(slot.read()).max_by_key(rank);
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

    /// Copies the counts and returns the sum, both as of one moment, or `None` if the writer came round the log meanwhile.
    pub(crate) fn read(&self, counts: &mut [u64]) -> Option<u128> {
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
            // Even if the entry is torn, its bucket is that of some observation.
            counts[entry.bucket.load(Ordering::Relaxed) as usize] = entry.count.load(Ordering::Relaxed);
        }
        let sum_ns = self.log_entry(last).sum_ns(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let now = self.published.load(Ordering::Relaxed);
        (now - first <= LOG_LEN - 2).then_some(sum_ns)
    }
}

/// A series of the exposition: the observations of all shards, each shard as of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// By bucket, not cumulative.
    pub counts: [u64; BUCKETS_MAX],
    pub sum_ns: u128,
    /// By bucket: of all shards the latest one with a sampled trace, or else the latest.
    pub exemplars: [Option<Exemplar>; BUCKETS_MAX],
}

impl Snapshot {
    pub(crate) fn new() -> Snapshot {
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
    fn an_empty_histogram_is_read_as_zeros() {
        let total = read(&Histogram::new(3));
        assert_eq!((total.counts, total.sum_ns), ([0; BUCKETS_MAX], 0));
        assert_eq!(total.exemplars, [None; BUCKETS_MAX]);
    }

    #[test]
    fn a_sum_beyond_64_bits_is_exact() {
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
    fn without_a_trace_the_first_observation_after_a_scrape_is_the_exemplar() {
        let histogram = Histogram::new(2);
        assert_eq!(exemplar(&histogram), None);
        histogram.observe(0, 10, 1, None);
        histogram.observe(0, 20, 1, None);
        assert_eq!(exemplar(&histogram), Some((10, None)));
        histogram.observe(0, 30, 2, None);
        assert_eq!(exemplar(&histogram), Some((30, None)));
    }

    fn trace(id: u64) -> Option<TraceContext> {
        TraceContext::sampled(u128::from(id), id)
    }

    #[test]
    fn a_sampled_exemplar_stays_until_a_newer_sampled_one_across_scrapes() {
        let histogram = Histogram::new(2);
        histogram.observe(0, 10, 1, None);
        histogram.observe(0, 20, 1, trace(2));
        histogram.observe(0, 30, 1, trace(3));
        histogram.observe(0, 40, 1, None);
        assert_eq!(exemplar(&histogram), Some((30, trace(3))));
        histogram.observe(0, 50, 2, None);
        histogram.observe(0, 60, 3, None);
        assert_eq!(exemplar(&histogram), Some((30, trace(3))));
        histogram.observe(0, 70, 3, trace(7));
        assert_eq!(exemplar(&histogram), Some((70, trace(7))));
    }

    #[test]
    fn a_sampled_exemplar_wins_over_untraced_ones_of_other_shards() {
        let later = || std::thread::sleep(std::time::Duration::from_millis(2));
        let shards = [Histogram::new(1), Histogram::new(1), Histogram::new(1)];
        let merged = || {
            let mut total = Snapshot::new();
            shards.iter().for_each(|shard| shard.add_to(&mut total));
            total.exemplars[0].map(|exemplar| exemplar.duration_ns)
        };
        shards[2].observe(0, 10, 1, None);
        later();
        shards[0].observe(0, 20, 1, None);
        assert_eq!(merged(), Some(20), "the latest, if none has a trace");
        shards[1].observe(0, 30, 1, trace(3));
        later();
        shards[0].observe(0, 40, 2, None);
        shards[2].observe(0, 50, 2, None);
        assert_eq!(merged(), Some(30), "the only one with a trace");
        shards[2].observe(0, 60, 2, trace(6));
        later();
        shards[0].observe(0, 70, 3, None);
        assert_eq!(merged(), Some(60), "the latest with a trace");
    }

    #[test]
    fn an_exemplar_has_the_time_at_which_it_was_recorded() {
        let histogram = Histogram::new(1);
        let before = unix_time_ms();
        histogram.observe(0, 10, 1, None);
        let after = unix_time_ms();
        let exemplar = read(&histogram).exemplars[0].unwrap();
        assert!((before..=after).contains(&exemplar.timestamp_ms));
    }

    proptest! {
        #[test]
        fn every_observation_is_read(
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
