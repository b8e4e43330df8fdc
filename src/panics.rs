//! What a panic does: one in a thread that the server lives by ends the process with a message; one in a thread of
//! tiny_http's ends that thread alone, and is told of sparingly, since any client can cause one by a reset.

use std::panic::{Location, PanicHookInfo};
use std::process;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// The exit status after a panic of our own.
const EXIT_STATUS: i32 = 70;

/// How often panics of connection threads are told of.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The name of threads whose panic is expected and means nothing.
pub const EXPECTED: &str = "letting-go";

/// The source file of tiny_http's that only its accept thread panics in: where it can not clone a socket that it has accepted.
const ACCEPTING: &str = "refined_tcp_stream.rs";

#[derive(Default)]
struct Reported {
    at: Option<Instant>,
    unreported: u64,
}

/// Installs the hook that tells the two kinds of panic apart.
///
/// `on_foreign` is called on the thread that panicked when it is not ours, with whether it is known to be the one that accepts
/// connections; it may be that one in any case.
pub fn install(on_foreign: impl Fn(bool) + Send + Sync + 'static) {
    let reported = Mutex::new(Reported::default());
    std::panic::set_hook(Box::new(move |info| {
        let thread = thread::current();
        if thread.name() == Some(EXPECTED) {
            return;
        }
        // Threads of ours are named; tiny_http's are not.
        let ours = thread.name().is_some();
        if ours {
            // The default hook's wording, on one line; the process must not outlive a part of itself.
            eprintln!("httpserver: a part of the server panicked, which ends it: {info}");
            process::exit(EXIT_STATUS);
        }
        report(&reported, info);
        let file = info.location().map_or("", Location::file);
        on_foreign(file.ends_with(ACCEPTING));
    }));
}

fn report(reported: &Mutex<Reported>, info: &PanicHookInfo<'_>) {
    // A lock that is taken means that another thread is at it: its line does for both.
    let Ok(mut reported) = reported.try_lock() else {
        return;
    };
    reported.unreported += 1;
    if reported.at.is_some_and(|at| at.elapsed() < REPORT_INTERVAL) {
        return;
    }
    reported.at = Some(Instant::now());
    eprintln!(
        "httpserver: {} connection threads ended by a panic, the last one at {}",
        reported.unreported,
        info.location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
    );
    reported.unreported = 0;
}

/// Starts a thread that the server lives by. Of its name the kernel shows 15 bytes.
///
/// # Errors
///
/// As the system's, where no thread can be had.
pub fn spawn_vital(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}
