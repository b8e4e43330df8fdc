//! The process's connected sockets, which tiny_http does not give access to: found by number, identified by peer.
//!
//! By the time a descriptor number is used, it may belong to another socket: tiny_http's threads close sockets at any time, and the
//! next connection gets the lowest free number. So a socket is pinned first: its descriptor is duplicated, and the duplicate's
//! peer checked. Everything else is done to the duplicate.
//!
//! Invariants:
//! - Only tiny_http closes its descriptors. Sockets are shut down or emptied here, nothing else.
//! - One descriptor pins all sockets, one after the other: a look works even if no descriptor is free.

use std::collections::HashSet;
use std::io;
use std::mem::offset_of;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    MsgFlags, Shutdown, SockaddrStorage, getpeername, getsockname, getsockopt, recv, shutdown, sockopt,
};
use nix::unistd::dup2;
use socket2::SockRef;

use crate::metrics;
use crate::server::limits;

/// A look ends after this many closed numbers in a row, once it has found as many descriptors as are open and has passed the highest
/// connection of the last look. The kernel hands out the lowest free number, so open ones lie close together.
const GAP: u32 = 64;

/// A look ends after this many closed numbers in a row in any case. There is a connection behind so long a gap only if all numbers
/// in the gap were open at once, and none is any more.
const GAP_MAX: u32 = 65_536;

/// Descriptors that count as open but are not yet: a thread that blocks in `accept` has reserved one.
const RESERVED_MAX: u64 = 8;

/// After how many connections a look gives way to the server's threads. It would keep a request waiting otherwise, if there are
/// thousands of connections.
const YIELD_EVERY: usize = 64;

/// Bytes that are discarded at a time.
const DISCARD_AT_A_TIME: usize = 32 * 1024;

/// How often at most. Together more than the receive buffer holds.
const DISCARDS_MAX: u32 = 8;

/// `struct tcp_info` of the kernel (linux/tcp.h) as far as [`SENT`], in words of 64 bits. Linux 4.19 and later fill it.
type TcpInfoWords = [u64; SENT + 1];

/// Of a listening socket, the number of connections that wait to be accepted. 32 bits.
const UNACKNOWLEDGED: usize = offset_of!(libc::tcp_info, tcpi_unacked);

/// The place of the state in the first word, and the states of a socket that was shut down for writing or is closed (net/tcp_states.h).
const STATE: usize = offset_of!(libc::tcp_info, tcpi_state);
const TCP_CLOSE: u8 = 7;
const FIN_WAIT1_AND_2_LAST_ACK_CLOSING: [u8; 4] = [4, 5, 9, 11];

/// The words that count the bytes received and sent.
const RECEIVED: usize = offset_of!(libc::tcp_info, tcpi_bytes_received) / size_of::<u64>();
const SENT: usize = offset_of!(libc::tcp_info, tcpi_bytes_sent) / size_of::<u64>();

#[derive(Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(
    TcpInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfoWords,
    sockopt::GetStruct<TcpInfoWords>
);

fn state(info: &TcpInfoWords) -> u8 {
    info[0].to_ne_bytes()[STATE]
}

/// Returns how many connections wait in the kernel to be accepted.
///
/// # Errors
///
/// Returns the error of the system call.
pub(super) fn queued(listener: &TcpListener) -> io::Result<u32> {
    let info = getsockopt(listener, TcpInfo)?;
    let [a, b, c, d, e, f, g, h] = info[UNACKNOWLEDGED / size_of::<u64>()].to_ne_bytes();
    let is_first_half = UNACKNOWLEDGED.is_multiple_of(size_of::<u64>());
    Ok(u32::from_ne_bytes(if is_first_half {
        [a, b, c, d]
    } else {
        [e, f, g, h]
    }))
}

/// The connected sockets of one listening port.
pub(super) struct Sockets {
    port: u16,
    /// The duplicate of the pinned socket's descriptor, or of `idle`.
    pin: OwnedFd,
    /// Is pinned between two looks: a socket that is connected to nothing.
    idle: OwnedFd,
    /// The highest number at which the last look found a connection.
    highest: RawFd,
    /// The peers found in a look: tiny_http has two descriptors for each connection.
    found: HashSet<SocketAddr>,
}

/// What a look finds.
pub(super) enum Found<'a> {
    /// A connection, once for both of its descriptors.
    Connection(Connection<'a>),
    /// A descriptor of a socket of ours whose connection is gone, by the number of the socket.
    Gone(u64),
}

/// A connection whose socket is pinned.
#[derive(Clone, Copy)]
pub(super) struct Connection<'a> {
    peer: SocketAddr,
    socket: &'a OwnedFd,
}

/// How many bytes a connection has carried, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Whether the socket was shut down for writing.
    pub(super) is_shut: bool,
}

impl Sockets {
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub(super) fn of_port(port: u16) -> io::Result<Sockets> {
        let idle = OwnedFd::from(UnixDatagram::unbound()?);
        Ok(Sockets {
            port,
            pin: idle.try_clone()?,
            idle,
            highest: 0,
            found: HashSet::new(),
        })
    }

    /// Calls `visit` for everything that there is to find. What comes or goes meanwhile may be missed.
    pub(super) fn for_each(&mut self, mut visit: impl FnMut(Found<'_>)) {
        let limit = RawFd::try_from(limits::descriptors()).unwrap_or(RawFd::MAX);
        let mut left = metrics::open_fds().unwrap_or(u64::MAX);
        let mut gap = 0;
        let known = std::mem::take(&mut self.highest);
        self.found.clear();
        for fd in 0..limit {
            let peer = getpeername::<SockaddrStorage>(fd);
            if peer == Err(Errno::EBADF) {
                gap += 1;
                if gap >= GAP_MAX || (gap >= GAP && left <= RESERVED_MAX && fd > known) {
                    break;
                }
                continue;
            }
            gap = 0;
            left = left.saturating_sub(1);
            if peer == Err(Errno::ENOTCONN) {
                if let Some(socket) = self.gone(fd) {
                    self.highest = fd;
                    visit(Found::Gone(socket));
                }
                continue;
            }
            let Some(peer) = peer.ok().and_then(|peer| address(&peer)) else {
                continue;
            };
            self.highest = fd;
            if !self.found.contains(&peer) && self.pin(fd, peer) {
                self.found.insert(peer);
                visit(Found::Connection(Connection {
                    peer,
                    socket: &self.pin,
                }));
                if self.found.len().is_multiple_of(YIELD_EVERY) {
                    thread::yield_now();
                }
            }
        }
        // Else the last socket would stay open after tiny_http has closed it.
        self.unpin();
    }

    /// Pins the socket that has the number `fd` now. Returns whether it is `peer`'s, on our port.
    fn pin(&mut self, fd: RawFd, peer: SocketAddr) -> bool {
        let found = self.pin_number(fd);
        found.is_some_and(|found| found.ok().and_then(|found| address(&found)) == Some(peer))
    }

    /// Pins the socket that has the number `fd` now. Returns the number of the socket if it is on our port and its connection is gone.
    fn gone(&mut self, fd: RawFd) -> Option<u64> {
        let is_gone = self.pin_number(fd)? == Err(Errno::ENOTCONN)
            && getsockopt(&self.pin, TcpInfo).is_ok_and(|info| state(&info) == TCP_CLOSE);
        is_gone.then(|| SockRef::from(&self.pin).cookie().ok())?
    }

    /// Pins what has the number `fd` now. Returns the peer, if it is a socket on our port.
    #[allow(unsafe_code)]
    fn pin_number(&mut self, fd: RawFd) -> Option<nix::Result<SockaddrStorage>> {
        // SAFETY: the borrowed number is only duplicated, which is sound whatever it stands for: if it is closed, `dup2` fails, and if it
        // is another's by now, the duplicate's addresses show it. Nothing is done to the number itself.
        dup2(unsafe { BorrowedFd::borrow_raw(fd) }, &mut self.pin).ok()?;
        let pinned = self.pin.as_raw_fd();
        let local = address(&getsockname(pinned).ok()?)?;
        (local.port() == self.port).then(|| getpeername(pinned))
    }

    fn unpin(&mut self) {
        // Both are open, so it cannot fail, even if no descriptor is free.
        let _ = dup2(&self.idle, &mut self.pin);
    }
}

impl Connection<'_> {
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns its traffic.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        let info = getsockopt(self.socket, TcpInfo).ok()?;
        Some(Traffic {
            received: info[RECEIVED],
            sent: info[SENT],
            is_shut: FIN_WAIT1_AND_2_LAST_ACK_CLOSING.contains(&state(&info)),
        })
    }

    /// Returns the number of its socket, which no other socket ever has.
    pub(super) fn socket(&self) -> Option<u64> {
        SockRef::from(self.socket).cookie().ok()
    }

    /// Returns how many received bytes are unread, at most the length of `counted`.
    pub(super) fn unread(&self, counted: &mut [u8]) -> usize {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        // MSG_TRUNC: nothing is copied (tcp(7)).
        recv(self.socket.as_raw_fd(), counted, flags).unwrap_or(0)
    }

    /// Shuts down writing: the client reads the end of the connection.
    pub(super) fn shut_down_writing(&self) {
        // Fails if the client has closed the connection.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }

    /// Discards the bytes that are received and not read.
    pub(super) fn discard_unread(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let mut discarded = [0; DISCARD_AT_A_TIME];
        for _ in 0..DISCARDS_MAX {
            if !recv(self.socket.as_raw_fd(), &mut discarded, flags).is_ok_and(|len| len > 0) {
                return;
            }
        }
    }

    /// Shuts down the connection and discards its unread bytes: tiny_http's thread reads its end at once, and closes it.
    pub(super) fn close(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        self.discard_unread();
    }
}

fn address(socket: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = socket.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| socket.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::{Duration, Instant};

    /// One test at a time: they are about the numbers of descriptors, which they share.
    fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen() -> (TcpListener, Sockets) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = Sockets::of_port(listener.local_addr().unwrap().port()).unwrap();
        (listener, sockets)
    }

    /// A client, the server's end, and the client's address.
    fn connect(listener: &TcpListener) -> (TcpStream, TcpStream, SocketAddr) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        (client, server, peer)
    }

    fn peers(sockets: &mut Sockets) -> Vec<SocketAddr> {
        let mut peers = Vec::new();
        for_each_connection(sockets, |connection| peers.push(connection.peer()));
        peers
    }

    fn for_each_connection(sockets: &mut Sockets, mut visit: impl FnMut(Connection<'_>)) {
        sockets.for_each(|found| {
            if let Found::Connection(connection) = found {
                visit(connection);
            }
        });
    }

    /// Returns the sockets that are found without a connection, once for each descriptor.
    fn gone(sockets: &mut Sockets) -> Vec<u64> {
        let mut gone = Vec::new();
        sockets.for_each(|found| {
            if let Found::Gone(socket) = found {
                gone.push(socket);
            }
        });
        gone
    }

    /// Does something to the connection of `peer`, which must be there.
    fn with(sockets: &mut Sockets, peer: SocketAddr, mut action: impl FnMut(Connection<'_>)) {
        let mut found = 0;
        for_each_connection(sockets, |connection| {
            if connection.peer() == peer {
                found += 1;
                action(connection);
            }
        });
        assert_eq!(found, 1);
    }

    fn assert_works(client: &mut TcpStream, server: &mut TcpStream) {
        client.write_all(b"!").unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 1);
        server.write_all(b"!").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_connection_is_found_once_by_its_peer_and_closed() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (mut client, server, peer) = connect(&listener);
        let _second = server.try_clone().unwrap();
        let (mut other, mut unharmed, other_peer) = connect(&listener);
        let found = peers(&mut sockets);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&peer) && found.contains(&other_peer));
        with(&mut sockets, peer, |connection| connection.close());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_works(&mut other, &mut unharmed);
    }

    #[test]
    fn only_connections_of_our_port_are_found() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (other_listener, mut other_sockets) = listen();
        let (_other, _other_server, other_peer) = connect(&other_listener);
        assert_eq!(peers(&mut sockets), []);
        let (_client, _server, peer) = connect(&listener);
        assert_eq!(peers(&mut sockets), [peer]);
        assert_eq!(peers(&mut other_sockets), [other_peer]);
    }

    #[test]
    fn a_closed_connection_is_emptied() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (mut client, mut server, peer) = connect(&listener);
        client.write_all(&[0; 4096]).unwrap();
        with(&mut sockets, peer, |connection| {
            assert_eq!(connection.unread(&mut [0; 1024]), 1024, "as far as there is room");
            assert_eq!(connection.unread(&mut [0; 8192]), 4096);
            connection.close();
        });
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "it is not reset");
    }

    #[test]
    fn a_connection_shut_down_for_writing_still_reads() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (mut client, mut server, peer) = connect(&listener);
        with(&mut sockets, peer, |connection| connection.shut_down_writing());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        client.write_all(b"!").unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_socket_that_was_shut_down_is_found_at_each_descriptor_while_it_has_a_connection_and_after() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (client, server, peer) = connect(&listener);
        let (_other, other_server, other_peer) = connect(&listener);
        let _second = server.try_clone().unwrap();
        let mut socket = None;
        with(&mut sockets, peer, |connection| {
            assert!(!connection.traffic().unwrap().is_shut);
            socket = connection.socket();
            connection.close();
        });
        with(&mut sockets, peer, |connection| {
            assert!(connection.traffic().unwrap().is_shut);
            assert_eq!(connection.socket(), socket);
        });
        assert_eq!(
            gone(&mut sockets),
            [],
            "neither the listener nor a socket with a connection"
        );
        drop(client);
        // The end of the connection may take a moment, even here.
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut found = Vec::new();
        while found.is_empty() && Instant::now() < deadline {
            found = gone(&mut sockets);
        }
        assert_eq!(found, [socket.unwrap(); 2]);
        assert_eq!(peers(&mut sockets), [other_peer]);
        drop(server);
        assert_eq!(gone(&mut sockets), [socket.unwrap()]);
        drop(other_server);
    }

    #[test]
    fn the_traffic_of_a_connection_is_counted() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (mut client, mut server, peer) = connect(&listener);
        client.write_all(&[0; 300]).unwrap();
        server.write_all(&[0; 200]).unwrap();
        client.read_exact(&mut [0; 200]).unwrap();
        with(&mut sockets, peer, |connection| {
            let traffic = connection.traffic().unwrap();
            assert_eq!((traffic.received, traffic.sent), (300, 200));
        });
    }

    #[test]
    fn connections_that_wait_to_be_accepted_are_counted() {
        let (listener, _) = listen();
        let address = listener.local_addr().unwrap();
        let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(queued(&listener).unwrap(), 3);
        let _accepted = listener.accept().unwrap();
        assert_eq!(queued(&listener).unwrap(), 2);
    }

    #[test]
    fn a_look_keeps_no_socket_open() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (mut client, server, peer) = connect(&listener);
        assert_eq!(peers(&mut sockets), [peer]);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(peers(&mut sockets), []);
    }

    #[test]
    fn a_pinned_socket_is_the_same_although_its_number_was_reused() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (mut client, server, peer) = connect(&listener);
        let number = server.as_raw_fd();
        let (mut server, mut others) = (Some(server), Vec::new());
        let mut closed = false;
        for_each_connection(&mut sockets, |connection| {
            if connection.peer() != peer {
                return;
            }
            drop(server.take());
            others.extend((0..100).map(|_| connect(&listener)));
            let numbers = |(client, server, _): &(TcpStream, TcpStream, _)| [client.as_raw_fd(), server.as_raw_fd()];
            assert!(others.iter().any(|other| numbers(other).contains(&number)));
            connection.close();
            closed = true;
        });
        assert!(closed);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        for (other, unharmed, _) in &mut others {
            assert_works(other, unharmed);
        }
    }
}
