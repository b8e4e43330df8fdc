//! What a panic does: one in a thread of ours ends the process; one in a thread of tiny_http's ends that thread alone, and is
//! reported sparingly, since any client can cause one by a reset.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::diagnostics::report;

/// The exit status after a panic of our own.
const EXIT_STATUS: i32 = 70;

/// How often panics of connection threads are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

thread_local! {
    /// Whether a panic of this thread is expected.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Unreported {
    count: u64,
    reported_at: Option<Instant>,
}

/// Installs the panic hook.
pub fn install() {
    let unreported = Mutex::new(Unreported::default());
    std::panic::set_hook(Box::new(move |info| {
        if EXPECTED.get() {
            return;
        }
        // Our threads are named; tiny_http's are not.
        if thread::current().name().is_some() {
            report(format_args!("a part of the server panicked, which ends it: {info}"));
            process::exit(EXIT_STATUS);
        }
        report_sparingly(&unreported, info);
    }));
}

fn report_sparingly(unreported: &Mutex<Unreported>, info: &PanicHookInfo<'_>) {
    // If another thread holds the lock, it is reporting already.
    let Ok(mut unreported) = unreported.try_lock() else {
        return;
    };
    unreported.count += 1;
    if unreported.reported_at.is_some_and(|at| at.elapsed() < REPORT_INTERVAL) {
        return;
    }
    unreported.reported_at = Some(Instant::now());
    let count = std::mem::take(&mut unreported.count);
    let place = info
        .location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    report(format_args!(
        "{count} connection threads ended by a panic, the last one at {place}"
    ));
}

/// Runs `body`. Returns nothing if it panics.
pub(super) fn expected<T>(body: impl FnOnce() -> T) -> Option<T> {
    EXPECTED.set(true);
    // `body` owns what it drops, so a panic leaves nothing broken behind.
    let returned = catch_unwind(AssertUnwindSafe(body)).ok();
    EXPECTED.set(false);
    returned
}

/// Starts a thread that the server cannot live without. The kernel shows 15 bytes of its name.
///
/// # Errors
///
/// Returns the error of the system call.
pub fn spawn_vital(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}
