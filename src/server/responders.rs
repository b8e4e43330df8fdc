//! The responders: threads that take what is due off the schedule, answer it and record how long it took.
//!
//! A write blocks while its client's socket is full, for at most the listener's write timeout, and a whole response for
//! at most [`STALL_MAX`]. A client that reads too slowly for that is never written to again. So the pool can be fixed: clients
//! that do not read hold each responder for a moment only.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::access_log::{AccessLog, Entry};
use super::dispatcher::{Channel, PendingRequest};
use super::endpoint::{Answer, live_page};
use super::framing::UnreadBody;
use super::response::{ALLOW, Persistence, TEXT, fields_of, write_head};
use super::schedule::{Schedule, Scheduled, Ticket};
use super::{Close, PendingRequests, panics};
use crate::metrics::{Method, Metrics, Path, Recorder, Status};

/// Responders: more of them make clients that do not read hold others up less, fewer cost less memory.
const RESPONDERS: usize = 64;

/// How long a response that did not leave in one piece may take from its first piece on.
const STALL_MAX: Duration = Duration::from_millis(100);

/// What every responder needs.
pub(super) struct Responders {
    pub(super) schedule: Arc<Schedule<PendingRequests>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) closes: Sender<Close>,
    pub(super) log: Option<Arc<AccessLog>>,
    pub(super) draining: Arc<AtomicBool>,
    /// Whether connections may stay open after a response.
    pub(super) keep_alive: Arc<AtomicBool>,
    /// The mean number of requests after which a connection is closed; 0 is never.
    pub(super) requests_per_connection: u32,
}

impl Responders {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub(super) fn start(self) -> io::Result<()> {
        let shared = Arc::new(self);
        for _ in 0..RESPONDERS {
            let mut responder = Responder {
                recorder: shared.metrics.recorder(),
                shared: Arc::clone(&shared),
                random: fastrand::Rng::new(),
                head: Vec::new(),
                body: Vec::new(),
            };
            panics::spawn_vital("responder", move || responder.run())?;
        }
        Ok(())
    }
}

struct Responder {
    shared: Arc<Responders>,
    recorder: Recorder,
    random: fastrand::Rng,
    /// The response's head, and then all of it; kept for the next one's.
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What becomes of a connection after a response.
enum Outcome {
    KeepOpen,
    Close {
        unread_body: Option<UnreadBody>,
        /// Whether its client should get to read the response.
        lingers: bool,
    },
}

impl Responder {
    fn run(&mut self) {
        let mut answered = None;
        loop {
            let (scheduled, ticket) = self.shared.schedule.next(answered.take());
            let peer = scheduled.peer;
            match self.answer(scheduled, ticket) {
                Outcome::KeepOpen => answered = Some(ticket),
                Outcome::Close { unread_body, lingers } => {
                    // An unread body is the last thing that tiny_http has parsed of its connection, so there is one at most.
                    let behind = self.shared.schedule.close_after(ticket).into_iter();
                    let unread_body =
                        unread_body.or_else(|| behind.filter_map(|request| request.into_unread_body()).last());
                    // Fails only if nobody closes connections.
                    let _ = self.shared.closes.send(Close {
                        peer,
                        unread_body,
                        lingers,
                    });
                }
            }
        }
    }

    fn answer(&mut self, scheduled: Scheduled<PendingRequests>, ticket: Ticket) -> Outcome {
        let Scheduled {
            peer, last, request, ..
        } = scheduled;
        let PendingRequest {
            channel,
            answer,
            labels,
            arrived,
            persistence,
            trace,
        } = *request;
        let head_only = labels.method == Method::Head;
        let probe = matches!(labels.path, Path::Healthz | Path::Readyz | Path::Metrics);
        let outcome = match channel {
            Channel::Unread(mut body) => {
                if let Answer::Reject(_, line) = answer {
                    body.respond(labels.status.code(), line, head_only);
                }
                Outcome::Close {
                    unread_body: Some(body),
                    lingers: true,
                }
            }
            Channel::Writer(mut writer) => {
                let drawn = !probe
                    && persistence != Persistence::Close
                    && self.draws_close()
                    && self.shared.schedule.close_if_alone(ticket);
                let closes = last || drawn;
                let persistence = if closes
                    || self.shared.draining.load(Ordering::Relaxed)
                    || !self.shared.keep_alive.load(Ordering::Relaxed)
                {
                    Persistence::Close
                } else {
                    persistence
                };
                self.compose(&answer, labels.status, arrived, persistence, head_only);
                match deliver(&mut *writer, &self.head) {
                    // The next connection from the same port may be here already.
                    Err(error) if is_gone(&error) && !closes => Outcome::KeepOpen,
                    Ok(()) if !closes => Outcome::KeepOpen,
                    delivered => Outcome::Close {
                        unread_body: None,
                        lingers: delivered.is_ok(),
                    },
                }
            }
        };
        let duration = arrived.elapsed();
        self.recorder
            .record(labels, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), trace);
        if let Some(log) = self.shared.log.as_ref().filter(|_| !probe) {
            log.append(&Entry {
                labels: &labels,
                duration,
                peer,
                trace: trace.as_ref(),
            });
        }
        outcome
    }

    fn draws_close(&mut self) -> bool {
        let mean = self.shared.requests_per_connection;
        mean > 0 && self.random.u32(..mean) == 0
    }

    /// Composes the response in one piece, so that it leaves in one system call.
    fn compose(
        &mut self,
        answer: &Answer,
        status: Status,
        arrived: Instant,
        persistence: Persistence,
        head_only: bool,
    ) {
        let Responder { shared, head, body, .. } = self;
        head.clear();
        body.clear();
        let timing;
        let fields: &[(&str, &str)] = match answer {
            Answer::Delayed(_) => {
                let delay = arrived.elapsed();
                // Writing to a vector cannot fail.
                let _ = writeln!(body, "answered after {:.6} s", delay.as_secs_f64());
                timing = format!("delay;dur={:.3}", delay.as_secs_f64() * 1e3);
                &[TEXT, ("Server-Timing", &timing)]
            }
            Answer::Line(_, line) => {
                body.extend_from_slice(line.as_bytes());
                &[TEXT]
            }
            Answer::Reject(_, line) => {
                body.extend_from_slice(line.as_bytes());
                &[TEXT]
            }
            Answer::Options => &[ALLOW],
            Answer::Metrics(format) => {
                shared.metrics.render(*format, shared.schedule.in_flight(), body);
                &[("Content-Type", format.content_type()), ("Vary", "Accept")]
            }
            Answer::LivePage => {
                body.extend_from_slice(live_page::PAGE);
                &live_page::HEADERS
            }
        };
        let content_length = (!matches!(answer, Answer::Options)).then_some(body.len());
        write_head(
            head,
            status.code(),
            content_length,
            persistence,
            fields.iter().chain(fields_of(status)),
        );
        if !head_only {
            head.extend_from_slice(body);
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

/// Writes a response to the end, unless the client reads so slowly that it stalls for [`STALL_MAX`].
///
/// The socket's timeout alone is not enough: a write that got rid of a single byte within it counts as a success.
fn deliver(writer: &mut dyn Write, response: &[u8]) -> io::Result<()> {
    let mut rest = response;
    let mut stalled_at = None;
    while !rest.is_empty() {
        match writer.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !rest.is_empty() && stalled_at.get_or_insert_with(Instant::now).elapsed() >= STALL_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    writer.flush()
}
