//! The responders: threads that take what is due off the schedule, answer it and record how long it took.
//!
//! A write blocks while its client's socket is full, for at most the listener's write timeout. So that clients that do not
//! read can not take every responder, the pool grows past [`RESPONDERS_MIN`] by as many as are stuck at a time, and a
//! client that has stalled a write is never written to again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::access_log::{AccessLog, Entry};
use crate::endpoint::{ALLOWED_METHODS, Answer};
use crate::metrics::{Method, Metrics, Path, Recorder, Status};
use crate::panics;
use crate::pending::{Channel, Pending, Remains, Waiting, release};
use crate::reaper::Reaper;
use crate::response::{Persistence, write_head};
use crate::schedule::{Next, Responder, Schedule};
use crate::shortage::Shortage;
use crate::ui;

/// Responders that are there from the start, and that stay.
const RESPONDERS_MIN: usize = 16;

/// Responders at most, those that are stuck on their clients included.
const RESPONDERS_MAX: usize = 512;

/// How long a responder past the minimum waits for work before it ends.
const SPARE_FOR: Duration = Duration::from_secs(10);

/// How long a response that did not leave in one piece may take from its first piece on.
const STALL_MAX: Duration = Duration::from_secs(1);

/// The content type of every line of text.
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

/// How long a client that was refused should wait, seconds.
const RETRY_AFTER: (&str, &str) = ("Retry-After", "1");

/// The pool of responders.
pub struct Responders {
    schedule: Arc<Schedule<Waiting>>,
    metrics: Arc<Metrics>,
    reaper: Arc<Reaper>,
    log: Option<Arc<AccessLog>>,
    draining: Arc<AtomicBool>,
    shortage: Arc<Shortage>,
}

impl Responders {
    /// Starts the pool.
    ///
    /// # Errors
    ///
    /// As the system's, where no thread can be had.
    pub fn start(
        schedule: Arc<Schedule<Waiting>>,
        metrics: Arc<Metrics>,
        reaper: Arc<Reaper>,
        log: Option<Arc<AccessLog>>,
        draining: Arc<AtomicBool>,
        shortage: Arc<Shortage>,
    ) -> io::Result<Arc<Self>> {
        let responders = Arc::new(Responders {
            schedule,
            metrics,
            reaper,
            log,
            draining,
            shortage,
        });
        for _ in 0..RESPONDERS_MIN {
            responders.add(None)?;
        }
        Ok(responders)
    }

    /// Adds responders while all that there are, but for a few, are stuck on their clients.
    pub fn relieve(self: &Arc<Self>, now: Instant) {
        for _ in 0..self.schedule.relief(RESPONDERS_MIN, now) {
            // No thread to be had: the stuck ones come free within the write timeout.
            if self.add(Some(SPARE_FOR)).is_err() {
                return;
            }
        }
    }

    fn add(self: &Arc<Self>, spare_for: Option<Duration>) -> io::Result<()> {
        let Some(responder) = self.schedule.join(RESPONDERS_MAX) else {
            return Ok(());
        };
        let responders = Arc::clone(self);
        let started = panics::spawn_vital("responder", move || {
            responders.respond(responder, spare_for);
        });
        if started.is_err() {
            self.schedule.leave(responder);
        }
        started.map(drop)
    }

    fn respond(&self, responder: Responder, spare_for: Option<Duration>) {
        let mut recorder = self.metrics.recorder();
        let mut buffers = Buffers::default();
        let mut answered = None;
        while let Next::Answer(scheduled, ticket) = self.schedule.next(responder, answered.take(), spare_for) {
            let peer = scheduled.peer;
            match self.answer(*scheduled.request, &mut recorder, &mut buffers) {
                Verdict::Keep => answered = Some(ticket),
                Verdict::Cut(remains) => match self.schedule.cut(ticket) {
                    Some(unanswered) => self.reaper.close(peer, remains, unanswered),
                    // There is no socket to shut down any more.
                    None => release(remains.into_iter().collect()),
                },
            }
        }
    }

    fn answer(&self, pending: Pending, recorder: &mut Recorder, buffers: &mut Buffers) -> Verdict {
        let Pending {
            channel,
            answer,
            labels,
            arrived,
            peer,
            persistence,
            trace,
        } = pending;
        let ends = matches!(answer, Answer::Final(..));
        let verdict = match channel {
            Channel::Unread(request) => {
                let line = match answer {
                    Answer::Final(_, line) => line,
                    _ => "",
                };
                Verdict::Cut(Some(Remains::answer(request, labels.status.code(), line)))
            }
            Channel::Writer(mut writer) => {
                // Asked as late as can be: who is not told to close sends the next request into the process's end.
                let persistence = if self.draining.load(Ordering::Relaxed) || self.shortage.connections_end() {
                    Persistence::Close
                } else {
                    persistence
                };
                self.compose(&answer, labels.status, arrived, persistence, buffers);
                let head_only = labels.method == Method::Head;
                match deliver(&mut *writer, buffers.response(head_only)) {
                    Ok(()) if !ends => Verdict::Keep,
                    // Its client is gone, and the next one from that port may be here already.
                    Err(error) if is_gone(&error) => Verdict::Keep,
                    _ => Verdict::Cut(None),
                }
            }
        };
        let duration = arrived.elapsed();
        recorder.record(labels, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), trace);
        let probe = matches!(labels.path, Path::Healthz | Path::Readyz | Path::Metrics);
        if let Some(log) = self.log.as_ref().filter(|_| !probe) {
            log.append(&Entry {
                labels: &labels,
                duration,
                peer,
                trace: trace.as_ref(),
            });
        }
        verdict
    }

    /// Puts the response together in the responder's buffers.
    fn compose(
        &self,
        answer: &Answer,
        status: Status,
        arrived: Instant,
        persistence: Persistence,
        buffers: &mut Buffers,
    ) {
        let Buffers { head, body } = buffers;
        head.clear();
        body.clear();
        let timing;
        let headers: &[(&str, &str)] = match answer {
            Answer::Delayed(_) => {
                let delay = arrived.elapsed();
                // Writing to a vector can not fail.
                let _ = writeln!(body, "answered after {:.6} s", delay.as_secs_f64());
                timing = format!("delay;dur={:.3}", delay.as_secs_f64() * 1e3);
                &[TEXT, ("Server-Timing", &timing)]
            }
            Answer::Line(_, line) => {
                body.extend_from_slice(line.as_bytes());
                line_headers(status)
            }
            Answer::Final(_, line) => {
                body.extend_from_slice(line.as_bytes());
                line_headers(status)
            }
            Answer::Metrics(format) => {
                self.metrics.render(*format, self.schedule.in_flight(), body);
                &[("Content-Type", format.content_type()), ("Vary", "Accept")]
            }
            Answer::Ui => {
                body.extend_from_slice(ui::PAGE);
                &ui::HEADERS
            }
        };
        write_head(head, status.code(), body.len(), persistence, headers);
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
/// The socket's timeout alone does not do: a write that got rid of a single byte within it counts as a success.
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

/// The headers of a line of text with that status.
fn line_headers(status: Status) -> &'static [(&'static str, &'static str)] {
    match status {
        Status::METHOD_NOT_ALLOWED => &[TEXT, ALLOWED_METHODS],
        Status::SERVICE_UNAVAILABLE => &[TEXT, RETRY_AFTER],
        _ => &[TEXT],
    }
}

/// What becomes of a connection whose request was answered.
enum Verdict {
    Keep,
    /// It ends; what remains of a request whose body is unread goes with it.
    Cut(Option<Remains>),
}

/// A responder's memory, used again for each response.
#[derive(Default)]
struct Buffers {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Buffers {
    /// The whole response in one piece, so that it leaves in one system call.
    fn response(&mut self, head_only: bool) -> &[u8] {
        if !head_only {
            self.head.extend_from_slice(&self.body);
        }
        &self.head
    }
}
