//! SIGTERM during a fault.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::{turn, write_row};
use crate::resets::reset;
use support::server::Server;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How soon after the drain timeout the process must have ended. 0.1 s on a quiet machine.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

fn exits(fault: &str, begin: impl FnOnce(&Server) -> Crowd) -> Duration {
    let mut server = Server::start(&["--drain-timeout", "3s"]);
    let mut crowd = begin(&server);
    let signalled = Instant::now();
    server.signal("TERM");
    std::thread::scope(|scope| {
        scope.spawn(|| crowd.run_for(Duration::from_secs(1), false));
        let (status, _) = server.wait_exit();
        let took = signalled.elapsed();
        assert_eq!(status.code(), Some(0), "{fault}: {}", server.stderr());
        assert!(took <= DRAIN_TIMEOUT + ENDED_WITHIN, "{fault}: ended after {took:?}");
        took
    })
}

fn crowd(server: &Server, count: usize, sent: &[u8]) -> Crowd {
    let mut crowd = Crowd::connect(server.address, count);
    crowd.send(sent);
    crowd.run_for(Duration::from_millis(300), false);
    crowd
}

#[test]
fn the_server_exits_in_time_during_every_fault() {
    let _turn = turn();
    let took = [
        exits("silence", |server| crowd(server, 1_000, b"GET / HT")),
        exits("delays longer than the drain timeout", |server| {
            crowd(server, 500, b"GET /?delay=60s HTTP/1.1\r\nHost: test\r\n\r\n")
        }),
        exits("pipelining", |server| {
            crowd(server, 100, &b"GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(300))
        }),
        exits("readers that never read", |server| {
            crowd(
                server,
                100,
                &b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3_000),
            )
        }),
        exits("bodies that never arrive", |server| {
            crowd(
                server,
                200,
                b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999\r\n\r\n",
            )
        }),
        exits("HTTP/2", |server| {
            crowd(server, 50, b"GET / HTTP/2.0\r\nHost: test\r\n\r\n")
        }),
        exits("resets", |server| {
            for _ in 0..300 {
                reset(server.address, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", 0);
            }
            crowd(server, 1, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        }),
    ];
    write_row(&format!(
        "| SIGTERM during a fault | seven of these faults, `--drain-timeout` 3 s | exit status 0 after at most {:.1} s | - | - | - |",
        took.iter().max().unwrap().as_secs_f64()
    ));
}
