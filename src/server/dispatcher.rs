//! The dispatcher: takes requests from tiny_http, decides the answer to each, and puts it on the schedule.
//!
//! It never writes to a socket, and blocks only to wait for the next request. One dispatcher serves one `tiny_http::Server`,
//! so that requests of a connection reach the schedule in their order.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Request, Server};

use super::endpoint::delay::Delay;
use super::endpoint::query::DELAY_OVERRIDE_MAX;
use super::endpoint::{self, Answer};
use super::framing::{UnreadBody, is_unread};
use super::response::Persistence;
use super::schedule::{Refused, Scheduled};
use super::{Close, PendingRequests, Shared, field_values};
use crate::metrics::{Labels, Status, TraceContext};

/// A request between its arrival and its response.
pub struct PendingRequest {
    /// Where its response is written.
    pub channel: Channel,
    /// The answer to it.
    pub answer: Answer,
    /// The series that its duration is recorded in.
    pub labels: Labels,
    /// When it was taken from tiny_http.
    pub arrived: Instant,
    /// What its response says about the connection.
    pub persistence: Persistence,
    /// The trace that it is part of.
    pub trace: Option<TraceContext>,
}

/// Where the response to a request is written.
pub enum Channel {
    /// If the request has no body, or its body was read.
    Writer(Box<dyn Write + Send>),
    /// If its body was not read.
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

/// How long a connection may stay open after its idle timeout, until the guard has closed it.
const IDLE_SLACK: Duration = Duration::from_secs(10);

/// The dispatcher of one `tiny_http::Server`.
pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    delay: Delay,
}

impl Dispatcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Dispatcher {
            delay: Delay::new(shared.delay.clone()),
            shared,
        }
    }

    /// Takes requests until the server's accept thread has ended. Then calls `on_end`, and takes the requests of the remaining
    /// connections, until none has arrived for longer than a connection may be idle.
    pub(super) fn run(mut self, server: &Server, on_end: impl FnOnce()) {
        while let Ok(Some(request)) = self.next(server, |server| server.recv().map(Some)) {
            self.take(request);
        }
        on_end();
        let flags = &self.shared.flags;
        let silence_max = flags.idle_timeout + flags.delay_max.max(DELAY_OVERRIDE_MAX) + IDLE_SLACK;
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
        self.shared.caught_up.store(true, Ordering::Relaxed);
        receive(server)
    }

    fn take(&mut self, request: Request) {
        let arrived = Instant::now();
        // A TCP listener's requests always have a peer.
        let Some(&peer) = request.remote_addr() else {
            return;
        };
        let ready = !self.shared.draining.load(Ordering::Relaxed);
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

    /// Returns the status of an answer and its delay, drawn at random where the request does not set them.
    fn decide(&mut self, answer: &Answer) -> (Status, Duration) {
        match *answer {
            Answer::Delayed(overrides) => {
                let wait = overrides.delay.unwrap_or_else(|| self.delay.draw());
                let status = overrides.status.unwrap_or_else(|| {
                    if self.delay.draw_error(self.shared.flags.error_rate) {
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

    /// Puts a request on the schedule. If it is refused there, puts its refusal on the schedule.
    fn push(&self, scheduled: Scheduled<PendingRequests>) {
        let peer = scheduled.peer;
        let now = Instant::now();
        let refused = match self.shared.schedule.push(scheduled, now) {
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

    /// Drops a request of a closed connection. An unread body is dropped by whoever closes connections, since its drop may block.
    fn discard(&self, peer: SocketAddr, request: Option<PendingRequests>) {
        if let Some(unread_body) = request.and_then(|request| request.into_unread_body()) {
            self.shared.send_close(Close {
                peer,
                unread_body: Some(unread_body),
                lingers: false,
            });
        }
    }
}

/// Turns a refused request into one that is answered 503 at once.
fn at_once(mut scheduled: Scheduled<PendingRequests>, now: Instant) -> Scheduled<PendingRequests> {
    scheduled.request.labels.status = Status::SERVICE_UNAVAILABLE;
    scheduled.deadline = now;
    scheduled.delayed = false;
    scheduled
}

/// What the `Connection` field of a request means for the connection.
#[derive(Debug, PartialEq, Eq)]
struct ConnectionField {
    persistence: Persistence,
    /// Whether tiny_http reads nothing after the request and closes the connection after the response.
    closed_by_tiny_http: bool,
}

impl ConnectionField {
    fn of(request: &Request) -> Self {
        let lines = field_values(request, "Connection");
        ConnectionField::new(lines, request.http_version())
    }

    /// The field is a list over all its lines (RFC 9110, section 7.6.1). But tiny_http searches the first line for substrings, and the
    /// response must announce what tiny_http then does.
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
