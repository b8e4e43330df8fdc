//! What the integration tests share: the real binary, an HTTP client that sees every byte, and a real Prometheus.
//!
//! Each test file uses a part of it.
#![allow(dead_code)]

pub mod client;
pub mod prometheus;
pub mod server;

use std::time::{Duration, Instant};

/// Asks until the answer is `Some`, for at most `within`.
pub fn wait_for<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
