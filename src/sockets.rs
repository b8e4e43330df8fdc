//! The process's own connected sockets, which tiny_http keeps to itself: found by their numbers, known by their peers.
//!
//! What is done to a socket wakes its connection's thread, which closes it, and the next connection may have its number at
//! once. So a socket is pinned before anything is done to it: a second descriptor of it is had by sending the first one to
//! oneself (unix(7), `SCM_RIGHTS`), which needs no unsafe code, and its peer is asked for anew. A pinned socket stays the
//! one that it is, whatever becomes of the number that it was found by.
//!
//! What is always true:
//! - The descriptors that tiny_http has stay its own to close: here conversations are ended or emptied, nothing else.
//! - Of a connection, which has two sockets' numbers, one is touched.
//! - A socket whose peer has reset it has no peer any more and is not found: its thread has been told already.
//! - Where no descriptor is left to pin one with, it is ended by its number, and the worst that can come of it is that another
//!   connection ends. Nothing else here opens a descriptor but on kernels before 6.2.

use std::collections::HashSet;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage,
    getpeername, recv, recvmsg, sendmsg, shutdown, socketpair,
};
use nix::unistd::close;

/// Closed numbers in a row after which no further descriptor is looked for, once as many were found as are open and none was
/// found at a higher number the last time. The kernel hands out the lowest number that is free, so they lie close together.
const GAP: i32 = 64;

/// The same, however many are said to be open: more than these must have been open at once for one to hide behind such a gap.
const GAP_MAX: i32 = 65_536;

/// What is read at a time off a socket that is emptied, bytes.
const EMPTIED_AT_A_TIME: usize = 32 * 1024;

/// How many descriptors are open, if the kernel tells without one being opened (Linux 6.2 and later).
pub(crate) fn open_descriptors() -> Option<u64> {
    fs::metadata("/proc/self/fd")
        .map(|folder| folder.len())
        .ok()
        .filter(|&open| open > 0)
}

/// How many descriptors may be open.
pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

fn peer_of(fd: RawFd) -> nix::Result<Option<SocketAddr>> {
    let peer: SockaddrStorage = getpeername(fd)?;
    let v4 = peer.as_sockaddr_in().map(|peer| SocketAddr::V4((*peer).into()));
    Ok(v4.or_else(|| peer.as_sockaddr_in6().map(|peer| SocketAddr::V6((*peer).into()))))
}

/// Tells a socket from any other, those of the same peer before and after it included: its number in the kernel's sockfs, which
/// gives each the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId(pub(crate) u64);

impl SocketId {
    /// That of the socket `fd`, if it is `peer`'s and the kernel tells.
    pub(crate) fn of(fd: RawFd, peer: SocketAddr) -> Option<SocketId> {
        // Follows the link to the socket, and opens nothing.
        let socket = fs::metadata(format!("/proc/self/fd/{fd}")).ok()?;
        (peer_of(fd) == Ok(Some(peer))).then(|| SocketId(socket.ino()))
    }
}

/// How many bytes a socket has received that are not read yet, counted as far as `counted` has room.
pub(crate) fn unread(fd: RawFd, counted: &mut [u8]) -> usize {
    // MSG_TRUNC: nothing is copied (tcp(7)).
    recv(
        fd,
        counted,
        MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
    )
    .unwrap_or(0)
}

/// The way to the process's connected sockets.
pub struct Sockets {
    /// The highest number at which the last whole look found a connection.
    highest: AtomicI32,
    /// What descriptors are sent to oneself through: in at the first, out at the second.
    tube: Mutex<(OwnedFd, OwnedFd)>,
}

impl Sockets {
    /// # Errors
    ///
    /// As the system's, where two descriptors can not be had.
    pub fn open() -> io::Result<Sockets> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let tube = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        Ok(Sockets {
            highest: AtomicI32::new(-1),
            tube: Mutex::new(tube),
        })
    }

    /// Every connected socket with its peer; tiny_http has two for each connection.
    ///
    /// Those that come or go meanwhile may be missed. Others must not be, though what is opened meanwhile is counted in their
    /// place: so the look does not end with the count, but past where the last one found a connection, and at a gap.
    pub(crate) fn connected(&self) -> impl Iterator<Item = (RawFd, SocketAddr)> {
        let limit = descriptor_limit();
        let mut left = open_descriptors().unwrap_or_else(|| {
            // Where the folder can not be opened, the limit is reached.
            fs::read_dir("/proc/self/fd").map_or(limit, |entries| entries.count() as u64)
        });
        let limit = RawFd::try_from(limit).unwrap_or(RawFd::MAX);
        let known = self.highest.load(Ordering::Relaxed);
        let (mut next, mut gap, mut highest) = (0, 0, -1);
        std::iter::from_fn(move || {
            loop {
                let fd = next;
                if fd >= limit || gap >= GAP_MAX || (gap >= GAP && left == 0 && fd > known) {
                    self.highest.store(highest, Ordering::Relaxed);
                    return None;
                }
                next += 1;
                let peer = peer_of(fd);
                if peer == Err(Errno::EBADF) {
                    gap += 1;
                    continue;
                }
                (gap, left) = (0, left.saturating_sub(1));
                if let Ok(Some(peer)) = peer {
                    highest = fd;
                    return Some((fd, peer));
                }
            }
        })
    }

    /// One socket for each of `peers` that is connected; then those that are not.
    pub(crate) fn of(&self, mut peers: HashSet<SocketAddr>) -> impl Iterator<Item = (SocketAddr, Option<Socket>)> {
        let mut connected = (!peers.is_empty()).then(|| self.connected());
        std::iter::from_fn(move || {
            loop {
                if peers.is_empty() {
                    return None;
                }
                let Some((fd, peer)) = connected.as_mut().and_then(Iterator::next) else {
                    connected = None;
                    let missing = *peers.iter().next()?;
                    peers.remove(&missing);
                    return Some((missing, None));
                };
                if !peers.contains(&peer) {
                    continue;
                }
                let pin = self.pin(fd);
                let socket = Socket {
                    peer,
                    fd: pin.unwrap_or(fd),
                    pinned: pin.is_some(),
                };
                // Otherwise the number was another's already.
                if peer_of(socket.fd) == Ok(Some(peer)) {
                    peers.remove(&peer);
                    return Some((peer, Some(socket)));
                }
            }
        })
    }

    /// A second descriptor of a socket. None where the number is closed, or no descriptor is left.
    fn pin(&self, fd: RawFd) -> Option<RawFd> {
        let tube = self.tube.lock().unwrap_or_else(PoisonError::into_inner);
        let rights = [fd];
        let sent = [ControlMessage::ScmRights(&rights)];
        // A byte goes with it, since a message must hold something to be one.
        sendmsg::<()>(
            tube.0.as_raw_fd(),
            &[IoSlice::new(b"!")],
            &sent,
            MsgFlags::empty(),
            None,
        )
        .ok()?;
        let (mut byte, mut room) = ([0], cmsg_space!(RawFd));
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let received = recvmsg::<()>(
            tube.1.as_raw_fd(),
            &mut bytes,
            Some(&mut room),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .ok()?;
        received.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
    }

    /// Shuts down the connections of `peers`.
    pub(crate) fn shut_down(&self, peers: HashSet<SocketAddr>, how: Shutdown) {
        for socket in self.of(peers).filter_map(|(_, socket)| socket) {
            socket.shut_down(how);
        }
    }

    /// The peers that have sent at least `unread_min` bytes that are not read yet.
    pub(crate) fn ahead(&self, unread_min: usize) -> HashSet<SocketAddr> {
        let mut counted = vec![0; unread_min];
        self.connected()
            .filter(|&(fd, peer)| unread(fd, &mut counted) >= unread_min && peer_of(fd) == Ok(Some(peer)))
            .map(|(_, peer)| peer)
            .collect()
    }
}

/// A connected socket, pinned if a descriptor was left to pin it with.
pub(crate) struct Socket {
    peer: SocketAddr,
    fd: RawFd,
    pinned: bool,
}

impl Socket {
    /// Whether it stays the one that it is for as long as this is kept.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Which socket it is, if the kernel tells.
    pub(crate) fn id(&self) -> Option<SocketId> {
        SocketId::of(self.fd, self.peer)
    }

    /// Takes away what its thread has not read yet, and shuts the connection down.
    pub(crate) fn cut_short(&self) {
        // MSG_TRUNC: what is taken goes nowhere (tcp(7)).
        let mut taken = [0; EMPTIED_AT_A_TIME];
        while recv(self.fd, &mut taken, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).is_ok_and(|len| len > 0) {}
        self.shut_down(Shutdown::Both);
    }

    /// Shuts the connection down.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        // It may have ended by itself since.
        let _ = shutdown(self.fd, how);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.pinned {
            // The only error is that of a number that is not open, which would be a fault of ours.
            let _ = close(self.fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::MutexGuard;

    /// One test at a time: they are about the numbers of descriptors, which they share.
    fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        pair_of(&TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn pair_of(listener: &TcpListener) -> (TcpStream, TcpStream, SocketAddr) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        (client, server, peer)
    }

    #[test]
    fn a_connection_is_found_by_its_peer_and_ended() {
        let _turn = turn();
        let sockets = Sockets::open().unwrap();
        let (mut client, _server, peer) = pair();
        let (mut other, mut unharmed, _) = pair();
        assert!(sockets.connected().any(|(_, found)| found == peer));
        sockets.shut_down(HashSet::from([peer]), Shutdown::Both);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        other.write_all(b"!").unwrap();
        assert_eq!(unharmed.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_pinned_socket_is_the_same_after_its_number_has_become_anothers() {
        let _turn = turn();
        let sockets = Sockets::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, server, peer) = pair_of(&listener);
        let (_, socket) = sockets.of(HashSet::from([peer])).next().expect("an answer");
        let socket = socket.expect("it is found");
        assert!(socket.is_pinned());
        let number = server.as_raw_fd();
        drop(server);
        let others: Vec<_> = (0..100).map(|_| pair_of(&listener)).collect();
        assert!(
            others
                .iter()
                .any(|(client, server, _)| [client.as_raw_fd(), server.as_raw_fd()].contains(&number))
        );
        socket.shut_down(Shutdown::Both);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        for (mut other, mut unharmed, _) in others {
            other.write_all(b"!").unwrap();
            assert_eq!(unharmed.read(&mut [0]).unwrap(), 1);
        }
    }

    #[test]
    fn connections_are_found_however_many_are_opened_during_the_look() {
        let _turn = turn();
        let sockets = Sockets::open().unwrap();
        let (first, between, last) = (pair(), [(); 60].map(|()| pair()), pair());
        drop(between);
        // Tests of other modules open descriptors too; so the first look may miss it, but not all do.
        while !sockets.connected().any(|(_, peer)| peer == last.2) {}
        assert!(sockets.connected().count() > 1);
        let mut look = sockets.connected();
        assert!(look.by_ref().any(|(_, peer)| peer == first.2));
        // They have the lower numbers, and so come before it.
        let _opened_meanwhile = [(); 50].map(|()| pair());
        assert!(look.any(|(_, peer)| peer == last.2));
    }

    #[test]
    fn only_who_has_sent_that_much_is_ahead_and_cutting_takes_it_away() {
        let _turn = turn();
        let sockets = Sockets::open().unwrap();
        let (mut client, mut server, peer) = pair();
        client.write_all(&[0; 4095]).unwrap();
        assert!(!sockets.ahead(4096).contains(&peer));
        client.write_all(&[0]).unwrap();
        assert!(sockets.ahead(4096).contains(&peer));
        for (_, socket) in sockets.of(HashSet::from([peer])) {
            socket.expect("it is found").cut_short();
        }
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }
}
