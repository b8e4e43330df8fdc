//! The page: every family and sample in its order, written straight into the response's buffer.
//!
//! The order is fixed: the series by method, path and status as [`labels`](super::labels) lists them, then the
//! rest. What differs between the formats is in [`text`] and [`openmetrics`].

use super::families::{self, Family};
use super::histogram::Snapshot;
use super::labels::Labels;
use super::process::{Process, Usage};
use super::{Bounds, decimal, openmetrics, text};

/// The buckets' label values in one format, made once: everything of a bucket's line from the bound to the count.
#[derive(Debug)]
struct BucketTexts(Vec<Box<[u8]>>);

impl BucketTexts {
    fn new(bounds: &Bounds, append_bound: fn(&mut Vec<u8>, u64)) -> BucketTexts {
        let finite = bounds.upper_ns().iter().map(|&upper_ns| {
            let mut text = Vec::new();
            append_bound(&mut text, upper_ns);
            text.extend_from_slice(b"\"} ");
            text.into_boxed_slice()
        });
        BucketTexts(finite.chain([Box::from(*b"+Inf\"} ")]).collect())
    }
}

/// What pages are made of that does not change.
#[derive(Debug)]
pub(super) struct Layout {
    text: BucketTexts,
    openmetrics: BucketTexts,
}

impl Layout {
    pub(super) fn new(bounds: &Bounds) -> Layout {
        Layout {
            text: BucketTexts::new(bounds, text::bound),
            openmetrics: BucketTexts::new(bounds, openmetrics::bound),
        }
    }

    /// A page in one family of formats, to be appended to what `out` holds.
    pub(super) fn page<'a>(&'a self, is_openmetrics: bool, out: &'a mut Vec<u8>) -> Page<'a> {
        let bucket_texts = if is_openmetrics {
            &self.openmetrics.0
        } else {
            &self.text.0
        };
        Page {
            out,
            is_openmetrics,
            bucket_texts,
        }
    }
}

/// A page as it is written.
pub(super) struct Page<'a> {
    out: &'a mut Vec<u8>,
    is_openmetrics: bool,
    bucket_texts: &'a [Box<[u8]>],
}

impl Page<'_> {
    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn metadata(&mut self, family: &Family) {
        if self.is_openmetrics {
            openmetrics::metadata(self.out, family);
        } else {
            text::metadata(self.out, family);
        }
    }

    /// Starts the histogram's family; its series follow.
    pub(super) fn begin_request_duration(&mut self) {
        self.metadata(&families::REQUEST_DURATION);
    }

    /// A series of the histogram: cumulative buckets, sum, count and, in OpenMetrics, its creation.
    ///
    /// `_count` is printed from the same number as the bucket `+Inf`: they cannot differ.
    pub(super) fn request_duration(&mut self, labels: Labels, total: &Snapshot, created_ms: u64) {
        const NAME: &str = families::REQUEST_DURATION.name;
        let line_start = self.out.len();
        self.put(NAME);
        self.put("_bucket");
        let labels_start = self.out.len();
        for part in [
            "{method=\"",
            labels.method.as_str(),
            "\",path=\"",
            labels.path.as_str(),
            "\",status=\"",
            labels.status.as_str(),
            "\"",
        ] {
            self.put(part);
        }
        let labels_end = self.out.len();
        self.put(",le=\"");
        let bound_start = self.out.len();

        let mut count = 0;
        let buckets = self.bucket_texts.iter().zip(total.counts.iter().zip(&total.exemplars));
        for (bucket, (text, (observed, exemplar))) in buckets.enumerate() {
            if bucket > 0 {
                // A line begins as the first of the series did.
                self.out.extend_from_within(line_start..bound_start);
            }
            self.out.extend_from_slice(text);
            count += observed;
            decimal::integer(self.out, count);
            if self.is_openmetrics
                && let Some(exemplar) = exemplar
            {
                openmetrics::exemplar(self.out, labels.path.as_str(), exemplar);
            }
            self.out.push(b'\n');
        }

        let mut sample = |suffix: &str, append: &mut dyn FnMut(&mut Vec<u8>)| {
            self.out.extend_from_slice(NAME.as_bytes());
            self.out.extend_from_slice(suffix.as_bytes());
            self.out.extend_from_within(labels_start..labels_end);
            self.out.extend_from_slice(b"} ");
            append(self.out);
            self.out.push(b'\n');
        };
        sample("_sum", &mut |out| decimal::seconds(out, total.sum_ns));
        sample("_count", &mut |out| decimal::integer(out, count));
        if self.is_openmetrics {
            sample("_created", &mut |out| decimal::timestamp(out, created_ms));
        }
    }

    /// A family of one sample without labels.
    fn single(&mut self, family: &Family, append: impl FnOnce(&mut Vec<u8>)) {
        self.metadata(family);
        self.put(family.name);
        self.put(family.kind.suffix());
        self.put(" ");
        append(self.out);
        self.put("\n");
    }

    fn whole(&mut self, family: &Family, value: Option<u64>) {
        if let Some(value) = value {
            self.single(family, |out| decimal::integer(out, value));
        }
    }

    pub(super) fn requests_in_flight(&mut self, value: i64) {
        self.single(&families::REQUESTS_IN_FLIGHT, |out| {
            if value < 0 {
                out.push(b'-');
            }
            decimal::integer(out, value.unsigned_abs());
        });
    }

    pub(super) fn build(&mut self) {
        self.metadata(&families::BUILD);
        for part in [
            families::BUILD.name,
            families::BUILD.kind.suffix(),
            "{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1\n",
        ] {
            self.put(part);
        }
    }

    /// The `process_*` families, but for those that could not be read.
    pub(super) fn process(&mut self, process: &Process, usage: Usage) {
        if let Some(cpu_ns) = usage.cpu_ns {
            self.single(&families::CPU, |out| decimal::seconds(out, u128::from(cpu_ns)));
            if self.is_openmetrics
                && let Some(start_time_ms) = process.start_time_ms()
            {
                self.put(families::CPU.name);
                self.put("_created ");
                decimal::timestamp(self.out, start_time_ms);
                self.put("\n");
            }
        }
        self.whole(&families::RESIDENT_MEMORY, usage.resident_memory_bytes);
        self.whole(&families::VIRTUAL_MEMORY, usage.virtual_memory_bytes);
        self.whole(&families::OPEN_FDS, usage.open_fds);
        self.whole(&families::MAX_FDS, usage.max_fds);
        if let Some(start_time_ms) = process.start_time_ms() {
            self.single(&families::START_TIME, |out| decimal::timestamp(out, start_time_ms));
        }
        self.whole(&families::THREADS, usage.threads);
    }

    /// Ends the page.
    pub(super) fn end(self) {
        if self.is_openmetrics {
            openmetrics::eof(self.out);
        }
    }
}
