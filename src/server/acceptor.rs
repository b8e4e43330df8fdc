//! One `tiny_http::Server` with its dispatcher, on a clone of the listening socket. It can be reopened: tiny_http's accept
//! thread ends at the first error of `accept`, and cannot be restarted.
//!
//! Invariants:
//! - The listening socket stays open until the drain. While there is no accept thread, new connections queue in the kernel. When
//!   an accept thread ends, only the connection that it could not clone is lost.
//! - The dispatcher of a replaced server lives as long as that server's connections. If its accept thread was still alive, the two
//!   servers share the socket, which is harmless.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tiny_http::Server;

use super::dispatcher::Dispatcher;
use super::{Shared, listener, panics};

/// Accepts connections through the newest of its `tiny_http::Server`s.
pub struct Acceptor {
    listener: TcpListener,
    shared: Arc<Shared>,
    /// The number of the newest server.
    newest: AtomicU64,
    /// The number of the newest server whose accept thread is known to have ended.
    ended: AtomicU64,
}

impl Acceptor {
    /// Opens the first server on `listener`.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub(super) fn open(listener: TcpListener, shared: Arc<Shared>) -> io::Result<Arc<Self>> {
        let acceptor = Arc::new(Acceptor {
            listener,
            shared,
            newest: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        });
        acceptor.reopen()?;
        Ok(acceptor)
    }

    /// Opens another server in place of the newest one. A server takes one descriptor and a few threads beside its connections'.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn reopen(self: &Arc<Self>) -> io::Result<()> {
        let server = Server::from_listener(self.listener.try_clone()?, None).map_err(io::Error::other)?;
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let dispatcher = Dispatcher::new(Arc::clone(&self.shared));
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

    /// Returns the listening socket.
    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Returns the address of the listening socket.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Refuses new connections from now on. Requests still arrive on accepted connections.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn close(&self) -> io::Result<()> {
        listener::close(&self.listener)
    }
}
