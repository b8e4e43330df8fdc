//! Clients that read their responses slowly or not at all.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::Fault;

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
        crowd.until_all("closed", |member| member.closed);
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
        crowd.until_all("closed or answered", |member| member.closed || member.has(60));
        let closed = crowd.count(|member| !member.has(60));
        assert!(closed > 100, "only {closed} were closed");
        format!("{closed} closed")
    });
}

/// The number of clients that each read 2 kB every 20 ms: too slowly for what they request, and too fast to count as
/// stalled.
const DRIPPING: usize = 200;

const DRIP_FOR: Duration = Duration::from_secs(6);

/// How long a fresh client may wait meanwhile, seconds, except one in a hundred: that which comes in the same milliseconds as the
/// slow readers waits while 200 threads start.
const WAIT_MAX: f64 = 0.25;

#[test]
fn slow_readers_delay_at_most_one_in_a_hundred_others_by_more_than_250_ms() {
    let probes = Fault {
        name: "slow readers",
        did: "200 connections request `/metrics` 100 times each and read 2 kB every 20 ms for 6 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, DRIPPING);
        crowd.send(&b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100));
        let begun = Instant::now();
        while begun.elapsed() < DRIP_FOR {
            let round = Instant::now();
            crowd.drip(2_000);
            std::thread::sleep(Duration::from_millis(20).saturating_sub(round.elapsed()));
        }
        format!("{} closed", crowd.count(|member| member.closed))
    });
    let (waited, beside) = (probes.took.quantile(0.99), probes.beside.quantile(0.99));
    assert!(
        waited <= WAIT_MAX + beside,
        "{waited} s, and {beside} s at a server without slow readers"
    );
}
