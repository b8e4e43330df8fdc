//! The flags and their environment variables. Wrong ones get clap's own message and exit status, 2.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use crate::metrics::Bounds;
use crate::server::endpoint::delay::{DURATION_MAX, Distribution, Quantiles};

/// The address that is listened on by default: every one, of both families.
pub const LISTEN_DEFAULT: &str = "[::]:19004";

/// The shortest idle timeout. A shorter one would close connections between two requests of an ordinary client.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The most delayed requests that may be allowed to wait.
const IN_FLIGHT_MAX: usize = 1_000_000;

/// The most places that there may be for requests to be served.
const CONCURRENCY_MAX: usize = 1_000_000;

/// The largest mean number of requests of a connection.
const REQUESTS_PER_CONNECTION_MAX: u32 = 1_000_000_000;

/// Answers HTTP after a random delay and exposes its latency to Prometheus on /metrics
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "httpserver", version, max_term_width = 100)]
pub struct Flags {
    /// Address and port to listen on
    #[arg(long, env = "HTTPSERVER_LISTEN", value_name = "IP:PORT",
        default_value = LISTEN_DEFAULT, value_parser = parse_listen)]
    pub listen: SocketAddr,

    /// Shortest delay of /
    #[arg(long, env = "HTTPSERVER_DELAY_MIN", value_name = "DURATION",
        default_value = "0s", value_parser = parse_duration)]
    pub delay_min: Duration,

    /// Longest delay of /; without --delay-quantiles, delays are uniform between the two
    #[arg(long, env = "HTTPSERVER_DELAY_MAX", value_name = "DURATION",
        default_value = "2s", value_parser = parse_duration)]
    pub delay_max: Duration,

    /// Quantiles of the delay of /, such as 0.5=80ms,0.9=300ms,0.99=1.5s; linear between them, from --delay-min at 0 to
    /// --delay-max at 1
    #[arg(long, env = "HTTPSERVER_DELAY_QUANTILES", value_name = "Q=DURATION,...")]
    pub delay_quantiles: Option<Quantiles>,

    /// Share of the requests to / that get 500 after their delay
    #[arg(long, env = "HTTPSERVER_ERROR_RATE", value_name = "0..1",
        default_value = "0", value_parser = within(0.0, 1.0), allow_negative_numbers = true)]
    pub error_rate: f64,

    /// Upper bounds of the histogram's buckets in seconds; also exponential:START,FACTOR,COUNT and
    /// linear:START,WIDTH,COUNT
    #[arg(long, env = "HTTPSERVER_BUCKETS", value_name = "BOUNDS",
        default_value_t = Bounds::default(), allow_negative_numbers = true)]
    pub buckets: Bounds,

    /// Requests to / that may wait at a time; further ones get 503
    #[arg(long, env = "HTTPSERVER_MAX_IN_FLIGHT", value_name = "COUNT",
        default_value = "10000", value_parser = within(1, IN_FLIGHT_MAX), allow_negative_numbers = true)]
    pub max_in_flight: usize,

    /// Requests to / that are served at a time; the others wait their turn, so that latency rises with load; 0 is no limit
    #[arg(long, env = "HTTPSERVER_CONCURRENCY", value_name = "COUNT",
        default_value = "0", value_parser = within(0, CONCURRENCY_MAX), allow_negative_numbers = true)]
    pub concurrency: usize,

    /// How long a connection may be idle before it is closed
    #[arg(long, env = "HTTPSERVER_IDLE_TIMEOUT", value_name = "DURATION",
        default_value = "75s", value_parser = parse_idle_timeout)]
    pub idle_timeout: Duration,

    /// Mean number of requests after which a connection is closed, so that clients spread over new replicas; 0 is never
    #[arg(long, env = "HTTPSERVER_REQUESTS_PER_CONNECTION", value_name = "COUNT",
        default_value = "1000", value_parser = within(0, REQUESTS_PER_CONNECTION_MAX), allow_negative_numbers = true)]
    pub requests_per_connection: u32,

    /// How long requests may wait for their responses after SIGTERM; then they are answered early
    #[arg(long, env = "HTTPSERVER_DRAIN_TIMEOUT", value_name = "DURATION",
        default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Write a line for each request, except probes and scrapes, to standard output
    #[arg(long, env = "HTTPSERVER_ACCESS_LOG", value_name = "BOOL",
        default_value = "true", value_parser = parse_bool, action = ArgAction::Set)]
    pub access_log: bool,
}

impl Flags {
    /// Returns the flags of the command line, and those of the environment for flags that are not given there.
    ///
    /// A variable that is set but empty counts as unset: Compose files and Helm charts produce such.
    ///
    /// # Errors
    ///
    /// Returns what clap prints instead: `--help`, `--version`, or what was wrong and what is allowed.
    pub fn read<I, A>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString> + Clone,
    {
        let mut command = Flags::command().mut_args(|argument| match argument.get_env() {
            Some(variable) if env::var_os(variable).is_some_and(|value| value.is_empty()) => argument.env(None::<&str>),
            _ => argument,
        });
        let flags = Flags::from_arg_matches(&command.try_get_matches_from_mut(arguments)?)?;
        let mut wrong = |what| command.error(ErrorKind::ValueValidation, what);
        if flags.delay_min > flags.delay_max {
            return Err(wrong(format!(
                "--delay-min is {}; allowed are 0s to --delay-max, {}",
                humantime::format_duration(flags.delay_min),
                humantime::format_duration(flags.delay_max),
            )));
        }
        flags
            .delay_distribution()
            .map_err(|allowed| wrong(format!("--delay-quantiles: {allowed}")))?;
        Ok(flags)
    }

    /// Returns the range of delays, in words.
    pub fn delays(&self) -> String {
        format!(
            "answering after {} to {}",
            humantime::format_duration(self.delay_min),
            humantime::format_duration(self.delay_max)
        )
    }

    /// Returns the distribution of the delay.
    ///
    /// # Errors
    ///
    /// Returns what is allowed, if the quantiles are not between the shortest and the longest delay. After
    /// [`read`](Flags::read) they are.
    pub fn delay_distribution(&self) -> Result<Distribution, String> {
        match &self.delay_quantiles {
            Some(quantiles) => Distribution::with_quantiles(self.delay_min, quantiles, self.delay_max),
            None => Ok(Distribution::uniform(self.delay_min, self.delay_max)),
        }
    }

    /// Returns a warning in one line if the flags are allowed but hide what they are for.
    pub fn warning(&self) -> Option<String> {
        let largest = Duration::from_nanos(self.buckets.largest_ns());
        (largest < self.delay_max).then(|| {
            format!(
                "the largest bucket of --buckets, {} s, is below --delay-max, {} s: histogram_quantile cannot return more than that bucket",
                largest.as_secs_f64(),
                self.delay_max.as_secs_f64(),
            )
        })
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let every_address = text.starts_with(':').then(|| format!("[::]{text}"));
    every_address.as_deref().unwrap_or(text).parse().map_err(|_| {
        "allowed are an IP address and a port, as in [::]:19004 or 127.0.0.1:19004, or a port alone, as in :19004"
            .to_owned()
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration_from(Duration::ZERO, text)
}

fn parse_idle_timeout(text: &str) -> Result<Duration, String> {
    duration_from(IDLE_TIMEOUT_MIN, text)
}

fn duration_from(min: Duration, text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok();
    duration
        .filter(|duration| (min..=DURATION_MAX).contains(duration))
        .ok_or_else(|| {
            let [min, max] = [min, DURATION_MAX].map(humantime::format_duration);
            format!("allowed are {min} to {max}, as in 1.5s or 2m")
        })
}

/// Returns a parser of numbers from `min` to `max`.
fn within<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("allowed are {min} to {max}"))
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "allowed are true and false".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_duration_is_read_within_its_limit_or_refused_in_one_line(
            text in "([0-9]{1,25}(\\.[0-9]{1,5})?|\\PC{0,5}|-)? ?(ns|us|ms|s|m|h|d|days|years|\\PC{0,3}){0,3}"
        ) {
            match parse_duration(&text) {
                Ok(duration) => prop_assert!(duration <= DURATION_MAX),
                Err(line) => prop_assert!(!line.contains('\n'), "{}", line),
            }
        }
    }
}
