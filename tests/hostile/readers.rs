//! Clients that do not read their responses, or slowly.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::{Fault, ask};
use crate::support::server::Server;

#[test]
fn readers_that_never_read_hold_up_nobody() {
    Fault {
        name: "readers that never read",
        did: "100 connections request `/metrics` 5,000 times each and read nothing for 8 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 100);
        crowd.send(&b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(5_000));
        crowd.spend(Duration::from_secs(8), false);
        assert!(crowd.until(Duration::from_secs(5), true, |member| member.closed));
        "closed".to_owned()
    });
}

#[test]
fn readers_that_stall_are_closed() {
    Fault {
        name: "readers that stall",
        did: "200 connections request `/ui` 60 times each, within what a connection may have in flight, and read nothing for 6 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 200);
        crowd.send(&b"GET /ui HTTP/1.1\r\nHost: test\r\n\r\n".repeat(60));
        crowd.spend(Duration::from_secs(6), false);
        assert!(crowd.until(Duration::from_secs(5), true, |member| member.closed || member.has(60)));
        let closed = crowd.count(|member| !member.has(60));
        assert!(closed > 100, "only {closed} were closed");
        format!("{closed} closed")
    });
}

/// How long a fresh client waits at worst while [`DRIPPING`] clients read slowly.
const WORST_WAIT_MAX: Duration = Duration::from_millis(250);

/// How often the case is run at most: the machine may have had other things to do.
const ATTEMPTS_MAX: u32 = 3;

const DRIPS_FOR: Duration = Duration::from_secs(6);

/// Clients that each read 2 kB every 20 ms, which is too slow for what they request and too fast to count as stalled.
const DRIPPING: usize = 200;

#[test]
fn readers_that_drip_hold_up_nobody_for_longer_than_250_ms() {
    Fault {
        name: "readers that drip",
        did: "200 connections request `/metrics` 100 times each and read 2 kB every 20 ms for 6 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        for attempt in 1..=ATTEMPTS_MAX {
            let (worst, closed) = drip(server);
            if worst <= WORST_WAIT_MAX {
                return format!(
                    "{closed} closed; a fresh client waited for {} ms at worst",
                    worst.as_millis()
                );
            }
            println!("a fresh client waited for {worst:?} in attempt {attempt}");
        }
        panic!("fresh clients waited for longer than {WORST_WAIT_MAX:?}, {ATTEMPTS_MAX} times of {ATTEMPTS_MAX}")
    });
}

/// Returns how long a fresh client waited at worst, and how many of the dripping ones were closed.
fn drip(server: &Server) -> (Duration, usize) {
    let mut crowd = Crowd::connect(server.address, DRIPPING);
    crowd.send(&b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100));
    let begun = Instant::now();
    let worst = std::thread::scope(|scope| {
        let fresh = scope.spawn(|| {
            let mut worst = Duration::ZERO;
            while begun.elapsed() < DRIPS_FOR {
                let start = Instant::now();
                assert_eq!(ask(server.address, "/healthz"), Some(200));
                worst = worst.max(start.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            worst
        });
        while begun.elapsed() < DRIPS_FOR {
            let round = Instant::now();
            crowd.drip(2_000);
            std::thread::sleep(Duration::from_millis(20).saturating_sub(round.elapsed()));
        }
        fresh.join().expect("fresh clients are answered")
    });
    (worst, crowd.count(|member| member.closed))
}
