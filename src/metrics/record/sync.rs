//! The atomics of the histogram: those of std, or loom's when it tests the histogram (`RUSTFLAGS="--cfg loom"`).

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

/// A word that one thread writes and others read. Initially 0.
#[derive(Debug, Default)]
pub(crate) struct Word {
    shared: AtomicU64,
    #[cfg(loom)]
    own: std::sync::atomic::AtomicU64,
}

impl Word {
    /// Returns the value that the writer stored last. For the writer only.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn own(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// The same, hidden from loom. Loom remembers only the last access of each word, so a load just before the writer's
    /// store would conceal that the store races with a reader, and loom would check almost no interleaving.
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
