//! The histogram of one series in one shard: written by one thread, read by any.

use super::bounds::BOUNDS_MAX;
use super::buckets::{NATIVE_BUCKETS, Place};
use super::exemplar::{Exemplar, ExemplarSlot, unix_time_ms};
use super::sync::{Ordering, Word, fence, yield_now};
use super::traceparent::TraceContext;

/// The largest number of classic buckets: one for each bound, and `+Inf`.
pub(crate) const BUCKETS_MAX: usize = BOUNDS_MAX + 1;

/// The number of observations in the log. A reader starts over if the writer makes nearly as many while it reads.
#[cfg(not(loom))]
const LOG_LEN: u64 = 64;
#[cfg(loom)]
const LOG_LEN: u64 = 4;

/// For how long no untraced observation replaces an untraced exemplar, so that the clock is not read on every
/// observation.
const UNTRACED_FOR_S: u64 = 15;

/// For how long no untraced observation replaces a sampled exemplar. Tracing backends forget traces in time, and then a
/// link to one leads nowhere.
const SAMPLED_FOR_S: u64 = 3_600;

/// The largest number of native buckets that a reader copies before it catches up with the writer: about as many as
/// there are classic ones.
#[cfg(not(loom))]
const PART_MAX: usize = 64;
#[cfg(loom)]
const PART_MAX: usize = 2;

/// The number of failed attempts after which a reader yields its processor, each time.
const READS_BEFORE_YIELD: u32 = 16;

/// One series of one shard: what one thread observed under one set of labels.
///
/// # The problem
///
/// A histogram is many numbers, and an observation changes three of them: the counts of a classic and a native bucket,
/// and the sum. A reader that copies the numbers while they change gets a set of observations that never existed: a
/// later one without an earlier one, or a sum that does not match the counts. With locks, or with a hot and a cold
/// copy, every observation pays for the solution. Here the reader pays.
///
/// # The algorithm
///
/// There is one writer. [`Recorder`](super::Recorder) is not `Clone` and records through `&mut self`, each recorder has
/// a shard of its own, and a shard passes to the next recorder only through a release and an acquire. So the writer's
/// loads of its own words ([`Word::own`]) are exact, and a load and a store replace an atomic read-modify-write.
///
/// Observations are numbered from 1. Observation *n* is written ahead, then published, then applied:
///
/// 1. `log[n % LOG_LEN]` gets its two buckets, their new counts and the new sum, as absolute values;
/// 2. `published` becomes *n*: from here on the observation is part of the series;
/// 3. the buckets' own counts become the new counts.
///
/// A reader
///
/// 1. reads `published` as *first*, copies the counts, and reads `published` again as *last*;
/// 2. replays `log` from *first* to *last* over its copy, and takes the sum from entry *last*;
/// 3. reads `published` once more: if the writer may have wrapped around to entry *first*, the reader starts over.
///
/// The result is the series after exactly *last* observations:
///
/// - The log has everything that the copy lacks. When the reader reads *first*, every observation below *first* is
///   applied. *first* itself and those up to *last* may or may not be, and the replay sets their buckets to the counts
///   after them.
/// - The log also has everything that the copy has beyond *first*: an observation is applied only after it is
///   published, so one that is in the copy is not above *last*.
/// - There are many native buckets, so they are copied in parts, and the reader catches up after each: it repeats the
///   steps with *last* as *first*, and the replay advances everything copied so far to the new *last*.
/// - Entry *m* is overwritten by observation *m* + `LOG_LEN`, whose first store comes after the publication of the one
///   before it. So while `published` is at most *first* + `LOG_LEN` − 2, the entries from *first* on are whole. Entry 0
///   is the initial state.
///
/// The writer is wait-free: a few loads and stores, no loop, no read-modify-write. A reader never waits for a writer:
/// one that is descheduled at any point leaves a series that can be read. A reader starts over only if `LOG_LEN` − 1
/// observations are made while it reads, and reading takes only about as long as a few of them.
///
/// # Orderings
///
/// - `published` is stored with release and loaded with acquire, so a reader that saw *n* sees entry *n* and those
///   before it, and what was applied before *n* was published.
/// - A release fence follows the store of `published`. With the reader's acquire fences it ensures that a reader that
///   saw an applied count, or a word of a later entry, sees the `published` before it.
/// - Everything else is relaxed. The counts and the log are atomics only so that a race on them is not undefined
///   behavior.
///
/// # Exemplars
///
/// Each bucket has an [`ExemplarSlot`]. A sampled trace always becomes the exemplar. Another observation does if the
/// exemplar is old: [`UNTRACED_FOR_S`], or [`SAMPLED_FOR_S`] if it is sampled. Scrapes change nothing, so scrapers do
/// not influence each other.
///
/// The writer fills the slot after it has published the observation, and a reader reads the slots before the counts. So
/// the observation of an exemplar is always part of the counts beside it.
///
/// # Limits
///
/// Counts have 64 bits and sums 104, enough for a trillion of the longest durations: neither overflows in the life of a
/// server.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Histogram {
    /// The number of observations that are part of the series.
    published: Word,
    /// Only as many as there are bounds, and one for `+Inf`, are used.
    classic: [Bucket; BUCKETS_MAX],
    /// The counts of the native buckets.
    native: Box<[Word]>,
    log: [LogEntry; LOG_LEN as usize],
    /// One for each classic bucket.
    exemplars: Box<[ExemplarSlot]>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Observations in this bucket alone, not cumulative.
    count: Word,
    /// The second until which only a sampled trace replaces the exemplar. Only the writer reads it. It is here rather than
    /// in the slot, so that an observation that does not become an exemplar touches no further cache line.
    exemplar_until_s: Word,
}

/// An observation in the log: the state after it. The alignment keeps an entry within one cache line.
#[derive(Debug, Default)]
#[repr(align(32))]
struct LogEntry {
    /// From the lowest bit: 8 bits for the classic bucket, 16 for the native one, 40 for the highest bits of the sum.
    buckets_and_sum_ns_high: Word,
    /// The classic bucket's count, this observation included.
    classic_count: Word,
    /// The native bucket's count, this observation included.
    native_count: Word,
    /// The lowest bits of the sum in nanoseconds, this observation included.
    sum_ns_low: Word,
}

impl LogEntry {
    #[inline]
    fn write(&self, place: Place, classic_count: u64, native_count: u64, sum_ns: u128) {
        let sum_ns_high = (sum_ns >> 64) as u64;
        let packed = place.classic as u64 | (place.native as u64) << 8 | sum_ns_high << 24;
        self.buckets_and_sum_ns_high.store(packed, Ordering::Relaxed);
        self.classic_count.store(classic_count, Ordering::Relaxed);
        self.native_count.store(native_count, Ordering::Relaxed);
        self.sum_ns_low.store(sum_ns as u64, Ordering::Relaxed);
    }

    #[inline]
    fn sum_ns(&self, load: impl Fn(&Word) -> u64) -> u128 {
        u128::from(load(&self.buckets_and_sum_ns_high) >> 24) << 64 | u128::from(load(&self.sum_ns_low))
    }

    /// Sets the counts of the two buckets in the copy, unless the copy has no native ones.
    fn replay(&self, counts: &mut Counts) {
        // Even if the entry is torn, its buckets are those of some observation.
        let packed = self.buckets_and_sum_ns_high.load(Ordering::Relaxed);
        counts.classic[(packed & 0xff) as usize] = self.classic_count.load(Ordering::Relaxed);
        if let Some(count) = counts.native.get_mut((packed >> 8 & 0xffff) as usize) {
            *count = self.native_count.load(Ordering::Relaxed);
        }
    }
}

/// Counts by bucket, not cumulative.
#[derive(Debug)]
pub(crate) struct Counts<'a> {
    pub classic: &'a mut [u64],
    /// Empty if native buckets are not read.
    pub native: &'a mut [u64],
}

/// Returns for how long only a sampled trace replaces an exemplar with this trace.
fn kept_s(trace: Option<TraceContext>) -> u64 {
    if trace.is_some() { SAMPLED_FOR_S } else { UNTRACED_FOR_S }
}

impl Histogram {
    /// Returns an empty histogram. `classic` is the number of classic buckets, `+Inf` included, at most
    /// [`BUCKETS_MAX`]; `native` is the number of native ones, [`NATIVE_BUCKETS`] except for loom.
    pub(crate) fn new(classic: usize, native: usize) -> Histogram {
        Histogram {
            published: Word::default(),
            classic: std::array::from_fn(|_| Bucket::default()),
            native: (0..native).map(|_| Word::default()).collect(),
            log: std::array::from_fn(|_| LogEntry::default()),
            exemplars: (0..classic).map(|_| ExemplarSlot::default()).collect(),
        }
    }

    #[inline]
    fn log_entry(&self, observation: u64) -> &LogEntry {
        &self.log[(observation % LOG_LEN) as usize]
    }

    /// Adds an observation. For the writer only.
    ///
    /// `place` is within the numbers of buckets, `now_s` never decreases, and `trace` is sampled.
    #[inline]
    pub(crate) fn observe(&self, place: Place, duration_ns: u64, now_s: u64, trace: Option<TraceContext>) {
        let observation = self.published.own() + 1;
        let sum_ns = self.log_entry(observation - 1).sum_ns(Word::own) + u128::from(duration_ns);
        let Bucket {
            count,
            exemplar_until_s,
        } = &self.classic[place.classic];
        let new_count = count.own() + 1;
        let native = &self.native[place.native];
        let new_native_count = native.own() + 1;
        self.log_entry(observation)
            .write(place, new_count, new_native_count, sum_ns);

        self.published.store(observation, Ordering::Release);
        fence(Ordering::Release);

        count.store(new_count, Ordering::Relaxed);
        native.store(new_native_count, Ordering::Relaxed);
        if trace.is_some() || exemplar_until_s.own() <= now_s {
            exemplar_until_s.store(now_s + kept_s(trace), Ordering::Relaxed);
            self.write_exemplar(place.classic, duration_ns, trace);
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

    /// Adds a consistent copy of this series to `total`.
    pub(crate) fn add_to(&self, total: &mut Snapshot) {
        // Before the counts: see "Exemplars" above.
        for (latest, slot) in total.exemplars.iter_mut().zip(&self.exemplars) {
            // As within a shard, a sampled trace gives way only to one that is newer by its time.
            let rank = |exemplar: &Exemplar| match exemplar.trace {
                Some(_) => exemplar.timestamp_ms + SAMPLED_FOR_S * 1_000,
                None => exemplar.timestamp_ms,
            };
            if let Some(exemplar) = slot.read()
                && latest.as_ref().is_none_or(|latest| rank(latest) < rank(&exemplar))
            {
                *latest = Some(exemplar);
            }
        }
        let (mut classic, mut native) = ([0; BUCKETS_MAX], [0; NATIVE_BUCKETS]);
        let mut counts = Counts {
            classic: &mut classic[..self.exemplars.len()],
            native: match total.native {
                Some(_) => &mut native[..self.native.len()],
                None => &mut [],
            },
        };
        let mut reads = 0;
        total.sum_ns += loop {
            if let Some(sum_ns) = self.read(&mut counts) {
                break sum_ns;
            }
            reads += 1;
            if reads % READS_BEFORE_YIELD == 0 {
                yield_now();
            }
        };
        for (total, count) in total.counts.iter_mut().zip(counts.classic) {
            *total += *count;
        }
        for (total, count) in total.native.iter_mut().flatten().zip(counts.native) {
            *total += *count;
        }
    }

    /// Copies the counts and returns the sum, all as of one moment, or `None` if the writer wrapped around the log
    /// meanwhile.
    pub(crate) fn read(&self, counts: &mut Counts) -> Option<u128> {
        let first = self.published.load(Ordering::Acquire);
        for (count, bucket) in counts.classic.iter_mut().zip(&self.classic) {
            *count = bucket.count.load(Ordering::Relaxed);
        }
        let (mut last, mut sum_ns) = self.catch_up(first, counts)?;
        for start in (0..counts.native.len()).step_by(PART_MAX) {
            let part = start..counts.native.len().min(start + PART_MAX);
            for (count, word) in counts.native[part.clone()].iter_mut().zip(&self.native[part]) {
                *count = word.load(Ordering::Relaxed);
            }
            (last, sum_ns) = self.catch_up(last, counts)?;
        }
        Some(sum_ns)
    }

    /// Replays the log from *first* on over the copied counts, and returns *last* and the sum after it.
    fn catch_up(&self, first: u64, counts: &mut Counts) -> Option<(u64, u128)> {
        fence(Ordering::Acquire);
        let last = self.published.load(Ordering::Acquire);
        if last - first > LOG_LEN - 2 {
            return None;
        }
        for observation in first..=last {
            self.log_entry(observation).replay(counts);
        }
        let sum_ns = self.log_entry(last).sum_ns(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let now = self.published.load(Ordering::Relaxed);
        (now - first <= LOG_LEN - 2).then_some((last, sum_ns))
    }
}

/// A series of the exposition: the observations of all shards, each shard as of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// By classic bucket, not cumulative.
    pub counts: [u64; BUCKETS_MAX],
    /// By native bucket. `None` if they are not read.
    pub native: Option<[u64; NATIVE_BUCKETS]>,
    pub sum_ns: u128,
    /// By classic bucket: the latest of all shards that has a sampled trace, or else the latest. An untraced one that is
    /// more than an hour newer than the sampled one wins.
    pub exemplars: [Option<Exemplar>; BUCKETS_MAX],
}

impl Snapshot {
    /// Returns a series without observations. `native` says whether native buckets are read.
    pub(crate) fn new(native: bool) -> Snapshot {
        Snapshot {
            counts: [0; BUCKETS_MAX],
            native: native.then_some([0; NATIVE_BUCKETS]),
            sum_ns: 0,
            exemplars: [None; BUCKETS_MAX],
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the classic and the native bucket of the given number.
    fn at(bucket: usize) -> Place {
        Place {
            classic: bucket,
            native: bucket,
        }
    }

    fn read(histogram: &Histogram) -> Snapshot {
        let mut total = Snapshot::new(true);
        histogram.add_to(&mut total);
        total
    }

    #[test]
    fn an_empty_histogram_is_read_as_zeros() {
        let total = read(&Histogram::new(3, NATIVE_BUCKETS));
        assert_eq!((total.counts, total.sum_ns), ([0; BUCKETS_MAX], 0));
        assert_eq!(total.exemplars, [None; BUCKETS_MAX]);
    }

    #[test]
    fn a_sum_beyond_64_bits_is_exact() {
        let histogram = Histogram::new(2, NATIVE_BUCKETS);
        for _ in 0..5 {
            histogram.observe(at(1), u64::MAX, 1, None);
        }
        assert_eq!(read(&histogram).sum_ns, 5 * u128::from(u64::MAX));
    }

    fn exemplar(histogram: &Histogram) -> Option<(u64, Option<TraceContext>)> {
        read(histogram).exemplars[0].map(|exemplar| (exemplar.duration_ns, exemplar.trace))
    }

    #[test]
    fn an_untraced_exemplar_stays_for_15_seconds() {
        let histogram = Histogram::new(2, NATIVE_BUCKETS);
        assert_eq!(exemplar(&histogram), None);
        histogram.observe(at(0), 10, 0, None);
        histogram.observe(at(0), 20, UNTRACED_FOR_S - 1, None);
        // However often it is read.
        assert_eq!([exemplar(&histogram), exemplar(&histogram)], [Some((10, None)); 2]);
        histogram.observe(at(0), 30, UNTRACED_FOR_S, None);
        assert_eq!(exemplar(&histogram), Some((30, None)));
    }

    fn trace(id: u64) -> Option<TraceContext> {
        TraceContext::sampled(u128::from(id), id)
    }

    #[test]
    fn a_sampled_exemplar_stays_for_an_hour_or_until_the_next_sampled_one() {
        let histogram = Histogram::new(2, NATIVE_BUCKETS);
        histogram.observe(at(0), 10, 0, None);
        histogram.observe(at(0), 20, 1, trace(2));
        histogram.observe(at(0), 30, 2, trace(3));
        histogram.observe(at(0), 40, 1 + SAMPLED_FOR_S, None);
        assert_eq!(exemplar(&histogram), Some((30, trace(3))));
        histogram.observe(at(0), 50, 1 + SAMPLED_FOR_S, trace(5));
        histogram.observe(at(0), 60, 2 * SAMPLED_FOR_S, None);
        assert_eq!(exemplar(&histogram), Some((50, trace(5))));
        histogram.observe(at(0), 70, 1 + 2 * SAMPLED_FOR_S, None);
        // In the slot, since its time of day is not an hour later in this test.
        assert_eq!(
            histogram.exemplars[0].read().map(|exemplar| exemplar.duration_ns),
            Some(70)
        );
    }

    #[test]
    fn a_sampled_exemplar_gives_way_to_one_of_another_shard_that_is_an_hour_newer() {
        let shards = [Histogram::new(1, NATIVE_BUCKETS), Histogram::new(1, NATIVE_BUCKETS)];
        let write = |shard: usize, timestamp_ms, trace| {
            shards[shard].exemplars[0].write(Exemplar {
                duration_ns: timestamp_ms,
                timestamp_ms,
                trace,
            });
        };
        let merged = || {
            let [one, other] = [[0, 1], [1, 0]].map(|order| {
                let mut total = Snapshot::new(true);
                order.iter().for_each(|&shard| shards[shard].add_to(&mut total));
                total.exemplars[0].map(|exemplar| exemplar.timestamp_ms)
            });
            assert_eq!(one, other, "whatever the order");
            one
        };
        write(0, 1_000, trace(1));
        write(1, 999 + SAMPLED_FOR_S * 1_000, None);
        assert_eq!(merged(), Some(1_000));
        write(1, 1_001 + SAMPLED_FOR_S * 1_000, None);
        assert_eq!(merged(), Some(1_001 + SAMPLED_FOR_S * 1_000));
    }

    #[test]
    fn a_sampled_exemplar_wins_over_untraced_ones_of_other_shards() {
        let later = || std::thread::sleep(std::time::Duration::from_millis(2));
        let shards = [
            Histogram::new(1, NATIVE_BUCKETS),
            Histogram::new(1, NATIVE_BUCKETS),
            Histogram::new(1, NATIVE_BUCKETS),
        ];
        let merged = || {
            let mut total = Snapshot::new(true);
            shards.iter().for_each(|shard| shard.add_to(&mut total));
            total.exemplars[0].map(|exemplar| exemplar.duration_ns)
        };
        shards[2].observe(at(0), 10, 1, None);
        later();
        shards[0].observe(at(0), 20, 1, None);
        assert_eq!(merged(), Some(20), "the latest, if none has a trace");
        shards[1].observe(at(0), 30, 1, trace(3));
        later();
        shards[0].observe(at(0), 40, 1 + UNTRACED_FOR_S, None);
        shards[2].observe(at(0), 50, 1 + UNTRACED_FOR_S, None);
        assert_eq!(merged(), Some(30), "the only one with a trace");
        shards[2].observe(at(0), 60, 1 + UNTRACED_FOR_S, trace(6));
        later();
        shards[0].observe(at(0), 70, 1 + 2 * UNTRACED_FOR_S, None);
        assert_eq!(merged(), Some(60), "the latest with a trace");
    }

    #[test]
    fn an_exemplar_has_the_time_at_which_it_was_recorded() {
        let histogram = Histogram::new(1, NATIVE_BUCKETS);
        let before = unix_time_ms();
        histogram.observe(at(0), 10, 1, None);
        let after = unix_time_ms();
        let exemplar = read(&histogram).exemplars[0].unwrap();
        assert!((before..=after).contains(&exemplar.timestamp_ms));
    }

    proptest! {
        #[test]
        fn every_observation_is_read(
            observed in proptest::collection::vec((0usize..5, 0..NATIVE_BUCKETS, any::<u64>()), 0..300),
        ) {
            let histogram = Histogram::new(5, NATIVE_BUCKETS);
            let mut expected = Snapshot::new(true);
            for &(classic, native, duration_ns) in &observed {
                let place = Place { classic, native };
                histogram.observe(place, duration_ns, 1, None);
                expected.counts[classic] += 1;
                expected.native.as_mut().unwrap()[native] += 1;
                expected.sum_ns += u128::from(duration_ns);
                let total = read(&histogram);
                prop_assert_eq!((total.counts, total.native, total.sum_ns), (expected.counts, expected.native, expected.sum_ns));
                let mut total = Snapshot::new(false);
                histogram.add_to(&mut total);
                prop_assert_eq!((total.counts, total.native, total.sum_ns), (expected.counts, None, expected.sum_ns));
            }
        }
    }
}
