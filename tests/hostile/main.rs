//! Hostile clients: each case on a fresh server at the default delay of 0 to 2 s.
//!
//! During a case, fresh clients request `/metrics` and `/healthz` in turn. What they must see, and what must hold
//! afterwards, is in [`fault`]. Each case prints its row of the table of faults:
//!
//! ```text
//! cargo test --release --test hostile -- --nocapture
//! ```
//!
//! They test the release build only, which is the one that people run. One case at a time has clients, whatever the number
//! of test threads, while the servers of others recover. The soak test is run by hand:
//!
//! ```text
//! cargo test --release --test hostile -- --ignored --nocapture
//! ```

mod crowd;
mod fault;

mod bodies;
mod bursts;
mod cpu;
mod descriptors;
mod ending;
mod figures;
mod garbage;
mod heads;
mod overload;
mod pipelining;
mod readers;
mod resets;
mod silence;
mod soak;
mod stuck;
mod threads;
