//! The endpoints: a parsed request in, its response out.

pub mod delay;
pub mod live_page;
pub mod query;

use std::borrow::Cow;
use std::time::Duration;

use self::delay::{Delay, Distribution};
use super::framing::Framing;
use super::health::Health;
use super::request::Request;
use crate::metrics::{Format, Method, Path, Status};

/// The response to a request.
#[derive(Debug)]
pub struct Response {
    /// The label of the route.
    pub path: Path,
    /// The status.
    pub status: Status,
    /// How long after the arrival of the request it is due.
    pub delay: Duration,
    /// The body.
    pub body: Body,
    /// Whether the connection must be closed after it.
    pub is_last: bool,
}

/// The body of a response, composed when it is due.
#[derive(Debug)]
pub enum Body {
    /// How long the request was delayed.
    Delay,
    /// One line of text.
    Line(Cow<'static, str>),
    /// None: the fields say which methods are allowed.
    Allow,
    /// The exposition.
    Exposition(Format),
    /// The live page.
    LivePage,
}

impl Response {
    fn new(path: Path, status: Status, body: Body) -> Response {
        Response {
            path,
            status,
            delay: Duration::ZERO,
            body,
            is_last: false,
        }
    }

    fn line(path: Path, status: Status, line: impl Into<Cow<'static, str>>) -> Response {
        Response::new(path, status, Body::Line(line.into()))
    }

    /// Returns the response to a request that is malformed, or whose body has an unknown end.
    fn reject(status: Status, line: &'static str) -> Response {
        Response {
            is_last: true,
            ..Response::line(Path::Other, status, line)
        }
    }

    fn not_found() -> Response {
        let line = "not found; there are /, /healthz, /readyz, /metrics and /ui\n";
        Response::line(Path::Other, Status::NOT_FOUND, line)
    }
}

/// Responds to requests, with delays and errors drawn at random.
pub struct Endpoints {
    delay: Delay,
    error_rate: f64,
}

impl Endpoints {
    /// Returns the endpoints, of which `/` draws its delay from `delay` and fails for a share of `error_rate`, 0 to 1.
    pub fn new(delay: Distribution, error_rate: f64) -> Endpoints {
        Endpoints {
            delay: Delay::new(delay),
            error_rate,
        }
    }

    /// Returns the response to a request. `health` is what the probes report.
    ///
    /// The path of a rejected request and of `OPTIONS` is [`Path::Other`], so that they do not blur the latency of an endpoint.
    pub fn respond(&mut self, request: &Request<'_>, health: &Health) -> Response {
        match request.body.framing() {
            Framing::Complete => {}
            Framing::Unread => {
                let line = "no endpoint takes a body of more than 1024 bytes\n";
                return Response::reject(Status::CONTENT_TOO_LARGE, line);
            }
            Framing::Malformed => {
                let line = "Content-Length must be one number, given once, without Transfer-Encoding\n";
                return Response::reject(Status::BAD_REQUEST, line);
            }
        }
        if !request.has_valid_host {
            return Response::reject(Status::BAD_REQUEST, "Host must be given once, and be valid\n");
        }
        let route = Path::ALL.into_iter().find(|path| path.as_str() == request.path);
        let path = route.unwrap_or(Path::Other);
        if request.is_options {
            return match path {
                Path::Other if request.path != "*" => Response::not_found(),
                _ => Response::new(Path::Other, Status::NO_CONTENT, Body::Allow),
            };
        }
        if request.method == Method::Other {
            let line = "method not allowed; allowed: GET, HEAD, OPTIONS\n";
            return Response::line(path, Status::METHOD_NOT_ALLOWED, line);
        }
        match path {
            Path::Root => self.delayed(request.query),
            Path::Healthz => match health.fault() {
                None => Response::line(path, Status::OK, "ok\n"),
                Some(fault) => Response::line(path, Status::SERVICE_UNAVAILABLE, fault),
            },
            Path::Readyz if health.is_draining() => Response::line(path, Status::SERVICE_UNAVAILABLE, "draining\n"),
            Path::Readyz => Response::line(path, Status::OK, "ready\n"),
            Path::Metrics => {
                let format = Format::negotiate(request.accept.as_deref());
                Response::new(path, Status::OK, Body::Exposition(format))
            }
            Path::Ui => Response::new(path, Status::OK, Body::LivePage),
            Path::Other => Response::not_found(),
        }
    }

    /// Returns the response of `/`. Its delay and status are drawn, unless the query sets them.
    fn delayed(&mut self, query: &str) -> Response {
        let overrides = match query::parse(query) {
            Ok(overrides) => overrides,
            Err(line) => return Response::line(Path::Root, Status::BAD_REQUEST, line + "\n"),
        };
        let status = overrides.status.unwrap_or_else(|| {
            if self.delay.draw_error(self.error_rate) {
                Status::INTERNAL_SERVER_ERROR
            } else {
                Status::OK
            }
        });
        Response {
            delay: overrides.delay.unwrap_or_else(|| self.delay.draw()),
            // 408 says that the connection is closed (RFC 9110, section 15.5.9).
            is_last: status == Status::REQUEST_TIMEOUT,
            ..Response::new(Path::Root, status, Body::Delay)
        }
    }
}
