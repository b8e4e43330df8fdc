//! Real HTTP clients, each of which sends 1,000 requests without an error; wrk, as many as it can in a second.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::server::Server;
use support::{root, wait_for};

const REQUESTS: u32 = 1_000;

/// Starts a server without a delay.
fn server() -> Server {
    Server::start(&["--delay-max", "0s"])
}

fn url(server: &Server) -> String {
    format!("http://{}/", server.address)
}

/// Asserts that the server has answered all requests with 200, and no request with another status.
fn assert_all_answered(server: &Server) {
    assert_answered(server, REQUESTS);
}

fn assert_answered(server: &Server, count: u32) {
    let counted = r#"http_request_duration_seconds_count{method="GET",path="/",status="200"}"#;
    // A request is recorded after its response is written.
    wait_for(
        &format!("{count} requests to be recorded"),
        || server.metric(counted),
        |recorded| *recorded >= Some(f64::from(count)),
    );
    let exposition = server.metrics();
    let others: Vec<&str> = exposition
        .lines()
        .filter(|line| line.starts_with("http_request_duration_seconds_count"))
        .filter(|line| !line.contains("path=\"/metrics\"") && !line.starts_with(counted) && !line.ends_with(" 0"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Runs a command and returns its standard output. Panics if it fails.
fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn script(name: &str) -> PathBuf {
    root().join("tests/server/clients").join(name)
}

/// Runs curl once with many URLs, which it requests on one connection if it can.
fn curl(server: &Server, flags: &[&str]) {
    // curl does not send the part after #, and repeats the request for each number in it.
    let url = format!("{}#[1-{REQUESTS}]", url(server));
    let codes = run(Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code} %{size_download}\\n"])
        .args(flags)
        .arg(url));
    let answered = codes
        .lines()
        .filter(|line| line.starts_with("200 ") && !line.ends_with(" 0"))
        .count();
    assert_eq!(answered, REQUESTS as usize, "{codes}");
    assert_all_answered(server);
}

#[test]
fn curl_is_served() {
    curl(&server(), &[]);
}

#[test]
fn curl_with_http_1_0_is_served() {
    curl(&server(), &["--http1.0"]);
}

#[test]
fn curl_that_offers_an_upgrade_to_http_2_is_served() {
    curl(&server(), &["--http2"]);
}

#[test]
fn h2load_with_http_1_1_is_served() {
    let server = server();
    let report = run(Command::new("h2load")
        .args(["--h1", "--clients=20", "--max-concurrent-streams=1"])
        .arg(format!("--requests={REQUESTS}"))
        .arg(url(&server)));
    let succeeded =
        format!("{REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored");
    assert!(report.contains(&succeeded), "{report}");
    assert_all_answered(&server);
}

#[test]
fn apache_bench_is_served() {
    for flags in [&["-k"][..], &[]] {
        let server = server();
        let report = run(Command::new("ab")
            // -l: the length of the response varies.
            .args(["-q", "-l", "-s", "60", "-c", "20", "-n", &REQUESTS.to_string()])
            .args(flags)
            .arg(url(&server)));
        let number = |name: &str| -> Option<u32> {
            let line = report.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        assert_eq!(number("Complete requests:"), Some(REQUESTS), "{report}");
        assert_eq!(number("Failed requests:"), Some(0), "{report}");
        assert!(!report.contains("Non-2xx"), "{report}");
        assert_all_answered(&server);
    }
}

#[test]
fn wrk_is_served() {
    let server = server();
    // Without a longer timeout than its own, a response that the machine delays by two seconds is an error.
    let report = run(Command::new("wrk").args(["-t1", "-c20", "-d1s", "--timeout", "60s", &url(&server)]));
    assert!(
        !report.contains("Socket errors") && !report.contains("Non-2xx"),
        "{report}"
    );
    let answered = report
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let answered = answered.unwrap_or_else(|| panic!("no number of requests in {report}"));
    assert!(answered > 0, "{report}");
    assert_answered(&server, answered);
}

fn python(client: &str) {
    let server = server();
    run(Command::new(root().join(".tools/venv/bin/python"))
        .arg(script("clients.py"))
        .args([client, &url(&server), &REQUESTS.to_string()]));
    assert_all_answered(&server);
}

#[test]
fn pythons_http_client_is_served() {
    python("http.client");
}

#[test]
fn pythons_requests_is_served() {
    python("requests");
}

#[test]
fn pythons_httpx_is_served() {
    python("httpx");
}

#[test]
fn pythons_aiohttp_is_served() {
    python("aiohttp");
}

fn node(client: &str) {
    let server = server();
    run(Command::new("node")
        .arg(script("clients.mjs"))
        .args([client, &url(&server), &REQUESTS.to_string()]));
    assert_all_answered(&server);
}

#[test]
fn nodes_http_agent_with_keep_alive_is_served() {
    node("http");
}

#[test]
fn nodes_fetch_is_served() {
    node("fetch");
}

#[test]
fn rusts_ureq_is_served() {
    let server = server();
    let agent = ureq::Agent::new_with_defaults();
    for _ in 0..REQUESTS {
        let mut response = agent.get(url(&server)).call().unwrap();
        let line = response.body_mut().read_to_string().unwrap();
        assert!(line.starts_with("answered after "), "{line}");
    }
    assert_all_answered(&server);
}

#[test]
fn rusts_reqwest_is_served() {
    let server = server();
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    for _ in 0..REQUESTS {
        let response = client.get(url(&server)).send().unwrap();
        assert_eq!(response.status(), 200);
        let line = response.text().unwrap();
        assert!(line.starts_with("answered after "), "{line}");
    }
    assert_all_answered(&server);
}
