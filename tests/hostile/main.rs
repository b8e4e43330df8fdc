//! Hostile clients: each case on a fresh server at the default delay of 0 to 2 s.
//!
//! While a case lasts, a fresh client requests `/metrics` and `/healthz` in turn. What it must see, and what must hold
//! afterwards, is in [`fault`]. Each case prints its row of the table in docs/robustness.md:
//!
//! ```text
//! cargo test --release --test hostile -- --nocapture
//! ```
//!
//! They are for the release build only, which is the server that people run. Cases run one after the other, whatever
//! the number of test threads. The soak test is run by hand:
//!
//! ```text
//! cargo test --release --test hostile -- --ignored --nocapture
//! ```

#![cfg(not(debug_assertions))]

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod fault;

mod bodies;
mod bursts;
mod descriptors;
mod ending;
mod garbage;
mod heads;
mod idle;
mod overload;
mod pipelining;
mod readers;
mod resets;
mod silence;
mod soak;
