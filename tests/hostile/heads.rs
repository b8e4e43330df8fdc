//! Heads of requests without an end, which tiny_http reads to it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fault::Fault;

#[test]
fn a_header_without_an_end_is_cut_before_it_fills_the_memory() {
    Fault {
        name: "headers without an end",
        did: "4 clients send a header without a pause, and each comes back as soon as it is cut off, for 10 s",
        resident_max_mib: 450,
        flags: &[],
    }
    .survived(|server| {
        let begun = Instant::now();
        let (cut, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let piece = [b'x'; 64 * 1024];
                    while begun.elapsed() < Duration::from_secs(10) {
                        let mut stream = TcpStream::connect(server.address).expect("the server accepts");
                        // Who is cut off sees its window closed for good, or a reset.
                        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                        let mut open = stream.write_all(b"GET / HTTP/1.1\r\nX-Endless: ").is_ok();
                        while open && begun.elapsed() < Duration::from_secs(10) {
                            open = stream.write_all(&piece).is_ok();
                            sent.fetch_add(piece.len(), Ordering::Relaxed);
                        }
                        cut.fetch_add(usize::from(!open), Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(cut.load(Ordering::Relaxed) > 0, "none was cut off");
        format!(
            "cut off, {} times, after {} MiB in all",
            cut.into_inner(),
            sent.into_inner() >> 20
        )
    });
}
