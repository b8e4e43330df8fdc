//! The query of `/`: `delay` and `status` override the delay and the status of one request.

use std::fmt::Write;
use std::time::Duration;

use crate::metrics::Status;

/// The longest delay that a client may request.
pub const DELAY_OVERRIDE_MAX: Duration = Duration::from_secs(60);

/// How much of a wrong parameter a response quotes, characters.
const QUOTED_MAX: usize = 40;

/// What a request sets in place of the random delay and status.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Overrides {
    /// `delay`: at most [`DELAY_OVERRIDE_MAX`].
    pub delay: Option<Duration>,
    /// `status`: one that the server has a series for.
    pub status: Option<Status>,
}

/// Parses the part of a request target behind the question mark.
///
/// # Errors
///
/// Returns one line that says what is wrong, and what is allowed, at the first parameter that is unknown, repeated or out of range.
pub fn parse(query: &str) -> Result<Overrides, String> {
    let mut overrides = Overrides::default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let repeated = match name {
            "delay" => overrides.delay.replace(parse_delay(value)?).is_some(),
            "status" => overrides.status.replace(parse_status(value)?).is_some(),
            _ => {
                return Err(format!(
                    "query parameter {} is unknown; allowed: delay, status",
                    quoted(name)
                ));
            }
        };
        if repeated {
            return Err(format!("query parameter {name} is given more than once"));
        }
    }
    Ok(overrides)
}

fn parse_delay(value: &str) -> Result<Duration, String> {
    humantime::parse_duration(value)
        .ok()
        .filter(|delay| *delay <= DELAY_OVERRIDE_MAX)
        .ok_or_else(|| {
            format!(
                "query parameter delay is {}; allowed: 0s to {}, as in 250ms or 1.5s",
                quoted(value),
                humantime::format_duration(DELAY_OVERRIDE_MAX)
            )
        })
}

/// Returns whether a client may request a status. 204 has no body, and so no delay to show in it.
fn is_allowed(status: Status) -> bool {
    status != Status::NO_CONTENT
}

fn parse_status(value: &str) -> Result<Status, String> {
    let status = (value.len() == 3)
        .then(|| value.parse().ok())
        .flatten()
        .and_then(Status::new)
        .filter(|status| is_allowed(*status));
    status.ok_or_else(|| {
        let mut line = format!("query parameter status is {}; allowed:", quoted(value));
        for status in Status::ALL.into_iter().filter(|status| is_allowed(*status)) {
            // Writing to a string cannot fail.
            let _ = write!(line, " {}", status.code());
        }
        line
    })
}

/// Returns a client's text, escaped for a line of text and cut short.
fn quoted(text: &str) -> String {
    let mut quoted: String = format!("{text:?}").chars().take(QUOTED_MAX).collect();
    if quoted.len() == QUOTED_MAX {
        quoted.push_str("...");
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overrides_are_read() {
        assert_eq!(parse(""), Ok(Overrides::default()));
        assert_eq!(
            parse("delay=250ms&status=503"),
            Ok(Overrides {
                delay: Some(Duration::from_millis(250)),
                status: Status::new(503),
            })
        );
        assert_eq!(
            parse("delay=0s").map(|overrides| overrides.delay),
            Ok(Some(Duration::ZERO))
        );
    }

    #[test]
    fn what_is_wrong_is_reported_in_one_line() {
        for (query, complaint) in [
            ("delay=-1s", "delay is \"-1s\"; allowed: 0s to 1m"),
            ("delay=NaN", "delay is \"NaN\""),
            ("delay=inf", "delay is \"inf\""),
            ("delay=61s", "delay is \"61s\""),
            ("delay=99999999999999999999s", "delay is"),
            ("delay", "delay is \"\""),
            ("delay=1s&delay=1s", "delay is given more than once"),
            ("status=299", "status is \"299\"; allowed: 200 201"),
            ("status=+20", "status is \"+20\""),
            ("status=200&status=200", "status is given more than once"),
            ("colour=red", "\"colour\" is unknown; allowed: delay, status"),
        ] {
            let line = parse(query).expect_err(query);
            assert!(line.contains(complaint), "{query}: {line}");
            assert!(!line.contains('\n'), "{query}: {line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_query_is_read_or_refused_in_one_short_line(
            query in "(delay=|status=|&|=|[0-9]{0,25}|[a-z]{0,3}|\\PC{0,80}|.{0,20}){0,6}"
        ) {
            match parse(&query) {
                Ok(overrides) => {
                    prop_assert!(overrides.delay.is_none_or(|delay| delay <= DELAY_OVERRIDE_MAX));
                }
                Err(line) => {
                    prop_assert!(line.len() < 300, "{}", line);
                    prop_assert!(!line.contains(['\n', '\r']), "{}", line);
                }
            }
        }
    }
}
