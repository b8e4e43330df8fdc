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
