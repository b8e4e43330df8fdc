//! The random delay: its distribution and the draws from it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest duration that a flag takes.
pub const DURATION_MAX: Duration = Duration::from_secs(3600);

/// The largest number of quantiles that can be given.
pub const QUANTILES_MAX: usize = 16;

/// Quantiles of the delay: the flag `--delay-quantiles`, for example `0.5=80ms,0.9=300ms,0.99=1.5s`.
///
/// Invariants: both the quantiles, which are above 0 and below 1, and their durations strictly increase. There are 1 to
/// [`QUANTILES_MAX`].
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles(Vec<(f64, Duration)>);

impl FromStr for Quantiles {
    type Err = String;

    /// # Errors
    ///
    /// Returns one line that says what is allowed, if the text breaks an invariant.
    fn from_str(text: &str) -> Result<Quantiles, String> {
        let point = |point: &str| {
            let (q, duration) = point.split_once('=')?;
            let q = q.trim().parse::<f64>().ok().filter(|&q| 0.0 < q && q < 1.0)?;
            let duration = humantime::parse_duration(duration.trim()).ok()?;
            (duration <= DURATION_MAX).then_some((q, duration))
        };
        // One more than allowed is enough to find that there are too many.
        let points: Option<Vec<_>> = text.split(',').take(QUANTILES_MAX + 1).map(point).collect();
        points
            .filter(|points| points.len() <= QUANTILES_MAX)
            .filter(|points| points.is_sorted_by(|below, above| below.0 < above.0 && below.1 < above.1))
            .map(Quantiles)
            .ok_or_else(|| {
                format!(
                    "allowed are 1 to {QUANTILES_MAX} quantiles above 0 and below 1 with durations up to {}, both increasing, \
                     as in 0.5=80ms,0.9=300ms,0.99=1.5s",
                    humantime::format_duration(DURATION_MAX)
                )
            })
    }
}

/// Shown as it is parsed.
impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (q, duration)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{q}={}", humantime::format_duration(*duration))?;
        }
        Ok(())
    }
}

/// The distribution of the delay: its quantiles are linear between points.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Quantiles and delays in nanoseconds, both increasing. The first quantile is 0, the last one 1.
    points: Vec<(f64, u64)>,
}

impl Distribution {
    /// Returns the uniform distribution from `min` to `max`; that of the constant `min` if `max` is not above it.
    pub fn uniform(min: Duration, max: Duration) -> Distribution {
        let points = vec![(0.0, nanoseconds(min)), (1.0, nanoseconds(max.max(min)))];
        Distribution { points }
    }

    /// Returns the distribution with these quantiles, from `min` at 0 to `max` at 1.
    ///
    /// # Errors
    ///
    /// Returns one line if the durations do not increase from `min` to `max`.
    pub fn with_quantiles(min: Duration, quantiles: &Quantiles, max: Duration) -> Result<Distribution, String> {
        let given = quantiles.0.iter().map(|&(q, delay)| (q, nanoseconds(delay)));
        let ends = ((0.0, nanoseconds(min)), (1.0, nanoseconds(max)));
        let points: Vec<_> = [ends.0].into_iter().chain(given).chain([ends.1]).collect();
        if points.is_sorted_by(|below, above| below.1 < above.1) {
            return Ok(Distribution { points });
        }
        Err(format!(
            "allowed are durations above --delay-min, {}, and below --delay-max, {}",
            humantime::format_duration(min),
            humantime::format_duration(max)
        ))
    }

    /// Returns the delay that a share of `q`, 0 to 1, of all delays does not exceed.
    pub fn quantile(&self, q: f64) -> Duration {
        // The first point has quantile 0, so there is always one at or before it; the last one has none behind it.
        let above = self.points.partition_point(|point| point.0 <= q);
        let above = above.clamp(1, self.points.len() - 1);
        let ((q_below, below_ns), (q_above, above_ns)) = (self.points[above - 1], self.points[above]);
        let share = ((q - q_below) / (q_above - q_below)).clamp(0.0, 1.0);
        Duration::from_nanos(below_ns + (share * (above_ns - below_ns) as f64) as u64)
    }
}

/// Returns whole nanoseconds. More than 584 years count as that.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Draws delays.
#[derive(Debug)]
pub struct Delay {
    distribution: Distribution,
    random: fastrand::Rng,
}

impl Delay {
    /// Returns draws from that distribution.
    pub fn new(distribution: Distribution) -> Self {
        Delay {
            distribution,
            random: fastrand::Rng::new(),
        }
    }

    /// Returns the delay of the next request. It is below the largest one, unless all are equal.
    pub fn draw(&mut self) -> Duration {
        self.distribution.quantile(self.random.f64())
    }

    /// Returns true for a share of `rate`, 0 to 1, of all calls.
    pub fn draw_error(&mut self, rate: f64) -> bool {
        // The default, 0, needs no draw.
        rate > 0.0 && self.random.f64() < rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DRAWS: u32 = 100_000;

    fn milliseconds(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn long_tail() -> (Quantiles, Distribution) {
        let quantiles: Quantiles = "0.5=80ms,0.9=300ms,0.99=1.5s".parse().unwrap();
        let distribution = Distribution::with_quantiles(Duration::ZERO, &quantiles, milliseconds(2_000)).unwrap();
        (quantiles, distribution)
    }

    /// Draws, and checks for each quantile that the share of delays up to it is right within ten standard deviations.
    fn check_draws(distribution: &Distribution, quantiles: &[f64]) {
        let mut delay = Delay::new(distribution.clone());
        let (min, max) = (distribution.quantile(0.0), distribution.quantile(1.0));
        let draws: Vec<Duration> = (0..DRAWS).map(|_| delay.draw()).collect();
        assert!(draws.iter().all(|draw| (min..max).contains(draw)));
        for &q in quantiles {
            let up_to = draws.iter().filter(|&&draw| draw <= distribution.quantile(q)).count();
            let expected = f64::from(DRAWS) * q;
            let deviation = (expected * (1.0 - q)).sqrt();
            assert!(
                (up_to as f64 - expected).abs() <= 10.0 * deviation,
                "{q}: {up_to} of {DRAWS}"
            );
        }
    }

    #[test]
    fn uniform_delays_are_uniform_between_their_ends() {
        let distribution = Distribution::uniform(milliseconds(500), milliseconds(2_000));
        assert_eq!(distribution.quantile(0.5), milliseconds(1_250));
        let tenths: Vec<f64> = (1..10).map(|tenth| f64::from(tenth) / 10.0).collect();
        check_draws(&distribution, &tenths);
    }

    #[test]
    fn draws_meet_each_given_quantile_and_are_linear_between_them() {
        let (_, distribution) = long_tail();
        for (q, ms) in [
            (0.0, 0),
            (0.25, 40),
            (0.5, 80),
            (0.7, 190),
            (0.9, 300),
            (0.99, 1_500),
            (0.995, 1_750),
            (1.0, 2_000),
        ] {
            let delay = distribution.quantile(q).as_secs_f64();
            assert!((delay - ms as f64 / 1e3).abs() < 1e-8, "{q}: {delay}");
        }
        check_draws(&distribution, &[0.1, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999]);
    }

    #[test]
    fn equal_ends_give_that_delay() {
        for ms in [0, 7] {
            let mut delay = Delay::new(Distribution::uniform(milliseconds(ms), milliseconds(ms)));
            assert_eq!(delay.draw(), milliseconds(ms));
        }
    }

    #[test]
    fn quantiles_are_displayed_as_they_are_parsed() {
        let (quantiles, _) = long_tail();
        assert_eq!(quantiles.to_string(), "0.5=80ms,0.9=300ms,0.99=1s 500ms");
        assert_eq!(quantiles.to_string().parse(), Ok(quantiles));
        assert_eq!(" 0.5 = 80ms ".parse::<Quantiles>().unwrap().to_string(), "0.5=80ms");
    }

    #[test]
    fn invalid_quantiles_are_rejected_with_one_line_that_says_what_is_allowed() {
        let many: Vec<String> = (1..=17).map(|q| format!("0.{:02}={q}ms", q)).collect();
        for text in [
            "",
            ",",
            "0.5",
            "0.5=",
            "=80ms",
            "0.5=80",
            "0.5=-80ms",
            "0=80ms",
            "1=80ms",
            "1.5=80ms",
            "-0.5=80ms",
            "NaN=80ms",
            "inf=80ms",
            "p50=80ms",
            "50%=80ms",
            "0.5=80ms,",
            "0.5=80ms;0.9=300ms",
            "0.9=80ms,0.5=300ms",
            "0.5=80ms,0.5=300ms",
            "0.5=300ms,0.9=80ms",
            "0.5=80ms,0.9=80ms",
            "0.5=2h",
            &many.join(","),
        ] {
            let error = text.parse::<Quantiles>().expect_err(text);
            assert!(
                error.starts_with("allowed are 1 to 16 quantiles") && !error.contains('\n'),
                "{text}: {error}"
            );
        }
        assert!(many[..16].join(",").parse::<Quantiles>().is_ok());
    }

    #[test]
    fn quantiles_outside_of_the_shortest_and_longest_delay_are_rejected() {
        let (quantiles, _) = long_tail();
        for (min_ms, max_ms) in [(80, 2_000), (100, 2_000), (0, 1_500), (0, 1_000), (80, 80)] {
            let error =
                Distribution::with_quantiles(milliseconds(min_ms), &quantiles, milliseconds(max_ms)).unwrap_err();
            assert!(error.starts_with("allowed are durations above --delay-min, ") && !error.contains('\n'));
        }
    }

    #[test]
    fn errors_come_at_their_rate() {
        let mut delay = Delay::new(Distribution::uniform(Duration::ZERO, Duration::ZERO));
        let errors = (0..DRAWS).filter(|_| delay.draw_error(0.25)).count();
        assert!((24_000..26_000).contains(&errors), "{errors}");
        assert!(!(0..1_000).any(|_| delay.draw_error(0.0)));
        assert!((0..1_000).all(|_| delay.draw_error(1.0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_text_makes_parsing_panic(text in "(0\\.[0-9]{1,3}=[0-9]{1,4}(ms|s|h|years),?){0,20}|.*") {
            let _ = text.parse::<Quantiles>();
        }

        #[test]
        fn quantiles_rise(a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            let (_, distribution) = long_tail();
            prop_assert!(distribution.quantile(a.min(b)) <= distribution.quantile(a.max(b)));
        }
    }
}
