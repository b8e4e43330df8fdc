//! The doorbell: a connection to ourselves that closes without sending anything.
//!
//! tiny_http parks connections: its pool starts a thread only if it counts no thread as idle, and it counts a woken thread as idle
//! for a moment longer. So after a burst, connections are queued behind those that are being served. The next accepted
//! connection frees one: the thread that serves it takes the oldest parked connection afterwards.
//!
//! A ring is answered if tiny_http has accepted and closed it, and so has accepted all connections that were queued in the kernel
//! before it. If there is one more thread afterwards, a connection was parked or a new one came, and either is a reason to ring
//! again. A ring may itself be parked, or wait behind many other connections on a busy machine, which is a reason to ring again,
//! too. If the kernel's queue does not get shorter, the accept thread has ended, and the acceptor is reopened. It must not be
//! reopened otherwise: two accept threads would take turns at rings, and those of one would free no connection of the other.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::shortage::{Shortage, descriptors_are_short};
use super::sockets::queued;
use crate::diagnostics::report;
use crate::metrics;
use crate::server::Server;
use crate::server::limits::{self, Connections};

/// The interval of rings while requests arrive.
const RING_BUSY: Duration = Duration::from_millis(50);

/// The interval of rings otherwise.
const RING_QUIET: Duration = Duration::from_secs(1);

/// The most rings in a row. More than connections can be parked.
const RINGS_MAX: usize = 20_000;

/// How long a ring waits for its answer before it looks whether connections are accepted.
const ANSWERED_WITHIN: Duration = Duration::from_millis(50);

/// How often it looks. A number and not a time: on a busy machine, the accept thread and this one wait for a processor alike.
const LOOKS_MAX: u32 = 10;

/// The shortest time between two reopenings.
const REOPEN_INTERVAL: Duration = Duration::from_millis(250);

/// The threads that must be had for a reopening: tiny_http's five, one that takes its requests, and some for connections.
const REOPEN_THREADS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ring {
    /// tiny_http accepted it and closed it.
    Answered,
    /// tiny_http accepts connections, and has not closed it yet.
    Parked,
    /// tiny_http accepts no connections.
    Unanswered,
    /// The ring failed: the process or the system is short of descriptors or ports.
    Failed,
}

pub(super) struct Doorbell {
    server: Arc<Server>,
    address: SocketAddr,
    shortage: Shortage,
}

impl Doorbell {
    /// Returns the doorbell of a server. If the server listens on every address, the bell rings at IPv4's loopback, which exists on
    /// a system without IPv6 as well.
    pub(super) fn of(server: Arc<Server>, limits: Connections) -> Self {
        let mut address = server.address();
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        Doorbell {
            server,
            address,
            shortage: Shortage::new(limits),
        }
    }

    /// Rings as long as the server accepts connections.
    pub(super) fn run(mut self) {
        let (mut arrivals, mut rung_at, mut reopened_at) = (0, Instant::now(), Instant::now());
        // The length of the kernel's queue when the accept thread was found to have ended, until it is reopened.
        let mut stopped = None;
        loop {
            thread::sleep(RING_BUSY);
            // Threads of replaced servers end.
            self.shortage.fit_descriptors(false);
            let before = std::mem::replace(&mut arrivals, self.server.arrivals());
            let draining = self.server.is_draining();
            let ended = self.server.acceptor().ended();
            let busy = before != arrivals || draining;
            // Only an accept thread makes the queue shorter.
            let still_stopped = stopped.is_some_and(|then| self.queued() >= Some(then));
            if !ended && !still_stopped && !busy && rung_at.elapsed() < RING_QUIET {
                continue;
            }
            rung_at = Instant::now();
            let closed = ended || still_stopped || self.ring_until_settled() == Ring::Unanswered;
            if closed && draining {
                return;
            }
            if closed && reopened_at.elapsed() >= REOPEN_INTERVAL && self.reopen() {
                reopened_at = Instant::now();
                stopped = None;
            } else {
                stopped = if closed { self.queued() } else { None };
            }
        }
    }

    /// Reopens the acceptor, unless descriptors or threads are short. Returns whether it did.
    fn reopen(&mut self) -> bool {
        // An acceptor loses the connection at which it runs out of either. The limits that are known may not be all.
        if self.shortage.reason(metrics::open_fds()).is_some() || limits::try_threads(REOPEN_THREADS).is_err() {
            return false;
        }
        // The threads of the replaced server's connections serve none of the new one.
        self.shortage.fit_descriptors(true);
        match self.server.reopen() {
            Ok(()) => {
                report("tiny_http had stopped accepting connections; it accepts them again");
                true
            }
            Err(error) => {
                report(format_args!("tiny_http has stopped accepting connections: {error}"));
                false
            }
        }
    }

    fn queued(&self) -> Option<u32> {
        queued(self.server.acceptor().listener()).ok()
    }

    /// Rings until a ring is answered without a new thread, or nobody accepts it; at most [`RINGS_MAX`] times.
    fn ring_until_settled(&self) -> Ring {
        let mut threads = metrics::threads().unwrap_or(0);
        for _ in 0..RINGS_MAX {
            let ring = self.ring();
            let before = std::mem::replace(&mut threads, metrics::threads().unwrap_or(0));
            if ring != Ring::Parked && (ring != Ring::Answered || threads <= before) {
                return ring;
            }
        }
        Ring::Answered
    }

    fn ring(&self) -> Ring {
        match TcpStream::connect_timeout(&self.address, ANSWERED_WITHIN * LOOKS_MAX) {
            Ok(bell) => self.answer(bell).unwrap_or(Ring::Failed),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ring::Unanswered,
            Err(_) => Ring::Failed,
        }
    }

    /// Waits for the answer to a ring.
    fn answer(&self, mut bell: TcpStream) -> io::Result<Ring> {
        bell.set_read_timeout(Some(ANSWERED_WITHIN))?;
        bell.shutdown(Shutdown::Write)?;
        let (mut accepts, mut before) = (false, 0);
        for _ in 0..LOOKS_MAX {
            match bell.read(&mut [0]) {
                Ok(_) => return Ok(Ring::Answered),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Ring::Answered),
                Err(_) => {}
            }
            let queued = queued(self.server.acceptor().listener())?;
            accepts |= queued == 0 || queued < before;
            // Each parked ring takes two descriptors.
            if accepts && !descriptors_are_short(metrics::open_fds()) {
                break;
            }
            before = queued;
        }
        Ok(if accepts { Ring::Parked } else { Ring::Unanswered })
    }
}
