//! HEAD and OPTIONS.

use super::case::{Body, Field, answered, head as request, last, refused};
use super::{Group, check};
use support::server::Server;
use support::wait_for;

const ALLOW: &str = "GET, HEAD, OPTIONS";

pub fn head() -> Group {
    let long = "x".repeat(2_000);
    let plain = |target: &str, status| {
        answered(request(&format!("HEAD {target} HTTP/1.1"), &[]), status)
            .with(Field::Present("Content-Length"))
            .body(Body::None)
    };
    Group {
        title: "HEAD",
        about: "The head of the response to GET, and never a body, even if the request is refused.",
        cases: vec![
            plain("/?delay=0s", 200),
            plain("/healthz", 200),
            plain("/metrics", 200),
            plain("/ui", 200),
            plain("/nothing", 404),
            plain("/?delay=never", 400),
            refused(request("HEAD / HTTP/1.1", &["Content-Length: 2000"]) + &long, 413).body(Body::None),
            refused(
                request("HEAD /healthz HTTP/1.1", &["Content-Length: 2000"]) + &long,
                413,
            )
            .body(Body::None),
            refused(
                request("HEAD / HTTP/1.1", &["Transfer-Encoding: chunked"]) + "0\r\n\r\n",
                413,
            )
            .body(Body::None),
            refused(request("HEAD / HTTP/1.1", &["Content-Length: 5, 5"]), 400).body(Body::None),
            last(request("HEAD / HTTP/1.0", &[]), 200).body(Body::None),
        ],
    }
}

pub fn options() -> Group {
    let known = |target: &str| {
        answered(request(&format!("OPTIONS {target} HTTP/1.1"), &[]), 204)
            .with(Field::Is("Allow", ALLOW))
            .with(Field::Absent("Content-Length"))
            .with(Field::Absent("Transfer-Encoding"))
            .body(Body::None)
    };
    let not_allowed = |method: &str| {
        answered(request(&format!("{method} / HTTP/1.1"), &[]), 405)
            .with(Field::Is("Allow", ALLOW))
            .body(Body::Line)
    };
    Group {
        title: "OPTIONS and other methods",
        about: "OPTIONS returns at once which methods are allowed, as some load balancers' health checks expect. Other methods \
                are not allowed.",
        cases: vec![
            known("/"),
            known("*"),
            known("/healthz"),
            known("/readyz"),
            known("/metrics"),
            known("/ui"),
            known("/?delay=1s"),
            known("http://example.org/"),
            last(request("OPTIONS / HTTP/1.0", &[]), 204)
                .with(Field::Is("Allow", ALLOW))
                .body(Body::None),
            answered(request("OPTIONS /nothing HTTP/1.1", &[]), 404).body(Body::Line),
            answered(request("OPTIONS / HTTP/1.1", &["Content-Length: 2"]) + "{}", 204).body(Body::None),
            refused(
                request("OPTIONS / HTTP/1.1", &["Content-Length: 2000"]) + &"x".repeat(2_000),
                413,
            ),
            not_allowed("POST"),
            not_allowed("PUT"),
            not_allowed("DELETE"),
            not_allowed("PATCH"),
            not_allowed("TRACE"),
            not_allowed("BREW"),
            not_allowed("get"),
            answered(request("CONNECT example.org:443 HTTP/1.1", &[]), 405).body(Body::Line),
        ],
    }
}

#[test]
fn head_never_has_a_body() {
    check(&head());
}

#[test]
fn options_returns_the_allowed_methods() {
    check(&options());
}

#[test]
fn options_and_refusals_are_recorded_under_the_path_other() {
    let server = Server::start(&["--delay-max", "0s"]);
    let mut client = server.connect();
    for _ in 0..3 {
        client.request("OPTIONS", "/", &[]);
        assert_eq!(client.receive_head().unwrap().status, 204);
    }
    for _ in 0..2 {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(client.receive().unwrap().status, 400);
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000\r\n\r\n");
        assert_eq!(client.receive_head().unwrap().status, 413);
    }
    let counted = |labels: &str| server.metric(&format!("http_request_duration_seconds_count{{{labels}}}"));
    for (labels, count) in [
        (r#"method="other",path="other",status="204""#, 3.0),
        (r#"method="GET",path="other",status="400""#, 2.0),
        (r#"method="GET",path="other",status="413""#, 2.0),
    ] {
        wait_for(
            &format!("{labels} to be {count}"),
            || counted(labels),
            |now| *now == Some(count),
        );
    }
    assert_eq!(counted(r#"method="GET",path="/",status="200""#), Some(0.0));
}
