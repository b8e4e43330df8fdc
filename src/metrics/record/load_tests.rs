//! Threads that record millions of observations while others render.

use super::{Labels, Method, Path, Status, TraceContext};
use crate::metrics::{Format, Metrics};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const WRITERS: u64 = 4;
const OBSERVATIONS_PER_WRITER: u64 = 1_000_000;

/// The smallest number of expositions that are rendered while the writers record.
const EXPOSITIONS_MIN: u64 = 10;

const LABELS: Labels = Labels {
    method: Method::Get,
    path: Path::Root,
    status: Status::OK,
};

/// Snapshots that are read while the writers record.
const SNAPSHOTS: u64 = 10_000;

/// Exemplars that are read while the writers record.
const EXEMPLARS: u64 = 100_000;

/// The number of different durations. Each is a whole number of seconds in a bucket of its own, so the sum follows from
/// the buckets.
const BUCKETS: u64 = 4;

fn metrics() -> Arc<Metrics> {
    Arc::new(crate::metrics::tests::metrics("linear:1,1,4"))
}

fn duration_ns(observation: u64) -> u64 {
    (1 + observation % BUCKETS) * 1_000_000_000
}

/// Renders the series and returns its cumulative buckets, count and sum in seconds.
fn read(metrics: &Metrics, out: &mut Vec<u8>) -> (Vec<u64>, u64, u64) {
    out.clear();
    metrics.render(Format::Text004, 0, out);
    let text = str::from_utf8(out).unwrap();
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    let lines = |part: &str| {
        let start = format!("http_request_duration_seconds_{part}{{");
        text.lines()
            .filter(move |line| line.starts_with(&start) && line.contains("status=\"200\""))
            .map(value)
            .collect::<Vec<_>>()
    };
    (lines("bucket"), lines("count")[0], lines("sum")[0])
}

#[test]
fn expositions_under_load_are_consistent_and_never_decrease_and_the_last_is_complete() {
    let metrics = metrics();
    // Incremented before and after the observations: every exposed count is between the two.
    let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
    let expositions = AtomicU64::new(0);
    let writing = AtomicU64::new(WRITERS);
    std::thread::scope(|scope| {
        let reader = Arc::new(scope.spawn(|| {
            let mut out = Vec::new();
            let mut last_buckets = vec![0; BUCKETS as usize + 1];
            let mut last_sum = 0;
            while writing.load(Ordering::Relaxed) > 0 {
                let at_least = ended.load(Ordering::SeqCst);
                let (buckets, count, sum) = read(&metrics, &mut out);
                let at_most = begun.load(Ordering::SeqCst);
                assert!(
                    (at_least..=at_most).contains(&count),
                    "{at_least} <= {count} <= {at_most}"
                );
                assert_eq!(buckets.last(), Some(&count));
                assert!(buckets.is_sorted());
                assert!(buckets.iter().zip(&last_buckets).all(|(now, last)| now >= last) && sum >= last_sum);
                // A duration of n seconds is above the n - 1 bounds before its own.
                let expected_sum: u64 = count
                    + buckets[..BUCKETS as usize]
                        .iter()
                        .map(|below| count - below)
                        .sum::<u64>();
                assert_eq!(sum, expected_sum);
                (last_buckets, last_sum) = (buckets, sum);
                expositions.fetch_add(1, Ordering::Relaxed);
            }
        }));
        for _ in 0..WRITERS {
            let (metrics, reader) = (&metrics, Arc::clone(&reader));
            let (begun, ended, expositions, writing) = (&begun, &ended, &expositions, &writing);
            scope.spawn(move || {
                let mut recorder = metrics.recorder();
                for observation in 0..OBSERVATIONS_PER_WRITER {
                    // The last tenth waits until enough expositions have been rendered, however the threads are
                    // scheduled.
                    if observation == OBSERVATIONS_PER_WRITER / 10 * 9 {
                        while expositions.load(Ordering::Relaxed) < EXPOSITIONS_MIN && !reader.is_finished() {
                            std::thread::yield_now();
                        }
                    }
                    // Only every thousandth time, so that the writer is as fast as possible in between.
                    if observation % 1_000 == 0 {
                        begun.fetch_add(1_000, Ordering::SeqCst);
                    }
                    recorder.record(LABELS, duration_ns(observation), None, Instant::now());
                    if observation % 1_000 == 999 {
                        ended.fetch_add(1_000, Ordering::SeqCst);
                        // Shards change hands: the new recorder gets one that was released, if there is one.
                        if observation % 100_000 == 99_999 {
                            recorder = metrics.recorder();
                        }
                    }
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    let (buckets, count, sum) = read(&metrics, &mut Vec::new());
    let total = WRITERS * OBSERVATIONS_PER_WRITER;
    assert_eq!(count, total);
    assert_eq!(buckets, [total / 4, total / 2, total * 3 / 4, total, total]);
    assert_eq!(sum, total / 4 * (1 + 2 + 3 + 4));
}

#[test]
fn classic_and_native_counts_under_load_describe_the_same_observations() {
    let metrics = metrics();
    let natives = (0..BUCKETS).map(|bucket| metrics.recorded.buckets().of(duration_ns(bucket)).native);
    let natives: Vec<usize> = natives.collect();
    let read = |metrics: &Metrics| {
        let total = metrics.recorded.snapshot(LABELS, true);
        let native = total.native.unwrap();
        for (bucket, &of_native) in natives.iter().enumerate() {
            assert_eq!(total.counts[bucket], native[of_native]);
        }
        let seconds = total
            .counts
            .iter()
            .zip(1u128..)
            .map(|(&count, seconds)| u128::from(count) * seconds);
        assert_eq!(total.sum_ns, seconds.sum::<u128>() * 1_000_000_000);
        let count: u64 = total.counts.iter().sum();
        assert_eq!(native.iter().sum::<u64>(), count);
        count
    };
    std::thread::scope(|scope| {
        let reader = Arc::new(scope.spawn(|| {
            let mut last = 0;
            // Each must see more than the one before, so all are read while the writers record.
            for _ in 0..SNAPSHOTS {
                last = std::iter::repeat_with(|| read(&metrics))
                    .find(|&count| count > last)
                    .unwrap();
            }
        }));
        for _ in 0..2 {
            let (mut recorder, reader) = (metrics.recorder(), Arc::clone(&reader));
            scope.spawn(move || {
                for observation in 0.. {
                    recorder.record(LABELS, duration_ns(observation), None, Instant::now());
                    if observation % 1_000 == 0 && reader.is_finished() {
                        return;
                    }
                }
            });
        }
    });
    read(&metrics);
}

#[test]
fn exemplars_under_load_are_never_torn() {
    let metrics = metrics();
    std::thread::scope(|scope| {
        let reader = Arc::new(scope.spawn(|| {
            let mut shown = 0;
            while shown < EXEMPLARS {
                for (bucket, exemplar) in metrics.recorded.snapshot(LABELS, true).exemplars.iter().enumerate() {
                    let Some(exemplar) = exemplar else { continue };
                    let trace = exemplar.trace.unwrap();
                    assert_eq!(exemplar.duration_ns, (1 + bucket as u64) * 1_000_000_000);
                    assert_eq!(trace.trace_id(), u128::from(trace.span_id()));
                    assert!((1..=2).contains(&(trace.span_id() - exemplar.duration_ns)));
                    shown += 1;
                }
            }
        }));
        for writer in 1..=2u64 {
            let mut recorder = metrics.recorder();
            let reader = Arc::clone(&reader);
            scope.spawn(move || {
                for observation in 0.. {
                    let id = duration_ns(observation) + writer;
                    let trace = TraceContext::parse(&format!("00-{id:032x}-{id:016x}-01"));
                    recorder.record(LABELS, duration_ns(observation), trace, Instant::now());
                    if reader.is_finished() {
                        return;
                    }
                }
            });
        }
    });
}
