//! The listening socket, and the limits that every accepted socket inherits from it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, shutdown, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Connections that the kernel completes and keeps for us until they are accepted.
const BACKLOG: i32 = 4096;

/// How long a write waits for a client that does not read, milliseconds. Then another responder is woken.
///
/// There is no such limit on reads: `accept` would inherit it and fail after a silent interval, which ends tiny_http's accept
/// thread, and tiny_http drops the reader of a connection whose read times out, even while its request waits.
const WRITE_TIMEOUT_MS: i64 = 5;

/// How long data may stay unacknowledged, or a client's window closed, before the kernel ends the connection, milliseconds.
const USER_TIMEOUT_MS: u32 = 10_000;

/// Bytes that the kernel keeps of what a client has sent and was not read yet; it reserves twice that for its bookkeeping.
/// Longer than any sensible head, and short enough that clients cannot queue much work in it.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// Bytes that the kernel keeps of what a client has not acknowledged yet, likewise: room for any response, and no more memory
/// than this for a client that does not read.
const SEND_BUFFER: usize = 128 * 1024;

/// Opens the listening socket. `[::]` listens on IPv4 as well; on a system without IPv6, it is `0.0.0.0` instead.
///
/// # Errors
///
/// Returns the error of the system call: the port is in use, or may not be bound.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    match open_family(address) {
        Err(error) if address.ip().is_unspecified() && error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            open_family(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        opened => opened,
    }
}

fn open_family(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER)?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(WRITE_TIMEOUT_MS))?;
    setsockopt(&fd, sockopt::TcpUserTimeout, &USER_TIMEOUT_MS)?;
    if address.is_ipv6() {
        // [::] listens on IPv4 as well, whatever the system's default.
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(fd))
}

/// Refuses new connections from now on. Those that were accepted stay open.
///
/// # Errors
///
/// Returns the error of the system call.
pub(super) fn close(listener: &TcpListener) -> io::Result<()> {
    Ok(shutdown(listener.as_raw_fd(), Shutdown::Both)?)
}

/// Raises the limit on open descriptors to the hard limit: a connection takes two.
///
/// # Errors
///
/// Returns the error of the system call; the server works with the lower limit too.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}
