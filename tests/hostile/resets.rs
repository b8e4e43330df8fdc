//! Connections that are reset.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};

use crate::fault::Fault;

/// Sends what is to be sent, reads that many bytes, and resets the connection.
pub fn reset(address: SocketAddr, sent: &[u8], read: usize) {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.write_all(sent).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
        .read_exact(&mut vec![0; read])
        .unwrap_or_else(|error| panic!("{:?}: {error}", stream.local_addr()));
    reset_now(stream);
}

fn reset_now(stream: TcpStream) {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
}

#[test]
fn thousands_of_resets_before_in_and_after_a_request_do_no_harm() {
    Fault {
        name: "resets",
        did: "6,000 connections reset: before a request, in its head, while it waits, while its answer is read",
        resident_max_mib: 100,
        probes_cut_max: 0,
        flags: &[],
    }
    .survived(|server| {
        for _ in 0..1_500 {
            reset(server.address, b"", 0);
            reset(server.address, b"GET / HTTP/1.1\r\nHo", 0);
            reset(server.address, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", 0);
            reset(server.address, b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n", 12);
        }
        // The delayed ones are answered into the void.
        crate::support::wait_for("all to be answered", Duration::from_secs(5), || {
            (server.metric("http_requests_in_flight")? <= 1.0).then_some(())
        });
        "nothing".to_owned()
    });
}

/// A connection from a port of 127.0.0.1 that was in use just now, unless another has it already.
fn connect_from(port: u16, address: SocketAddr) -> Option<TcpStream> {
    let SocketAddr::V4(address) = address else {
        panic!("an IPv4 address")
    };
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    bind(fd.as_raw_fd(), &SockaddrIn::from(from)).ok()?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(address)).ok()?;
    Some(TcpStream::from(fd))
}

#[test]
fn a_port_in_use_again_at_once_is_not_taken_for_the_connection_that_was_cut_off() {
    Fault {
        name: "ports in use again",
        did: "20 connections cut off for what they pipelined, reset, and opened anew from the same port at once",
        resident_max_mib: 60,
        probes_cut_max: 0,
        flags: &[],
    }
    .survived(|server| {
        let mut worst = Duration::ZERO;
        let mut again_count = 0;
        while again_count < 20 {
            let mut cut = TcpStream::connect(server.address).unwrap();
            let port = cut.local_addr().unwrap().port();
            cut.write_all(&b"GET /?delay=20ms HTTP/1.1\r\nHost: test\r\n\r\n".repeat(200))
                .unwrap();
            cut.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut answers = Vec::new();
            let _ = cut.read_to_end(&mut answers);
            reset_now(cut);

            let begun = Instant::now();
            let Some(mut again) = connect_from(port, server.address) else {
                continue;
            };
            again_count += 1;
            again.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            again
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            again.read_to_string(&mut answer).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "{answer:?} after {:?}",
                begun.elapsed()
            );
            worst = worst.max(begun.elapsed());
        }
        format!("all 20 answered anew, within {:.0} ms", worst.as_secs_f64() * 1e3)
    });
}
