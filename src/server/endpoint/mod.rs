//! The endpoints: which one a request is for, and the answer to it.

pub mod delay;
pub mod live_page;
pub mod query;
mod target;

use std::borrow::Cow;

use tiny_http::{HTTPVersion, Method as RequestMethod, Request};

use self::query::Overrides;
use self::target::Target;
use super::field_values;
use super::framing::{Framing, framing};
use crate::metrics::{Format, Method, Path, Status};

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// `/`: a status after a delay; drawn unless the client requested one.
    Delayed(Overrides),
    /// One line of text.
    Line(Status, Cow<'static, str>),
    /// The methods that are allowed.
    Options,
    /// The exposition.
    Metrics(Format),
    /// The live page.
    LivePage,
    /// One line of text, after which the connection is closed: the request is malformed, or the end of its body is unknown.
    Reject(Status, &'static str),
}

/// Returns the label of a request's method.
pub fn method(request: &Request) -> Method {
    match request.method() {
        RequestMethod::Get => Method::Get,
        RequestMethod::Head => Method::Head,
        _ => Method::Other,
    }
}

/// Returns the label of a request's path and the answer to it. `ready` is what `/readyz` reports.
///
/// The path of a rejected request and of `OPTIONS` is [`Path::Other`], so that they do not blur the latency of an endpoint.
pub fn route(request: &Request, ready: bool) -> (Path, Answer) {
    if let Some((status, line)) = reject(request) {
        return (Path::Other, Answer::Reject(status, line));
    }
    let Some(target) = Target::parse(request.url()) else {
        let line = Cow::Borrowed("the request target has an invalid percent-encoding\n");
        return (Path::Other, Answer::Line(Status::BAD_REQUEST, line));
    };
    let path = match &*target.path {
        "/" => Path::Root,
        "/healthz" => Path::Healthz,
        "/readyz" => Path::Readyz,
        "/metrics" => Path::Metrics,
        "/ui" => Path::Ui,
        _ => Path::Other,
    };
    match request.method() {
        RequestMethod::Get | RequestMethod::Head => (path, answer(request, path, &target.query, ready)),
        RequestMethod::Options if path != Path::Other || target.path == "*" => (Path::Other, Answer::Options),
        RequestMethod::Options => (path, not_found()),
        _ => {
            let line = Cow::Borrowed("method not allowed; allowed: GET, HEAD, OPTIONS\n");
            (path, Answer::Line(Status::METHOD_NOT_ALLOWED, line))
        }
    }
}

fn answer(request: &Request, path: Path, query: &str, ready: bool) -> Answer {
    match path {
        Path::Root => match query::parse(query) {
            Ok(overrides) => Answer::Delayed(overrides),
            Err(line) => Answer::Line(Status::BAD_REQUEST, Cow::Owned(line + "\n")),
        },
        Path::Healthz => Answer::Line(Status::OK, Cow::Borrowed("ok\n")),
        Path::Readyz if ready => Answer::Line(Status::OK, Cow::Borrowed("ready\n")),
        Path::Readyz => Answer::Line(Status::SERVICE_UNAVAILABLE, Cow::Borrowed("draining\n")),
        Path::Metrics => {
            // Several lines are one list (RFC 9110, section 5.3).
            let accept: Vec<&str> = field_values(request, "Accept").collect();
            Answer::Metrics(Format::negotiate(
                (!accept.is_empty()).then(|| accept.join(", ")).as_deref(),
            ))
        }
        Path::Ui => Answer::LivePage,
        Path::Other => not_found(),
    }
}

fn not_found() -> Answer {
    let line = Cow::Borrowed("not found; there are /, /healthz, /readyz, /metrics and /ui\n");
    Answer::Line(Status::NOT_FOUND, line)
}

/// Returns why a request is rejected, if it is.
fn reject(request: &Request) -> Option<(Status, &'static str)> {
    match framing(request) {
        Framing::Complete => {}
        Framing::Unread => {
            return Some((
                Status::CONTENT_TOO_LARGE,
                "no endpoint takes a body of more than 1024 bytes\n",
            ));
        }
        Framing::Malformed => {
            return Some((
                Status::BAD_REQUEST,
                "Content-Length must be one number, given once, without Transfer-Encoding\n",
            ));
        }
    }
    let mut hosts = field_values(request, "Host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if target::is_host(host) => None,
        (None, _) if *request.http_version() <= HTTPVersion(1, 0) => None,
        _ => Some((Status::BAD_REQUEST, "Host must be given once, and be valid\n")),
    }
}
