//! Tests the histogram with loom, under the interleavings and reorderings that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile loom --lib metrics::record::loom_tests`
//!
//! The log has 4 entries here: a reader tolerates two observations during one attempt, and a third makes it start over.

use super::buckets::Place;
use super::exemplar::{Exemplar, ExemplarSlot};
use super::histogram::{Counts, Histogram, Snapshot};
use super::recorder::Shard;
use super::sync::{AtomicU64, Ordering};
use super::traceparent::TraceContext;
use loom::thread;
use std::sync::Arc;

/// Returns the duration of observation `n`. The sum of a set of observations identifies the set.
fn duration_ns(n: u64) -> u64 {
    1 << (8 * n)
}

/// All parts of an exemplar derive from one number, so that a torn one is detected.
fn trace(duration_ns: u64) -> Option<TraceContext> {
    TraceContext::sampled(u128::from(duration_ns) << 64 | u128::from(duration_ns), duration_ns)
}

/// Observation `n` falls into the classic bucket `n % 2` and into the other native one.
fn place(n: u64) -> Place {
    Place {
        classic: (n % 2) as usize,
        native: ((n + 1) % 2) as usize,
    }
}

fn histogram() -> Histogram {
    Histogram::new(2, 2)
}

fn observe(histogram: &Histogram, n: u64) {
    let duration_ns = duration_ns(n);
    histogram.observe(place(n), duration_ns, 1, trace(duration_ns));
}

/// Reads the histogram, checks that it has exactly the first *n* observations, and returns *n*.
fn read(histogram: &Histogram) -> Option<u64> {
    let (mut classic, mut native) = ([0; 2], [0; 2]);
    let sum_ns = histogram.read(&mut Counts {
        classic: &mut classic,
        native: &mut native,
    })?;
    Some(prefix(&classic, &native, sum_ns))
}

/// Checks that the counts and the sum are those of exactly the first *n* observations, and returns *n*.
fn prefix(classic: &[u64], native: &[u64], sum_ns: u128) -> u64 {
    let observed = classic.iter().sum();
    let expected_sum_ns: u128 = (1..=observed).map(|n| u128::from(duration_ns(n))).sum();
    assert_eq!(classic, [observed / 2, observed.div_ceil(2)]);
    assert_eq!(native, [observed.div_ceil(2), observed / 2]);
    assert_eq!(sum_ns, expected_sum_ns);
    observed
}

/// Checks that the exemplars beside the counts are whole, and of observations in the counts.
fn check_exemplars(total: &Snapshot, observed: u64) {
    for (bucket, exemplar) in total.exemplars.iter().enumerate() {
        if let Some(exemplar) = exemplar {
            assert_eq!(exemplar.trace, trace(exemplar.duration_ns));
            let n = (1..=observed).find(|&n| duration_ns(n) == exemplar.duration_ns);
            assert!(n.is_some_and(|n| n % 2 == bucket as u64));
        }
    }
}

/// Runs a model under every interleaving with at most `preemptions_max` preemptions. Without a limit the larger models
/// take hours. Loom's authors found that two preemptions are enough for nearly all errors.
fn check(preemptions_max: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions_max);
    builder.check(model);
}

#[test]
fn a_reader_beside_a_writer_reads_a_prefix_at_the_first_attempt() {
    check(3, || {
        let histogram = Arc::new(histogram());
        observe(&histogram, 1);
        let writer = thread::spawn({
            let histogram = Arc::clone(&histogram);
            move || (2..=3).for_each(|n| observe(&histogram, n))
        });
        let observed = read(&histogram).expect("two observations do not wrap around a log of four");
        assert!((1..=3).contains(&observed));
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_that_is_lapped_by_the_writer_starts_over() {
    check(2, || {
        let histogram = Arc::new(histogram());
        let writer = thread::spawn({
            let histogram = Arc::clone(&histogram);
            move || (1..=4).for_each(|n| observe(&histogram, n))
        });
        read(&histogram);
        writer.join().unwrap();
        assert_eq!(read(&histogram), Some(4));
    });
}

#[test]
fn a_later_read_never_has_fewer_observations() {
    check(3, || {
        let histogram = Arc::new(histogram());
        let writer = thread::spawn({
            let histogram = Arc::clone(&histogram);
            move || (1..=2).for_each(|n| observe(&histogram, n))
        });
        let before = read(&histogram).expect("two observations do not wrap around a log of four");
        let after = read(&histogram).expect("two observations do not wrap around a log of four");
        assert!(after >= before);
        writer.join().unwrap();
    });
}

#[test]
fn an_exemplar_that_is_being_replaced_is_read_whole() {
    check(4, || {
        let slot = Arc::new(ExemplarSlot::default());
        let exemplar = |id| Exemplar {
            duration_ns: id,
            timestamp_ms: id,
            trace: trace(id),
        };
        slot.write(exemplar(1));
        let writer = thread::spawn({
            let slot = Arc::clone(&slot);
            move || (2..=3).for_each(|id| slot.write(exemplar(id)))
        });
        let read = slot.read().expect("one was written");
        assert_eq!(read, exemplar(read.duration_ns));
        writer.join().unwrap();
        assert_eq!(slot.read(), Some(exemplar(3)));
    });
}

#[test]
fn the_observations_of_two_writers_add_up_and_exemplars_are_part_of_the_counts() {
    check(2, || {
        let shards = [Arc::new(histogram()), Arc::new(histogram())];
        let writers = shards.clone().map(|shard| thread::spawn(move || observe(&shard, 1)));
        let mut observed = 0;
        for shard in &shards {
            let mut total = Snapshot::new(true);
            shard.add_to(&mut total);
            let of_shard = prefix(&total.counts[..2], &total.native.unwrap()[..2], total.sum_ns);
            check_exemplars(&total, of_shard);
            observed += of_shard;
        }
        assert!(observed <= 2);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let mut total = Snapshot::new(true);
        shards.iter().for_each(|shard| shard.add_to(&mut total));
        assert_eq!((total.counts[1], total.sum_ns), (2, u128::from(2 * duration_ns(1))));
    });
}

#[test]
fn a_shard_that_changes_hands_keeps_its_counts() {
    loom::model(|| {
        let first = Arc::new(Shard::new_taken(false));
        // Stands for the shard's histogram: loads and stores, as the one writer makes them.
        let count = Arc::new(AtomicU64::new(0));
        let recorders: Vec<_> = (0..2)
            .map(|_| {
                let (first, count) = (Arc::clone(&first), Arc::clone(&count));
                thread::spawn(move || {
                    let shard = Shard::take(&first);
                    let is_first = Arc::ptr_eq(&shard, &first);
                    if is_first {
                        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                    shard.release();
                    is_first
                })
            })
            .collect();
        let took_first = recorders.into_iter().map(|recorder| recorder.join().unwrap());
        let took_first = took_first.filter(|&is_first| is_first).count() as u64;
        assert_eq!(count.load(Ordering::Relaxed), took_first);
    });
}
