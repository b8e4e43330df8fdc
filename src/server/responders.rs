//! The responders: threads that take due requests from the schedule, answer them, and record how long they took.
//!
//! A write blocks while the client's socket is full, for at most the listener's write timeout. Then another responder is woken, and
//! the whole response may take [`STALL_MAX`]. A client that reads more slowly is never written to again. So a client that does
//! not read blocks a responder only briefly, and a fixed pool is enough.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::access_log::Entry;
use super::dispatcher::{Channel, PendingRequest};
use super::endpoint::{Answer, live_page};
use super::framing::UnreadBody;
use super::response::{ALLOW, Persistence, TEXT, fields_of, write_head};
use super::schedule::{Schedule, Scheduled, Ticket};
use super::{Close, PendingRequests, Shared, panics, unread_body_of};
use crate::metrics::{Method, Path, Recorder, Status};

/// The number of responders. With more, clients that do not read delay others less; with fewer, less memory is used.
pub(super) const RESPONDERS: u32 = 64;

/// How long a response may take after its first write, if one write was not enough.
const STALL_MAX: Duration = Duration::from_millis(100);

/// Starts the responders.
///
/// # Errors
///
/// Returns the error of the system call.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    for _ in 0..RESPONDERS {
        let mut responder = Responder {
            recorder: shared.metrics.recorder(),
            shared: Arc::clone(shared),
            random: fastrand::Rng::new(),
            head: Vec::new(),
            body: Vec::new(),
        };
        panics::spawn_vital("responder", move || responder.run())?;
    }
    Ok(())
}

struct Responder {
    shared: Arc<Shared>,
    recorder: Recorder,
    random: fastrand::Rng,
    /// The head of the response, and then all of it. Reused.
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What becomes of a connection after a response.
enum Outcome {
    KeepOpen,
    Close {
        unread_body: Option<UnreadBody>,
        /// Whether the close lingers.
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
                    let behind = self.shared.schedule.close_after(ticket);
                    self.shared.send_close(Close {
                        peer,
                        unread_body: unread_body.or_else(|| unread_body_of(behind)),
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
                let keep_alive = self.shared.keep_alive.load(Ordering::Relaxed);
                let closes = last
                    || (persistence != Persistence::Close
                        && (!keep_alive || (!probe && self.draws_close()))
                        && self.shared.schedule.close_if_alone(ticket));
                let persistence = if closes || self.shared.draining.load(Ordering::Relaxed) {
                    Persistence::Close
                } else {
                    persistence
                };
                self.compose(&answer, labels.status, arrived, persistence, head_only);
                match deliver(&mut *writer, &self.head, &self.shared.schedule) {
                    // There may already be another connection from the same port.
                    Err(error) if is_gone(&error) && !closes => Outcome::KeepOpen,
                    Ok(()) if !closes => Outcome::KeepOpen,
                    delivered => Outcome::Close {
                        unread_body: None,
                        // While descriptors are short, others wait for this one.
                        lingers: keep_alive && delivered.is_ok(),
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
        let mean = self.shared.flags.requests_per_connection;
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

/// Writes a whole response, unless that takes [`STALL_MAX`] longer than the first write.
///
/// The socket's write timeout alone is not enough: a write of a single byte within it is a success.
fn deliver<T>(writer: &mut dyn Write, response: &[u8], schedule: &Schedule<T>) -> io::Result<()> {
    let mut rest = response;
    if write_some(writer, &mut rest)? {
        return Ok(());
    }
    schedule.stall(|| {
        let stalled_at = Instant::now();
        while stalled_at.elapsed() < STALL_MAX {
            if write_some(writer, &mut rest)? {
                return Ok(());
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    })
}

/// Writes as much of `rest` as the socket takes within its write timeout. Returns whether that was all.
fn write_some(writer: &mut dyn Write, rest: &mut &[u8]) -> io::Result<bool> {
    let written = writer.write(rest).and_then(|len| {
        *rest = &rest[len..];
        if rest.is_empty() {
            writer.flush()
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    });
    match written {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(false),
        Err(error) => Err(error),
    }
}
