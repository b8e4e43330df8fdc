//! Keeps tiny_http accepting: rings the doorbell when it is due, and builds a new `tiny_http::Server` on a clone of the
//! listening socket where the accept thread of the last one has ended.
//!
//! tiny_http's accept thread ends at the first error of `accept` (out of descriptors, say), which reaches the dispatcher behind
//! all requests that came before it, and panics where it can not clone a socket or start a thread, of which the panic hook hears.
//! In case both are missed, a ring that is not answered tells.
//!
//! What is always true:
//! - The listening socket is ours, and open until the drain; a server works on a clone. So clients queue in the kernel
//!   while there is no accept thread, and nothing that was accepted is lost with one but the connection that it could not clone.
//! - A server that is replaced keeps its dispatcher while its connections have requests. Should it have been alive after
//!   all, two accept threads share the socket, which does no harm.
//! - At most one server is built in [`REBUILD_INTERVAL`], and none without spare descriptors.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::Server;

use crate::accept_news::AcceptNews;
use crate::dispatcher::Dispatch;
use crate::doorbell::{Doorbell, Ring};
use crate::listener;
use crate::panics;

/// At least this much time is between two series of rings.
const RING_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// A ring at least this often, whether requests arrive or not. Must be shorter than the listener's read timeout.
const RING_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Rings in one series at most; more than connections can be parked.
const RINGS_MAX: usize = 20_000;

/// How long a ring waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// How long it does while the accept thread may have ended. To build one server too many does no harm, and clients wait.
const ANSWER_WITHIN_IN_DOUBT: Duration = Duration::from_millis(250);

/// Rings without an answer after which the accept thread counts as gone.
const UNANSWERED_MAX: u32 = 2;

/// At least this much time is between two new servers.
const REBUILD_INTERVAL: Duration = Duration::from_millis(100);

/// Descriptors that must be spare for a new server to be of use: it loses the connection at which they run out.
const SPARE_DESCRIPTORS: usize = 32;

/// Keeps the accept loop.
pub struct AcceptLoop {
    listener: TcpListener,
    doorbell: Doorbell,
    dispatch: Arc<Dispatch>,
    news: Arc<AcceptNews>,
    built_at: Instant,
}

/// Whether the newest server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepts {
    Yes,
    /// A ring that is answered settles it.
    Perhaps,
    No,
}

impl AcceptLoop {
    /// Builds the first server on `listener` and starts the keeper. Gives the address that is listened on.
    ///
    /// # Errors
    ///
    /// As the system's.
    pub fn start(listener: TcpListener, dispatch: Arc<Dispatch>, news: Arc<AcceptNews>) -> io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let mut keeper = AcceptLoop {
            listener,
            doorbell: Doorbell::of(address),
            dispatch,
            news,
            built_at: Instant::now(),
        };
        keeper.build()?;
        panics::spawn_vital("accept-loop", move || keeper.keep())?;
        Ok(address)
    }

    fn build(&mut self) -> io::Result<()> {
        self.built_at = Instant::now();
        let server = Server::from_listener(self.listener.try_clone()?, None).map_err(io::Error::other)?;
        self.dispatch.start(server, &self.news)
    }

    fn keep(&mut self) {
        let mut accepts = Accepts::Yes;
        let mut unanswered = 0;
        loop {
            let else_after = if accepts == Accepts::Yes {
                RING_INTERVAL_MAX
            } else {
                RING_INTERVAL_MIN
            };
            let told = self.news.wait(RING_INTERVAL_MIN, else_after);
            if told.drain {
                return self.close();
            }
            if told.ended {
                accepts = Accepts::No;
            } else if told.in_doubt && accepts == Accepts::Yes {
                accepts = Accepts::Perhaps;
            }
            if accepts != Accepts::No {
                let within = if accepts == Accepts::Yes {
                    ANSWER_WITHIN
                } else {
                    ANSWER_WITHIN_IN_DOUBT
                };
                match self.doorbell.ring_until_settled(RINGS_MAX, within) {
                    Ring::Answered => (accepts, unanswered) = (Accepts::Yes, 0),
                    Ring::Unanswered => unanswered += 1,
                    // Out of descriptors, as the accept thread may be: it is asked again soon.
                    Ring::Failed => accepts = Accepts::Perhaps,
                }
                if unanswered >= UNANSWERED_MAX || (accepts == Accepts::Perhaps && unanswered > 0) {
                    accepts = Accepts::No;
                }
            }
            if accepts == Accepts::No && self.rebuild() {
                (accepts, unanswered) = (Accepts::Yes, 0);
            }
        }
    }

    /// Builds a new server, unless one was built just now, or descriptors or threads are short. Tells whether it did.
    fn rebuild(&mut self) -> bool {
        if self.built_at.elapsed() < REBUILD_INTERVAL {
            return false;
        }
        let spare: Vec<File> = (0..SPARE_DESCRIPTORS)
            .map_while(|_| File::open("/dev/null").ok())
            .collect();
        // tiny_http panics where it gets no thread, which must not happen in this one.
        let spare_thread = thread::Builder::new().spawn(|| ());
        if spare.len() < SPARE_DESCRIPTORS || spare_thread.is_err() {
            return false;
        }
        drop(spare);
        match self.build() {
            Ok(()) => {
                eprintln!("httpserver: tiny_http had stopped accepting connections; it was started anew");
                true
            }
            Err(error) => {
                eprintln!(
                    "httpserver: tiny_http has stopped accepting connections and can not be started anew: {error}"
                );
                false
            }
        }
    }

    fn close(&self) {
        // What the kernel completed is accepted, and what is parked is freed, while it can be.
        self.doorbell.ring_until_settled(RINGS_MAX, ANSWER_WITHIN);
        if let Err(error) = listener::close(&self.listener) {
            eprintln!("httpserver: cannot close the listening socket: {error}");
        }
        self.news.closed();
    }
}
