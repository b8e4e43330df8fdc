//! Connections that are reset.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};

use crate::fault::Fault;

/// Sends bytes, reads `read` bytes, and resets the connection.
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
fn thousands_of_resets_harm_nobody() {
    Fault {
        name: "resets",
        did: "6,000 connections reset: before a request, in its head, while it waits, while its answer is read",
        resident_max_mib: 100,
        flags: &[],
    }
    .survived(|server| {
        for _ in 0..1_500 {
            reset(server.address, b"", 0);
            reset(server.address, b"GET / HTTP/1.1\r\nHo", 0);
            reset(server.address, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", 0);
            reset(server.address, b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n", 12);
        }
        // Nobody receives the delayed responses.
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

/// Requests `/healthz` with `Connection: close`. Returns the status.
fn ask_last(mut stream: TcpStream) -> u16 {
    stream.set_read_timeout(Some(Duration::from_secs(12))).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.get(9..12).map_or(0, |status| status.parse().unwrap())
}

#[test]
fn a_port_in_use_again_at_once_is_not_taken_for_the_connection_that_was_cut_off() {
    Fault {
        name: "ports in use again",
        did: "20 connections closed for what they pipelined, reset, and opened anew from the same port at once",
        resident_max_mib: 60,
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
            let Some(again) = connect_from(port, server.address) else {
                continue;
            };
            again_count += 1;
            assert_eq!(ask_last(again), 200, "after {:?}", begun.elapsed());
            worst = worst.max(begun.elapsed());
        }
        format!("all 20 answered anew, within {:.0} ms", worst.as_secs_f64() * 1e3)
    });
}

#[test]
fn a_port_in_use_again_does_not_wait_behind_the_request_of_one_that_was_reset() {
    Fault {
        name: "ports in use again, while a request waits",
        did: "20 connections reset while their requests wait 10 s for their answers, and opened anew from the same port a second later",
        resident_max_mib: 60,
        flags: &[],
    }
    .survived(|server| {
        let mut ports = Vec::new();
        for _ in 0..20 {
            let mut waits = TcpStream::connect(server.address).unwrap();
            ports.push(waits.local_addr().unwrap().port());
            waits
                .write_all(b"GET /?delay=10s HTTP/1.1\r\nHost: test\r\n\r\n")
                .unwrap();
            crate::support::wait_for("the request to be taken", Duration::from_secs(5), || {
                (server.metric("http_requests_in_flight")? > ports.len() as f64).then_some(())
            });
            reset_now(waits);
        }
        std::thread::sleep(Duration::from_secs(1));
        let mut worst = Duration::ZERO;
        let again = ports.iter().filter_map(|port| connect_from(*port, server.address));
        let count = again
            .map(|stream| {
                let begun = Instant::now();
                assert_eq!(ask_last(stream), 200, "after {:?}", begun.elapsed());
                worst = worst.max(begun.elapsed());
            })
            .count();
        assert!(count >= 3 && worst < Duration::from_secs(1), "{count}, {worst:?}");
        format!("{count} answered anew, within {:.0} ms", worst.as_secs_f64() * 1e3)
    });
}
