//! A gauge that is set when it is scraped.

use super::sync::{AtomicI64, Ordering};

/// A whole number that goes up and down.
#[derive(Debug)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub(super) fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    /// Sets the value. What the number counts is counted by its owner, once, so that no request pays for it twice.
    pub fn set(&self, value: usize) {
        // Relaxed: the value orders nothing but itself.
        self.0
            .store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
