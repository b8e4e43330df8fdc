//! Request targets: percent-encoding (RFC 3986, section 6.2.2.2) and the absolute form (RFC 9112, section 3.2.2).

use super::case::{Body, Case, Field, answered, head};
use super::{Group, check};

pub fn targets() -> Group {
    let get = |target: &str, status| -> Case { answered(head(&format!("GET {target} HTTP/1.1"), &[]), status) };
    let is = |target: &str, content_type: &'static str| get(target, 200).with(Field::Is("Content-Type", content_type));
    let wrong = |target: &str, status| get(target, status).body(Body::Line);
    let exposition = "text/plain; version=0.0.4; charset=utf-8";
    Group {
        title: "Targets",
        about: "A percent-encoded unreserved character is equivalent to the character, in the path and in the query. An encoded \
                separator never separates. An invalid escape is refused.",
        cases: vec![
            is("/%6Detrics", exposition),
            is("/%6detrics", exposition),
            is("/%6D%65%74%72%69%63%73?name[]=up", exposition),
            is("/%75i", "text/html; charset=utf-8"),
            get("/?delay=1%2E5ms", 200).with(Field::Present("Server-Timing")),
            get("/?%64elay=1ms", 200).with(Field::Present("Server-Timing")),
            get("/?delay=1ms&st%61tus=20%32", 202),
            wrong("/healthz%2F", 404),
            wrong("/%2Fhealthz", 404),
            wrong("%2Fhealthz", 404),
            wrong("/%3Fdelay=1ms", 404),
            wrong("/?delay%3D1ms", 400),
            wrong("/?delay=1ms%26status=500", 400),
            wrong("/?delay=+1ms", 400),
            wrong("/%00", 404),
            wrong("/%FF", 404),
            wrong("/?delay=%FF", 400),
            wrong("/%25", 404),
            wrong("/%256Detrics", 404),
            wrong("/%", 400),
            wrong("/%4", 400),
            wrong("/%zz", 400),
            wrong("/healthz%", 400),
            wrong("/?delay=%", 400),
            wrong("/?delay=%3", 400),
            wrong("/?delay=1ms&%g0", 400),
            get("http://example.org/healthz", 200),
            get("http://example.org/%68ealthz", 200),
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
fn an_encoded_unreserved_character_is_equivalent_to_the_character() {
    check(&targets());
}
