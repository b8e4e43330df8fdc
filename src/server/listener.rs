//! The listening socket, and the limits that every accepted socket inherits from it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, SockFilter, SockRef, Socket, Type};

/// Connections that the kernel completes and keeps for us until they are accepted.
const BACKLOG: i32 = 4096;

/// How long a write waits for a client that does not read. Then another worker is woken.
///
/// There is no such limit on reads: `accept` would inherit it and fail after a silent interval, which ends tiny_http's accept
/// thread, and tiny_http drops the reader of a connection whose read times out, even while its request waits.
const WRITE_TIMEOUT: Duration = Duration::from_millis(5);

/// How long data may stay unacknowledged, or a client's window closed, before the kernel ends the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

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
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    if address.is_ipv6() {
        // [::] listens on IPv4 as well, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Drops every segment that begins with the preface of HTTP/2 (RFC 9113, section 3.4), which blocks tiny_http's thread for
/// good. The server then sees a connection whose head does not arrive. Accepted sockets inherit the filter.
///
/// A preface that is split within its first 12 bytes passes.
///
/// # Errors
///
/// Returns the error of the system call: some sandboxes have no filters. The server works without one.
pub fn drop_http2_prefaces(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&http2_preface_filter())
}

/// Returns a program of the kernel's classic BPF. It sees the TCP header and the payload, for IPv4 and IPv6 alike, and returns
/// how many bytes of the segment are kept.
fn http2_preface_filter() -> [SockFilter; 15] {
    use nix::libc::{
        BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_IND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_MISC,
        BPF_RET, BPF_RSH, BPF_SUB, BPF_TAX, BPF_W, BPF_X,
    };
    let step = |code: u32, value: u32| SockFilter::new(code as u16, 0, 0, value);
    // Where to go from a test: that many instructions on if it holds, or if it does not.
    let test = |code: u32, value: u32, holds, fails| SockFilter::new(code as u16, holds, fails, value);
    let payload_word = |at: u32| step(BPF_LD | BPF_W | BPF_IND, at);
    let text = u32::from_be_bytes;
    [
        // Byte 12 has the header's length in its upper half, in words of four bytes. X is the payload's offset.
        step(BPF_LD | BPF_B | BPF_ABS, 12),
        step(BPF_ALU | BPF_AND | BPF_K, 0xf0),
        step(BPF_ALU | BPF_RSH | BPF_K, 2),
        step(BPF_MISC | BPF_TAX, 0),
        // A load past the end drops the segment, and most have no payload: they only acknowledge.
        step(BPF_LD | BPF_W | BPF_LEN, 0),
        step(BPF_ALU | BPF_SUB | BPF_X, 0),
        test(BPF_JMP | BPF_JGE | BPF_K, 12, 0, 7),
        payload_word(0),
        test(BPF_JMP | BPF_JEQ | BPF_K, text(*b"PRI "), 0, 5),
        payload_word(4),
        test(BPF_JMP | BPF_JEQ | BPF_K, text(*b"* HT"), 0, 3),
        payload_word(8),
        test(BPF_JMP | BPF_JEQ | BPF_K, text(*b"TP/2"), 0, 1),
        step(BPF_RET | BPF_K, 0),
        step(BPF_RET | BPF_K, u32::MAX),
    ]
}

/// Refuses new connections from now on. Those that were accepted stay open.
///
/// # Errors
///
/// Returns the error of the system call.
pub(super) fn close(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).shutdown(Shutdown::Both)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn http2_prefaces_are_dropped_and_all_else_arrives_whatever_the_family() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = open(address.parse().unwrap()).unwrap();
            drop_http2_prefaces(&listener).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let ordinary: [&[u8]; 7] = [
                b"G",
                b"PRI",
                b"PRI * HTTP/",
                b"PRI * HTTP/1.1\r\n",
                b"PRX * HTTP/2.0\r\n",
                b"PRI / HTTP/2.0\r\n",
                b"POST / HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n",
            ];
            for sent in ordinary {
                client.write_all(sent).unwrap();
                let mut arrived = vec![0; sent.len()];
                accepted.read_exact(&mut arrived).unwrap();
                assert_eq!(arrived, sent);
            }
            client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            // The loopback delivers before `write` returns.
            accepted.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let read = accepted.read(&mut [0; 64]);
            assert_eq!(
                read.map_err(|error| error.kind()),
                Err(ErrorKind::WouldBlock),
                "{address}"
            );
        }
    }
}
