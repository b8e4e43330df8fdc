//! The endpoints: which one a request is for, and what it is answered.

use std::borrow::Cow;

use tiny_http::Request;

use crate::framing::{self, Framing};
use crate::metrics::{Format, Method, Path, Status};
use crate::query::{self, Overrides};

/// What a request is answered.
#[derive(Debug)]
pub enum Answer {
    /// `/`: a status after a delay; drawn where the client gave none.
    Delayed(Overrides),
    /// One line of text.
    Line(Status, Cow<'static, str>),
    /// The exposition.
    Metrics(Format),
    /// The live page.
    Ui,
    /// One line of text, after which the connection ends: the rest of the request can not be told from the next one.
    Final(Status, &'static str),
}

/// The methods that every endpoint takes, as a header.
pub const ALLOWED_METHODS: (&str, &str) = ("Allow", "GET, HEAD");

/// The label of a request's method.
pub fn method(request: &Request) -> Method {
    match request.method() {
        tiny_http::Method::Get => Method::Get,
        tiny_http::Method::Head => Method::Head,
        _ => Method::Other,
    }
}

/// Splits a request target in the path and the query. Takes the absolute form too, as a server must (RFC 9112, section 3.2.2).
fn split_target(target: &str) -> (&str, &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = match path.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |start| &rest[start..]),
        _ => path,
    };
    (path, query)
}

/// The endpoint of a request, and the answer to it. `ready` is what `/readyz` tells.
pub fn find(request: &Request, ready: bool) -> (Path, Answer) {
    let (path, query) = split_target(request.url());
    let path = match path {
        "/" => Path::Root,
        "/healthz" => Path::Healthz,
        "/readyz" => Path::Readyz,
        "/metrics" => Path::Metrics,
        "/ui" => Path::Ui,
        _ => Path::Other,
    };
    (path, answer(request, path, query, ready))
}

fn answer(request: &Request, path: Path, query: &str, ready: bool) -> Answer {
    match framing::of(request) {
        Framing::Complete => {}
        Framing::Unread => {
            return Answer::Final(Status::CONTENT_TOO_LARGE, "no endpoint takes a body\n");
        }
        Framing::Malformed => {
            return Answer::Final(Status::BAD_REQUEST, "Content-Length must be one number, given once\n");
        }
    }
    if method(request) == Method::Other {
        return Answer::Line(
            Status::METHOD_NOT_ALLOWED,
            Cow::Borrowed("method not allowed; allowed: GET, HEAD\n"),
        );
    }
    match path {
        Path::Root => match query::parse(query) {
            Ok(overrides) => Answer::Delayed(overrides),
            Err(line) => Answer::Line(Status::BAD_REQUEST, Cow::Owned(line + "\n")),
        },
        Path::Healthz => Answer::Line(Status::OK, Cow::Borrowed("ok\n")),
        Path::Readyz if ready => Answer::Line(Status::OK, Cow::Borrowed("ready\n")),
        Path::Readyz => Answer::Line(Status::SERVICE_UNAVAILABLE, Cow::Borrowed("draining\n")),
        Path::Metrics => {
            // Several headers are as good as one list (RFC 9110, section 5.3).
            let accept: Vec<&str> = request
                .headers()
                .iter()
                .filter(|header| header.field.equiv("Accept"))
                .map(|header| header.value.as_str())
                .collect();
            let accept = (!accept.is_empty()).then(|| accept.join(", "));
            Answer::Metrics(Format::negotiate(accept.as_deref()))
        }
        Path::Ui => Answer::Ui,
        Path::Other => Answer::Line(
            Status::NOT_FOUND,
            Cow::Borrowed("not found; there are /, /healthz, /readyz, /metrics and /ui\n"),
        ),
    }
}
