//! One `tiny_http::Server` with its dispatcher, on a clone of the listening socket. It can be reopened: tiny_http's accept
//! thread ends at the first error of `accept`, and cannot be restarted.
//!
//! Invariants:
//! - The listening socket is ours and open until the drain. So clients queue in the kernel while there is no accept thread, and
//!   nothing that was accepted is lost with one, except the connection that it could not clone.
//! - The dispatcher of a replaced server lives as long as its connections. If its accept thread was alive after all, two share the
//!   socket, which does no harm.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tiny_http::Server;

use super::dispatcher::{Dispatch, Dispatcher, Progress};
use super::{listener, panics};

/// Opens and closes the way in.
pub struct Acceptor {
    listener: TcpListener,
    dispatch: Arc<Dispatch>,
    /// The number of the newest server.
    newest: AtomicU64,
    /// The number of the last one whose accept thread is known to have ended.
    ended: AtomicU64,
    /// That of each dispatcher that runs.
    progress: Mutex<Vec<Arc<Progress>>>,
}

impl Acceptor {
    /// Opens the first server on `listener`.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub(super) fn open(listener: TcpListener, dispatch: Arc<Dispatch>) -> io::Result<Arc<Self>> {
        let acceptor = Arc::new(Acceptor {
            listener,
            dispatch,
            newest: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            progress: Mutex::default(),
        });
        acceptor.reopen()?;
        Ok(acceptor)
    }

    /// Opens another server in place of the last one. Each takes a descriptor and some threads, and those of connections.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn reopen(self: &Arc<Self>) -> io::Result<()> {
        let server = Server::from_listener(self.listener.try_clone()?, None).map_err(io::Error::other)?;
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let progress = Arc::new(Progress::default());
        let dispatcher = Dispatcher::new(Arc::clone(&self.dispatch), Arc::clone(&progress));
        self.watched(|all| all.push(progress));
        let acceptor = Arc::clone(self);
        panics::spawn_vital("dispatcher", move || {
            dispatcher.run(&server, || {
                acceptor.ended.fetch_max(number, Ordering::Relaxed);
            });
        })
    }

    /// Returns whether the accept thread of the newest server is known to have ended.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) == self.newest.load(Ordering::Relaxed)
    }

    /// Returns whether a dispatcher has not found its queue empty since the last call.
    pub fn is_behind(&self) -> bool {
        self.watched(|all| {
            all.retain(|progress| Arc::strong_count(progress) > 1);
            // Each is looked at, whatever the others say.
            all.iter().filter(|progress| progress.is_behind()).count() > 0
        })
    }

    fn watched<R>(&self, with: impl FnOnce(&mut Vec<Arc<Progress>>) -> R) -> R {
        with(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the address that is listened on.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Refuses new connections from now on. Requests of those that were accepted still arrive.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn close(&self) -> io::Result<()> {
        listener::close(&self.listener)
    }
}
