//! The histogram's bucket bounds: the flag `--buckets`.

use crate::metrics::decimal::{self, NS_PER_SECOND};
use std::{fmt, iter, str::FromStr};

/// The largest number of bounds. With `+Inf` they make 64 buckets a series.
pub const BOUNDS_MAX: usize = 63;

/// The smallest bound: 0.1 ms. From here to 10^6 seconds no bound needs an exponent in OpenMetrics ("Canonical Numbers").
pub const BOUND_MIN_NS: u64 = NS_PER_SECOND / 10_000;

/// The largest bound: a little more than a day. In nanoseconds every bound is a whole number that a float64 holds exactly.
pub const BOUND_MAX_NS: u64 = 100_000 * NS_PER_SECOND;

/// Inclusive upper bounds of buckets, in whole nanoseconds, strictly increasing, from [`BOUND_MIN_NS`] to [`BOUND_MAX_NS`]. `+Inf` is implied.
///
/// Parsed from seconds: a list `0.1,0.15`; `linear:START,WIDTH,COUNT`; `exponential:START,FACTOR,COUNT`, where each
/// bound is the previous one times the factor, rounded to the nearest nanosecond. Displayed as a list of exact decimals
/// that parses to the same bounds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bounds {
    upper_ns: Vec<u64>,
}

impl Bounds {
    /// Returns the bounds, or what is wrong with them.
    pub(crate) fn new(upper_ns: Vec<u64>) -> Result<Bounds, &'static str> {
        if upper_ns.is_empty() || upper_ns.len() > BOUNDS_MAX {
            return Err("the number of bounds is out of range");
        }
        if upper_ns.iter().any(|ns| !(BOUND_MIN_NS..=BOUND_MAX_NS).contains(ns)) {
            return Err("a bound is out of range");
        }
        if !upper_ns.is_sorted_by(|below, above| below < above) {
            return Err("the bounds are not increasing");
        }
        Ok(Bounds { upper_ns })
    }

    /// Returns the bounds in nanoseconds, in increasing order.
    pub fn upper_ns(&self) -> &[u64] {
        &self.upper_ns
    }

    /// Returns the largest bound. Quantiles above it cannot be estimated.
    pub fn largest_ns(&self) -> u64 {
        self.upper_ns.last().copied().unwrap_or(0)
    }
}

impl Default for Bounds {
    /// The twelve bounds that fit delays of 0 to 2 seconds: 0.1, 0.15, 0.225, 0.3375, 0.50625, 0.75, 1, 1.25,
    /// 1.5, 1.75, 2 and 2.5 seconds.
    fn default() -> Bounds {
        let upper_us = [
            100_000, 150_000, 225_000, 337_500, 506_250, 750_000, 1_000_000, 1_250_000, 1_500_000, 1_750_000,
            2_000_000, 2_500_000,
        ];
        Bounds {
            upper_ns: upper_us.iter().map(|us| us * 1_000).collect(),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, &upper_ns) in self.upper_ns.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            let mut text = Vec::new();
            decimal::seconds(&mut text, u128::from(upper_ns));
            f.write_str(&String::from_utf8_lossy(&text))?;
        }
        Ok(())
    }
}

impl FromStr for Bounds {
    type Err = String;

    /// # Errors
    ///
    /// Returns one line that says what is wrong and what is allowed, if the text has none of the three forms, or if its bounds do
    /// not increase, are more than [`BOUNDS_MAX`], or are not from [`BOUND_MIN_NS`] to [`BOUND_MAX_NS`].
    fn from_str(text: &str) -> Result<Bounds, String> {
        let upper_ns = if let Some(fields) = text.strip_prefix("linear:") {
            progression(fields, |upper_ns, width| upper_ns + width * 1e9)
        } else if let Some(fields) = text.strip_prefix("exponential:") {
            progression(fields, |upper_ns, factor| upper_ns * factor)
        } else {
            // One more than allowed is enough to detect that there are too many.
            let bounds = text.split(',').take(BOUNDS_MAX + 1);
            bounds.map(|bound| Ok((number(bound)? * 1e9).round() as u64)).collect()
        };
        upper_ns.and_then(Bounds::new).map_err(|wrong| {
            format!(
                "{wrong}; allowed are 1 to {BOUNDS_MAX} increasing bounds from {} to {} seconds (+Inf is added), as a list \
                 such as 0.1,0.15,0.225, as linear:START,WIDTH,COUNT or as exponential:START,FACTOR,COUNT",
                BOUND_MIN_NS as f64 / 1e9,
                BOUND_MAX_NS / NS_PER_SECOND
            )
        })
    }
}

/// Parses `START,STEP,COUNT` and returns that many bounds, at most one more than allowed. `next` makes each from the previous one,
/// which is whole nanoseconds, and the step.
fn progression(fields: &str, next: impl Fn(f64, f64) -> f64) -> Result<Vec<u64>, &'static str> {
    let fields: Vec<&str> = fields.split(',').collect();
    let [start, step, count] = fields[..] else {
        return Err("START, WIDTH or FACTOR, and COUNT are needed");
    };
    let (start_ns, step) = ((number(start)? * 1e9).round(), number(step)?);
    let count: usize = count.trim().parse().map_err(|_| "COUNT is not a number of bounds")?;
    let upper_ns = iter::successors(Some(start_ns), |upper_ns| Some(next(*upper_ns, step).round()));
    Ok(upper_ns.take(count.min(BOUNDS_MAX + 1)).map(|ns| ns as u64).collect())
}

fn number(text: &str) -> Result<f64, &'static str> {
    text.trim().parse().map_err(|_| "a bound is not a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn displayed(text: &str) -> String {
        text.parse::<Bounds>().unwrap().to_string()
    }

    #[test]
    fn there_are_twelve_default_bounds() {
        assert_eq!(
            Bounds::default().to_string(),
            "0.1,0.15,0.225,0.3375,0.50625,0.75,1,1.25,1.5,1.75,2,2.5"
        );
        assert_eq!(Bounds::default().largest_ns(), 2_500_000_000);
    }

    #[test]
    fn each_form_is_displayed_as_exact_decimals() {
        assert_eq!(displayed("0.1,0.15"), "0.1,0.15");
        assert_eq!(displayed(" 0.10 , 1.000000001 "), "0.1,1.000000001");
        assert_eq!(displayed("exponential:0.1,1.5,5"), "0.1,0.15,0.225,0.3375,0.50625");
        assert_eq!(displayed("linear:0.25,0.25,8"), "0.25,0.5,0.75,1,1.25,1.5,1.75,2");
        assert_eq!(
            displayed("exponential:0.0001,10,10").split(',').next_back(),
            Some("100000")
        );
        assert_eq!(displayed("linear:1,0.000000001,63").split(',').count(), 63);
    }

    #[test]
    fn an_invalid_flag_is_rejected_with_one_line_that_says_what_is_allowed() {
        for text in [
            "",
            ",",
            "0",
            "0,1",
            "-1",
            "NaN",
            "+Inf",
            "0.1,+Inf",
            "0.1,0.1",
            "0.2,0.1",
            "0.1,,0.2",
            "0.0000000001",
            "0.000099999",
            "100000.000000001",
            "18446744073.709551616",
            "99999999999999999999999999",
            "0.1;0.2",
            "linear:",
            "linear:0.1,0.1",
            "linear:0.1,0,3",
            "linear:0.1,0.1,0",
            "linear:0.1,0.1,64",
            "linear:0.1,0.1,3,4",
            "linear:0.1,99999999,3",
            "linear:0.1,18446744073,63",
            "linear:0.1,0.1,2.5",
            "linear:0.1,NaN,3",
            "linear:0.1,-0.05,3",
            "exponential:0.1,inf,3",
            "exponential:0.1,1,5",
            "exponential:0.1,0.5,5",
            "exponential:0.1,10,63",
            "exponential:0.000000001,1.1,5",
            "exponential:0.1,1.5,-5",
            "exponential:0.1,1.5,99999999999999999999",
            "Exponential:0.1,1.5,5",
        ] {
            let error = text.parse::<Bounds>().expect_err(text).to_string();
            assert!(
                error.contains("allowed are 1 to 63 increasing bounds from 0.0001 to 100000 seconds")
                    && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn parsing_never_panics(text in "(linear:|exponential:|)[0-9.,+eE -]{0,40}|.*") {
            let _ = text.parse::<Bounds>();
        }

        #[test]
        fn valid_bounds_keep_every_invariant_and_parse_back_from_their_displayed_form(
            text in "(linear:|exponential:)[0-9]{1,3}(\\.[0-9]{1,9})?,[0-9]{1,3}(\\.[0-9]{1,9})?,[0-9]{1,2}\
                     |[0-9](,[1-9]{1,3}(\\.[0-9]{1,9})?){0,5}",
        ) {
            if let Ok(bounds) = text.parse::<Bounds>() {
                prop_assert!((1..=BOUNDS_MAX).contains(&bounds.upper_ns().len()));
                prop_assert!(bounds.upper_ns()[0] >= BOUND_MIN_NS && bounds.largest_ns() <= BOUND_MAX_NS);
                prop_assert!(bounds.upper_ns().is_sorted_by(|below, above| below < above));
                prop_assert_eq!(bounds.to_string().parse(), Ok(bounds));
            }
        }
    }
}
