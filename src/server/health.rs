//! What the probes report: whether the process works, and whether it takes new connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The state that `/healthz` and `/readyz` report.
#[derive(Default)]
pub struct Health {
    draining: AtomicBool,
    /// Why the process has to be restarted, in one line.
    fault: Mutex<Option<String>>,
}

impl Health {
    /// Returns whether the server is draining.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn start_to_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns why the process has to be restarted, if it has to be.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_fault(&self, fault: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}
