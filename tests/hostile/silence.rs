//! Connections that send nothing, or almost nothing.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::Fault;

#[test]
fn silent_and_dribbling_connections_are_closed_within_30_seconds() {
    Fault {
        name: "silence",
        did: "2,000 connections that send nothing, 500 that send one byte of a header field each second",
        resident_max_mib: 120,
        flags: &[],
    }
    .survived(|server| {
        let start = Instant::now();
        let mut silent = Crowd::connect(server.address, 2_000);
        let mut dribbling = Crowd::connect(server.address, 500);
        dribbling.send(b"GET / HTTP/1.1\r\nHost: test\r\nX-Dribble: ");
        while start.elapsed() < Duration::from_secs(30) {
            dribbling.send(b"x");
            dribbling.run_for(Duration::from_millis(500), true);
            silent.run_for(Duration::from_millis(500), true);
            if [&silent, &dribbling]
                .iter()
                .all(|crowd| crowd.members.iter().all(|member| member.closed))
            {
                break;
            }
        }
        let open = [&silent, &dribbling].map(|crowd| crowd.count(|member| !member.closed));
        assert_eq!(open, [0, 0], "are still open");
        format!("all closed after {:.0} s", start.elapsed().as_secs_f64())
    });
}
