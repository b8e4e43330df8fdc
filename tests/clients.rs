//! Real HTTP clients, each of which sends 1,000 requests without an error.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::server::Server;
use support::wait_for;

const REQUESTS: u32 = 1_000;

/// Starts a server without a delay.
fn server() -> Server {
    Server::start(&["--delay-max", "0s"])
}

fn root(server: &Server) -> String {
    format!("http://{}/", server.address)
}

/// Asserts that the server has answered all requests with 200, and no request with another status.
fn assert_all_answered(server: &Server) {
    let counted = r#"http_request_duration_seconds_count{method="GET",path="/",status="200"}"#;
    // A request is recorded after its response is written.
    wait_for("all requests to be recorded", Duration::from_secs(5), || {
        (server.metric(counted)? >= f64::from(REQUESTS)).then_some(())
    });
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs curl once with many URLs, which it requests on one connection if it can.
fn curl(server: &Server, flags: &[&str]) {
    // curl does not send the part after #, and repeats the request for each number in it.
    let url = format!("{}#[1-{REQUESTS}]", root(server));
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
        .arg(root(&server)));
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
            .args(["-q", "-l", "-c", "20", "-n", &REQUESTS.to_string()])
            .args(flags)
            .arg(root(&server)));
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
    let report = run(Command::new("wrk").args(["-t1", "-c20", "-d1s", &root(&server)]));
    assert!(
        !report.contains("Socket errors") && !report.contains("Non-2xx"),
        "{report}"
    );
    assert_all_answered(&server);
}

fn python(client: &str) {
    let server = server();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/python");
    run(Command::new(python)
        .arg(script("clients.py"))
        .args([client, &root(&server), &REQUESTS.to_string()]));
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
        .args([client, &root(&server), &REQUESTS.to_string()]));
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
        let mut response = agent.get(root(&server)).call().unwrap();
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
        let response = client.get(root(&server)).send().unwrap();
        assert_eq!(response.status(), 200);
        let line = response.text().unwrap();
        assert!(line.starts_with("answered after "), "{line}");
    }
    assert_all_answered(&server);
}
