//! From SIGTERM to the exit: nothing new is admitted, and every admitted request is answered.

use std::io;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as SignalIterator;

use super::schedule::Schedule;
use super::{Shared, panics};
use crate::diagnostics::report;

/// How long connections are still accepted: the kernel may have completed some before the signal.
pub(super) const ACCEPT_FOR: Duration = Duration::from_millis(100);

/// How long no request may arrive for all to count as answered: one may be on its way from tiny_http.
const SETTLE: Duration = Duration::from_millis(50);

/// How long it may take to answer the requests that still wait at the drain timeout.
const EXPIRED_MAX: Duration = Duration::from_millis(750);

/// Waits for SIGTERM or SIGINT. A second signal, either one, exits at once with status 128 plus its number.
///
/// Register early: a process that is PID 1 ignores a signal that it has no handler for.
pub struct Signals {
    signals: SignalIterator,
}

impl Signals {
    /// Registers for the signals.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn register() -> io::Result<Self> {
        Ok(Signals {
            signals: SignalIterator::new([SIGTERM, SIGINT])?,
        })
    }

    /// Blocks until the first signal. If no thread can be started to wait for the second, the drain goes on without it.
    pub fn wait(mut self) {
        self.signals.forever().next();
        let waits = panics::spawn_vital("second-signal", move || {
            if let Some(signal) = self.signals.forever().next() {
                process::exit(128 + signal);
            }
        });
        if let Err(error) = waits {
            report(format_args!(
                "a second signal will not end the process at once: {error}"
            ));
        }
    }
}

/// Blocks until every request is answered; those that still wait at `deadline` are answered early. Returns whether all are.
pub(super) fn answer_all(shared: &Shared, deadline: Instant) -> bool {
    is_settled(&shared.schedule, deadline) || {
        shared.schedule.expire();
        shared.acceptor.unblock();
        is_settled(&shared.schedule, Instant::now() + EXPIRED_MAX)
    }
}

fn is_settled<T>(schedule: &Schedule<T>, deadline: Instant) -> bool {
    while schedule.wait_until_all_answered(deadline) {
        thread::sleep(SETTLE);
        if schedule.in_flight() == 0 {
            return true;
        }
    }
    false
}
