//! Request bodies, which no endpoint needs.

use super::case::{Case, answered, head, last, refused};
use super::{Group, check};

const GET: &str = "GET /healthz HTTP/1.1";
const POST: &str = "POST /healthz HTTP/1.1";

fn with_length(start: &str, length: usize) -> String {
    head(start, &[&format!("Content-Length: {length}")]) + &"x".repeat(length)
}

pub fn bodies() -> Group {
    let mut cases = Vec::new();
    for length in [0, 1, 5, 1_024] {
        cases.push(answered(with_length(GET, length), 200));
        cases.push(answered(with_length("HEAD /healthz HTTP/1.1", length), 200));
        cases.push(answered(with_length(POST, length), 405));
    }
    cases.push(answered(with_length("GET /?delay=1ms HTTP/1.1", 5), 200));
    cases.push(answered(with_length("PUT /nothing HTTP/1.1", 5), 405));
    for length in [1_025, 2_000, 100_000] {
        cases.push(refused(with_length(GET, length), 413));
        cases.push(refused(with_length(POST, length), 413));
    }
    cases.push(refused(head(POST, &["Content-Length: 1000000"]), 413));
    cases.push(refused(head("POST / HTTP/1.0", &["Content-Length: 2000"]), 413));
    cases.push(last(head("POST / HTTP/1.0", &["Content-Length: 5"]) + "xxxxx", 405));
    // tiny_http leaves the body of a request for an upgrade unread, whatever its length.
    let upgrade = ["Connection: upgrade", "Upgrade: h2c", "Content-Length: 5"];
    cases.push(refused(head(GET, &upgrade) + "xxxxx", 413));
    cases.push(last(
        head(GET, &["Connection: upgrade", "Upgrade: h2c", "Content-Length: 0"]),
        200,
    ));
    Group {
        title: "Bodies",
        about: "No endpoint needs a body. One of up to 1,024 bytes with a well-formed `Content-Length` is ignored. A longer one is \
                refused unread.",
        cases,
    }
}

pub fn lengths() -> Group {
    let malformed = |lines: &[&str], body: &str| -> Case { refused(head(POST, lines) + body, 400) };
    Group {
        title: "Content-Length",
        about: "One line of digits. Anything else is refused, since two parsers could understand it differently.",
        cases: vec![
            malformed(&["Content-Length: +5"], "xxxxx"),
            malformed(&["Content-Length: -1"], ""),
            malformed(&["Content-Length: -0"], ""),
            malformed(&["Content-Length:"], ""),
            malformed(&["Content-Length: 5 5"], ""),
            malformed(&["Content-Length: 0x5"], ""),
            malformed(&["Content-Length: 5.0"], ""),
            malformed(&["Content-Length: five"], ""),
            malformed(&["Content-Length: 5, 5"], "xxxxx"),
            malformed(&["Content-Length: 5,6"], "xxxxx"),
            malformed(&["Content-Length: 5", "Content-Length: 5"], "xxxxx"),
            malformed(&["Content-Length: 5", "Content-Length: 6"], "xxxxx"),
            malformed(&["Content-Length: 0", "Content-Length: 5"], "xxxxx"),
            malformed(&["Content-Length: 2000", "Content-Length: 0"], ""),
            malformed(&["Content-Length: -1", "Content-Length: 5"], ""),
            answered(head(POST, &["Content-Length: 005"]) + "xxxxx", 405),
            answered(head(POST, &["content-length:5"]) + "xxxxx", 405),
            refused(head(POST, &["Content-Length: 99999999999999"]), 413),
            refused(head(POST, &["Content-Length: 9223372036854775808"]), 413),
            refused(head(POST, &["Content-Length: 18446744073709551615"]), 413),
            refused(head(POST, &["Content-Length: 18446744073709551616"]), 413),
            refused(head(POST, &["Content-Length: 99999999999999999999999999"]), 413),
        ],
    }
}

pub fn unread() -> Group {
    let chunked = |lines: &[&str]| -> Case { refused(head(POST, lines) + "3\r\nabc\r\n0\r\n\r\n", 413) };
    let expecting = |lines: &[&str]| -> Case { refused(head(POST, lines), 413) };
    Group {
        title: "Transfer-Encoding and Expect",
        about: "A body with a `Transfer-Encoding`, or one that waits for `100 Continue`, is refused unread.",
        cases: vec![
            chunked(&["Transfer-Encoding: chunked"]),
            chunked(&["transfer-encoding: Chunked"]),
            chunked(&["Transfer-Encoding: gzip, chunked"]),
            chunked(&["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"]),
            chunked(&["Transfer-Encoding: identity"]),
            chunked(&["Transfer-Encoding:"]),
            refused(head(POST, &["Transfer-Encoding: chunked", "Content-Length: 13"]), 400),
            refused(head(POST, &["Content-Length: 13", "Transfer-Encoding: chunked"]), 400),
            refused(head(GET, &["Transfer-Encoding: chunked"]) + "0\r\n\r\n", 413),
            refused(
                head("POST / HTTP/1.0", &["Transfer-Encoding: chunked"]) + "0\r\n\r\n",
                413,
            ),
            refused(head(POST, &["Transfer-Encoding: chunked"]) + "nonsense", 413),
            expecting(&["Expect: 100-continue", "Content-Length: 5"]),
            expecting(&["Expect: 100-Continue", "Content-Length: 5"]),
            expecting(&["Expect: 100-continue", "Content-Length: 2000"]),
            expecting(&["Expect: 100-continue", "Transfer-Encoding: chunked"]),
            refused(head(GET, &["Expect: 100-continue", "Content-Length: 5"]), 413),
            answered(head(GET, &["Expect: 100-continue"]), 200),
            answered(head(GET, &["Expect: 100-continue", "Content-Length: 0"]), 200),
            answered(head(POST, &["Expect: 100-continue", "Content-Length: 0"]), 405),
            answered(head(GET, &["Expect: 100-continue", "Expect: 100-continue"]), 200),
        ],
    }
}

#[test]
fn a_short_body_is_ignored_and_a_long_one_refused() {
    check(&bodies());
}

#[test]
fn a_malformed_length_is_refused() {
    check(&lengths());
}

#[test]
fn a_body_that_tiny_http_leaves_unread_is_refused() {
    check(&unread());
}
