//! `Connection`: one list over all its lines, compared by token (RFC 9110, section 7.6.1), except where tiny_http
//! decides.
//!
//! tiny_http looks for `close`, `upgrade` and, with HTTP/1.0, `keep-alive` as substrings of only the first line. If it
//! stops reading, the connection cannot stay open, and the response says so. If it reads on against the RFC, the server
//! itself closes the connection.

use super::case::{Case, answered, head, last};
use super::{Group, check};

pub fn connection() -> Group {
    let get = "GET /healthz HTTP/1.1";
    let old = "GET /healthz HTTP/1.0";
    let closes = |lines: &[&str]| last(head(get, lines), 200);
    let stays = |lines: &[&str]| answered(head(get, lines), 200);
    let old_stays = |lines: &[&str]| -> Case {
        let mut case = answered(head(old, lines), 200);
        let expected = case.response.as_mut().expect("a response");
        expected.fields = vec![super::case::Field::Has("Connection", "keep-alive")];
        case
    };
    let old_closes = |lines: &[&str]| last(head(old, lines), 200);
    Group {
        title: "Connection",
        about: "One list over all its lines, compared by token and without case. `x-close-hint` requests nothing, but tiny_http \
                stops reading because of the letters in it, so the response says that the connection closes.",
        cases: vec![
            stays(&[]),
            stays(&["Connection: keep-alive"]),
            stays(&["Connection: x-trace"]),
            stays(&["Connection:"]),
            closes(&["Connection: close"]),
            closes(&["Connection: Close"]),
            closes(&["Connection: keep-alive, close"]),
            closes(&["Connection: close, keep-alive"]),
            closes(&["Connection: x-trace", "Connection: close"]),
            closes(&["Connection: keep-alive", "Connection: CLOSE"]),
            closes(&["Connection: x-trace", "Connection: keep-alive, close"]),
            closes(&["Connection: x-trace", "Connection: x-b", "Connection: ,close,"]),
            closes(&["Connection: close", "Connection: keep-alive"]),
            closes(&["Connection: x-close-hint"]),
            closes(&["Connection: disclose, keep-alive"]),
            stays(&["Connection: x-trace", "Connection: x-close-hint"]),
            closes(&["Connection: upgrade", "Upgrade: websocket"]),
            closes(&[
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            ]),
            closes(&["Connection: x-upgrade-hint"]),
            closes(&["Connection: upgrade, close", "Upgrade: websocket"]),
            stays(&["Connection: x-trace", "Connection: upgrade", "Upgrade: websocket"]),
            stays(&["Upgrade: websocket"]),
            old_closes(&[]),
            old_closes(&["Connection: x-trace"]),
            old_closes(&["Connection: close"]),
            old_stays(&["Connection: keep-alive"]),
            old_stays(&["Connection: Keep-Alive"]),
            old_stays(&["Connection: x-trace, keep-alive"]),
            old_stays(&["Connection: keep-alive", "Connection: x-trace"]),
            old_closes(&["Connection: keep-alive, close"]),
            old_closes(&["Connection: keep-alive", "Connection: close"]),
            old_closes(&["Connection: x-trace", "Connection: keep-alive"]),
            old_closes(&["Connection: x-keep-alive-hint"]),
            last(head("GET /healthz HTTP/0.9", &[]), 200),
            closes(&["Keep-Alive: timeout=5", "Connection: close"]),
        ],
    }
}

#[test]
fn a_connection_closes_if_and_only_if_the_response_says_so() {
    check(&connection());
}
