//! The listening socket, and the limits that every accepted socket inherits from it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, shutdown, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Connections that the kernel completes and keeps for us until they are accepted.
const BACKLOG: i32 = 4096;

/// How long a read waits for a client, seconds. Linux hands it on to accepted sockets, and applies it to `accept` too,
/// which is why the doorbell must ring more often than this.
const READ_TIMEOUT_S: i64 = 25;

/// How long a write waits for a client that does not read, seconds.
const WRITE_TIMEOUT_S: i64 = 1;

/// How long data may stay unacknowledged, or a client's window closed, before the kernel ends the connection, milliseconds.
const USER_TIMEOUT_MS: u32 = 10_000;

/// What the kernel keeps of what a client has sent and was not read yet, bytes; it takes twice that for its own accounts.
/// Longer than any sensible head of a request, and not so long that clients could have much work waiting in it.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// What the kernel keeps of what a client has not acknowledged yet, bytes, likewise: room for any page, and no more memory than
/// this for each client that does not read.
const SEND_BUFFER: usize = 128 * 1024;

/// Opens the listening socket.
///
/// # Errors
///
/// As the system's: the port is in use, or may not be bound.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(READ_TIMEOUT_S))?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(WRITE_TIMEOUT_S))?;
    setsockopt(&fd, sockopt::TcpUserTimeout, &USER_TIMEOUT_MS)?;
    if address.is_ipv6() {
        // [::] listens on IPv4 as well, whatever the system's default.
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(fd))
}

/// Refuses new connections at once; those that were accepted live on.
///
/// # Errors
///
/// As the system's.
pub fn close(listener: &TcpListener) -> io::Result<()> {
    Ok(shutdown(listener.as_raw_fd(), Shutdown::Both)?)
}

/// Raises the limit on open descriptors to what the process may have: a connection takes two.
///
/// # Errors
///
/// As the system's; the server works with the lower limit too.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}
