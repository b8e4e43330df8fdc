//! What the process can be short of, and from when on it is.
//!
//! Descriptors and memory are counted. That there are too few threads shows in connections that tiny_http has parked for good: the
//! doorbell frees none that an accept thread took which has ended since.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::Process;
use crate::sockets;

/// Descriptors are short when fewer than one in this many is free.
const DESCRIPTORS_FREE: u64 = 8;

/// Memory that is resident in a process that is not short of it, bytes: this, ...
const RESIDENT_BASE: u64 = 96 << 20;

/// ... and so much for each open descriptor. A connection has two, and takes some 22 KiB.
const RESIDENT_PER_DESCRIPTOR: u64 = 32 << 10;

/// Looks for shortages, and tells of them.
pub struct Shortage {
    process: Process,
    connections_end: AtomicBool,
}

impl Default for Shortage {
    fn default() -> Self {
        Shortage {
            process: Process::new(),
            connections_end: AtomicBool::new(false),
        }
    }
}

impl Shortage {
    /// Whether descriptors are short.
    pub(crate) fn of_descriptors(&self) -> bool {
        // An older kernel does not tell, which is no shortage.
        let limit = sockets::descriptor_limit();
        sockets::open_descriptors().is_some_and(|open| open > limit - limit / DESCRIPTORS_FREE)
    }

    /// Whether more memory is in use than the connections account for.
    pub(crate) fn of_memory(&self) -> bool {
        let open = sockets::open_descriptors().unwrap_or(0);
        self.process
            .resident_memory_bytes()
            .is_some_and(|resident| resident > RESIDENT_BASE + open * RESIDENT_PER_DESCRIPTOR)
    }

    /// Whether each connection ends with its next answer, which must say so.
    pub fn connections_end(&self) -> bool {
        self.connections_end.load(Ordering::Relaxed)
    }

    /// Tells that from now on each does, or none any more.
    pub(crate) fn let_connections_end(&self, end: bool) {
        self.connections_end.store(end, Ordering::Relaxed);
    }
}
