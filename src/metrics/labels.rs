//! The label values of `http_request_duration_seconds`, as closed sets.
//!
//! A series is addressed by its place in the product of the three sets. Nothing a client sends can add to
//! them, so the number of series, and with it the page and the memory, has a limit known at compile time.

/// The request's method, as the label `method` tells it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// Every method that is not served.
    Other,
}

impl Method {
    /// All values, in the order of the page.
    pub const ALL: [Method; 3] = [Method::Get, Method::Head, Method::Other];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Other => "other",
        }
    }
}

/// The route that answered, as the label `path` tells it; never what the client sent.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Path {
    /// `/`
    Root,
    /// `/healthz`
    Healthz,
    /// `/readyz`
    Readyz,
    /// `/metrics`
    Metrics,
    /// `/ui`
    Ui,
    /// Every path that is not a route.
    Other,
}

impl Path {
    /// All values, in the order of the page.
    pub const ALL: [Path; 6] = [
        Path::Root,
        Path::Healthz,
        Path::Readyz,
        Path::Metrics,
        Path::Ui,
        Path::Other,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Path::Root => "/",
            Path::Healthz => "/healthz",
            Path::Readyz => "/readyz",
            Path::Metrics => "/metrics",
            Path::Ui => "/ui",
            Path::Other => "other",
        }
    }
}

/// A status code that this server can answer with: a place in [`Status::ALL`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Status(u8);

const CODES: [(u16, &str); 19] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (413, "413"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

impl Status {
    /// 200 OK
    pub const OK: Status = Status(0);
    /// 201 Created
    pub const CREATED: Status = Status(1);
    /// 202 Accepted
    pub const ACCEPTED: Status = Status(2);
    /// 400 Bad Request
    pub const BAD_REQUEST: Status = Status(3);
    /// 401 Unauthorized
    pub const UNAUTHORIZED: Status = Status(4);
    /// 403 Forbidden
    pub const FORBIDDEN: Status = Status(5);
    /// 404 Not Found
    pub const NOT_FOUND: Status = Status(6);
    /// 405 Method Not Allowed
    pub const METHOD_NOT_ALLOWED: Status = Status(7);
    /// 408 Request Timeout
    pub const REQUEST_TIMEOUT: Status = Status(8);
    /// 409 Conflict
    pub const CONFLICT: Status = Status(9);
    /// 410 Gone
    pub const GONE: Status = Status(10);
    /// 413 Content Too Large
    pub const CONTENT_TOO_LARGE: Status = Status(11);
    /// 422 Unprocessable Content
    pub const UNPROCESSABLE_CONTENT: Status = Status(12);
    /// 429 Too Many Requests
    pub const TOO_MANY_REQUESTS: Status = Status(13);
    /// 500 Internal Server Error
    pub const INTERNAL_SERVER_ERROR: Status = Status(14);
    /// 501 Not Implemented
    pub const NOT_IMPLEMENTED: Status = Status(15);
    /// 502 Bad Gateway
    pub const BAD_GATEWAY: Status = Status(16);
    /// 503 Service Unavailable
    pub const SERVICE_UNAVAILABLE: Status = Status(17);
    /// 504 Gateway Timeout
    pub const GATEWAY_TIMEOUT: Status = Status(18);

    /// All values, rising, in the order of the page.
    pub const ALL: [Status; CODES.len()] = {
        let mut all = [Status(0); CODES.len()];
        let mut place = 0;
        while place < all.len() {
            all[place] = Status(place as u8);
            place += 1;
        }
        all
    };

    /// The status of that code, if this server can answer with it.
    pub fn new(code: u16) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The status code.
    pub const fn code(self) -> u16 {
        CODES[self.0 as usize].0
    }

    /// The label's value: the code in decimal.
    pub const fn as_str(self) -> &'static str {
        CODES[self.0 as usize].1
    }
}

/// The labels of one observation, which name its series.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Labels {
    /// The request's method.
    pub method: Method,
    /// The route that answered.
    pub path: Path,
    /// What it answered.
    pub status: Status,
}

/// How many series there can be.
pub(super) const SERIES_MAX: usize = Method::ALL.len() * Path::ALL.len() * Status::ALL.len();

impl Labels {
    /// The series' place, below [`SERIES_MAX`]; the page is in this order.
    #[inline]
    pub(super) const fn index(self) -> usize {
        (self.method as usize * Path::ALL.len() + self.path as usize) * Status::ALL.len() + self.status.0 as usize
    }

    /// Every series, each at its [`index`](Labels::index).
    pub(super) fn all() -> impl Iterator<Item = Labels> {
        Method::ALL.into_iter().flat_map(|method| {
            Path::ALL.into_iter().flat_map(move |path| {
                Status::ALL
                    .into_iter()
                    .map(move |status| Labels { method, path, status })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_a_place_of_its_own_in_page_order() {
        let places: Vec<usize> = Labels::all().map(Labels::index).collect();
        assert_eq!(places, (0..SERIES_MAX).collect::<Vec<_>>());
    }

    #[test]
    fn status_takes_its_codes_and_no_other() {
        let taken: Vec<u16> = (0..=u16::MAX).filter(|&code| Status::new(code).is_some()).collect();
        let codes: Vec<u16> = CODES.iter().map(|&(code, _)| code).collect();
        assert_eq!(taken, codes);
        for status in Status::ALL {
            assert_eq!(Status::new(status.code()), Some(status));
            assert_eq!(status.code().to_string(), status.as_str());
        }
    }

    #[test]
    fn status_constants_have_the_codes_of_their_names() {
        let named = [
            (Status::OK, 200),
            (Status::CREATED, 201),
            (Status::ACCEPTED, 202),
            (Status::BAD_REQUEST, 400),
            (Status::UNAUTHORIZED, 401),
            (Status::FORBIDDEN, 403),
            (Status::NOT_FOUND, 404),
            (Status::METHOD_NOT_ALLOWED, 405),
            (Status::REQUEST_TIMEOUT, 408),
            (Status::CONFLICT, 409),
            (Status::GONE, 410),
            (Status::CONTENT_TOO_LARGE, 413),
            (Status::UNPROCESSABLE_CONTENT, 422),
            (Status::TOO_MANY_REQUESTS, 429),
            (Status::INTERNAL_SERVER_ERROR, 500),
            (Status::NOT_IMPLEMENTED, 501),
            (Status::BAD_GATEWAY, 502),
            (Status::SERVICE_UNAVAILABLE, 503),
            (Status::GATEWAY_TIMEOUT, 504),
        ];
        assert_eq!(named.len(), Status::ALL.len());
        for (status, code) in named {
            assert_eq!(status.code(), code);
        }
    }
}
