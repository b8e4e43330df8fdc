//! Many keep-alive connections at once, each of which must be answered.

use crate::crowd::Crowd;
use crate::fault::Fault;

fn all_are_answered(name: &'static str, did: &'static str, count: usize) {
    Fault {
        name,
        did,
        resident_max_mib: 100,
        // The members send two requests on one connection.
        flags: &["--requests-per-connection", "0"],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, count);
        for round in 1..=2 {
            crowd.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            crowd.until_all(&format!("answered in round {round}"), |member| member.has(round));
        }
        assert!(crowd.members.iter().all(|member| member.statuses() == [200, 200]));
        format!("all {} answered", 2 * count)
    });
}

#[test]
fn a_burst_of_64_keep_alive_connections_is_answered() {
    all_are_answered("burst of 64", "64 connections at once, two requests each", 64);
}

#[test]
fn a_burst_of_500_keep_alive_connections_is_answered() {
    all_are_answered("burst of 500", "500 connections at once, two requests each", 500);
}

#[test]
fn a_burst_of_2000_keep_alive_connections_is_answered() {
    all_are_answered("burst of 2,000", "2,000 connections at once, two requests each", 2_000);
}
