//! The atomics of the histogram: those of std, or loom's if it checks the histogram (`RUSTFLAGS="--cfg loom"`).

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread::yield_now,
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread::yield_now,
};

/// A word that one thread writes and others read. It is 0 at first.
#[derive(Debug, Default)]
pub(crate) struct Word {
    shared: AtomicU64,
    #[cfg(loom)]
    own: std::sync::atomic::AtomicU64,
}

impl Word {
    /// Returns what the writer stored last. For the writer only.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn own(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// The same, hidden from loom: it remembers only the last access of each word, and a load just before the writer's
    /// store would hide from it that the store races with a reader. It would check next to no interleaving.
    #[cfg(loom)]
    pub(crate) fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    /// Returns the value. For readers.
    #[inline(always)]
    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        self.shared.load(ordering)
    }

    /// Replaces the value. For the writer only.
    #[inline(always)]
    pub(crate) fn store(&self, value: u64, ordering: Ordering) {
        #[cfg(loom)]
        self.own.store(value, Ordering::Relaxed);
        self.shared.store(value, ordering);
    }
}
