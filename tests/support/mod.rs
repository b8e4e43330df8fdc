//! Shared by the integration tests: the real binary, an HTTP client that exposes every byte, and a real Prometheus.
//!
//! Each test file uses only a part of it.
#![allow(dead_code)]

pub mod client;
pub mod prometheus;
pub mod server;

use std::time::{Duration, Instant};

/// Calls `poll` until it returns `Some`, and returns the value in it. Panics if that takes longer than `within`.
pub fn wait_for<T>(what: &str, within: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
