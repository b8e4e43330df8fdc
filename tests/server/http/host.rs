//! `Host` (RFC 9112, section 3.2).

use super::case::{answered, bare_head, last, refused};
use super::{Group, check};

pub fn host() -> Group {
    let get = "GET /healthz HTTP/1.1";
    let valid = [
        "Host: example.org",
        "Host: example.org:8080",
        "Host: example.org:",
        "Host: [::1]:8080",
        "Host: ::1",
        "Host: a:1:2",
        "Host: a_b.c-d~e",
        "Host: exam%70le",
        "Host:",
        "host: test",
    ];
    let invalid = [
        "Host: a b",
        "Host: a/b",
        "Host: user@a",
        "Host: \"a\"",
        "Host: http://a",
        "Host: a?b",
        "Host: a#b",
        "Host: a\\b",
    ];
    let mut cases = vec![
        refused(bare_head(&[get]), 400),
        refused(bare_head(&[get, "Host: test", "Host: test"]), 400),
        refused(bare_head(&[get, "Host: a", "Host: b"]), 400),
        refused(bare_head(&["OPTIONS * HTTP/1.1"]), 400),
        refused(bare_head(&["POST /healthz HTTP/1.1"]), 400),
        refused(bare_head(&["GET /nothing HTTP/1.1"]), 400),
        refused(bare_head(&["HEAD / HTTP/1.1"]), 400),
    ];
    cases.extend(invalid.map(|line| refused(bare_head(&[get, line]), 400)));
    cases.extend(valid.map(|line| answered(bare_head(&[get, line]), 200)));
    cases.extend([
        last(bare_head(&["GET /healthz HTTP/1.0"]), 200),
        last(bare_head(&["GET /healthz HTTP/1.0", "Host: test"]), 200),
        refused(bare_head(&["GET /healthz HTTP/1.0", "Host: a", "Host: b"]), 400),
        refused(bare_head(&["GET /healthz HTTP/1.0", "Host: a/b"]), 400),
        answered(
            bare_head(&["GET http://example.org/healthz HTTP/1.1", "Host: example.org"]),
            200,
        ),
        answered(
            bare_head(&["GET http://example.org/healthz HTTP/1.1", "Host: other"]),
            200,
        ),
        refused(bare_head(&["GET http://example.org/healthz HTTP/1.1"]), 400),
    ]);
    Group {
        title: "Host",
        about: "A request of HTTP/1.1 has exactly one `Host`, of the characters that hosts and ports have; one of HTTP/1.0 may have none.",
        cases,
    }
}

#[test]
fn a_request_without_exactly_one_valid_host_is_refused() {
    check(&host());
}
