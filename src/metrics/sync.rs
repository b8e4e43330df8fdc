//! The atomics of this module: those of std, or loom's where the model is checked (`RUSTFLAGS="--cfg loom"`).

#[cfg(loom)]
pub(super) use loom::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence},
    thread::yield_now,
};
#[cfg(not(loom))]
pub(super) use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence},
    thread::yield_now,
};

/// A word that one thread writes and others read.
#[derive(Debug)]
pub(super) struct Word {
    shared: AtomicU64,
    #[cfg(loom)]
    own: std::sync::atomic::AtomicU64,
}

impl Word {
    pub(super) fn zero() -> Word {
        Word {
            shared: AtomicU64::new(0),
            #[cfg(loom)]
            own: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// What the writer stored last. For the writer only.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(super) fn own(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// The same, unseen by loom: of each word it remembers the last access alone, and a load before the writer's
    /// store would hide from it that the store races with a reader. So it would check next to no interleaving.
    #[cfg(loom)]
    pub(super) fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    /// For readers.
    #[inline(always)]
    pub(super) fn load(&self, ordering: Ordering) -> u64 {
        self.shared.load(ordering)
    }

    /// For the writer only.
    #[inline(always)]
    pub(super) fn store(&self, value: u64, ordering: Ordering) {
        #[cfg(loom)]
        self.own.store(value, Ordering::Relaxed);
        self.shared.store(value, ordering);
    }
}
