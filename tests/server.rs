//! The server as a client sees it: every endpoint, every flag, and probes beside waiting requests.

mod support;

use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::client::Client;
use support::server::{Server, binary, command, run, value_of};
use support::wait_for;

/// Starts a server whose delays are too short to slow down a test.
fn quick(flags: &[&str]) -> Server {
    let mut all = vec!["--delay-max", "20ms"];
    all.extend(flags);
    Server::start(&all)
}

#[test]
fn the_root_reports_its_delay_in_its_body_and_in_server_timing() {
    let server = Server::start(&["--delay-min", "50ms", "--delay-max", "150ms"]);
    let mut client = server.connect();
    let mut delays = HashSet::new();
    for _ in 0..10 {
        let sent_at = Instant::now();
        let response = client.get("/");
        let waited = sent_at.elapsed();
        assert_eq!(response.status, 200);
        let timing = response.header("Server-Timing").expect("Server-Timing").to_owned();
        let reported_ms: f64 = timing.strip_prefix("delay;dur=").unwrap().parse().unwrap();
        assert!((50.0..250.0).contains(&reported_ms), "{timing}");
        assert!(reported_ms / 1e3 <= waited.as_secs_f64(), "{timing}, waited {waited:?}");
        let line = response.text();
        assert_eq!(line.lines().count(), 1, "{line:?}");
        let reported: f64 = line
            .strip_prefix("answered after ")
            .unwrap()
            .trim_end()
            .strip_suffix(" s")
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            (reported * 1e3 - reported_ms).abs() < 0.001,
            "{line:?} against {timing}"
        );
        delays.insert(timing);
    }
    assert_eq!(delays.len(), 10, "each delay is drawn anew");
}

#[test]
fn a_query_overrides_delay_and_status() {
    let server = Server::start(&["--error-rate", "1"]);
    let mut client = server.connect();
    let sent_at = Instant::now();
    let response = client.get("/?delay=30ms&status=429");
    assert!((30..1_000).contains(&sent_at.elapsed().as_millis()));
    assert_eq!(response.status, 429);
    assert!(
        response.text().starts_with("answered after 0.03"),
        "{}",
        response.text()
    );
    assert_eq!(
        client.get("/?delay=0s&status=200").status,
        200,
        "a requested status is not replaced by an error"
    );
    assert_eq!(client.get("/?delay=0s").status, 500);
}

#[test]
fn an_invalid_query_gets_400_at_once_in_one_line() {
    let server = Server::start(&["--delay-min", "2s"]);
    let mut client = server.connect();
    for query in [
        "delay=-1s",
        "delay=NaN",
        "delay=1h",
        "status=299",
        "x=1",
        "delay=1s&delay=1s",
    ] {
        let sent_at = Instant::now();
        let response = client.get(&format!("/?{query}"));
        assert_eq!(response.status, 400, "{query}");
        assert!(sent_at.elapsed() < Duration::from_secs(1), "{query}");
        assert_eq!(response.text().lines().count(), 1, "{query}");
        assert!(response.text().starts_with("query parameter "), "{}", response.text());
    }
}

#[test]
fn probes_metrics_and_ui_are_not_delayed() {
    let server = Server::start(&["--delay-min", "2s"]);
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
        let sent_at = Instant::now();
        let response = client.get(target);
        assert!(sent_at.elapsed() < Duration::from_secs(1), "{target}");
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
    let exposition = wait_for("the last observation", Duration::from_secs(5), || {
        let exposition = server.metrics();
        let last = r#"http_request_duration_seconds_count{method="GET",path="/",status="400"}"#;
        (value_of(&exposition, last) == Some(50.0)).then_some(exposition)
    });
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
    let server = Server::start(&["--delay-min", "20s", "--delay-max", "20s"]);
    let clients: Vec<Client> = (0..1_000)
        .map(|_| {
            let mut client = server.connect();
            client.request("GET", "/", &[]);
            client
        })
        .collect();
    wait_for("1,000 requests to be in flight", Duration::from_secs(15), || {
        (server.metric("http_requests_in_flight")? >= 1_001.0).then_some(())
    });
    let mut client = server.connect();
    for target in ["/healthz", "/readyz", "/metrics"].into_iter().cycle().take(30) {
        let sent_at = Instant::now();
        assert_eq!(client.get(target).status, 200);
        assert!(
            sent_at.elapsed() < Duration::from_millis(500),
            "{target} took {:?}",
            sent_at.elapsed()
        );
    }
    drop(clients);
}

#[test]
fn requests_past_max_in_flight_are_refused_and_probes_are_not() {
    let server = Server::start(&["--max-in-flight", "2", "--delay-min", "1s", "--delay-max", "1s"]);
    let mut waiting: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = server.connect();
            client.request("GET", "/", &[]);
            client
        })
        .collect();
    wait_for("2 requests to be in flight", Duration::from_secs(5), || {
        (server.metric("http_requests_in_flight")? >= 3.0).then_some(())
    });
    let refused = server.get("/");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(server.get("/healthz").status, 200);
    for client in &mut waiting {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    let counted = r#"http_request_duration_seconds_count{method="GET",path="/",status="503"}"#;
    wait_for("the refusal to be recorded", Duration::from_secs(5), || {
        (server.metric(counted)? == 1.0).then_some(())
    });
    assert_eq!(server.get("/").status, 200, "requests are admitted again");
}

#[test]
fn errors_occur_at_the_error_rate() {
    let server = Server::start(&["--delay-max", "0s", "--error-rate", "0.25"]);
    let mut client = server.connect();
    let errors = (0..2_000).filter(|_| client.get("/").status == 500).count();
    // Seven standard deviations of a binomial.
    assert!((365..635).contains(&errors), "{errors}");
}

#[test]
fn the_flag_sets_the_buckets() {
    let server = quick(&["--buckets", "linear:0.25,0.25,8"]);
    let exposition = server.metrics();
    assert!(
        exposition.contains("le=\"0.25\"") && exposition.contains("le=\"2\"") && !exposition.contains("le=\"2.5\""),
        "{exposition}"
    );
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
    let log = wait_for("two lines", Duration::from_secs(5), || {
        let log = server.stdout();
        (log.lines().count() >= 2).then_some(log)
    });
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
    silent.wait_exit(Duration::from_secs(10));
    assert_eq!(silent.stdout(), "");
}

#[test]
fn flags_override_environment_variables() {
    let mut environment = command(&["--listen", "127.0.0.1:0", "--delay-max", "40ms"]);
    environment
        .env("HTTPSERVER_DELAY_MIN", "30ms")
        .env("HTTPSERVER_DELAY_MAX", "1h");
    let server = Server::spawn(environment);
    assert!(
        server.start_line.ends_with("answering after 30ms to 40ms"),
        "{}",
        server.start_line
    );
    assert!(server.start_line.starts_with(&format!(
        "httpserver: version {} listening on 127.0.0.1:",
        env!("CARGO_PKG_VERSION")
    )));
}

#[test]
fn an_invalid_flag_gets_one_line_and_status_2() {
    let cases: [(&[&str], &[&str]); 21] = [
        (&["--listen", "nowhere"], &["--listen", "\"nowhere\"", "0.0.0.0:19004"]),
        (&["--delay-min", "fast"], &["--delay-min", "\"fast\"", "0s to 1h"]),
        (&["--delay-min=-1s"], &["--delay-min", "\"-1s\"", "0s to 1h"]),
        (&["--delay-max", "2h"], &["--delay-max", "\"2h\"", "0s to 1h"]),
        (
            &["--delay-min", "3s"],
            &["--delay-min", "\"3s\"", "--delay-max", "0s to 2s"],
        ),
        (
            &["--delay-quantiles", "half"],
            &["--delay-quantiles", "\"half\"", "0.5=80ms"],
        ),
        (
            &["--delay-quantiles", "0.5=3s"],
            &["--delay-quantiles", "\"0.5=3s\"", "--delay-max, 2s"],
        ),
        (
            &["--requests-per-connection", "-1"],
            &["--requests-per-connection", "\"-1\"", "0 to 1000000000"],
        ),
        (&["--error-rate", "1.5"], &["--error-rate", "\"1.5\"", "0 to 1"]),
        (&["--error-rate", "NaN"], &["--error-rate", "\"NaN\"", "0 to 1"]),
        (&["--error-rate", "-0.1"], &["--error-rate", "\"-0.1\"", "0 to 1"]),
        (&["--buckets", "2,1"], &["--buckets", "\"2,1\"", "increasing"]),
        (&["--buckets", ""], &["--buckets", "\"\""]),
        (&["--max-in-flight", "0"], &["--max-in-flight", "\"0\"", "1 to 1000000"]),
        (
            &["--drain-timeout", "soon"],
            &["--drain-timeout", "\"soon\"", "0s to 1h"],
        ),
        (&["--idle-timeout", "0s"], &["--idle-timeout", "\"0s\"", "1s to 1h"]),
        (&["--idle-timeout", "2h"], &["--idle-timeout", "\"2h\"", "1s to 1h"]),
        (
            &["--access-log", "maybe"],
            &["--access-log", "\"maybe\"", "true and false"],
        ),
        (&["--delay-min"], &["--delay-min", "value"]),
        (
            &["--delay-min", "1s", "--delay-min", "1s"],
            &["--delay-min", "more than once"],
        ),
        (&["--colour"], &["--colour", "--help"]),
    ];
    for (flags, parts) in cases {
        let output = run(flags);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{flags:?}: {part} in {stderr}");
        }
        assert!(output.stdout.is_empty(), "{flags:?}");
    }
}

#[test]
fn an_unavailable_address_gets_one_line_and_status_1() {
    let server = quick(&[]);
    for address in [server.address.to_string(), "192.0.2.1:19004".to_owned()] {
        let output = run(&["--listen", &address]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&format!("cannot listen on {address}: ")), "{stderr}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in [
        "listen",
        "delay-min",
        "delay-max",
        "delay-quantiles",
        "error-rate",
        "buckets",
        "max-in-flight",
        "drain-timeout",
        "idle-timeout",
        "requests-per-connection",
        "access-log",
    ] {
        let variable = format!("HTTPSERVER_{}", flag.to_uppercase().replace('-', "_"));
        assert!(
            text.contains(&format!("--{flag} ")) && text.contains(&variable),
            "{flag}: {text}"
        );
    }
    let version = run(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("httpserver {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn buckets_below_the_longest_delay_get_a_warning() {
    let server = Server::start(&["--buckets", "exponential:0.1,1.5,5"]);
    let stderr = server.stderr();
    let warning = stderr.lines().next().unwrap();
    assert!(
        warning.contains("warning: ") && warning.contains("0.50625 s") && warning.contains("2 s"),
        "{stderr}"
    );
    assert!(!Server::start(&[]).stderr().contains("warning"));
}

#[test]
fn an_ipv6_wildcard_address_serves_ipv4_too() {
    let server = Server::spawn(command(&["--listen", "[::]:0", "--delay-max", "1ms"]));
    let port = server.address.port();
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(
            Client::connect(address.parse().unwrap()).get("/").status,
            200,
            "{address}"
        );
    }
}

#[test]
fn the_soft_limit_on_descriptors_is_raised_to_the_hard_one() {
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -Sn 64; exec \"$0\" --listen 127.0.0.1:0"])
        .arg(binary())
        .stdin(Stdio::null());
    let server = Server::spawn(limited);
    assert!(server.metric("process_max_fds").unwrap() > 64.0);
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
    // Seven standard deviations of a binomial.
    assert!((106..294).contains(&closed(&mut client, "/")), "one in ten");
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
    let log = wait_for("the line", Duration::from_secs(5), || {
        let log = server.stdout();
        log.contains('\n').then_some(log)
    });
    assert!(log.contains(" peer=127.0.0.1:"), "{log}");
}

#[test]
fn the_default_address_serves_ipv4_on_a_system_without_ipv6() {
    let script = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 && ip link set lo up && \
        { \"$0\" 2>&1 >/dev/null & } && server=$! && \
        curl --silent --show-error --retry 20 --retry-delay 1 --retry-connrefused http://127.0.0.1:19004/healthz; \
        kill $server; wait $server";
    let output = std::process::Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(binary())
        .output()
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("listening on [::]:19004") && text.contains("ok\n"),
        "{text} {output:?}"
    );
}
