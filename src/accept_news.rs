//! What the other parts have to tell the accept loop: that requests arrive, that accepting has ended or may have, that it shall
//! end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was told and is not heeded yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// The accept thread may have ended.
    pub(crate) in_doubt: bool,
    /// It has ended.
    pub(crate) ended: bool,
    /// No more connections shall be accepted, ever.
    pub(crate) drain: bool,
}

#[derive(Default)]
struct State {
    told: Told,
    /// New connections are refused.
    drained: bool,
}

/// The news and who waits for them.
#[derive(Default)]
pub struct AcceptNews {
    arrived: AtomicBool,
    /// The number of the newest server.
    newest: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

impl AcceptNews {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.lock().told);
        self.changed.notify_all();
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

    /// Gives a new server its number, by which its end is told.
    pub(crate) fn number_server(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tells that the accept thread of this server has ended, and everything that came before is dispatched.
    pub fn accept_ended(&self, server: u64) {
        // An older one has been replaced already.
        if server == self.newest.load(Ordering::Relaxed) {
            self.tell(|told| told.ended = true);
        }
    }

    /// Tells that a thread of tiny_http's has panicked. `accepting` is whether it is known to have been the accept thread.
    pub fn thread_panicked(&self, accepting: bool) {
        self.tell(|told| {
            told.in_doubt = true;
            told.ended |= accepting;
        });
    }

    /// Lets everything in that was accepted, refuses new connections from then on, and returns when that is so, or after
    /// `timeout`.
    pub fn close(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.told.drain = true;
        self.changed.notify_all();
        while !state.drained {
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            state = self
                .changed
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for `soon` where a request has arrived or the accept thread may have ended, for `else_after` where not, and not at
    /// all where it has for certain, or for the drain. Gives what was told.
    pub(crate) fn wait(&self, soon: Duration, else_after: Duration) -> Told {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            let told = &mut state.told;
            let waited = start.elapsed();
            let hurry = told.in_doubt || self.arrived.load(Ordering::Relaxed);
            let due = if hurry { soon } else { else_after };
            if told.drain || told.ended || waited >= due {
                self.arrived.store(false, Ordering::Relaxed);
                return std::mem::take(told);
            }
            state = self
                .changed
                .wait_timeout(state, due - waited)
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
