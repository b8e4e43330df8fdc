//! What the probes report: whether the process works, and whether it takes new connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::diagnostics::report;

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

    /// Sets why the process has to be restarted, in one line. The first such line is reported.
    pub(super) fn set_fault(&self, fault: Option<String>) {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(line)) = (&*known, &fault) {
            report(format_args!("warning: {}", line.trim_end()));
        }
        *known = fault;
    }
}
