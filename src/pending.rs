//! A request between its arrival and its answer: all that is left of it, and the way to its client.

use std::io::Write;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use tiny_http::{ReadWrite, Request, Response, StatusCode};

use crate::endpoint::Answer;
use crate::framing;
use crate::metrics::{Labels, TraceContext};
use crate::panics;
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
    /// Of one that is not: its reader can not be parted from it without draining the body, which would wait for the client,
    /// or end the process. So it is never dropped in passing: see [`Remains`].
    Unread(ManuallyDrop<Box<Request>>),
}

impl Channel {
    /// Whether it is that of a request whose body is not read to its end.
    pub(crate) fn has_body(&self) -> bool {
        matches!(self, Channel::Unread(_))
    }

    /// What must be let go of with care, if the request is not to be answered.
    pub(crate) fn abandon(self) -> Option<Remains> {
        match self {
            // The order of its connection's answers does not matter any more, and a writer has nothing to drain.
            Channel::Writer(_) => None,
            Channel::Unread(request) => Some(Remains {
                drop: framing::drop_of(&request),
                held: Held::Request(request),
            }),
        }
    }
}

/// What remains of a request whose body is unread, answered or not: the connection's reader, which drains the body when it is
/// dropped. Forgotten where it is not released.
pub struct Remains {
    held: Held,
    drop: framing::Drop,
}

enum Held {
    Reader(ManuallyDrop<Box<dyn ReadWrite + Send>>),
    Request(ManuallyDrop<Box<Request>>),
}

impl Remains {
    /// Answers a request whose body is unread, without touching the body.
    ///
    /// tiny_http parts with the reader only by an upgrade. So the answer names a protocol to upgrade to (which any answer
    /// may, RFC 9110, section 7.8): the one that is spoken already. Its end is the connection's.
    pub(crate) fn answer(request: ManuallyDrop<Box<Request>>, status: u16, line: &str) -> Self {
        let drop = framing::drop_of(&request);
        let request = ManuallyDrop::into_inner(request);
        let mut reader = request.upgrade("HTTP/1.1", Response::empty(StatusCode(status)));
        // The connection ends whether this arrives or not.
        let _ = reader.write_all(line.as_bytes()).and_then(|()| reader.flush());
        Remains {
            held: Held::Reader(ManuallyDrop::new(reader)),
            drop,
        }
    }

    /// Lets go of the connection, whose socket must be shut down by now, so that draining it finds its end at once.
    pub(crate) fn release(self) {
        match self.drop {
            framing::Drop::Harmless => self.held.drop(),
            // Where no thread is to be had, it leaks.
            framing::Drop::Panics => drop(
                thread::Builder::new()
                    .name(panics::EXPECTED.to_owned())
                    .spawn(|| self.held.drop()),
            ),
            framing::Drop::Deadly => {}
        }
    }
}

/// Drops requests that are not to be answered, but for what must wait until their sockets are shut down.
pub(crate) fn abandon(unanswered: Vec<Waiting>) -> Vec<Remains> {
    unanswered
        .into_iter()
        .filter_map(|pending| pending.channel.abandon())
        .collect()
}

/// Lets go of connections whose sockets are shut down.
pub(crate) fn release(remains: Vec<Remains>) {
    for remains in remains {
        remains.release();
    }
}

impl Held {
    fn drop(self) {
        match self {
            Held::Reader(reader) => drop(ManuallyDrop::into_inner(reader)),
            // Not dropped whole: that would answer it.
            Held::Request(request) => drop(ManuallyDrop::into_inner(request).into_writer()),
        }
    }
}
