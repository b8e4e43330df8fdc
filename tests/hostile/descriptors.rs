//! Fewer descriptors than clients.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::{ask, turn, write_row};
use crate::support::server::{Server, command};
use crate::support::wait_for;

/// How soon after the clients have left a fresh one must be served. Mostly it is within a second; up to 4 s were seen, where the
/// requests of clients that had left still stood in the kernel's queue.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// The binary under a limit on descriptors, as `ulimit` takes it.
fn limited(limit: &str) -> Command {
    let plain = command(&["--listen", "127.0.0.1:0"]);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit {limit} && exec \"$0\" \"$@\""))
        .arg(plain.get_program())
        .args(plain.get_args());
    command
}

#[test]
fn it_accepts_again_soon_after_running_out_of_descriptors() {
    let mut turn = turn();
    let mut server = Server::spawn(limited("-n 256"));
    assert_eq!(server.metric("process_max_fds"), Some(256.0));
    let mut crowd = Crowd::connect(server.address, 500);
    crowd.say(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    // 256 descriptors are room for some 120 connections at a time; those that were answered make room for those that wait.
    // While there is not one descriptor left the doorbell can not ring, so what tiny_http parks waits for the first of them.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) && crowd.count(|member| member.has(1)) < 100 {
        crowd.spend(Duration::from_millis(50), true);
    }
    let served = crowd.count(|member| member.has(1));
    assert!(served >= 100, "only {served} were served");
    let took = begun.elapsed();
    let resident = server.resident_bytes();
    drop(crowd);
    let left = Instant::now();
    wait_for("a fresh client to be served", BACK_WITHIN, || {
        let answer = std::panic::catch_unwind(|| ask(server.address, "/healthz"));
        (answer.ok().flatten() == Some(200)).then_some(())
    });
    let back = left.elapsed();
    assert!(server.is_alive());
    write_row(
        &mut turn,
        &format!(
            "| descriptors | 500 clients at a limit of 256 descriptors | {served} served within {:.1} s while all were connected | not while there are none left | {} MiB | {:.1} s |",
            took.as_secs_f64(),
            resident >> 20,
            back.as_secs_f64()
        ),
    );
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one_at_start() {
    let _turn = turn();
    let server = Server::spawn(limited("-Sn 256 && ulimit -Hn 4096"));
    assert_eq!(server.metric("process_max_fds"), Some(4096.0));
}
