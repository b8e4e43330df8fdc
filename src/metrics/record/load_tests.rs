//! Threads that record millions of observations while others render.

use super::{Bounds, Labels, Method, Path, Status, TraceContext};
use crate::metrics::{Config, Metrics};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const WRITERS: u64 = 4;
const OBSERVATIONS_PER_WRITER: u64 = 1_000_000;

/// The least number of expositions that are rendered while the writers record.
const EXPOSITIONS_MIN: u64 = 10;

const LABELS: Labels = Labels {
    method: Method::Get,
    path: Path::Root,
    status: Status::OK,
};

/// Exemplars that are read while the writers record.
const EXEMPLARS: u64 = 100_000;

/// Durations in whole seconds, each in a bucket of its own: the sum follows from the buckets.
const BUCKETS: u64 = 4;

fn metrics() -> Arc<Metrics> {
    let bounds = "linear:1,1,4".parse::<Bounds>().unwrap();
    Arc::new(Metrics::new(Config {
        bounds,
        ..Config::default()
    }))
}

fn duration_ns(observation: u64) -> u64 {
    (1 + observation % BUCKETS) * 1_000_000_000
}

/// Renders the series and returns its cumulative buckets, count and sum in seconds.
fn read(metrics: &Metrics, out: &mut Vec<u8>) -> (Vec<u64>, u64, u64) {
    out.clear();
    metrics.render_durations(out);
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
fn expositions_under_load_are_consistent_and_never_go_back_and_the_last_is_complete() {
    let metrics = metrics();
    // Raised before an observation and after it: a count is between the two.
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
                    // The last tenth waits until enough expositions were rendered, however the threads are scheduled.
                    if observation == OBSERVATIONS_PER_WRITER / 10 * 9 {
                        while expositions.load(Ordering::Relaxed) < EXPOSITIONS_MIN && !reader.is_finished() {
                            std::thread::yield_now();
                        }
                    }
                    // Not for each one: in between, it is as fast as it can be.
                    if observation % 1_000 == 0 {
                        begun.fetch_add(1_000, Ordering::SeqCst);
                    }
                    recorder.record(LABELS, duration_ns(observation), None);
                    if observation % 1_000 == 999 {
                        ended.fetch_add(1_000, Ordering::SeqCst);
                        // The next recorder gets this shard, or that of another.
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
fn exemplars_under_load_are_whole() {
    let metrics = metrics();
    std::thread::scope(|scope| {
        let reader = Arc::new(scope.spawn(|| {
            let mut shown = 0;
            while shown < EXEMPLARS {
                for (bucket, exemplar) in metrics.snapshot(LABELS, true).exemplars.iter().enumerate() {
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
                    recorder.record(LABELS, duration_ns(observation), trace);
                    if reader.is_finished() {
                        return;
                    }
                }
            });
        }
    });
}
