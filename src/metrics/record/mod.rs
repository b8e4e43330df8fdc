//! Recording: one histogram for each series and recorder, written by one thread and read by any.

mod bounds;
mod buckets;
mod exemplar;
mod histogram;
mod labels;
#[cfg(all(test, not(loom)))]
mod load_tests;
#[cfg(all(test, loom))]
mod loom_tests;
mod recorder;
mod sync;
mod traceparent;

pub use bounds::{BOUND_MAX_NS, BOUND_MIN_NS, BOUNDS_MAX, Bounds};
pub use labels::{CloseReason, Labels, Method, Path, Status};
pub use recorder::Recorder;
pub use traceparent::TraceContext;

pub(super) use buckets::{NATIVE_INDEX_OF_0, NATIVE_SCHEMA, ZERO_THRESHOLD_SECONDS};
pub(super) use exemplar::{Exemplar, unix_time_ms};
pub(super) use histogram::Snapshot;
pub(super) use recorder::Recorded;
