//! Simulated statuses, and the fields that RFC 9110, section 15, and RFC 6585 require or expect with them.

use super::case::{Body, Case, Field, answered, head, last};
use super::{Group, check};

pub fn statuses() -> Group {
    let simulated = |status: u16| head(&format!("GET /?status={status}&delay=0s HTTP/1.1"), &[]);
    let plain = [200, 201, 202, 400, 403, 404, 409, 410, 413, 422, 500, 501, 502, 504]
        .map(|status| answered(simulated(status), status).body(Body::Line));
    let with = |status: u16, field: Field| -> Case { answered(simulated(status), status).with(field).body(Body::Line) };
    let mut cases = vec![
        with(401, Field::Present("WWW-Authenticate")),
        with(405, Field::Present("Allow")),
        last(simulated(408), 408).body(Body::Line),
        with(429, Field::Present("Retry-After")),
        with(503, Field::Present("Retry-After")),
        answered(head("HEAD /?status=401&delay=0s HTTP/1.1", &[]), 401)
            .with(Field::Present("WWW-Authenticate"))
            .with(Field::Present("Content-Length"))
            .body(Body::None),
        last(head("HEAD /?status=408&delay=0s HTTP/1.1", &[]), 408).body(Body::None),
    ];
    cases.extend(plain);
    // These need more than a field, or have no body: 206 and 416 need a range, 304 a validator, 407 a proxy, 426 an
    // upgrade.
    cases.extend([100, 101, 204, 206, 301, 304, 407, 416, 426, 511].map(|status| {
        answered(simulated(status), 400)
            .with(Field::Is("Content-Type", "text/plain; charset=utf-8"))
            .body(Body::Line)
    }));
    Group {
        title: "Simulated statuses",
        about: "A status has the fields that HTTP requires or expects with it. A status that needs more than that cannot be \
                requested.",
        cases,
    }
}

#[test]
fn a_simulated_status_has_the_fields_that_go_with_it() {
    check(&statuses());
}
