//! The workers: equal threads, each of which runs one loop. It takes what tiny_http has parsed, if no other worker does, and answers
//! what is due.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::delivery::{is_gone, write_rest, write_some};
use super::endpoint::delay::nanoseconds;
use super::endpoint::{Body, Response};
use super::intake::Intake;
use super::pending::{Channel, PendingRequest};
use super::requests::{Scheduled, Ticket};
use super::response::{Composer, Persistence};
use super::schedule::Turn;
use super::{Close, Shared, panics, unread_body_of};
use crate::diagnostics::report;
use crate::metrics::{Labels, Method, Path, Recorder};

/// The workers from the start: one that leads, and one for when that stalls.
pub(super) const WORKERS_AT_START: u32 = 2;

/// Requests that are taken from tiny_http before a due one is answered. Under load, arrivals would otherwise wait for responses, or
/// responses for arrivals.
const TAKEN_MAX: usize = 64;

/// One of the pool's workers.
pub(super) struct Worker {
    shared: Arc<Shared>,
    intake: Intake,
    recorder: Recorder,
    composer: Composer,
    random: fastrand::Rng,
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
        let mut worker = Worker {
            shared: Arc::clone(shared),
            intake: Intake::new(Arc::clone(shared)),
            recorder: shared.metrics.recorder(),
            composer: Composer::default(),
            random: fastrand::Rng::new(),
        };
        panics::spawn_vital("worker", move || worker.run())
    }

    fn run(&mut self) {
        let mut answered = None;
        while let Some((scheduled, ticket)) = self.next(answered) {
            answered = self.answer(scheduled, ticket);
        }
    }

    /// Blocks until a request is due. Returns None if the worker is to end.
    fn next(&mut self, mut answered: Option<Ticket>) -> Option<(Scheduled<Box<PendingRequest>>, Ticket)> {
        let mut leads = false;
        loop {
            let turn = if leads {
                self.shared.schedule.next_of_leader()
            } else {
                self.shared.schedule.next(answered.take())
            };
            match turn {
                Turn::Answer(scheduled, ticket) => return Some((scheduled, ticket)),
                Turn::End => return None,
                Turn::Start => start_another(&self.shared),
                Turn::Receive => {
                    leads = true;
                    self.receive();
                }
                Turn::Wait(until) => {
                    let received = self.shared.acceptor.receive(until);
                    self.shared.schedule.woken();
                    if let Some(request) = received {
                        self.intake.take(request);
                    }
                    self.receive();
                }
            }
        }
    }

    /// Takes what tiny_http has parsed.
    fn receive(&mut self) {
        for _ in 0..TAKEN_MAX {
            let Some(request) = self.shared.acceptor.try_receive() else {
                self.shared.caught_up.store(true, Ordering::Relaxed);
                return;
            };
            self.intake.take(request);
        }
    }

    /// Answers a request, records and logs it. Returns its ticket if its connection stays open.
    fn answer(&mut self, scheduled: Scheduled<Box<PendingRequest>>, ticket: Ticket) -> Option<Ticket> {
        let peer = scheduled.peer;
        let PendingRequest {
            method,
            arrived,
            trace,
            response,
            persistence,
            channel,
        } = *scheduled.request;
        let taken = Instant::now();
        // At the end of a drain it is answered before its start.
        let queue =
            (self.shared.flags.concurrency > 0 && scheduled.delayed).then(|| scheduled.start.min(taken) - arrived);
        let (path, status) = (response.path, response.status);
        let is_head = method == Method::Head;
        let is_probe = matches!(path, Path::Healthz | Path::Readyz | Path::Metrics);
        let close = match channel {
            Channel::Unread(mut body) => {
                if let Body::Line(line) = &response.body {
                    body.respond(status.code(), line, is_head);
                }
                Some(Close {
                    peer,
                    unread_body: Some(body),
                    lingers: true,
                })
            }
            Channel::Writer(mut writer) => {
                let keep_alive = self.shared.keep_alive.load(Ordering::Relaxed);
                let persistence = match persistence {
                    Persistence::Default | Persistence::KeepAlive => {
                        let closes = !keep_alive || (!is_probe && self.draws_close());
                        if closes && self.shared.schedule.close_if_alone(ticket) {
                            Persistence::ClosedByServer
                        } else if self.shared.health.is_draining() {
                            Persistence::ClosedByClient
                        } else {
                            persistence
                        }
                    }
                    closed => closed,
                };
                let delivered = self.deliver(&mut *writer, &response, persistence, is_head, taken - arrived, queue);
                // If the client is gone, nothing is left to close, and its port may have another connection.
                let stays = delivered.as_ref().map_or_else(is_gone, |()| true);
                (persistence == Persistence::ClosedByServer || !stays).then_some(Close {
                    peer,
                    unread_body: None,
                    // While descriptors are short, others wait for this one.
                    lingers: keep_alive && delivered.is_ok(),
                })
            }
        };
        let now = Instant::now();
        let duration = now - arrived;
        let labels = Labels { method, path, status };
        self.recorder.record(labels, nanoseconds(duration), trace, now);
        if let Some(queue) = queue {
            self.shared.metrics.queued(nanoseconds(queue));
        }
        if let Some(log) = self.shared.log.as_ref().filter(|_| !is_probe) {
            log.append(labels, duration, queue, peer, trace);
        }
        let Some(mut close) = close else {
            return Some(ticket);
        };
        let behind = self.shared.schedule.close_after(ticket);
        close.unread_body = close.unread_body.or_else(|| unread_body_of(behind));
        self.shared.send_close(close);
        None
    }

    fn deliver(
        &mut self,
        writer: &mut dyn Write,
        response: &Response,
        persistence: Persistence,
        is_head: bool,
        took: Duration,
        queue: Option<Duration>,
    ) -> io::Result<()> {
        let Worker { shared, composer, .. } = self;
        let expose = |format, out: &mut Vec<u8>| shared.metrics.render(format, shared.schedule.in_flight(), out);
        let mut rest = composer.compose(response, persistence, is_head, took, queue, expose);
        if write_some(writer, &mut rest)? {
            return Ok(());
        }
        if shared.schedule.stall() {
            start_another(shared);
        }
        let delivered = write_rest(writer, rest);
        shared.schedule.go_on();
        delivered
    }

    fn draws_close(&mut self) -> bool {
        let mean = self.shared.flags.requests_per_connection;
        mean > 0 && self.random.u32(..mean) == 0
    }
}

fn start_another(shared: &Arc<Shared>) {
    if let Err(error) = Worker::start(shared) {
        shared.schedule.not_started();
        report(format_args!("cannot start one more worker: {error}"));
    }
}
