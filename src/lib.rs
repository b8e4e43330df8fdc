//! A small HTTP server that answers after a random delay and exposes its latency to Prometheus.
//!
//! ```text
//! tiny_http's threads --recv--> dispatcher --> schedule --> responders --> metrics
//!        ^                                  (deadlines, per       |
//!        | rings, rebuilds                connection in order)    | cut off
//!   accept loop's keeper, doorbell                             reaper --shutdown--> sockets
//! ```
//!
//! A request costs a heap entry while it waits, not a thread. Each file owns one of these parts and its state.
#![forbid(unsafe_code)]

pub mod accept_loop;
pub mod accept_news;
pub mod access_log;
pub mod allocator;
mod connections;
pub mod delay;
pub mod dispatcher;
pub mod doorbell;
pub mod drain;
pub mod endpoint;
pub mod flags;
pub mod framing;
pub mod listener;
pub mod metrics;
pub mod panics;
pub mod pending;
pub mod query;
pub mod reaper;
pub mod responders;
pub mod response;
pub mod schedule;
pub mod shortage;
pub mod sockets;
mod sweep;
mod tcp_table;
pub mod ui;
pub mod watch;
