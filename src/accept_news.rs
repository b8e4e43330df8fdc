//! What the other parts have to tell the accept loop: that requests arrive, that accepting may have ended, that it shall end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was told and is not heeded yet.
#[derive(Default)]
struct Told {
    accept_failed: bool,
    drain: bool,
    drained: bool,
}

/// The news and who waits for them.
#[derive(Default)]
pub struct AcceptNews {
    arrived: AtomicBool,
    told: Mutex<Told>,
    changed: Condvar,
}

impl AcceptNews {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that a request arrived, so that others may be parked behind it. Costs next to nothing: called for each.
    pub fn request_arrived(&self) {
        if !self.arrived.load(Ordering::Relaxed) {
            self.arrived.store(true, Ordering::Relaxed);
            // Taken so that the keeper can not be between its look at `arrived` and its wait.
            drop(self.lock());
            self.changed.notify_all();
        }
    }

    /// Tells that the accept thread has ended, or may have.
    pub fn accept_failed(&self) {
        self.lock().accept_failed = true;
        self.changed.notify_all();
    }

    /// Lets everything in that was accepted, refuses new connections from then on, and returns when that is so, or after
    /// `timeout`.
    pub fn close(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut told = self.lock();
        told.drain = true;
        self.changed.notify_all();
        while !told.drained {
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            told = self
                .changed
                .wait_timeout(told, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for `soon` where a request has arrived or the accept thread may have failed, for `else_after` where not, and no
    /// longer than until the drain. Tells whether the accept thread may have failed, and whether to drain.
    pub(crate) fn wait(&self, soon: Duration, else_after: Duration) -> (bool, bool) {
        let start = Instant::now();
        let mut told = self.lock();
        loop {
            let waited = start.elapsed();
            let hurry = told.accept_failed || self.arrived.load(Ordering::Relaxed);
            let due = if hurry { soon } else { else_after };
            if told.drain || waited >= due {
                self.arrived.store(false, Ordering::Relaxed);
                return (std::mem::take(&mut told.accept_failed), told.drain);
            }
            told = self
                .changed
                .wait_timeout(told, due - waited)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Tells that new connections are refused from now on.
    pub(crate) fn closed(&self) {
        self.lock().drained = true;
        self.changed.notify_all();
    }
}
