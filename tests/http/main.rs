//! HTTP as the RFCs specify it: the tests send raw bytes and check the response.
//!
//! The cases of the other files are the tables of `docs/robustness.md`. To generate those:
//!
//! ```text
//! UPDATE_DOCS=1 cargo test --test http the_tables
//! ```

#[path = "../support/mod.rs"]
mod support;

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

use case::Case;
use support::server::Server;

/// Cases of one kind: a heading of `docs/robustness.md`, an explanation, and the table's rows.
struct Group {
    title: &'static str,
    about: &'static str,
    cases: Vec<Case>,
}

/// Returns all groups, in the order of `docs/robustness.md`.
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

/// Runs all cases of a group, each on its own connection, and reports all that fail.
fn check(group: &Group) {
    // No close at random: a case may expect that there is none.
    let server = Server::start(&["--delay-max", "0s", "--requests-per-connection", "0"]);
    let failures: Vec<String> = group.cases.iter().filter_map(|case| case.run(&server).err()).collect();
    assert!(
        failures.is_empty(),
        "{}: {} of {} cases fail\n\n{}\n",
        group.title,
        failures.len(),
        group.cases.len(),
        failures.join("\n\n")
    );
}
