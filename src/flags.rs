//! The flags and their environment variables.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use crate::delay::{Distribution, Quantiles};
use crate::metrics::Bounds;

/// The longest duration that a flag takes.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// The most delayed requests that may be allowed to wait.
const IN_FLIGHT_MAX: usize = 1_000_000;

/// Answers HTTP after a random delay and exposes its latency to Prometheus on /metrics
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "httpserver", version, max_term_width = 100)]
pub struct Flags {
    /// Address and port to listen on
    #[arg(long, env = "HTTPSERVER_LISTEN", value_name = "IP:PORT",
        default_value = "0.0.0.0:19004", value_parser = parse_listen)]
    pub listen: SocketAddr,

    /// Shortest delay of /
    #[arg(long, env = "HTTPSERVER_DELAY_MIN", value_name = "DURATION",
        default_value = "0s", value_parser = parse_duration)]
    pub delay_min: Duration,

    /// Longest delay of /; without --delay-quantiles, delays are uniform between the two
    #[arg(long, env = "HTTPSERVER_DELAY_MAX", value_name = "DURATION",
        default_value = "2s", value_parser = parse_duration)]
    pub delay_max: Duration,

    /// Quantiles of the delay of /, as in 0.5=80ms,0.9=300ms,0.99=1.5s; linear between them, from --delay-min at 0 to
    /// --delay-max at 1
    #[arg(long, env = "HTTPSERVER_DELAY_QUANTILES", value_name = "Q=DURATION,...")]
    pub delay_quantiles: Option<Quantiles>,

    /// Share of / that is answered 500, after its delay
    #[arg(long, env = "HTTPSERVER_ERROR_RATE", value_name = "0..1",
        default_value = "0", value_parser = parse_error_rate, allow_negative_numbers = true)]
    pub error_rate: f64,

    /// Upper bounds of the histogram's buckets in seconds; also exponential:START,FACTOR,COUNT and
    /// linear:START,WIDTH,COUNT
    #[arg(long, env = "HTTPSERVER_BUCKETS", value_name = "BOUNDS",
        default_value_t = Bounds::default(), allow_negative_numbers = true)]
    pub buckets: Bounds,

    /// Requests to / that may wait at a time; more are answered 503
    #[arg(long, env = "HTTPSERVER_MAX_IN_FLIGHT", value_name = "COUNT",
        default_value = "10000", value_parser = parse_max_in_flight, allow_negative_numbers = true)]
    pub max_in_flight: usize,

    /// How long requests may wait for their answers after SIGTERM; then they are answered early
    #[arg(long, env = "HTTPSERVER_DRAIN_TIMEOUT", value_name = "DURATION",
        default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Write a line a request to standard output, but not for probes and scrapes
    #[arg(long, env = "HTTPSERVER_ACCESS_LOG", value_name = "BOOL",
        default_value = "true", value_parser = parse_bool, action = ArgAction::Set)]
    pub access_log: bool,
}

/// Why there are no flags.
#[derive(Debug)]
pub enum Refusal {
    /// The user asked for this text, of `--help` or `--version`.
    Asked(String),
    /// One line that names the flag, its value and what is allowed.
    Wrong(String),
}

impl Flags {
    /// Reads the flags from the command line, and from the environment what is not there.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn read<I, A>(arguments: I) -> Result<Self, Refusal>
    where
        I: IntoIterator<Item = A>,
        A: Into<std::ffi::OsString> + Clone,
    {
        let flags = Flags::command()
            .try_get_matches_from(arguments)
            .and_then(|matches| Flags::from_arg_matches(&matches))
            .map_err(|error| refusal(&error))?;
        if flags.delay_min > flags.delay_max {
            return Err(Refusal::Wrong(format!(
                "--delay-min {:?}: is above --delay-max; allowed are 0s to {}",
                humantime::format_duration(flags.delay_min).to_string(),
                humantime::format_duration(flags.delay_max),
            )));
        }
        flags
            .delay_distribution()
            .map_err(|allowed| Refusal::Wrong(format!("--delay-quantiles {:?}: {allowed}", flags.quantiles_text())))?;
        Ok(flags)
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

    fn quantiles_text(&self) -> String {
        self.delay_quantiles
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// A warning in one line, where the flags are allowed but hide what they are for.
    pub fn warning(&self) -> Option<String> {
        let largest = Duration::from_nanos(self.buckets.largest_ns());
        (largest < self.delay_max).then(|| {
            format!(
                "the largest bucket of --buckets, {} s, is under --delay-max, {} s: histogram_quantile answers no more than the former",
                largest.as_secs_f64(),
                self.delay_max.as_secs_f64(),
            )
        })
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "allowed are an IP address and a port, as in 0.0.0.0:19004 or [::]:19004".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| {
            format!(
                "allowed are 0s to {}, as in 250ms or 1.5s",
                humantime::format_duration(DURATION_MAX)
            )
        })
}

fn parse_error_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.0..=1.0).contains(rate))
        .ok_or_else(|| "allowed are 0 to 1".to_owned())
}

fn parse_max_in_flight(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=IN_FLIGHT_MAX).contains(count))
        .ok_or_else(|| format!("allowed are 1 to {IN_FLIGHT_MAX}"))
}

fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "allowed are true and false".to_owned())
}

/// Makes one line of what clap tells in several.
fn refusal(error: &clap::Error) -> Refusal {
    let context = |kind| error.get(kind).map(text_of);
    let value = || context(ContextKind::InvalidValue).unwrap_or_default();
    let flag = || {
        let flag = context(ContextKind::InvalidArg).unwrap_or_default();
        flag.split(' ').next().unwrap_or_default().to_owned()
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refusal::Asked(error.to_string()),
        ErrorKind::ValueValidation => {
            let allowed = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
            Refusal::Wrong(format!("{} {:?}: {allowed}", flag(), value()))
        }
        ErrorKind::InvalidValue => Refusal::Wrong(format!("{} needs a value", flag())),
        ErrorKind::ArgumentConflict => Refusal::Wrong(format!("{} is given more than once", flag())),
        ErrorKind::UnknownArgument => Refusal::Wrong(format!(
            "{:?} is no flag; --help tells those that there are",
            context(ContextKind::InvalidArg).unwrap_or_default()
        )),
        _ => Refusal::Wrong(first_line(error)),
    }
}

fn text_of(value: &ContextValue) -> String {
    match value {
        ContextValue::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn first_line(error: &impl Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
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
