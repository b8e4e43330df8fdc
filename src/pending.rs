//! A request between its arrival and its answer: all that is left of it, and the way to its client.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use tiny_http::{ReadWrite, Request, Response, StatusCode};

use crate::endpoint::Answer;
use crate::framing;
use crate::metrics::{Labels, TraceContext};
use crate::response::Persistence;

/// A request that waits for its answer.
pub struct Pending {
    /// The way to its client.
    pub channel: Channel,
    /// What it is answered.
    pub answer: Answer,
    /// The series that its duration is recorded in.
    pub labels: Labels,
    /// When it was taken off tiny_http.
    pub arrived: Instant,
    /// Whose request it is.
    pub peer: SocketAddr,
    /// What becomes of its connection.
    pub persistence: Persistence,
    /// The trace that it is part of.
    pub trace: Option<TraceContext>,
}

/// A request on the schedule: boxed, since the schedule's heap moves it about.
pub type Waiting = Box<Pending>;

/// The way to a request's client.
pub enum Channel {
    /// Of a request that is read to its end.
    Writer(Box<dyn Write + Send>),
    /// Of one that is not: its reader can not be parted from it without draining the body.
    Unread(Box<Request>),
}

/// What remains of a request whose body is unread, after its answer: the connection's reader, which drains the body when
/// it is dropped.
pub struct Remains {
    reader: Box<dyn ReadWrite + Send>,
    droppable: bool,
}

impl Remains {
    /// Answers a request whose body is unread, without touching the body.
    ///
    /// tiny_http parts with the reader only by an upgrade. So the answer names a protocol to upgrade to (which any answer
    /// may, RFC 9110, section 7.8): the one that is spoken already. Its end is the connection's.
    pub(crate) fn answer(request: Request, status: u16, line: &str) -> Self {
        let droppable = framing::droppable(&request);
        let mut reader = request.upgrade("HTTP/1.1", Response::empty(StatusCode(status)));
        // The connection ends whether this arrives or not.
        let _ = reader.write_all(line.as_bytes()).and_then(|()| reader.flush());
        Remains { reader, droppable }
    }

    /// Lets go of the connection, whose socket must be shut down by now, so that draining it finds its end at once.
    ///
    /// Tells whether its thread and descriptors could be freed: see [`framing::droppable`].
    pub(crate) fn release(self) -> bool {
        let freed = self.droppable;
        if freed {
            drop(self.reader);
        } else {
            std::mem::forget(self.reader);
        }
        freed
    }
}
