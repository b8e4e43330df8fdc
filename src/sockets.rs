//! The process's own connected sockets, which tiny_http keeps to itself: found by their numbers, known by their peers.
//!
//! `shutdown` and reading only end or empty a conversation: the descriptors stay tiny_http's to close, so nothing dangles,
//! and the worst that a race with a number's or a port's reuse can do is to end a connection too many. A socket whose peer
//! has reset it has no peer any more and is not found: its thread has been told already.
//!
//! Nothing here opens a descriptor but on kernels before 6.2, so it works while there are none left.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getpeername, recv, shutdown};

/// Closed numbers in a row after which no further descriptor is looked for. The kernel hands out the lowest number that is
/// free, so more than these must have been open at once for one to hide behind such a gap.
const GAP_MAX: usize = 65_536;

/// What is read at a time off a socket that is emptied, bytes.
const EMPTIED_AT_A_TIME: usize = 64 * 1024;

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

/// Every connected socket with its peer; tiny_http has two for each connection.
pub(crate) fn connected() -> impl Iterator<Item = (RawFd, SocketAddr)> {
    let limit = descriptor_limit();
    let open = open_descriptors().unwrap_or_else(|| {
        // Where the folder can not be opened, the limit is reached.
        fs::read_dir("/proc/self/fd").map_or(limit, |entries| entries.count() as u64)
    });
    let mut left = open;
    let mut gap = 0;
    (0..RawFd::try_from(limit).unwrap_or(RawFd::MAX))
        .map_while(move |fd| {
            if left == 0 || gap > GAP_MAX {
                return None;
            }
            let peer = getpeername::<SockaddrStorage>(fd);
            if peer == Err(Errno::EBADF) {
                gap += 1;
            } else {
                left -= 1;
                gap = 0;
            }
            Some(peer.ok().and_then(|peer| Some((fd, address(&peer)?))))
        })
        .flatten()
}

fn address(peer: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(peer) = peer.as_sockaddr_in() {
        return Some(SocketAddr::V4((*peer).into()));
    }
    Some(SocketAddr::V6((*peer.as_sockaddr_in6()?).into()))
}

/// One socket for each connection of `peers`.
///
/// One only: what is done to a connection wakes its thread, which closes both, and another's may have the second one's number
/// by the time that it is come to.
fn of(mut peers: HashSet<SocketAddr>) -> impl Iterator<Item = RawFd> {
    let mut left = connected();
    std::iter::from_fn(move || {
        if peers.is_empty() {
            return None;
        }
        left.find(|(_, peer)| peers.remove(peer)).map(|(fd, _)| fd)
    })
}

/// Shuts down the connections of `peers`.
pub(crate) fn shut_down(peers: HashSet<SocketAddr>, how: Shutdown) {
    for fd in of(peers) {
        // It may have ended by itself since.
        let _ = shutdown(fd, how);
    }
}

/// Takes away what the threads of these connections have not read yet, and shuts them down.
pub(crate) fn cut_short(peers: HashSet<SocketAddr>) {
    if peers.is_empty() {
        return;
    }
    // MSG_TRUNC: what is taken goes nowhere (tcp(7)).
    let mut taken = vec![0; EMPTIED_AT_A_TIME];
    for fd in of(peers) {
        while recv(fd, &mut taken, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).is_ok_and(|len| len > 0) {}
        // Last, since its number may be another's afterwards.
        let _ = shutdown(fd, Shutdown::Both);
    }
}

/// The peers that have sent at least `unread_min` bytes that are not read yet.
pub(crate) fn ahead(unread_min: usize) -> HashSet<SocketAddr> {
    let mut unread = vec![0; unread_min];
    connected()
        .filter(|&(fd, _)| {
            let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            recv(fd, &mut unread, look).is_ok_and(|len| len >= unread_min)
        })
        .map(|(_, peer)| peer)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        (client, server, peer)
    }

    #[test]
    fn a_connection_is_found_by_its_peer_and_ended() {
        let (mut client, _server, peer) = pair();
        let (mut other, mut unharmed, _) = pair();
        assert!(connected().any(|(_, found)| found == peer));
        shut_down(HashSet::from([peer]), Shutdown::Both);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        other.write_all(b"!").unwrap();
        assert_eq!(unharmed.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn only_who_has_sent_that_much_is_ahead_and_cutting_takes_it_away() {
        let (mut client, mut server, peer) = pair();
        client.write_all(&[0; 4095]).unwrap();
        assert!(!ahead(4096).contains(&peer));
        client.write_all(&[0]).unwrap();
        assert!(ahead(4096).contains(&peer));
        cut_short(HashSet::from([peer]));
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }
}
