//! How long a connection may be idle, and that no request is lost on a connection within that time.

use std::io::Read;
use std::time::{Duration, Instant};

use support::client::Client;
use support::server::Server;

/// How soon a connection must have sent its first complete request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How much of a limit may be missing when a connection is closed. The server counts from one look at all connections
/// to another, and notes the time when a look begins.
const EARLY_BY: Duration = Duration::from_millis(500);

/// How much later than its limit a connection may be closed. A busy machine keeps this, and the other limits are
/// further away.
const LATE_BY: Duration = Duration::from_secs(10);

/// Asserts that the server closes the connection about `limit` after `since`.
///
/// `since` is a time before the last request was sent. The server may see that request before the client goes on.
fn assert_closes(client: &Client, since: Instant, limit: Duration) {
    let outcome = client.socket().read(&mut [0; 64]);
    let after = since.elapsed();
    assert!(
        matches!(&outcome, Ok(0))
            || outcome
                .as_ref()
                .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock),
        "not closed after {after:?}: {outcome:?}"
    );
    assert!(
        (limit - EARLY_BY..limit + LATE_BY).contains(&after),
        "closed after {after:?}, with a limit of {limit:?}"
    );
}

#[test]
fn a_request_behind_a_late_response_is_answered() {
    let server = Server::start(&["--idle-timeout", "3s"]);
    let mut client = server.connect();
    for target in ["/?delay=5s", "/healthz", "/?delay=5s", "/healthz"] {
        let response = client.get(target);
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(response.header("Connection"), None, "{target}");
    }
}

#[test]
fn a_request_after_a_response_later_than_the_limit_of_a_first_request_is_answered() {
    let server = Server::start(&["--idle-timeout", "5s"]);
    let mut client = server.connect();
    for target in ["/?delay=13s", "/healthz"] {
        assert_eq!(client.get(target).status, 200, "{target}");
    }
}

#[test]
fn an_idle_connection_closes_after_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "4s"]);
    let mut client = server.connect();
    for _ in 0..3 {
        // Each response restarts the timeout. Without that, the connection would close within these sleeps.
        assert_eq!(client.get("/healthz").status, 200);
        std::thread::sleep(Duration::from_millis(1_500));
    }
    let since = Instant::now();
    assert_eq!(client.get("/healthz").status, 200);
    assert_closes(&client, since, Duration::from_secs(4));
}

#[test]
fn the_idle_timeout_may_exceed_the_limit_of_a_first_request() {
    let server = Server::start(&["--idle-timeout", "1h"]);
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    // Nothing happens for longer than that limit.
    std::thread::sleep(FIRST_REQUEST_WITHIN + Duration::from_secs(2));
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_connection_without_a_complete_first_request_closes_after_10_s() {
    let server = Server::start(&["--idle-timeout", "1h"]);
    let since = Instant::now();
    let clients = [
        "",
        "GET /healthz HTTP/1.1\r\nHost: te",
        "GET /healthz HTTP/1.1\nHost: test\n\n",
    ]
    .map(|sent| {
        let mut client = server.connect();
        client.send(sent);
        client
    });
    for client in clients {
        assert_closes(&client, since, FIRST_REQUEST_WITHIN);
    }
}

#[test]
fn the_environment_sets_the_idle_timeout() {
    let mut from_variable = support::server::command(&["--listen", "127.0.0.1:0"]);
    from_variable.env("HTTPSERVER_IDLE_TIMEOUT", "2s");
    let server = Server::spawn(from_variable);
    let mut client = server.connect();
    let since = Instant::now();
    assert_eq!(client.get("/healthz").status, 200);
    assert_closes(&client, since, Duration::from_secs(2));
}
