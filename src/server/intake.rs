//! From tiny_http to the schedule: each request is parsed, its response decided, and put on the schedule.
//!
//! Nothing here writes to a socket or blocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::Server;

use super::endpoint::query::DELAY_OVERRIDE_MAX;
use super::endpoint::{Body, Endpoints};
use super::framing::UnreadBody;
use super::pending::{Channel, PendingRequest};
use super::request::Request;
use super::requests::Scheduled;
use super::response::Persistence;
use super::{Close, Shared};

/// How long a connection may stay open after its idle timeout, until the guard has closed it.
const IDLE_SLACK: Duration = Duration::from_secs(10);

/// Takes requests.
pub(super) struct Intake {
    shared: Arc<Shared>,
    endpoints: Endpoints,
}

impl Intake {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Intake {
            endpoints: Endpoints::new(shared.delay.clone(), shared.flags.error_rate),
            shared,
        }
    }

    /// Takes the requests of a replaced `tiny_http::Server` and of the connections that it has accepted, until none has arrived for longer
    /// than a connection may be open.
    pub(super) fn take_all(&mut self, server: &Server) {
        let flags = &self.shared.flags;
        let silence_max = flags.idle_timeout + flags.delay_max.max(DELAY_OVERRIDE_MAX) + IDLE_SLACK;
        let mut silent_since = Instant::now();
        while silent_since.elapsed() < silence_max {
            // An error says that the accept thread has ended, and other returns without a request are too early.
            if let Ok(Some(request)) = server.recv_timeout(silence_max) {
                silent_since = Instant::now();
                self.take(request);
                self.shared.acceptor.unblock();
            }
        }
    }

    /// Puts a request on the schedule.
    pub(super) fn take(&mut self, received: tiny_http::Request) {
        let arrived = Instant::now();
        let Some(request) = Request::parse(&received) else {
            return;
        };
        let response = self.endpoints.respond(&request, &self.shared.health);
        let (peer, delay) = (request.peer, response.delay);
        let delayed = matches!(response.body, Body::Delay);
        let persistence = if response.is_last {
            Persistence::ClosedByServer
        } else {
            request.persistence
        };
        let (method, trace) = (request.method, request.trace);
        let (is_unread, allocates) = (request.body.is_unread(), request.body.allocates());
        let pending = PendingRequest {
            method,
            arrived,
            trace,
            response,
            persistence,
            channel: if is_unread {
                Channel::Unread(UnreadBody::new(received, allocates))
            } else {
                Channel::Writer(received.into_writer())
            },
        };
        let scheduled = Scheduled {
            peer,
            start: arrived,
            delay,
            delayed,
            last: persistence == Persistence::ClosedByServer,
            request: Box::new(pending),
        };
        let refuse = |request: &mut Box<PendingRequest>, refusal| request.refuse(refusal);
        let unanswered = self.shared.schedule.push(scheduled, arrived, refuse);
        // An unread body is dropped by whoever closes connections, since its drop may block.
        if let Some(unread_body) = unanswered.and_then(|request| request.into_unread_body()) {
            self.shared.send_close(Close {
                peer,
                unread_body: Some(unread_body),
                lingers: false,
            });
        }
    }
}
