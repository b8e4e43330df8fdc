//! A gauge that many threads move.

use super::sync::{AtomicI64, Ordering};

/// A whole number that goes up and down, on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub(super) fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    /// One more.
    pub fn inc(&self) {
        // Relaxed: the value orders nothing but itself.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_moved_by_many_threads_ends_where_the_moves_add_up() {
        let gauge = Gauge::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        gauge.inc();
                        gauge.inc();
                        gauge.dec();
                    }
                });
            }
        });
        assert_eq!(gauge.get(), 40_000);
    }
}
