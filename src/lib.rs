//! A small HTTP server that answers after a random delay and exposes its latency to Prometheus.
//!
//! ```text
//!                                  server
//! tiny_http --receive--> workers <--> schedule       workers --record--> metrics
//!     ^                     |
//!     | rings, reopens      | connections to close
//!     +------- guard <------+
//! ```
//!
//! [`server`] is complete for well-behaved clients. A request that waits costs it an entry in a queue, not a thread. [`guard`]
//! protects it from hostile clients and from tiny_http. `guard` uses `server`, and `server` never names `guard`.

#[cfg(not(target_os = "linux"))]
compile_error!("httpserver runs on Linux only: it reads /proc and sets socket options of Linux");

pub mod diagnostics;
pub mod flags;
pub mod guard;
pub mod metrics;
pub mod server;
