//! The endpoints as a client sees them: delays and errors of `/`, probes beside waiting requests, the access log.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use support::client::{Client, Response};
use support::server::{Server, command, value_of};
use support::wait_for;

use crate::waiting_clients;

/// Flags of a server that answers `/` too late for any test: what is answered was not delayed.
const NEVER: [&str; 4] = ["--delay-min", "1h", "--delay-max", "1h"];

/// Starts a server whose delays are too short to slow down a test.
fn quick(flags: &[&str]) -> Server {
    let mut all = vec!["--delay-max", "20ms"];
    all.extend(flags);
    Server::start(&all)
}

/// Returns the delay that a response of `/` reports in its body.
fn reported(response: &Response) -> Duration {
    let body = response.text();
    let line = body.strip_suffix('\n').expect("a line");
    let seconds = line
        .strip_prefix("answered after ")
        .and_then(|rest| rest.strip_suffix(" s"));
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("not one line with the delay: {body:?}")))
}

#[test]
fn the_root_reports_its_delay_in_its_body_and_in_server_timing() {
    let shortest = Duration::from_millis(50);
    let server = Server::start(&["--delay-min", "50ms", "--delay-max", "150ms"]);
    let mut client = server.connect();
    let mut delays = HashSet::new();
    for _ in 0..10 {
        let sent_at = Instant::now();
        let response = client.get("/");
        let waited = sent_at.elapsed();
        assert_eq!(response.status, 200);
        let delay = reported(&response);
        assert!((shortest..=waited).contains(&delay), "{delay:?}, waited {waited:?}");
        let timing = response.header("Server-Timing").expect("Server-Timing").to_owned();
        let in_ms: f64 = timing.strip_prefix("delay;dur=").unwrap().parse().unwrap();
        assert!(
            (delay.as_secs_f64() * 1e3 - in_ms).abs() < 0.001,
            "{delay:?} against {timing}"
        );
        delays.insert(timing);
    }
    assert_eq!(delays.len(), 10, "each delay is drawn anew");
}

#[test]
fn a_query_overrides_delay_and_status() {
    let server = Server::start(&[&NEVER[..], &["--error-rate", "1"]].concat());
    let mut client = server.connect();
    let response = client.get("/?delay=30ms&status=429");
    assert_eq!(response.status, 429);
    let delay = reported(&response);
    assert!(delay >= Duration::from_millis(30), "{delay:?}");
    assert_eq!(
        client.get("/?delay=0s&status=200").status,
        200,
        "a requested status is not replaced by an error"
    );
    assert_eq!(client.get("/?delay=0s").status, 500);
}

#[test]
fn an_invalid_query_gets_400_at_once_in_one_line() {
    let server = Server::start(&NEVER);
    let mut client = server.connect();
    for query in [
        "delay=-1s",
        "delay=NaN",
        "delay=1h",
        "status=299",
        "x=1",
        "delay=1s&delay=1s",
    ] {
        let response = client.get(&format!("/?{query}"));
        assert_eq!(response.status, 400, "{query}");
        assert_eq!(response.text().lines().count(), 1, "{query}");
        assert!(response.text().starts_with("query parameter "), "{}", response.text());
    }
}

#[test]
fn probes_metrics_and_ui_are_not_delayed() {
    let server = Server::start(&NEVER);
    let mut client = server.connect();
    for (target, content_type, start) in [
        ("/healthz", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", "text/plain; charset=utf-8", "ready\n"),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "# HELP http_request_duration_seconds ",
        ),
        (
            "/metrics?name[]=up",
            "text/plain; version=0.0.4; charset=utf-8",
            "# HELP ",
        ),
        ("/ui", "text/html; charset=utf-8", "<!"),
    ] {
        let response = client.get(target);
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(response.header("Content-Type"), Some(content_type), "{target}");
        assert!(response.header("Date").is_some(), "{target}");
        assert!(response.text().starts_with(start), "{target}");
    }
    let page = client.get("/ui");
    assert!(
        page.header("Content-Security-Policy")
            .is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
}

#[test]
fn head_is_get_without_the_body() {
    let server = quick(&[]);
    let mut client = server.connect();
    for target in ["/", "/healthz", "/readyz", "/ui", "/nothing"] {
        let head = client.head(target);
        let get = client.get(target);
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(head.header("Content-Type"), get.header("Content-Type"), "{target}");
        assert_eq!(head.header("Content-Length"), get.header("Content-Length"), "{target}");
    }
    // The client would have taken a body after one of the heads for the next response.
    assert!(
        server.metric(r#"http_request_duration_seconds_count{method="HEAD",path="/ui",status="200"}"#) == Some(1.0)
    );
}

#[test]
fn other_paths_are_not_found_and_other_methods_not_allowed() {
    let server = quick(&[]);
    let mut client = server.connect();
    for target in ["/nothing", "/healthz/", "//", "/%2e", "/*"] {
        let response = client.get(target);
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.text().lines().count(), 1);
    }
    for method in ["POST", "PUT", "DELETE", "TRACE", "PATCH", "BREW"] {
        client.request(method, "/", &[]);
        let response = client.receive().unwrap();
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("Allow"), Some("GET, HEAD, OPTIONS"), "{method}");
    }
}

#[test]
fn nothing_that_clients_send_creates_a_series() {
    let server = quick(&[]);
    let mut client = server.connect();
    let series = |exposition: &str| exposition.lines().filter(|line| line.contains("_count{")).count();
    for number in 0..50 {
        client.request(&format!("METHOD{number}"), &format!("/path{number}"), &[]);
        assert_eq!(client.receive().unwrap().status, 405);
        assert_eq!(client.get(&format!("/path{number}")).status, 404);
        assert_eq!(client.get(&format!("/?status={}", 600 + number)).status, 400);
    }
    let last = r#"http_request_duration_seconds_count{method="GET",path="/",status="400"}"#;
    let exposition = wait_for(
        "the last observation",
        || server.metrics(),
        |exposition| value_of(exposition, last) == Some(50.0),
    );
    let counted = |labels: &str| value_of(&exposition, &format!("http_request_duration_seconds_count{labels}"));
    assert_eq!(counted(r#"{method="other",path="other",status="405"}"#), Some(50.0));
    assert_eq!(counted(r#"{method="GET",path="other",status="404"}"#), Some(50.0));
    // The three initial series, these three, and that of this test's own scrapes.
    assert!(series(&exposition) <= 7, "{exposition}");
}

#[test]
fn the_exposition_has_every_metric_from_the_start() {
    let server = quick(&[]);
    let exposition = server.metrics();
    let of_root = r#"http_request_duration_seconds_count{method="GET",path="/",status="200"}"#;
    assert_eq!(value_of(&exposition, of_root), Some(0.0));
    assert_eq!(
        value_of(&exposition, "http_requests_in_flight"),
        Some(1.0),
        "the scrape itself"
    );
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "process_threads",
    ] {
        assert!(value_of(&exposition, name).is_some(), "{name}");
    }
    assert!(exposition.contains("httpserver_build_info{"), "{exposition}");
    for bound in [
        "0.1", "0.15", "0.225", "0.3375", "0.50625", "0.75", "1", "1.25", "1.5", "1.75", "2", "2.5", "+Inf",
    ] {
        assert!(exposition.contains(&format!("le=\"{bound}\"")), "{bound}");
    }
}

#[test]
fn probes_and_scrapes_are_answered_while_a_thousand_requests_wait() {
    let server = Server::start(&NEVER);
    let waiting = waiting_clients(&server, 1_000);
    let mut client = server.connect();
    for target in ["/healthz", "/readyz", "/metrics"].into_iter().cycle().take(30) {
        assert_eq!(client.get(target).status, 200, "{target}");
    }
    assert!(
        server.metric("http_requests_in_flight") > Some(1_000.0),
        "all still wait"
    );
    drop(waiting);
}

#[test]
fn requests_past_max_in_flight_are_refused_and_probes_are_not() {
    let server = Server::start(&["--max-in-flight", "2", "--delay-min", "4s", "--delay-max", "4s"]);
    let mut waiting = waiting_clients(&server, 2);
    let refused = server.get("/?delay=0s");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(server.get("/healthz").status, 200);
    for client in &mut waiting {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    let counted = r#"http_request_duration_seconds_count{method="GET",path="/",status="503"}"#;
    wait_for(
        "the refusal to be recorded",
        || server.metric(counted),
        |count| *count == Some(1.0),
    );
    // A request is counted out after its response is written.
    wait_for(
        "no request but the scrape to be in flight",
        || server.metric("http_requests_in_flight"),
        |in_flight| *in_flight == Some(1.0),
    );
    assert_eq!(server.get("/?delay=0s").status, 200, "requests are admitted again");
}

#[test]
fn errors_occur_at_the_error_rate() {
    let server = Server::start(&["--delay-max", "0s", "--error-rate", "0.25"]);
    let mut client = server.connect();
    let errors = (0..2_000).filter(|_| client.get("/").status == 500).count();
    // Seven standard deviations of a binomial: 500 and 7 times 19.4.
    assert!((364..=636).contains(&errors), "{errors}");
}

#[test]
fn the_access_log_has_requests_but_no_probes_and_can_be_disabled() {
    let server = quick(&[]);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut client = server.connect();
    client.request("GET", "/?status=503", &[("traceparent", traceparent)]);
    assert_eq!(client.receive().unwrap().status, 503);
    for probe in ["/healthz", "/readyz", "/metrics"] {
        client.get(probe);
    }
    client.get("/nothing");
    server.logged(2);
    let log = server.stdout();
    assert_eq!(log.lines().count(), 2, "{log}");
    let line = log.lines().next().unwrap();
    for field in [
        " method=GET ",
        " path=/ ",
        " status=503 ",
        " duration=0.",
        " peer=127.0.0.1:",
        " trace_id=4bf92f3577b34da6a3ce929d0e0e4736",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    assert!(line.starts_with("ts=2"), "{line}");
    assert!(log.lines().nth(1).unwrap().contains(" path=other status=404 "), "{log}");

    let mut silent = quick(&["--access-log", "false"]);
    silent.get("/");
    silent.signal("TERM");
    silent.wait_exit();
    assert_eq!(silent.stdout(), "");
}

#[test]
fn connections_close_after_the_mean_number_of_requests_except_those_of_probes() {
    let server = Server::start(&["--delay-max", "0s", "--requests-per-connection", "10"]);
    let mut client = server.connect();
    let closed = |client: &mut Client, target| {
        (0..2_000)
            .filter(|_| client.get(target).header("Connection") == Some("close"))
            .count()
    };
    let one_in_ten = closed(&mut client, "/");
    // Seven standard deviations of a binomial: 200 and 7 times 13.4.
    assert!((106..=294).contains(&one_in_ten), "{one_in_ten}");
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(closed(&mut client, probe), 0, "{probe}");
    }
    let never = Server::start(&["--delay-max", "0s", "--requests-per-connection", "0"]);
    assert_eq!(closed(&mut never.connect(), "/"), 0);
}

#[test]
fn the_access_log_shows_ipv4_clients_with_ipv4_addresses() {
    let server = Server::spawn(command(&["--listen", "[::]:0", "--delay-max", "0s"]));
    let address = format!("127.0.0.1:{}", server.address.port()).parse().unwrap();
    assert_eq!(Client::connect(address).get("/").status, 200);
    server.logged(1);
    let log = server.stdout();
    assert!(log.contains(" peer=127.0.0.1:"), "{log}");
}
