//! Request targets: no escape is decoded, and the absolute form is taken (RFC 9112, section 3.2.2).

use super::case::{Body, Case, Field, answered, head};
use super::{Group, check};

pub fn targets() -> Group {
    let get = |target: &str, status| -> Case { answered(head(&format!("GET {target} HTTP/1.1"), &[]), status) };
    let is = |target: &str, content_type: &'static str| get(target, 200).with(Field::Is("Content-Type", content_type));
    let wrong = |target: &str, status| get(target, status).body(Body::Line);
    Group {
        title: "Targets",
        about: "A target is taken as it is: no path or parameter needs an escape, so none is decoded.",
        cases: vec![
            is("/metrics?name[]=up", "text/plain; version=0.0.4; charset=utf-8"),
            is("/ui", "text/html; charset=utf-8"),
            get("/?delay=1.5ms", 200).with(Field::Present("Server-Timing")),
            wrong("/%6Detrics", 404),
            wrong("/%75i", 404),
            wrong("/?delay=1%2E5ms", 400),
            wrong("/?%64elay=1ms", 400),
            wrong("/healthz%2F", 404),
            wrong("/%2Fhealthz", 404),
            wrong("%2Fhealthz", 404),
            wrong("/%3Fdelay=1ms", 404),
            wrong("/?delay%3D1ms", 400),
            wrong("/?delay=1ms%26status=500", 400),
            wrong("/?delay=+1ms", 400),
            wrong("/%00", 404),
            wrong("/?delay=%FF", 400),
            wrong("/%", 404),
            wrong("/%zz", 404),
            wrong("/?delay=%3", 400),
            wrong("/?delay=1ms&%g0", 400),
            get("http://example.org/healthz", 200),
            get("http://example.org?delay=1ms", 200),
            get("http://example.org", 200),
            get("HTTP://example.org/healthz", 200),
            wrong("/http://example.org/healthz", 404),
            wrong("/HEALTHZ", 404),
            wrong("//healthz", 404),
            wrong("/./healthz", 404),
        ],
    }
}

#[test]
fn a_target_is_taken_as_it_is() {
    check(&targets());
}
