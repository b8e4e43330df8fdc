//! Draining: the server answers the requests in flight, and then the process exits.

mod support;

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::Client;
use support::server::{Server, binary};
use support::wait_for;

/// Returns clients that wait for their responses, each on its own connection, once the server has all of their
/// requests.
fn waiting_clients(server: &Server, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.request("GET", "/", &[]);
    }
    wait_for("all requests to be in flight", Duration::from_secs(10), || {
        (server.metric("http_requests_in_flight")? > count as f64).then_some(())
    });
    clients
}

#[test]
fn three_hundred_requests_in_flight_are_all_answered() {
    let mut server = Server::start(&["--delay-min", "1s", "--delay-max", "2s"]);
    let mut clients = waiting_clients(&server, 300);
    let (mut probe, mut kept) = (server.connect(), server.connect());
    assert_eq!(probe.get("/readyz").status, 200);
    assert_eq!(kept.get("/healthz").status, 200);
    let start = Instant::now();
    server.signal("TERM");
    let draining = wait_for("/readyz to report the drain", Duration::from_secs(1), || {
        let response = probe.get("/readyz");
        (response.status == 503).then_some(response)
    });
    assert_eq!(draining.header("Connection"), Some("close"));
    wait_for("new connections to be refused", Duration::from_secs(1), || {
        TcpStream::connect(server.address).is_err().then_some(())
    });
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
    let (status, _) = server.wait_exit(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{}", server.stderr());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "longer than the largest delay plus a second: {:?}",
        start.elapsed()
    );
    assert_eq!(server.stdout().lines().count(), 300, "the access log is complete");
}

#[test]
fn requests_that_arrive_during_the_drain_are_answered_with_connection_close() {
    let mut server = Server::start(&["--delay-min", "1s", "--delay-max", "1s"]);
    let mut early = waiting_clients(&server, 1);
    let mut late = server.connect();
    late.get("/healthz");
    server.signal("TERM");
    wait_for("the drain", Duration::from_secs(1), || {
        (late.get("/readyz").status == 503).then_some(())
    });
    late.request("GET", "/?delay=300ms", &[]);
    let response = late.receive().expect("a response");
    assert_eq!((response.status, response.header("Connection")), (200, Some("close")));
    assert_eq!(early[0].receive().unwrap().status, 200);
    assert_eq!(server.wait_exit(Duration::from_secs(5)).0.code(), Some(0));
}

#[test]
fn requests_in_flight_at_the_drain_timeout_are_answered_early() {
    let mut server = Server::start(&["--delay-min", "30s", "--delay-max", "30s", "--drain-timeout", "500ms"]);
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
        assert!(
            reported_ms < 10_000.0,
            "the planned delay instead of the actual one: {reported_ms}"
        );
    }
    assert_eq!(server.wait_exit(Duration::from_secs(5)).0.code(), Some(0));
    let took = start.elapsed();
    assert!(
        (500..1_500).contains(&took.as_millis()),
        "not between the drain timeout and a second more: {took:?}"
    );
}

#[test]
fn an_idle_server_exits_at_once_on_sigterm_and_sigint() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        let idle = server.connect();
        server.signal(signal);
        let (status, took) = server.wait_exit(Duration::from_secs(5));
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(took < Duration::from_secs(1), "{signal}: {took:?}");
        drop(idle);
    }
}

#[test]
fn the_server_exits_at_once_on_a_second_signal() {
    let mut server = Server::start(&["--delay-min", "30s", "--delay-max", "30s"]);
    let clients = waiting_clients(&server, 1);
    server.signal("TERM");
    wait_for("the drain", Duration::from_secs(1), || {
        TcpStream::connect(server.address).is_err().then_some(())
    });
    server.signal("INT");
    let (status, took) = server.wait_exit(Duration::from_secs(2));
    assert_eq!(status.code(), Some(130), "128 plus the signal's number");
    assert!(took < Duration::from_secs(1), "{took:?}");
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
    let (status, _) = server.wait_exit(Duration::from_secs(5));
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}
