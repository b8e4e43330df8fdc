//! Clients that do not read their answers.

use std::time::Duration;

use crate::crowd::Crowd;
use crate::fault::Fault;

#[test]
fn readers_that_never_read_hold_nobody_else_up() {
    Fault {
        name: "readers that never read",
        did: "100 connections ask for `/metrics` 5,000 times each and read nothing for 8 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 100);
        crowd.say(&b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(5_000));
        crowd.spend(Duration::from_secs(8), false);
        assert!(crowd.until(Duration::from_secs(5), true, |member| member.ended));
        "cut off".to_owned()
    });
}

#[test]
fn readers_that_stall_within_their_allowance_are_cut_off() {
    Fault {
        name: "readers that stall",
        did: "200 connections ask for `/ui` 60 times each, within what a connection may have in flight, and read nothing for 6 s",
        resident_max_mib: 200,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 200);
        crowd.say(&b"GET /ui HTTP/1.1\r\nHost: test\r\n\r\n".repeat(60));
        crowd.spend(Duration::from_secs(6), false);
        assert!(crowd.until(Duration::from_secs(5), true, |member| member.ended || member.has(60)));
        let cut = crowd.count(|member| !member.has(60));
        assert!(cut > 100, "only {cut} were cut off");
        format!("{cut} cut off")
    });
}
