//! The kernel's table of TCP connections, for the one thing that no socket option tells without unsafe code: which clients have
//! closed their end. A read of a socket does not tell once its reading half is shut down.
//!
//! Its files stay open, so that they can be read while no descriptor is left. Format: proc(5), `/proc/net/tcp`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `CLOSE_WAIT`, the state of a connection whose other end has closed and this one has not (the kernel's `tcp_states.h`).
const CLOSE_WAIT: &str = "08";

/// The table, as far as it concerns the connections of one listening port.
pub(crate) struct TcpTable {
    port: u16,
    files: Vec<File>,
}

impl TcpTable {
    /// Opens the table for IPv4 and the one for IPv6, where there are such: without them, nobody is known to have left.
    pub(crate) fn open(port: u16) -> Self {
        let files = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
        TcpTable {
            port,
            files: files.iter().filter_map(|path| File::open(path).ok()).collect(),
        }
    }

    /// The peers that have closed their end of a connection that is open here.
    pub(crate) fn left(&mut self) -> HashSet<SocketAddr> {
        let mut left = HashSet::new();
        for file in &mut self.files {
            if file.rewind().is_err() {
                continue;
            }
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                left.extend(left_of(&line, self.port));
            }
        }
        left
    }
}

/// The peer of a line of the table, if it has closed its end of a connection to `port`.
fn left_of(line: &str, port: u16) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != CLOSE_WAIT || address(local)?.port() != port {
        return None;
    }
    address(peer)
}

/// Reads an address: the IP address's 32 bit words, each as the number that it is in memory, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = ip.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: Vec<u8> = words.concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn who_has_closed_its_end_is_told_from_who_has_not() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(ip).unwrap();
            let address = listener.local_addr().unwrap();
            let mut table = TcpTable::open(address.port());
            let stays = TcpStream::connect(address).unwrap();
            let leaves = TcpStream::connect(address).unwrap();
            let gone = leaves.local_addr().unwrap();
            let accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
            assert_eq!(table.left(), HashSet::new());
            drop(leaves);
            // A FIN crosses the loopback before `close` returns.
            assert_eq!(table.left(), HashSet::from([gone]));
            assert_eq!(
                TcpTable::open(address.port() ^ 1).left(),
                HashSet::new(),
                "of another port"
            );
            drop((stays, accepted));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_line_is_read_or_passed_over(line in "( {0,3}[0-9]{1,3}: )?([0-9A-F]{0,34}:[0-9A-F]{0,5} ){0,3}(0[0-9A-F] )?\\PC{0,20}") {
            let _ = left_of(&line, 80);
        }
    }
}
