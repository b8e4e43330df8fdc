//! Our recorder as it was before native buckets: the same algorithm for classic buckets alone, reduced to what the
//! bench needs.
//!
//! One writer, plain stores under a published sequence; see `src/metrics/record/histogram.rs`. An observation does
//! exactly the loads and stores of the original, including one exemplar for each bucket and scrape. There is no code
//! for reading.

use httpserver::metrics::{Bounds, Method, Path, Status, TraceContext};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::SystemTime;

const CELLS: usize = 512;
const LOG_LEN: u64 = 64;
const SERIES: usize = Method::ALL.len() * Path::ALL.len() * Status::ALL.len();

/// The search for a bucket, by cells of an eighth of a power of two.
struct Buckets {
    below: [u8; CELLS],
    more: usize,
    upper_ns: [u64; 512],
}

fn cell_of(ns: u64) -> usize {
    let magnitude = |ns: u64| ((ns as i64 as f64).to_bits() >> 49) as usize;
    (magnitude(ns + 1) - magnitude(1)) % CELLS
}

impl Buckets {
    fn new(bounds: &Bounds) -> Buckets {
        let (mut below, mut within, mut upper_ns) = ([0; CELLS], [0usize; CELLS], [u64::MAX; 512]);
        for (place, &bound_ns) in bounds.upper_ns().iter().enumerate() {
            upper_ns[place] = bound_ns;
            within[cell_of(bound_ns)] += 1;
            below[cell_of(bound_ns) + 1..].iter_mut().for_each(|count| *count += 1);
        }
        let more = within.into_iter().max().unwrap_or(0).saturating_sub(1);
        Buckets { below, more, upper_ns }
    }

    #[inline]
    fn of(&self, duration_ns: u64) -> usize {
        let below = usize::from(self.below[cell_of(duration_ns.min(100_000_000_000_001))]);
        let mut place = below + usize::from(self.upper_ns[below] < duration_ns);
        for more in 1..=self.more {
            place += usize::from(self.upper_ns[below + more] < duration_ns);
        }
        place
    }
}

#[derive(Default)]
struct Bucket {
    count: AtomicU64,
    exemplar_scrape: AtomicU64,
}

#[derive(Default)]
#[repr(align(32))]
struct LogEntry {
    bucket: AtomicU64,
    count: AtomicU64,
    sum_ns_low: AtomicU64,
    sum_ns_high: AtomicU64,
}

#[repr(align(128))]
struct Histogram {
    published: AtomicU64,
    buckets: [Bucket; 64],
    log: [LogEntry; LOG_LEN as usize],
    /// In place of the exemplars, one of which is written for each bucket at first.
    exemplars: [[AtomicU64; 6]; 64],
}

impl Histogram {
    fn new() -> Histogram {
        Histogram {
            published: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| Bucket::default()),
            log: std::array::from_fn(|_| LogEntry::default()),
            exemplars: std::array::from_fn(|_| Default::default()),
        }
    }

    #[inline]
    fn observe(&self, bucket: usize, duration_ns: u64, scrape: u64, trace: Option<TraceContext>) {
        let own = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let observation = own(&self.published) + 1;
        let last = &self.log[((observation - 1) % LOG_LEN) as usize];
        let sum_ns = u128::from(own(&last.sum_ns_high)) << 64 | u128::from(own(&last.sum_ns_low));
        let sum_ns = sum_ns + u128::from(duration_ns);
        let Bucket { count, exemplar_scrape } = &self.buckets[bucket];
        let new_count = own(count) + 1;
        let entry = &self.log[(observation % LOG_LEN) as usize];
        entry.bucket.store(bucket as u64, Ordering::Relaxed);
        entry.count.store(new_count, Ordering::Relaxed);
        entry.sum_ns_low.store(sum_ns as u64, Ordering::Relaxed);
        entry.sum_ns_high.store((sum_ns >> 64) as u64, Ordering::Relaxed);
        self.published.store(observation, Ordering::Release);
        fence(Ordering::Release);
        count.store(new_count, Ordering::Relaxed);
        if trace.is_some() || own(exemplar_scrape) != scrape {
            exemplar_scrape.store(scrape, Ordering::Relaxed);
            self.write_exemplar(bucket, duration_ns);
        }
    }

    #[cold]
    fn write_exemplar(&self, bucket: usize, duration_ns: u64) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.exemplars[bucket][0].store(duration_ns, Ordering::Relaxed);
        self.exemplars[bucket][1].store(now.as_millis() as u64, Ordering::Release);
    }
}

/// The recorder of one thread.
pub struct ClassicOnly {
    buckets: Box<Buckets>,
    scrape: AtomicU64,
    series: [OnceLock<Box<Histogram>>; SERIES],
}

impl ClassicOnly {
    pub fn new() -> ClassicOnly {
        ClassicOnly {
            buckets: Box::new(Buckets::new(&Bounds::default())),
            scrape: AtomicU64::new(1),
            series: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// Records into the series at the given index.
    #[inline(always)]
    pub fn record(&mut self, series: usize, duration_ns: u64, trace: Option<TraceContext>) {
        let bucket = self.buckets.of(duration_ns);
        let series = self.series[series % SERIES].get_or_init(|| Box::new(Histogram::new()));
        series.observe(bucket, duration_ns, self.scrape.load(Ordering::Relaxed), trace);
    }
}
