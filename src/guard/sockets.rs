//! The process's connected sockets, which tiny_http does not give access to: found by number, identified by peer.
//!
//! By the time a descriptor number is used, it may belong to another socket: tiny_http's threads close sockets at any time, and the
//! next connection gets the lowest free number. So a socket is pinned first: its descriptor is duplicated, and the duplicate asked
//! for its peer. Everything else is done to the duplicate.
//!
//! Invariants:
//! - Only tiny_http closes its descriptors. Sockets are shut down or emptied here, nothing else.
//! - One descriptor pins all sockets, one after the other: a look works even if no descriptor is free.

use std::collections::HashSet;
use std::io;
use std::mem::offset_of;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    MsgFlags, Shutdown, SockaddrIn, SockaddrIn6, SockaddrStorage, getpeername, getsockname, getsockopt, recv, shutdown,
    sockopt,
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

/// States of a connection that the server has shut down, and of one that has ended (linux/tcp_states.h).
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// The peer of a connection, also after its end, when `getpeername` fails. The address has to be as long as the family's.
#[derive(Clone, Copy)]
struct PeerNameV4;

nix::getsockopt_impl!(
    PeerNameV4,
    libc::SOL_SOCKET,
    libc::SO_PEERNAME,
    libc::sockaddr_in,
    sockopt::GetStruct<libc::sockaddr_in>
);

#[derive(Clone, Copy)]
struct PeerNameV6;

nix::getsockopt_impl!(
    PeerNameV6,
    libc::SOL_SOCKET,
    libc::SO_PEERNAME,
    libc::sockaddr_in6,
    sockopt::GetStruct<libc::sockaddr_in6>
);

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

/// A connection whose socket is pinned.
#[derive(Clone, Copy)]
pub(super) struct Connection<'a> {
    peer: SocketAddr,
    state: State,
    traffic: Option<Traffic>,
    socket: &'a OwnedFd,
}

/// How near a connection is to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The server has not shut it down.
    Open,
    /// The server has shut it down, at least for writing.
    ShutDown,
    /// Nothing is sent or received any more: both sides have shut it down, or one has reset it.
    Ended,
}

/// How many bytes a connection has carried, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) received: u64,
    pub(super) sent: u64,
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

    /// Calls `visit` for each connection, once. One that comes or goes meanwhile may be missed. One that has ended is visited for each of
    /// its descriptors, since its peer may have a new connection from the same port.
    pub(super) fn for_each(&mut self, mut visit: impl FnMut(Connection<'_>)) {
        let limit = RawFd::try_from(limits::descriptors()).unwrap_or(RawFd::MAX);
        let mut left = metrics::open_fds().unwrap_or(u64::MAX);
        let mut gap = 0;
        let mut visited: usize = 0;
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
            match peer.map(|peer| address(&peer)) {
                Ok(Some(peer)) => {
                    self.highest = fd;
                    if self.found.contains(&peer) {
                        continue;
                    }
                }
                // It may have ended.
                Err(Errno::ENOTCONN) => {}
                _ => continue,
            }
            let Some((peer, state, traffic)) = self.pin(fd) else {
                continue;
            };
            self.highest = fd;
            if state != State::Ended && !self.found.insert(peer) {
                continue;
            }
            visit(Connection {
                peer,
                state,
                traffic,
                socket: &self.pin,
            });
            visited += 1;
            if visited.is_multiple_of(YIELD_EVERY) {
                thread::yield_now();
            }
        }
        // Else the last socket would stay open after tiny_http has closed it.
        self.unpin();
    }

    /// Pins the socket that has the number `fd` now. Returns its peer and how it is, if it is a connection of our port.
    #[allow(unsafe_code)]
    fn pin(&mut self, fd: RawFd) -> Option<(SocketAddr, State, Option<Traffic>)> {
        // SAFETY: the borrowed number is only duplicated, which is sound whatever it stands for: if it is closed, `dup2` fails, and if it
        // is another's by now, the duplicate's addresses say whose. Nothing is done to the number itself.
        dup2(unsafe { BorrowedFd::borrow_raw(fd) }, &mut self.pin).ok()?;
        let local = address(&getsockname(self.pin.as_raw_fd()).ok()?)?;
        if local.port() != self.port {
            return None;
        }
        let info = getsockopt(&self.pin, TcpInfo).ok();
        let peer = match getpeername(self.pin.as_raw_fd()) {
            Ok(peer) => address(&peer)?,
            Err(_) => last_peer(&self.pin, local)?,
        };
        let traffic = info.map(|info| Traffic {
            received: info[RECEIVED],
            sent: info[SENT],
        });
        Some((peer, info.map_or(State::Open, state), traffic))
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

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns its traffic, unless the kernel does not tell.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        self.traffic
    }

    /// Returns the number by which the kernel tells it from all others, or None if it does not.
    pub(super) fn cookie(&self) -> Option<u64> {
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

/// Returns the peer that a socket has or had.
fn last_peer(socket: &OwnedFd, local: SocketAddr) -> Option<SocketAddr> {
    Some(match local {
        SocketAddr::V4(_) => SocketAddrV4::from(SockaddrIn::from(getsockopt(socket, PeerNameV4).ok()?)).into(),
        SocketAddr::V6(_) => SocketAddrV6::from(SockaddrIn6::from(getsockopt(socket, PeerNameV6).ok()?)).into(),
    })
}

fn state(info: TcpInfoWords) -> State {
    // The kernel's state is in the first byte.
    match info[0].to_ne_bytes()[0] {
        FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK => State::ShutDown,
        CLOSE => State::Ended,
        _ => State::Open,
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
    use std::time::Duration;

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
        sockets.for_each(|connection| peers.push(connection.peer()));
        peers
    }

    /// Does something to the connection of `peer`, which must be there.
    fn with(sockets: &mut Sockets, peer: SocketAddr, mut action: impl FnMut(Connection<'_>)) {
        let mut found = 0;
        sockets.for_each(|connection| {
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
    fn a_connection_keeps_its_peer_and_its_cookie_until_the_last_descriptor_is_closed() {
        let _turn = turn();
        let (listener, mut sockets) = listen();
        let (client, server, peer) = connect(&listener);
        let (_other, _other_server, other_peer) = connect(&listener);
        let second = server.try_clone().unwrap();
        let look = |sockets: &mut Sockets| {
            let mut seen = Vec::new();
            sockets.for_each(|connection| {
                if connection.peer() == peer {
                    seen.push((connection.state(), connection.cookie().unwrap()));
                } else {
                    assert_eq!((connection.peer(), connection.state()), (other_peer, State::Open));
                }
            });
            seen
        };
        let open = look(&mut sockets);
        let [(State::Open, cookie)] = open[..] else {
            panic!("{open:?}");
        };
        server.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(look(&mut sockets), [(State::ShutDown, cookie)]);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(look(&mut sockets), [(State::Ended, cookie); 2], "for each descriptor");
        drop((server, second));
        assert_eq!(look(&mut sockets), []);
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
        sockets.for_each(|connection| {
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
