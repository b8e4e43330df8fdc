//! The histogram's bucket bounds: the flag `--buckets`.

use crate::metrics::decimal::{self, NS_PER_SECOND};
use std::{fmt, str::FromStr};

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
    pub(crate) fn new(upper_ns: Vec<u64>) -> Result<Bounds, BoundsError> {
        if upper_ns.is_empty() || upper_ns.len() > BOUNDS_MAX {
            return Err(COUNT);
        }
        if upper_ns.iter().any(|ns| !(BOUND_MIN_NS..=BOUND_MAX_NS).contains(ns)) {
            return Err(RANGE);
        }
        if !upper_ns.is_sorted_by(|below, above| below < above) {
            return Err(ORDER);
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

/// An error in the text of [`Bounds`]. Displayed as one line that says what is allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BoundsError(&'static str);

const NOT_A_NUMBER: BoundsError = BoundsError("a number is not a plain decimal with at most 9 decimals");
const FIELDS: BoundsError = BoundsError("START, WIDTH or FACTOR, and COUNT are needed");
const COUNT: BoundsError = BoundsError("the number of bounds is out of range");
const RANGE: BoundsError = BoundsError("a bound is out of range");
const ORDER: BoundsError = BoundsError("the bounds are not increasing");

impl fmt::Display for BoundsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; allowed are 1 to {BOUNDS_MAX} increasing bounds from {} to {} seconds (+Inf is added), as a list \
             such as 0.1,0.15,0.225, as linear:START,WIDTH,COUNT or as exponential:START,FACTOR,COUNT",
            self.0,
            BOUND_MIN_NS as f64 / NS_PER_SECOND as f64,
            BOUND_MAX_NS / NS_PER_SECOND
        )
    }
}

impl std::error::Error for BoundsError {}

impl FromStr for Bounds {
    type Err = BoundsError;

    /// # Errors
    ///
    /// Returns an error if the text has none of the three forms, or if its bounds do not increase, are more than
    /// [`BOUNDS_MAX`], or are not from [`BOUND_MIN_NS`] to
    /// [`BOUND_MAX_NS`].
    fn from_str(text: &str) -> Result<Bounds, BoundsError> {
        let upper_ns = if let Some(fields) = text.strip_prefix("linear:") {
            progression(fields, |upper_ns, width_ns| upper_ns.checked_add(width_ns))
        } else if let Some(fields) = text.strip_prefix("exponential:") {
            progression(fields, |upper_ns, factor_e9| {
                let exact_e9 = u128::from(upper_ns) * u128::from(factor_e9);
                let rounded = (exact_e9 + u128::from(NS_PER_SECOND / 2)) / u128::from(NS_PER_SECOND);
                u64::try_from(rounded).ok()
            })
        } else {
            // One more than allowed is enough to detect that there are too many.
            text.split(',').take(BOUNDS_MAX + 1).map(billionths).collect()
        };
        Bounds::new(upper_ns?)
    }
}

/// Parses `START,STEP,COUNT` and returns that many bounds. `next` makes each from the previous one and the step, which
/// is in billionths.
fn progression(fields: &str, next: impl Fn(u64, u64) -> Option<u64>) -> Result<Vec<u64>, BoundsError> {
    let mut fields = fields.splitn(3, ',');
    let (Some(start), Some(step), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(FIELDS);
    };
    let (start_ns, step_e9, count) = (billionths(start)?, billionths(step)?, count.trim());
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FIELDS);
    }
    let count = count.parse().ok().filter(|&count| count <= BOUNDS_MAX).ok_or(COUNT)?;
    std::iter::successors(Some(Some(start_ns)), |&upper_ns| Some(next(upper_ns?, step_e9)))
        .take(count)
        .map(|upper_ns| upper_ns.ok_or(RANGE))
        .collect()
}

/// Parses a decimal such as `12` or `0.15` and returns it in billionths, so seconds as nanoseconds.
fn billionths(text: &str) -> Result<u64, BoundsError> {
    let text = text.trim();
    let (whole, fraction) = match text.split_once('.') {
        // A point needs digits on both sides.
        Some((_, "")) => return Err(NOT_A_NUMBER),
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return Err(NOT_A_NUMBER);
    }
    let fraction = format!("{fraction:0<9}").parse::<u64>().map_err(|_| NOT_A_NUMBER)?;
    // It is all digits, so the only possible error is that it is too large.
    let whole = whole.parse::<u64>().map_err(|_| RANGE)?;
    whole
        .checked_mul(NS_PER_SECOND)
        .and_then(|ns| ns.checked_add(fraction))
        .ok_or(RANGE)
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
            "+1",
            "1e3",
            ".5",
            "5.",
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
            "linear:0.1,0.1,+3",
            "linear:0.1,0.1,3,4",
            "linear:0.1,99999999,3",
            "linear:0.1,18446744073,63",
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
