//! The end: nothing new is let in, and everything that was gets its answer.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::accept_news::AcceptNews;
use crate::access_log::AccessLog;
use crate::panics;
use crate::pending::Waiting;
use crate::schedule::Schedule;

/// How long no request may have come before the last one counts as answered: one may be on its way from tiny_http.
const SETTLE: Duration = Duration::from_millis(50);

/// What is still waiting at the drain timeout is answered within this.
const HURRY_MAX: Duration = Duration::from_millis(750);

/// How long the access log's last lines may take.
const FLUSH_MAX: Duration = Duration::from_millis(100);

/// Waits for SIGTERM or SIGINT. A second one, whichever, ends the process at once with 128 and its number.
///
/// Register early: a process that is PID 1 ignores a signal that it has no handler for.
pub struct Ending {
    signals: Signals,
}

/// What has to be drained.
pub struct Drain {
    /// Set at the start of the drain.
    pub draining: Arc<AtomicBool>,
    /// The way to close the listening socket.
    pub news: Arc<AcceptNews>,
    /// Where requests wait.
    pub schedule: Arc<Schedule<Waiting>>,
    /// The access log, if there is one.
    pub log: Option<Arc<AccessLog>>,
    /// `--drain-timeout`
    pub timeout: Duration,
}

impl Ending {
    /// Registers for the signals.
    ///
    /// # Errors
    ///
    /// As the system's.
    pub fn register() -> std::io::Result<Self> {
        Ok(Ending {
            signals: Signals::new([SIGTERM, SIGINT])?,
        })
    }

    /// Waits for the first signal.
    ///
    /// # Errors
    ///
    /// As the system's, where no thread can be had to wait for the second.
    pub fn wait(mut self) -> std::io::Result<()> {
        self.signals.forever().next();
        panics::spawn_vital("second-signal", move || {
            if let Some(signal) = self.signals.forever().next() {
                process::exit(128 + signal);
            }
        })?;
        Ok(())
    }
}

impl Drain {
    /// Drains: no new connections, an answer to every request, early where the drain timeout comes first.
    pub fn run(&self) {
        let deadline = Instant::now() + self.timeout;
        self.draining.store(true, Ordering::Relaxed);
        self.news.close(self.timeout);
        let drained = self.wait_quiet(deadline) || {
            self.schedule.hurry();
            self.wait_quiet(Instant::now() + HURRY_MAX)
        };
        if !drained {
            eprintln!(
                "httpserver: ending with {} requests unanswered: their clients do not read",
                self.schedule.in_flight()
            );
        }
        if let Some(log) = &self.log {
            log.flush(FLUSH_MAX);
        }
    }

    fn wait_quiet(&self, deadline: Instant) -> bool {
        while self.schedule.wait_quiet(deadline) {
            thread::sleep(SETTLE);
            if self.schedule.in_flight() == 0 {
                return true;
            }
        }
        false
    }
}
