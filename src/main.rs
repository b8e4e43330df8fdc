//! Wires the parts together.
#![deny(unsafe_code)]
// The macros panic if the write fails; `diagnostics` ignores it.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use httpserver::diagnostics::report;
use httpserver::flags::{Flags, NoFlags};
use httpserver::server::drain::Signals;
use httpserver::server::{Server, listener};
use httpserver::{allocator, guard};

fn main() -> ExitCode {
    let flags = match Flags::read(env::args_os()) {
        Ok(flags) => flags,
        Err(NoFlags::Asked(text)) => return print(&text),
        Err(NoFlags::Wrong(line)) => {
            report(line);
            return ExitCode::from(2);
        }
    };
    allocator::without_thread_caches();
    match serve(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            report(line);
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal ends it.
///
/// # Errors
///
/// Returns one line that says what failed.
fn serve(flags: &Flags) -> Result<(), String> {
    if let Some(warning) = flags.warning() {
        report(format_args!("warning: {warning}"));
    }
    if let Err(error) = listener::raise_descriptor_limit() {
        report(format_args!("warning: cannot raise the limit on descriptors: {error}"));
    }
    let signals = Signals::register().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let listener =
        listener::open(flags.listen).map_err(|error| format!("cannot listen on {}: {error}", flags.listen))?;
    if let Err(error) = listener::drop_http2_prefaces(&listener) {
        report(format_args!(
            "warning: cannot drop HTTP/2 prefaces, so each holds a thread for good: {error}"
        ));
    }
    let (server, closes) = Server::start(flags, listener).map_err(|error| format!("cannot start: {error}"))?;
    guard::start(&server, closes, flags.idle_timeout).map_err(|error| format!("cannot start: {error}"))?;
    report(format_args!(
        "version {} listening on {}, {}",
        env!("CARGO_PKG_VERSION"),
        server.address(),
        flags.delays()
    ));
    signals
        .wait()
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    server.drain(flags.drain_timeout);
    Ok(())
}
