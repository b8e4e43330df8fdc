//! A small HTTP server that answers after a random delay and exposes its latency to Prometheus.
#![forbid(unsafe_code)]

pub mod metrics;
