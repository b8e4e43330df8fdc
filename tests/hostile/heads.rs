//! Endless request heads, which tiny_http reads without a limit, and long heads that do end.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::Fault;
use support::server::Server;

#[test]
fn endless_heads_are_closed_before_they_fill_the_memory() {
    Fault {
        name: "endless heads",
        did: "4 clients send a header field without a pause, and reconnect as soon as they are closed, for 10 s",
        resident_max_mib: 450,
        flags: &[],
    }
    .survived(|server| {
        let begun = Instant::now();
        let (closed, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let piece = [b'x'; 64 * 1024];
                    while begun.elapsed() < Duration::from_secs(10) {
                        let mut stream = TcpStream::connect(server.address).expect("the server accepts");
                        // A client that is closed sees a window that stays shut, or a reset.
                        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                        let mut open = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nX-Endless: ").is_ok();
                        while open && begun.elapsed() < Duration::from_secs(10) {
                            open = stream.write_all(&piece).is_ok();
                            sent.fetch_add(piece.len(), Ordering::Relaxed);
                        }
                        closed.fetch_add(usize::from(!open), Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(closed.load(Ordering::Relaxed) > 0, "none was closed");
        format!(
            "closed {} times, after {} MiB in all",
            closed.into_inner(),
            sent.into_inner() >> 20
        )
    });
}

/// Sends `first` and then an endless head on one connection, for at most 8 s.
fn send_endless_head(server: &Server, first: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).expect("the server accepts");
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let begun = Instant::now();
    let piece = [b'a'; 64 * 1024];
    let mut sent = 0;
    let mut open = stream
        .write_all(&[first, b"GET / HTTP/1.1\r\nHost: test\r\nX-A: "].concat())
        .is_ok();
    while open && begun.elapsed() < Duration::from_secs(8) {
        open = stream.write_all(&piece).is_ok();
        sent += piece.len();
    }
    assert!(!open, "the connection is still open after {} MiB", sent >> 20);
    format!(
        "closed after {} MiB, {:.1} s",
        sent >> 20,
        begun.elapsed().as_secs_f64()
    )
}

#[test]
fn one_endless_head_is_closed_before_it_takes_much_memory() {
    Fault {
        name: "one endless head",
        did: "1 client sends an endless header field for 8 s",
        resident_max_mib: 40,
        flags: &[],
    }
    .survived(|server| send_endless_head(server, b""));
}

#[test]
fn one_endless_head_behind_a_waiting_request_is_closed_before_it_takes_much_memory() {
    Fault {
        name: "an endless head behind a waiting request",
        did: "1 client requests `/?delay=20s` and then sends an endless header field for 8 s",
        resident_max_mib: 40,
        flags: &[],
    }
    .survived(|server| send_endless_head(server, b"GET /?delay=20s HTTP/1.1\r\nHost: test\r\n\r\n"));
}

#[test]
fn heads_of_40_and_60_kib_are_answered() {
    Fault {
        name: "long heads that end",
        did: "200 honest clients send heads of 40 and 60 KiB",
        resident_max_mib: 60,
        flags: &[],
    }
    .survived(|server| {
        for head_kib in [40, 60] {
            let mut crowd = Crowd::connect(server.address, 200);
            let value = "a".repeat(head_kib * 1024);
            crowd.send(format!("GET /?delay=100ms HTTP/1.1\r\nHost: test\r\nX-A: {value}\r\n\r\n").as_bytes());
            crowd.until_all("answered or closed", |member| member.has(1) || member.closed);
            let answered = crowd.count(|member| member.statuses() == [200]);
            assert_eq!(answered, 200, "heads of {head_kib} KiB");
        }
        "all answered".to_owned()
    });
}
