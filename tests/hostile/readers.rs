//! Clients that read their responses slowly or not at all.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::{Fault, fetch_status};
use crate::support::server::Server;

#[test]
fn readers_that_never_read_do_not_delay_others() {
    Fault {
        name: "readers that never read",
        did: "100 connections request `/metrics` 5,000 times each and read nothing for 8 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 100);
        crowd.send(&b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(5_000));
        crowd.run_for(Duration::from_secs(8), false);
        assert!(crowd.until(Duration::from_secs(5), true, |member| member.closed));
        "closed".to_owned()
    });
}

#[test]
fn readers_that_stall_are_closed() {
    Fault {
        name: "readers that stall",
        did: "200 connections request `/ui` 60 times each, within the limit of a connection, and read nothing for 6 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 200);
        crowd.send(&b"GET /ui HTTP/1.1\r\nHost: test\r\n\r\n".repeat(60));
        crowd.run_for(Duration::from_secs(6), false);
        assert!(crowd.until(Duration::from_secs(5), true, |member| member.closed || member.has(60)));
        let closed = crowd.count(|member| !member.has(60));
        assert!(closed > 100, "only {closed} were closed");
        format!("{closed} closed")
    });
}

/// The longest time that a fresh client may wait while [`DRIPPING`] clients read slowly.
const WORST_WAIT_MAX: Duration = Duration::from_millis(250);

/// How often the case is run at most, since the machine may have been busy.
const ATTEMPTS_MAX: u32 = 3;

const DRIP_FOR: Duration = Duration::from_secs(6);

/// The number of clients that each read 2 kB every 20 ms: too slowly for what they request, and too fast to count as
/// stalled.
const DRIPPING: usize = 200;

#[test]
fn slow_readers_delay_others_by_at_most_250_ms() {
    Fault {
        name: "slow readers",
        did: "200 connections request `/metrics` 100 times each and read 2 kB every 20 ms for 6 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        for attempt in 1..=ATTEMPTS_MAX {
            let (worst, closed) = drip(server);
            if worst <= WORST_WAIT_MAX {
                return format!(
                    "{closed} closed; a fresh client waited at most {} ms",
                    worst.as_millis()
                );
            }
            println!("a fresh client waited for {worst:?} in attempt {attempt}");
        }
        panic!("fresh clients waited for longer than {WORST_WAIT_MAX:?} in each of {ATTEMPTS_MAX} attempts")
    });
}

/// Returns the longest time that a fresh client waited, and how many of the slow readers were closed.
fn drip(server: &Server) -> (Duration, usize) {
    let mut crowd = Crowd::connect(server.address, DRIPPING);
    crowd.send(&b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100));
    let begun = Instant::now();
    let worst = std::thread::scope(|scope| {
        let fresh = scope.spawn(|| {
            let mut worst = Duration::ZERO;
            while begun.elapsed() < DRIP_FOR {
                let start = Instant::now();
                assert_eq!(fetch_status(server.address, "/healthz"), Some(200));
                worst = worst.max(start.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            worst
        });
        while begun.elapsed() < DRIP_FOR {
            let round = Instant::now();
            crowd.drip(2_000);
            std::thread::sleep(Duration::from_millis(20).saturating_sub(round.elapsed()));
        }
        fresh.join().expect("fresh clients are answered")
    });
    (worst, crowd.count(|member| member.closed))
}
