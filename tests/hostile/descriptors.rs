//! More clients than descriptors.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Member};
use crate::fault::{fetch_status, turn, write_row};
use support::server::{Server, command};
use support::wait_for;

/// How soon a fresh client must be served after the others have left. 0.1 to 2 s on a quiet machine.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// How many of the 500 may be lost. Each time descriptors run out, tiny_http may drop the connection that it has just
/// accepted.
const LOST_MAX: usize = 25;

/// Returns a command that runs the binary under a limit on descriptors, in the syntax of `ulimit`.
pub fn limited(limit: &str) -> Command {
    let plain = command(&["--listen", "127.0.0.1:0"]);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit {limit} && exec \"$0\" \"$@\""))
        .arg(plain.get_program())
        .args(plain.get_args());
    command
}

/// Returns the delay in a member's response, in seconds.
fn delay_of(member: &Member) -> Option<f64> {
    let text = String::from_utf8_lossy(&member.received);
    let (_, rest) = text.split_once("answered after ")?;
    rest.split(' ').next()?.parse().ok()
}

#[test]
fn more_clients_than_descriptors_are_served() {
    let _turn = turn();
    // Also an odd limit: it decides whether accepting fails or what tiny_http does with the connection next.
    for (limit, request) in [
        (257, &b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"[..]),
        (256, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
    ] {
        let mut server = Server::spawn(limited(&format!("-n {limit}")));
        assert_eq!(server.metric("process_max_fds"), Some(f64::from(limit)));
        let connect_500 = || {
            let mut crowd = Crowd::connect(server.address, 500);
            crowd.send(request);
            crowd
        };
        // There is room for some 120 connections at a time.
        let begun = Instant::now();
        let mut crowd = connect_500();
        crowd.until_all("served or closed", |member| member.has(1) || member.closed);
        let took = begun.elapsed();
        let served = crowd.count(|member| member.has(1));
        assert!(served >= 500 - LOST_MAX, "only {served} were served");
        assert!(
            crowd
                .members
                .iter()
                .all(|member| matches!(member.statuses(), [] | [200]))
        );
        // No delay is shortened to save descriptors: they are still uniform from 0 to 2 s, within seven standard deviations of that
        // many draws.
        let delays: Vec<f64> = crowd.members.iter().filter_map(delay_of).collect();
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        assert!(mean > 0.82, "{mean} s over {} answers", delays.len());
        let resident = server.resident_bytes();
        drop(crowd);
        // These leave while most of them wait, many in the kernel's accept queue.
        let mut crowd = connect_500();
        crowd.run_for(Duration::from_secs(1), true);
        drop(crowd);
        let left_at = Instant::now();
        wait_for(
            "a fresh client to be served",
            || {
                let status = std::panic::catch_unwind(|| fetch_status(server.address, "/healthz"));
                status.ok().and_then(Result::ok)
            },
            |status| *status == Some(200),
        );
        let back = left_at.elapsed();
        assert!(back <= BACK_WITHIN, "a fresh client was served after {back:?}");
        assert!(server.is_alive());
        let row = format!(
            "| descriptors | 500 clients at a limit of 256 descriptors, then 500 that leave after 1 s | {served} of 500 served within {:.1} s, {} dropped | not while descriptors are short | {} MiB | {:.1} s |",
            took.as_secs_f64(),
            500 - served,
            resident >> 20,
            back.as_secs_f64()
        );
        if limit == 256 {
            write_row(&row);
        } else {
            println!("{row}");
        }
    }
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one_at_start() {
    let _turn = turn();
    let server = Server::spawn(limited("-Sn 256 && ulimit -Hn 4096"));
    assert_eq!(server.metric("process_max_fds"), Some(4096.0));
}
