//! Connections that are reset.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::fault::Fault;

/// Sends `sent` on a new connection, reads `read` bytes, and resets the connection.
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
fn thousands_of_resets_do_no_harm() {
    Fault {
        name: "resets",
        did: "6,000 connections reset: before a request, within its head, while it waits, while its response is read",
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
        // The delayed requests stay in flight until they are due, though no client is left to receive the responses.
        // The scrape itself is the one that is left.
        support::wait_for(
            "all to be answered",
            || server.metric("http_requests_in_flight"),
            |in_flight| in_flight.is_some_and(|in_flight| in_flight <= 1.0),
        );
        "nothing".to_owned()
    });
}
