//! Fields with several lines: which are one list, and which are invalid.

use support::server::Server;
use support::wait_for;

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER_TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Blocks until `/` has an exemplar, and returns all its exemplars.
fn exemplars(server: &Server) -> Vec<String> {
    let of_root = || -> Vec<String> {
        let mut client = server.connect();
        client.request("GET", "/metrics", &[("Accept", OPENMETRICS)]);
        let exposition = client.receive().unwrap().text();
        exposition
            .lines()
            .filter(|line| line.contains("_bucket{") && line.contains("path=\"/\","))
            .filter_map(|line| Some(line.split_once(" # ")?.1.to_owned()))
            .collect()
    };
    wait_for("an exemplar of /", of_root, |exemplars| !exemplars.is_empty())
}

#[test]
fn a_single_traceparent_becomes_the_exemplar() {
    let server = Server::start(&["--delay-max", "0s"]);
    let mut client = server.connect();
    client.request("GET", "/", &[("traceparent", TRACEPARENT)]);
    assert_eq!(client.receive().unwrap().status, 200);
    let exemplars = exemplars(&server);
    assert!(exemplars[0].contains(TRACE_ID), "{exemplars:?}");
}

#[test]
fn neither_of_two_traceparents_is_used() {
    for pair in [
        [TRACEPARENT, OTHER_TRACEPARENT],
        [TRACEPARENT, TRACEPARENT],
        [TRACEPARENT, "x"],
    ] {
        let server = Server::start(&["--delay-max", "0s"]);
        let mut client = server.connect();
        client.request("GET", "/", &pair.map(|value| ("traceparent", value)));
        assert_eq!(client.receive().unwrap().status, 200);
        let exemplars = exemplars(&server);
        assert!(!exemplars[0].contains("trace_id"), "{pair:?}: {exemplars:?}");
    }
}

#[test]
fn several_accept_lines_are_one_list() {
    let server = Server::start(&[]);
    for lines in [
        ["text/html", OPENMETRICS],
        [OPENMETRICS, "text/html"],
        ["", OPENMETRICS],
    ] {
        let mut client = server.connect();
        client.request("GET", "/metrics", &lines.map(|value| ("Accept", value)));
        let response = client.receive().unwrap();
        let content_type = response.header("Content-Type").expect("Content-Type");
        assert!(
            content_type.starts_with("application/openmetrics-text; version=1.0.0"),
            "{lines:?}: {content_type}"
        );
    }
}
