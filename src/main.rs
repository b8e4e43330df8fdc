//! Wires the parts together.

use std::env;
use std::process::ExitCode;

use httpserver::diagnostics::report;
use httpserver::flags::Flags;
use httpserver::guard;
use httpserver::server::drain::Signals;
use httpserver::server::limits::Connections;
use httpserver::server::{Server, listener};

fn main() -> ExitCode {
    let flags = match Flags::read(env::args_os()) {
        Ok(flags) => flags,
        Err(instead) => return print(&instead),
    };
    match serve(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            report(line);
            ExitCode::FAILURE
        }
    }
}

/// Prints clap's text, which is what was asked for or what is wrong, and returns its exit status.
fn print(text: &clap::Error) -> ExitCode {
    match text.print() {
        Err(error) if !text.use_stderr() => {
            report(format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(text.exit_code()).unwrap_or(u8::MAX)),
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
    let connections = Connections::read();
    if let Err(error) = connections.set_descriptors() {
        report(format_args!("warning: cannot set the limit on descriptors: {error}"));
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
    guard::start(&server, closes, flags.idle_timeout, connections)
        .map_err(|error| format!("cannot start the guard: {error}"))?;
    if let Some(warning) = connections.warning(flags.max_in_flight) {
        report(format_args!("warning: {warning}"));
    }
    report(format_args!(
        "version {} listening on {}, {}",
        env!("CARGO_PKG_VERSION"),
        server.address(),
        flags.delays()
    ));
    signals.wait();
    server.drain(flags.drain_timeout);
    Ok(())
}
