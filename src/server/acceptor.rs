//! The `tiny_http::Server` on a clone of the listening socket. It can be reopened: tiny_http's accept thread ends at the first error
//! of `accept`, and cannot be restarted.
//!
//! Invariants:
//! - The listening socket stays open until the drain. While there is no accept thread, new connections queue in the kernel. When
//!   an accept thread ends, only the connection that it could not clone is lost.
//! - The queue of a `tiny_http::Server` has one consumer: the leader (see [`super::schedule`]), and after it, a thread that retires the
//!   server. With two, one could take the other's `unblock`.
//! - A replaced server lives as long as its connections, since its drop would lose their requests. If its accept thread was
//!   still alive, the two servers share the socket, which is harmless.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tiny_http::{Request, Server};

use super::intake::Intake;
use super::{listener, panics};

/// Accepts connections and has their requests parsed.
pub struct Acceptor {
    listener: TcpListener,
    current: Mutex<Arc<Server>>,
    /// What the leader goes over to.
    reopened: Mutex<Option<Reopened>>,
    /// Whether the accept thread of the current server is known to have ended.
    ended: AtomicBool,
}

/// A server in place of the current one.
struct Reopened {
    server: Arc<Server>,
    /// Takes the replaced one.
    retire: Sender<Arc<Server>>,
}

impl Acceptor {
    /// Opens a server on `listener`.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub(super) fn open(listener: TcpListener) -> io::Result<Self> {
        Ok(Acceptor {
            current: Mutex::new(serve(&listener)?),
            listener,
            reopened: Mutex::new(None),
            ended: AtomicBool::new(false),
        })
    }

    /// Opens another server in place of the current one, for the leader to go over to. A server takes one descriptor and a few threads
    /// beside its connections'. `intake` takes the requests of the replaced server's connections, until none has arrived for
    /// longer than a connection may be open.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub(super) fn reopen(&self, mut intake: Intake) -> io::Result<()> {
        let mut reopened = lock(&self.reopened);
        if reopened.is_none() {
            let (retire, replaced) = channel::<Arc<Server>>();
            // First, since a server cannot be given up any more: it may have accepted connections.
            panics::spawn_vital("retired-server", move || {
                if let Ok(server) = replaced.recv() {
                    intake.take_all(&server);
                }
            })?;
            let server = serve(&self.listener)?;
            *reopened = Some(Reopened { server, retire });
        }
        drop(reopened);
        self.unblock();
        Ok(())
    }

    /// Wakes the leader if it waits.
    pub(super) fn unblock(&self) {
        lock(&self.current).unblock();
    }

    /// Returns a request that is parsed already. Only the leader may call it.
    pub(super) fn try_receive(&self) -> Option<Request> {
        self.take(Server::try_recv)
    }

    /// Blocks until a request is parsed, at most until `deadline`, or until [`unblock`](Self::unblock). May return None earlier. Only the
    /// leader may call it.
    pub(super) fn receive(&self, deadline: Instant) -> Option<Request> {
        self.take(|server| server.recv_timeout(deadline.saturating_duration_since(Instant::now())))
    }

    fn take(&self, receive: impl Fn(&Server) -> io::Result<Option<Request>>) -> Option<Request> {
        loop {
            let server = Arc::clone(&lock(&self.current));
            match receive(&server) {
                Ok(Some(request)) => return Some(request),
                // Whoever reopens does so before it unblocks.
                Ok(None) if !self.go_over() => return None,
                Ok(None) => {}
                Err(_) => self.ended.store(true, Ordering::Relaxed),
            }
        }
    }

    /// Goes over to the reopened server. Returns whether there is one.
    fn go_over(&self) -> bool {
        let Some(Reopened { server, retire }) = lock(&self.reopened).take() else {
            return false;
        };
        let replaced = std::mem::replace(&mut *lock(&self.current), server);
        self.ended.store(false, Ordering::Relaxed);
        // The thread waits for it.
        let _ = retire.send(replaced);
        true
    }

    /// Returns whether the accept thread is known to have ended.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) && lock(&self.reopened).is_none()
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

fn serve(listener: &TcpListener) -> io::Result<Arc<Server>> {
    let listener = listener.try_clone()?;
    // tiny_http panics if it cannot start its accept thread.
    let server = panics::expected(|| Server::from_listener(listener, None))
        .ok_or_else(|| io::Error::other("no thread can be started"))?
        .map_err(io::Error::other)?;
    Ok(Arc::new(server))
}

/// A panic in a thread of ours ends the process, so a poisoned lock is never used for long.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
