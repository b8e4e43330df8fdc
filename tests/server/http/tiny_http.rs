//! What tiny_http 0.12 itself answers, before a request reaches this server. A new version may differ.

use super::case::{Then, answered_by_tiny_http, bare_head, head, no_response};
use super::{Group, check};

pub fn by_itself() -> Group {
    let bad = |sent: String| answered_by_tiny_http(sent, 400);
    Group {
        title: "What tiny_http answers",
        about: "These never reach the server. They are neither recorded nor logged, and the response is empty and does not say \
                that the connection closes.",
        cases: vec![
            bad(bare_head(&["GET /"])),
            bad(bare_head(&["GET  / HTTP/1.1", "Host: test"])),
            bad(bare_head(&["GET / HTTP/1.2", "Host: test"])),
            bad(bare_head(&["GET / HTTP/9.9", "Host: test"])),
            bad(bare_head(&["GET / http/1.1", "Host: test"])),
            bad(bare_head(&["GET / x HTTP/1.1", "Host: test"])),
            bad(bare_head(&["\x16\x03\x01\x02"])),
            bad("\r\nGET /healthz HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()),
            bad(head("GET /healthz HTTP/1.1", &["no colon"])),
            bad(head("GET /healthz HTTP/1.1", &["X : space before the colon"])),
            bad(head("GET /healthz HTTP/1.1", &["X: folded", " line"])),
            answered_by_tiny_http(head("GET /healthz HTTP/1.1", &["Expect: something"]), 417),
            answered_by_tiny_http(head("GET /healthz HTTP/1.1", &["Expect:"]), 417),
            answered_by_tiny_http(head("GET /healthz HTTP/1.1", &["Expect: 100-continue, x"]), 417),
            answered_by_tiny_http(head("HEAD /healthz HTTP/1.1", &["Expect: something"]), 417),
        ],
    }
}

pub fn silent() -> Group {
    Group {
        title: "What tiny_http does not answer",
        about: "A byte that is not ASCII closes the connection. tiny_http does not recognize lines without a carriage return, so it \
                waits for more. With `HTTP/2.0` and `HTTP/3.0` the connection's thread blocks forever before it sends the intended \
                505. A preface of HTTP/2 never reaches it.",
        cases: vec![
            no_response(head("GET /healthz HTTP/1.1", &["X: \u{e9}"]), Then::Closed),
            no_response("GET /\u{ff} HTTP/1.1\r\nHost: test\r\n\r\n", Then::Closed),
            no_response("GET /healthz HTTP/1.1\nHost: test\n\n", Then::Silent),
            no_response("GET /healthz HTTP/1.1\r\nHost: test\r\n\n", Then::Silent),
            no_response(bare_head(&["GET /healthz HTTP/2.0", "Host: test"]), Then::Silent),
            no_response("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Then::Silent),
            no_response(bare_head(&["GET /healthz HTTP/3.0", "Host: test"]), Then::Silent),
            no_response("GET /healthz HTTP/1.1\r\nHost: te", Then::Silent),
            no_response(
                "POST /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nxxx",
                Then::Silent,
            ),
        ],
    }
}

#[test]
fn what_tiny_http_itself_answers_is_known() {
    check(&by_itself());
}

#[test]
fn what_tiny_http_leaves_unanswered_is_known() {
    check(&silent());
}
