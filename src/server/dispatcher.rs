//! The dispatcher: takes requests off tiny_http, decides what each is answered, and puts it on the schedule.
//!
//! It never writes to a socket, and blocks only to wait for the next request. One dispatcher serves one `tiny_http::Server`,
//! so that requests of a connection reach the schedule in their order.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Request, Server};

use super::endpoint::delay::{Delay, Distribution};
use super::endpoint::{self, Answer};
use super::framing::{UnreadBody, is_unread};
use super::response::Persistence;
use super::schedule::{Refused, Schedule, Scheduled};
use super::{Close, PendingRequests, field_values};
use crate::metrics::{Labels, Status, TraceContext};

/// A request between its arrival and its response.
pub struct PendingRequest {
    /// The way to its client.
    pub channel: Channel,
    /// What it is answered.
    pub answer: Answer,
    /// The series that its duration is recorded in.
    pub labels: Labels,
    /// When it was taken off tiny_http.
    pub arrived: Instant,
    /// What its response says about the connection.
    pub persistence: Persistence,
    /// The trace that it is part of.
    pub trace: Option<TraceContext>,
}

/// The way to a request's client.
pub enum Channel {
    /// Of a request whose body is read, or that has none.
    Writer(Box<dyn Write + Send>),
    /// Of one whose body is not read.
    Unread(UnreadBody),
}

impl PendingRequest {
    /// Returns the body that must not be dropped before the connection is closed, if there is one.
    pub fn into_unread_body(self) -> Option<UnreadBody> {
        match self.channel {
            Channel::Writer(_) => None,
            Channel::Unread(body) => Some(body),
        }
    }
}

/// Whether a dispatcher keeps up with what arrives.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Counts the transitions between waiting (even) and working (odd).
    transitions: AtomicU64,
    /// What the last look found.
    looked_at: AtomicU64,
}

impl Progress {
    fn transition(&self) {
        self.transitions.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether the dispatcher has not found its queue empty since the last look.
    pub(super) fn is_behind(&self) -> bool {
        let now = self.transitions.load(Ordering::Relaxed);
        let before = self.looked_at.swap(now, Ordering::Relaxed);
        now % 2 == 1 && now == before
    }
}

/// What every dispatcher needs.
pub(super) struct Dispatch {
    pub(super) schedule: Arc<Schedule<PendingRequests>>,
    pub(super) closes: Sender<Close>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) delay: Distribution,
    pub(super) error_rate: f64,
    /// How long a connection may be silent between two requests, at most.
    pub(super) silence_max: Duration,
}

/// The dispatcher of one `tiny_http::Server`.
pub(super) struct Dispatcher {
    dispatch: Arc<Dispatch>,
    progress: Arc<Progress>,
    delay: Delay,
}

impl Dispatcher {
    pub(super) fn new(dispatch: Arc<Dispatch>, progress: Arc<Progress>) -> Self {
        Dispatcher {
            delay: Delay::new(dispatch.delay.clone()),
            dispatch,
            progress,
        }
    }

    /// Takes requests until the server's accept thread has ended. Then calls `on_end`, and takes those of the connections that
    /// are left, until they have been silent for as long as a connection may be.
    pub(super) fn run(mut self, server: &Server, on_end: impl FnOnce()) {
        while let Ok(Some(request)) = self.next(server, |server| server.recv().map(Some)) {
            self.take(request);
        }
        on_end();
        let silence_max = self.dispatch.silence_max;
        while let Ok(Some(request)) = self.next(server, |server| server.recv_timeout(silence_max)) {
            self.take(request);
        }
    }

    fn next(
        &self,
        server: &Server,
        receive: impl Fn(&Server) -> io::Result<Option<Request>>,
    ) -> io::Result<Option<Request>> {
        if let Some(request) = server.try_recv()? {
            return Ok(Some(request));
        }
        self.progress.transition();
        let next = receive(server);
        self.progress.transition();
        next
    }

    fn take(&mut self, request: Request) {
        let arrived = Instant::now();
        // A TCP listener's requests always have a peer.
        let Some(&peer) = request.remote_addr() else {
            return;
        };
        let ready = !self.dispatch.draining.load(Ordering::Relaxed);
        let (path, answer) = endpoint::route(&request, ready);
        let (status, wait) = self.decide(&answer);
        let connection = ConnectionField::of(&request);
        let delayed = matches!(answer, Answer::Delayed(_));
        let last = matches!(answer, Answer::Reject(..))
            || status == Status::REQUEST_TIMEOUT
            || (connection.persistence == Persistence::Close && !connection.closed_by_tiny_http);
        let labels = Labels {
            method: endpoint::method(&request),
            path,
            status,
        };
        let pending = PendingRequest {
            labels,
            answer,
            arrived,
            persistence: if last {
                Persistence::Close
            } else {
                connection.persistence
            },
            trace: TraceContext::from_headers(field_values(&request, "traceparent")),
            channel: if is_unread(&request) {
                Channel::Unread(UnreadBody::new(request))
            } else {
                Channel::Writer(request.into_writer())
            },
        };
        self.push(Scheduled {
            peer,
            deadline: arrived + wait,
            delayed,
            last,
            request: Box::new(pending),
        });
    }

    /// Returns the status of an answer and the time that it waits. Draws what the request leaves to chance.
    fn decide(&mut self, answer: &Answer) -> (Status, Duration) {
        match *answer {
            Answer::Delayed(overrides) => {
                let wait = overrides.delay.unwrap_or_else(|| self.delay.draw());
                let status = overrides.status.unwrap_or_else(|| {
                    if self.delay.draw_error(self.dispatch.error_rate) {
                        Status::INTERNAL_SERVER_ERROR
                    } else {
                        Status::OK
                    }
                });
                (status, wait)
            }
            Answer::Line(status, _) | Answer::Reject(status, _) => (status, Duration::ZERO),
            Answer::Options => (Status::NO_CONTENT, Duration::ZERO),
            Answer::Metrics(_) | Answer::LivePage => (Status::OK, Duration::ZERO),
        }
    }

    /// Puts a request on the schedule, or what it is answered if it is refused there.
    fn push(&self, scheduled: Scheduled<PendingRequests>) {
        let peer = scheduled.peer;
        let now = Instant::now();
        let refused = match self.dispatch.schedule.push(scheduled, now) {
            Ok(()) => return,
            Err(refused) => refused,
        };
        match refused {
            Refused::Overload(mut scheduled) => {
                let line = Cow::Borrowed("as many requests wait as --max-in-flight allows\n");
                scheduled.request.answer = Answer::Line(Status::SERVICE_UNAVAILABLE, line);
                self.push(at_once(scheduled, now));
            }
            Refused::ConnectionFull(mut scheduled) => {
                let line = "too many requests of this connection wait for their responses\n";
                scheduled.request.answer = Answer::Reject(Status::SERVICE_UNAVAILABLE, line);
                scheduled.request.persistence = Persistence::Close;
                scheduled.last = true;
                self.push(at_once(scheduled, now));
            }
            Refused::ConnectionClosed(request) => self.discard(peer, request),
        }
    }

    /// Drops a request of a closed connection; a body that is unread goes where it is dropped without harm.
    fn discard(&self, peer: SocketAddr, request: Option<PendingRequests>) {
        if let Some(unread_body) = request.and_then(|request| request.into_unread_body()) {
            // Fails only if nobody closes connections.
            let _ = self.dispatch.closes.send(Close {
                peer,
                unread_body: Some(unread_body),
                lingers: false,
            });
        }
    }
}

/// Makes a refused request one that is answered 503 at once.
fn at_once(mut scheduled: Scheduled<PendingRequests>, now: Instant) -> Scheduled<PendingRequests> {
    scheduled.request.labels.status = Status::SERVICE_UNAVAILABLE;
    scheduled.deadline = now;
    scheduled.delayed = false;
    scheduled
}

/// What the `Connection` field of a request comes to.
#[derive(Debug, PartialEq, Eq)]
struct ConnectionField {
    persistence: Persistence,
    /// Whether tiny_http reads nothing behind the request and closes the connection after its response.
    closed_by_tiny_http: bool,
}

impl ConnectionField {
    fn of(request: &Request) -> Self {
        let lines = field_values(request, "Connection");
        ConnectionField::new(lines, request.http_version())
    }

    /// The field is a list over all its lines (RFC 9110, section 7.6.1). tiny_http searches the first line for substrings: what
    /// it does must be announced, whatever the list says.
    fn new<'a>(lines: impl Iterator<Item = &'a str>, version: &HTTPVersion) -> Self {
        let mut first = None;
        let (mut close, mut keep_alive) = (false, false);
        for line in lines {
            for token in line.split(',').map(str::trim) {
                close |= token.eq_ignore_ascii_case("close");
                keep_alive |= token.eq_ignore_ascii_case("keep-alive");
            }
            first.get_or_insert_with(|| line.to_ascii_lowercase());
        }
        let first_has = |word| first.as_deref().is_some_and(|first| first.contains(word));
        let closed_by_tiny_http =
            first_has("close") || first_has("upgrade") || (*version == HTTPVersion(1, 0) && !first_has("keep-alive"));
        let persistent = *version > HTTPVersion(1, 0);
        let persistence = if close || closed_by_tiny_http || !(persistent || keep_alive) {
            Persistence::Close
        } else if persistent {
            Persistence::Default
        } else {
            Persistence::KeepAlive
        };
        ConnectionField {
            persistence,
            closed_by_tiny_http,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_field_is_a_list_over_all_lines_and_what_tiny_http_does_is_announced() {
        use Persistence::{Close, Default, KeepAlive};
        let (old, new) = (HTTPVersion(1, 0), HTTPVersion(1, 1));
        for (version, lines, persistence, closed_by_tiny_http) in [
            (&new, &[][..], Default, false),
            (&new, &["keep-alive"], Default, false),
            (&new, &["Close"], Close, true),
            (&new, &["x-trace, close"], Close, true),
            (&new, &["x-trace", "close"], Close, false),
            (&new, &["keep-alive, close"], Close, true),
            (&new, &["keep-alive", "close"], Close, false),
            (&new, &["x-close-hint"], Close, true),
            (&new, &["x-trace", "x-close-hint"], Default, false),
            (&new, &["Upgrade, HTTP2-Settings"], Close, true),
            (&new, &["HTTP2-Settings", "upgrade"], Default, false),
            (&old, &[], Close, true),
            (&old, &["Keep-Alive"], KeepAlive, false),
            (&old, &["x-trace", "keep-alive"], Close, true),
            (&old, &["x-keep-alive"], Close, false),
            (&old, &["keep-alive, close"], Close, true),
            (&HTTPVersion(0, 9), &[], Close, false),
        ] {
            let found = ConnectionField::new(lines.iter().copied(), version);
            let expected = ConnectionField {
                persistence,
                closed_by_tiny_http,
            };
            assert_eq!(found, expected, "{version} {lines:?}");
        }
    }
}
