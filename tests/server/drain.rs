//! Draining: the server answers the requests in flight, and then the process exits.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use support::access_log;
use support::server::{Server, binary};
use support::wait_for;

use crate::waiting_clients;

/// How long the server may take for what it does at once. A busy machine keeps this, and whatever waits for a delay or
/// for the drain timeout takes an hour.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Blocks until the server drains and refuses new connections.
fn wait_until_refused(server: &Server) {
    wait_for(
        "new connections to be refused",
        || TcpStream::connect(server.address),
        Result::is_err,
    )
    .unwrap_err();
}

#[test]
fn three_hundred_requests_in_flight_are_all_answered() {
    // The shortest delay leaves time for the requests to arrive, and for the drain to begin.
    let (shortest, longest) = (Duration::from_secs(4), Duration::from_secs(5));
    let mut server = Server::start(&["--delay-min", "4s", "--delay-max", "5s", "--drain-timeout", "1h"]);
    let mut clients = waiting_clients(&server, 300);
    let (mut probe, mut kept) = (server.connect(), server.connect());
    assert_eq!(probe.get("/readyz").status, 200);
    assert_eq!(kept.get("/healthz").status, 200);
    let start = Instant::now();
    server.signal("TERM");
    let draining = wait_for(
        "/readyz to report the drain",
        || probe.get("/readyz"),
        |response| response.status == 503,
    );
    assert_eq!(draining.header("Connection"), Some("close"));
    wait_until_refused(&server);
    assert_eq!(kept.get("/healthz").status, 200, "healthy until it exits");
    for client in &mut clients {
        let response = client.receive().expect("no request is lost");
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("Connection"),
            Some("close"),
            "no further request is invited"
        );
    }
    let (status, _) = server.wait_exit();
    let took = start.elapsed();
    assert_eq!(status.code(), Some(0), "{}", server.stderr());
    assert!(
        took < longest + AT_ONCE,
        "it exits once all are answered, but after {took:?}"
    );
    let log = access_log::parse(&server.stdout());
    assert_eq!(log.len(), 300, "the access log is complete");
    assert!(
        log.iter().all(|line| line.duration >= shortest),
        "none is answered early"
    );
}

#[test]
fn requests_that_arrive_during_the_drain_are_answered_with_connection_close() {
    let mut server = Server::start(&["--delay-min", "1h", "--delay-max", "1h", "--drain-timeout", "4s"]);
    let mut early = waiting_clients(&server, 1);
    let mut late = server.connect();
    late.get("/healthz");
    server.signal("TERM");
    wait_until_refused(&server);
    late.request("GET", "/?delay=300ms", &[]);
    let response = late.receive().expect("a response");
    assert_eq!((response.status, response.header("Connection")), (200, Some("close")));
    assert_eq!(early[0].receive().unwrap().status, 200);
    assert_eq!(server.wait_exit().0.code(), Some(0));
}

#[test]
fn requests_in_flight_at_the_drain_timeout_are_answered_early() {
    let drain_timeout = Duration::from_secs(1);
    let mut server = Server::start(&["--delay-min", "1h", "--delay-max", "1h", "--drain-timeout", "1s"]);
    let requested_at = Instant::now();
    let mut clients = waiting_clients(&server, 50);
    let start = Instant::now();
    server.signal("TERM");
    for client in &mut clients {
        let response = client.receive().expect("an early response");
        assert_eq!(response.status, 200);
        let reported_ms: f64 = response
            .header("Server-Timing")
            .unwrap()
            .strip_prefix("delay;dur=")
            .unwrap()
            .parse()
            .unwrap();
        let waited = requested_at.elapsed();
        assert!(
            reported_ms <= waited.as_secs_f64() * 1e3,
            "the planned delay instead of the actual one: {reported_ms} ms, after {waited:?}"
        );
    }
    assert_eq!(server.wait_exit().0.code(), Some(0));
    let took = start.elapsed();
    assert!(
        (drain_timeout..drain_timeout + AT_ONCE).contains(&took),
        "not at the drain timeout: {took:?}"
    );
}

#[test]
fn an_idle_server_exits_at_once_on_sigterm_and_sigint() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--drain-timeout", "1h"]);
        let idle = server.connect();
        server.signal(signal);
        let (status, took) = server.wait_exit();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(took < AT_ONCE, "{signal}: {took:?}");
        drop(idle);
    }
}

#[test]
fn the_server_exits_at_once_on_a_second_signal() {
    let mut server = Server::start(&["--delay-min", "1h", "--delay-max", "1h", "--drain-timeout", "1h"]);
    let clients = waiting_clients(&server, 1);
    server.signal("TERM");
    wait_until_refused(&server);
    server.signal("INT");
    let (status, took) = server.wait_exit();
    assert_eq!(status.code(), Some(130), "128 plus the signal's number");
    assert!(took < AT_ONCE, "{took:?}");
    drop(clients);
}

#[test]
fn ctrl_c_in_a_terminal_stops_the_server() {
    // A terminal sends SIGINT to the whole process group in the foreground.
    let mut server = Server::spawn({
        let mut command = Command::new("setsid");
        command.arg(binary()).args(["--listen", "127.0.0.1:0"]);
        command
    });
    let group = format!("-{}", server.pid());
    assert!(
        Command::new("kill")
            .args(["-INT", "--", &group])
            .status()
            .unwrap()
            .success()
    );
    let (status, _) = server.wait_exit();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}
