//! The label values, as closed sets.
//!
//! A series is addressed by its index in the product of the three sets. Nothing that a client sends adds to them, so
//! the number of series, the size of the exposition and the memory have limits that are known at compile time.

/// Defines a label: its values with their texts, in the order of the exposition.
macro_rules! label {
    ($(#[$doc:meta])* $label:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $label {
            $($(#[$value_doc])* $value,)*
        }

        impl $label {
            /// All values, in the order of the exposition.
            pub const ALL: [$label; [$($text),*].len()] = [$($label::$value),*];

            /// Returns the label's value.
            pub const fn as_str(self) -> &'static str {
                [$($text),*][self as usize]
            }
        }
    };
}

label! {
    /// The request's method: the label `method`.
    Method {
        /// `GET`
        Get = "GET",
        /// `HEAD`
        Head = "HEAD",
        /// Every other method.
        Other = "other",
    }
}

label! {
    /// The route of the request: the label `path`. Never what the client sent.
    Path {
        /// `/`
        Root = "/",
        /// `/healthz`
        Healthz = "/healthz",
        /// `/readyz`
        Readyz = "/readyz",
        /// `/metrics`
        Metrics = "/metrics",
        /// `/ui`
        Ui = "/ui",
        /// Every path that is not a route.
        Other = "other",
    }
}

/// A status code that this server responds with, as an index into [`Status::ALL`]. The label `status` is the code in
/// decimal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Status(u8);

/// Every code, in increasing order.
const CODES: [&str; 20] = [
    "200", "201", "202", "204", "400", "401", "403", "404", "405", "408", "409", "410", "413", "422", "429", "500",
    "501", "502", "503", "504",
];

impl Status {
    /// 200 OK
    pub const OK: Status = Status::of(200);
    /// 204 No Content
    pub const NO_CONTENT: Status = Status::of(204);
    /// 400 Bad Request
    pub const BAD_REQUEST: Status = Status::of(400);
    /// 401 Unauthorized
    pub const UNAUTHORIZED: Status = Status::of(401);
    /// 404 Not Found
    pub const NOT_FOUND: Status = Status::of(404);
    /// 405 Method Not Allowed
    pub const METHOD_NOT_ALLOWED: Status = Status::of(405);
    /// 408 Request Timeout
    pub const REQUEST_TIMEOUT: Status = Status::of(408);
    /// 413 Content Too Large
    pub const CONTENT_TOO_LARGE: Status = Status::of(413);
    /// 429 Too Many Requests
    pub const TOO_MANY_REQUESTS: Status = Status::of(429);
    /// 500 Internal Server Error
    pub const INTERNAL_SERVER_ERROR: Status = Status::of(500);
    /// 503 Service Unavailable
    pub const SERVICE_UNAVAILABLE: Status = Status::of(503);

    /// All values, in increasing order, which is the order of the exposition.
    pub const ALL: [Status; CODES.len()] = {
        let mut all = [Status(0); CODES.len()];
        let mut place = 0;
        while place < all.len() {
            all[place] = Status(place as u8);
            place += 1;
        }
        all
    };

    /// Returns the status with the given code, if this server responds with it.
    pub fn new(code: u16) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.code() == code)
    }

    /// Returns the status with a code of the table. For constants: a code that is missing from the table does not
    /// compile.
    const fn of(code: u16) -> Status {
        let mut place = 0;
        while Status(place).code() != code {
            place += 1;
        }
        Status(place)
    }

    /// Returns the status code.
    pub const fn code(self) -> u16 {
        let [hundreds, tens, ones] = *CODES[self.0 as usize].as_bytes() else {
            panic!("a status code has three digits");
        };
        (hundreds - b'0') as u16 * 100 + (tens - b'0') as u16 * 10 + (ones - b'0') as u16
    }

    /// Returns the label's value: the code in decimal.
    pub const fn as_str(self) -> &'static str {
        CODES[self.0 as usize]
    }
}

/// The labels of an observation, which identify its series.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Labels {
    /// The request's method.
    pub method: Method,
    /// The route that responded.
    pub path: Path,
    /// The response's status.
    pub status: Status,
}

/// The largest number of series.
pub(crate) const SERIES_MAX: usize = Method::ALL.len() * Path::ALL.len() * Status::ALL.len();

impl Labels {
    /// Returns the index of the series, below [`SERIES_MAX`]. The exposition is in this order.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        (self.method as usize * Path::ALL.len() + self.path as usize) * Status::ALL.len() + self.status.0 as usize
    }

    /// Returns every series, each at its [`index`](Labels::index).
    pub(crate) fn all() -> impl Iterator<Item = Labels> {
        Method::ALL.into_iter().flat_map(|method| {
            Path::ALL.into_iter().flat_map(move |path| {
                Status::ALL
                    .into_iter()
                    .map(move |status| Labels { method, path, status })
            })
        })
    }

    /// Returns the label pairs, in the order of the exposition.
    pub(crate) const fn pairs(self) -> [(&'static str, &'static str); 3] {
        [
            ("method", self.method.as_str()),
            ("path", self.path.as_str()),
            ("status", self.status.as_str()),
        ]
    }
}

label! {
    /// Why the server closed a connection: the label `reason` of `httpserver_connections_closed_total`.
    CloseReason {
        /// Nothing in flight and nothing sent for the idle timeout.
        Idle = "idle",
        /// No complete first request in time.
        SlowHead = "slow_head",
        /// A head that is too large.
        OversizedHead = "oversized_head",
        /// Requests sent faster than they can be parsed.
        Flood = "flood",
        /// Idle while descriptors were short.
        Descriptors = "descriptors",
        /// Idle while threads were short.
        Threads = "threads",
        /// After the response to a request whose body was not read.
        RefusedBody = "refused_body",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_has_its_own_index_in_order() {
        let indices: Vec<usize> = Labels::all().map(Labels::index).collect();
        assert_eq!(indices, (0..SERIES_MAX).collect::<Vec<_>>());
    }

    #[test]
    fn every_code_in_the_table_and_no_other_makes_a_status() {
        let known: Vec<u16> = (0..=u16::MAX).filter(|&code| Status::new(code).is_some()).collect();
        assert_eq!(known, CODES.map(|code| code.parse::<u16>().unwrap()));
        assert!(known.is_sorted());
        for status in Status::ALL {
            assert_eq!(Status::new(status.code()), Some(status));
            assert_eq!(status.code().to_string(), status.as_str());
        }
    }
}
