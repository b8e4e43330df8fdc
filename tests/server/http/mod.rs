//! HTTP as the RFCs specify it: the tests send raw bytes and check the response.
//!
//! The cases of the other files are the tables of `docs/http.md`. To generate those:
//!
//! ```text
//! UPDATE_DOCS=1 cargo test --test server the_tables
//! ```

mod case;
mod tables;

mod bodies;
mod connection;
mod host;
mod methods;
mod once;
mod statuses;
mod targets;
mod tiny_http;

use std::time::Instant;

use case::Case;
use support::PATIENCE;
use support::server::Server;

/// Cases of one kind: a heading of `docs/http.md`, an explanation, and the table's rows.
struct Group {
    title: &'static str,
    about: &'static str,
    cases: Vec<Case>,
}

/// Returns all groups, in the order of `docs/http.md`.
fn groups() -> Vec<Group> {
    vec![
        host::host(),
        connection::connection(),
        statuses::statuses(),
        methods::head(),
        methods::options(),
        targets::targets(),
        bodies::bodies(),
        bodies::lengths(),
        bodies::unread(),
        tiny_http::by_itself(),
        tiny_http::silent(),
    ]
}

/// Runs the cases of a group, each on its own connection, and reports all that fail.
fn check(group: &Group) {
    // No close at random: a case may expect that there is none.
    let server = Server::start(&[
        "--delay-max",
        "0s",
        "--requests-per-connection",
        "0",
        "--idle-timeout",
        "1h",
    ]);
    let mut failures = Vec::new();
    for case in &group.cases {
        let started_at = Instant::now();
        failures.extend(case.run(&server).err());
        // This case has waited in vain, and the others may wait as long.
        if started_at.elapsed() >= PATIENCE {
            break;
        }
    }
    assert!(
        failures.is_empty(),
        "{}: of {} cases, at least {} fail\n\n{}\n\nThe server says:\n{}",
        group.title,
        group.cases.len(),
        failures.len(),
        failures.join("\n\n"),
        server.stderr()
    );
    // A connection that should have closed at once would be closed by this limit.
    let by_limit = server.metric(r#"httpserver_connections_closed_total{reason="slow_head"}"#);
    assert_eq!(
        by_limit,
        Some(0.0),
        "{}: closed by the limit of a first request",
        group.title
    );
}
