//! Closes the connections that the server sends to be closed.
//!
//! A client that is still sending would be reset before it has read its last response. So after a response the close lingers
//! (RFC 9112, section 9.6): the socket is first shut down for writing only, and what the client sends is discarded for
//! [`LINGER`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::sockets::Connection;
use crate::server::{Close, UnreadBody};

/// How long a client can go on sending after its last response.
const LINGER: Duration = Duration::from_millis(500);

struct Closing {
    unread_body: Option<UnreadBody>,
    lingers: bool,
    shut_down_at: Option<Instant>,
    /// The time of the last look that found it.
    found_at: Option<Instant>,
}

/// The connections that are being closed.
#[derive(Default)]
pub(super) struct Closer {
    by_peer: HashMap<SocketAddr, Closing>,
}

impl Closer {
    /// Takes a connection to close at the next look.
    pub(super) fn take(&mut self, close: Close) {
        let Close {
            peer,
            unread_body,
            lingers,
        } = close;
        let closing = self.by_peer.entry(peer).or_insert(Closing {
            unread_body: None,
            lingers,
            shut_down_at: None,
            found_at: None,
        });
        // A connection that lingers already goes on doing so.
        if unread_body.is_some() {
            closing.unread_body = unread_body;
        }
    }

    /// Takes the next step if the connection is one of those to close. Returns whether it is.
    pub(super) fn close(&mut self, connection: Connection<'_>, now: Instant) -> bool {
        let Some(closing) = self.by_peer.get_mut(&connection.peer()) else {
            return false;
        };
        closing.found_at = Some(now);
        match closing.shut_down_at {
            None if closing.lingers => {
                connection.shut_down_writing();
                closing.shut_down_at = Some(now);
            }
            Some(at) if now < at + LINGER => connection.discard_unread(),
            _ => {
                connection.close();
                // Drops the unread body: nothing is left to read.
                self.by_peer.remove(&connection.peer());
            }
        }
        true
    }

    /// Forgets the connections that the look at `now` did not find.
    pub(super) fn forget_gone(&mut self, now: Instant) {
        self.by_peer.retain(|_, closing| closing.found_at == Some(now));
    }

    /// Returns whether any connection is being closed.
    pub(super) fn is_closing(&self) -> bool {
        !self.by_peer.is_empty()
    }
}
