//! A request between its arrival and its response.

use std::borrow::Cow;
use std::io::Write;
use std::time::Instant;

use super::endpoint::{Body, Response};
use super::framing::UnreadBody;
use super::requests::Refusal;
use super::response::Persistence;
use crate::metrics::{Method, Status, TraceContext};

/// A request that waits for its response.
pub struct PendingRequest {
    /// The label of its method.
    pub method: Method,
    /// When it was taken from tiny_http.
    pub arrived: Instant,
    /// The trace that it is part of.
    pub trace: Option<TraceContext>,
    /// The response that it gets.
    pub response: Response,
    /// What becomes of its connection afterwards.
    pub persistence: Persistence,
    /// Where the response is written.
    pub channel: Channel,
}

/// Where the response to a request is written.
pub enum Channel {
    /// If the request has no body, or its body was read.
    Writer(Box<dyn Write + Send>),
    /// If its body was not read.
    Unread(UnreadBody),
}

impl PendingRequest {
    /// Replaces the response by one that says why the request is refused.
    pub fn refuse(&mut self, refusal: Refusal) {
        let line = match refusal {
            Refusal::Overload => "as many requests wait as --max-in-flight allows\n",
            Refusal::ConnectionFull => {
                self.persistence = Persistence::ClosedByServer;
                "too many requests of this connection wait for their responses\n"
            }
        };
        self.response.status = Status::SERVICE_UNAVAILABLE;
        self.response.body = Body::Line(Cow::Borrowed(line));
    }

    /// Returns the body that must not be dropped before the connection is closed, if there is one.
    pub fn into_unread_body(self) -> Option<UnreadBody> {
        match self.channel {
            Channel::Writer(_) => None,
            Channel::Unread(body) => Some(body),
        }
    }
}
