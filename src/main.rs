//! Wires the parts together.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::{env, io};

use httpserver::accept_loop::AcceptLoop;
use httpserver::accept_news::AcceptNews;
use httpserver::access_log::AccessLog;
use httpserver::dispatcher::Dispatch;
use httpserver::drain::{Drain, Ending};
use httpserver::flags::{Flags, Refusal};
use httpserver::metrics::{Config, DELAY_QUANTILES, Metrics};
use httpserver::reaper::Reaper;
use httpserver::responders::Responders;
use httpserver::schedule::Schedule;
use httpserver::shortage::Shortage;
use httpserver::sockets::Sockets;
use httpserver::watch::{self, Progress};
use httpserver::{allocator, listener, panics};

fn main() -> ExitCode {
    let flags = match Flags::read(env::args_os()) {
        Ok(flags) => flags,
        Err(Refusal::Asked(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Refusal::Wrong(line)) => {
            eprintln!("httpserver: {line}");
            return ExitCode::from(2);
        }
    };
    allocator::without_thread_caches();
    match serve(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("httpserver: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal ends it. An error is one line.
fn serve(flags: &Flags) -> Result<(), String> {
    if let Some(warning) = flags.warning() {
        eprintln!("httpserver: warning: {warning}");
    }
    if let Err(error) = listener::raise_descriptor_limit() {
        eprintln!("httpserver: warning: cannot raise the limit on descriptors: {error}");
    }
    let listener =
        listener::open(flags.listen).map_err(|error| format!("cannot listen on {}: {error}", flags.listen))?;
    let (drain, ending) = start(flags, listener).map_err(|error| format!("cannot start: {error}"))?;
    ending
        .wait()
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    drain.run();
    Ok(())
}

fn start(flags: &Flags, listener: std::net::TcpListener) -> io::Result<(Drain, Ending)> {
    let ending = Ending::register()?;
    let news = Arc::new(AcceptNews::default());
    panics::install({
        let news = Arc::clone(&news);
        move |accepting| news.thread_panicked(accepting)
    });
    let draining = Arc::new(AtomicBool::new(false));
    let delay = flags.delay_distribution().map_err(io::Error::other)?;
    let metrics = Arc::new(Metrics::new(Config {
        bounds: flags.buckets.clone(),
        max_in_flight: flags.max_in_flight,
        delay_quantiles: DELAY_QUANTILES.map(|q| delay.quantile(q)),
    }));
    let schedule = Arc::new(Schedule::new(flags.max_in_flight));
    let log = flags.access_log.then(AccessLog::start).transpose()?;
    let progress = Arc::new(Progress::default());
    let sockets = Arc::new(Sockets::open()?);
    let shortage = Arc::new(Shortage::default());
    let reaper = Reaper::start(
        Arc::clone(&schedule),
        Arc::clone(&sockets),
        Arc::clone(&shortage),
        listener.local_addr()?.port(),
    )?;
    let responders = Responders::start(
        Arc::clone(&schedule),
        metrics,
        reaper,
        log.clone(),
        Arc::clone(&draining),
        shortage,
    )?;
    watch::start(
        Arc::clone(&progress),
        Arc::clone(&schedule),
        Arc::clone(&responders),
        sockets,
    )?;
    let dispatch = Arc::new(Dispatch {
        schedule: Arc::clone(&schedule),
        responders,
        progress,
        draining: Arc::clone(&draining),
        delay,
        error_rate: flags.error_rate,
    });
    let address = AcceptLoop::start(listener, dispatch, Arc::clone(&news))?;
    eprintln!(
        "httpserver {} listening on {address}, answering after {} to {}",
        env!("CARGO_PKG_VERSION"),
        humantime::format_duration(flags.delay_min),
        humantime::format_duration(flags.delay_max),
    );
    let drain = Drain {
        draining,
        news,
        schedule,
        log,
        timeout: flags.drain_timeout,
    };
    Ok((drain, ending))
}
