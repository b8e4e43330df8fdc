//! The histogram's bucket bounds: the flag `--buckets`.

use super::decimal::{self, NS_PER_SECOND};
use std::{fmt, str::FromStr};

/// The largest number of bounds. With `+Inf` they make 64 buckets a series.
pub const BOUNDS_MAX: usize = 63;

/// The largest bound: a little more than a day.
///
/// Below 10^6 seconds no bound needs an exponent in OpenMetrics ("Canonical Numbers"), and every bound in
/// nanoseconds is a whole number that a float64 holds exactly.
pub const BOUND_MAX_NS: u64 = 100_000 * NS_PER_SECOND;

/// Upper bounds of buckets, inclusive, in whole nanoseconds above zero, strictly rising. `+Inf` follows unsaid.
///
/// Read from seconds: a list `0.1,0.15`; `linear:START,WIDTH,COUNT`; `exponential:START,FACTOR,COUNT`, where
/// each bound is the one before times the factor, rounded to the nearest nanosecond. Shown as a list of exact
/// decimals that reads back to the same bounds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bounds {
    upper_ns: Vec<u64>,
}

impl Bounds {
    pub(super) fn new(upper_ns: Vec<u64>) -> Result<Bounds, Reason> {
        if upper_ns.is_empty() || upper_ns.len() > BOUNDS_MAX {
            return Err(Reason::Count);
        }
        if upper_ns[0] == 0 || upper_ns.iter().any(|&ns| ns > BOUND_MAX_NS) {
            return Err(Reason::Range);
        }
        if !upper_ns.is_sorted_by(|below, above| below < above) {
            return Err(Reason::Order);
        }
        Ok(Bounds { upper_ns })
    }

    /// The bounds in nanoseconds, rising.
    pub fn upper_ns(&self) -> &[u64] {
        &self.upper_ns
    }

    /// The largest bound: quantiles above it cannot be told apart.
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

/// Why a text is no [`Bounds`]. Shown as one line that tells what is allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BoundsError(Reason);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    Number,
    Fields,
    Factor,
    Count,
    Range,
    Order,
}

impl fmt::Display for BoundsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Reason::Number => "a number is not a plain decimal with at most 9 decimals",
            Reason::Fields => "START, WIDTH or FACTOR, and COUNT are needed",
            Reason::Factor => "the factor is not above 1",
            Reason::Count => "the number of bounds is out of range",
            Reason::Range => "a bound is out of range",
            Reason::Order => "the bounds do not rise",
        })?;
        write!(
            f,
            "; allowed are 1 to {BOUNDS_MAX} rising bounds above 0 and up to {} seconds (+Inf is added), as a list \
             such as 0.1,0.15,0.225, as linear:START,WIDTH,COUNT or as exponential:START,FACTOR,COUNT",
            BOUND_MAX_NS / NS_PER_SECOND
        )
    }
}

impl std::error::Error for BoundsError {}

impl FromStr for Bounds {
    type Err = BoundsError;

    /// # Errors
    ///
    /// When the text has none of the three forms, or its bounds do not rise, are more than [`BOUNDS_MAX`], or
    /// are not above zero and up to [`BOUND_MAX_NS`].
    fn from_str(text: &str) -> Result<Bounds, BoundsError> {
        let upper_ns = if let Some(fields) = text.strip_prefix("linear:") {
            linear(fields)
        } else if let Some(fields) = text.strip_prefix("exponential:") {
            exponential(fields)
        } else {
            // One more than allowed is enough to tell that there are too many.
            text.split(',').take(BOUNDS_MAX + 1).map(billionths).collect()
        };
        upper_ns.and_then(Bounds::new).map_err(BoundsError)
    }
}

fn linear(fields: &str) -> Result<Vec<u64>, Reason> {
    let (start_ns, width_ns, count) = start_step_count(fields)?;
    if width_ns == 0 {
        return Err(Reason::Order);
    }
    (0..count)
        .map(|place| {
            width_ns
                .checked_mul(place)
                .and_then(|ns| ns.checked_add(start_ns))
                .ok_or(Reason::Range)
        })
        .collect()
}

fn exponential(fields: &str) -> Result<Vec<u64>, Reason> {
    let (start_ns, factor_e9, count) = start_step_count(fields)?;
    if factor_e9 <= NS_PER_SECOND {
        return Err(Reason::Factor);
    }
    let mut upper_ns = start_ns;
    (0..count)
        .map(|place| {
            if place > 0 {
                let exact_e9 = u128::from(upper_ns) * u128::from(factor_e9);
                let rounded = (exact_e9 + u128::from(NS_PER_SECOND / 2)) / u128::from(NS_PER_SECOND);
                upper_ns = u64::try_from(rounded).map_err(|_| Reason::Range)?;
            }
            Ok(upper_ns)
        })
        .collect()
}

/// Reads `START,STEP,COUNT`: start and step in billionths, the count within its limit.
fn start_step_count(fields: &str) -> Result<(u64, u64, u64), Reason> {
    let mut fields = fields.splitn(3, ',');
    let (Some(start), Some(step), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(Reason::Fields);
    };
    let (start, step) = (billionths(start)?, billionths(step)?);
    let count = count.trim();
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reason::Fields);
    }
    match count.parse() {
        Ok(count) if count <= BOUNDS_MAX as u64 => Ok((start, step, count)),
        _ => Err(Reason::Count),
    }
}

/// Reads a decimal such as `12` or `0.15` in billionths: seconds as nanoseconds.
fn billionths(text: &str) -> Result<u64, Reason> {
    let text = text.trim();
    let (whole, fraction) = match text.split_once('.') {
        // A point needs digits on both sides.
        Some((_, "")) => return Err(Reason::Number),
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return Err(Reason::Number);
    }
    let fraction = format!("{fraction:0<9}").parse::<u64>().map_err(|_| Reason::Number)?;
    // All digits, so it can only be too large.
    let whole = whole.parse::<u64>().map_err(|_| Reason::Range)?;
    whole
        .checked_mul(NS_PER_SECOND)
        .and_then(|ns| ns.checked_add(fraction))
        .ok_or(Reason::Range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        text.parse::<Bounds>().unwrap().to_string()
    }

    #[test]
    fn the_default_is_the_twelve() {
        assert_eq!(
            Bounds::default().to_string(),
            "0.1,0.15,0.225,0.3375,0.50625,0.75,1,1.25,1.5,1.75,2,2.5"
        );
        assert_eq!(Bounds::default().largest_ns(), 2_500_000_000);
    }

    #[test]
    fn each_form_gives_its_bounds_as_exact_decimals() {
        assert_eq!(shown("0.1,0.15"), "0.1,0.15");
        assert_eq!(shown(" 0.10 , 1.000000001 "), "0.1,1.000000001");
        assert_eq!(shown("exponential:0.1,1.5,5"), "0.1,0.15,0.225,0.3375,0.50625");
        assert_eq!(shown("linear:0.25,0.25,8"), "0.25,0.5,0.75,1,1.25,1.5,1.75,2");
        assert_eq!(
            shown("exponential:0.000000001,10,15").split(',').next_back(),
            Some("100000")
        );
        assert_eq!(shown("linear:1,0.000000001,63").split(',').count(), 63);
    }

    #[test]
    fn a_wrong_flag_is_refused_in_one_line_that_tells_what_is_allowed() {
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
                error.contains("allowed are 1 to 63 rising bounds") && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_flag_panics(text in "(linear:|exponential:|)[0-9.,+eE -]{0,40}|.*") {
            let _ = text.parse::<Bounds>();
        }

        #[test]
        fn what_is_taken_keeps_every_invariant_and_reads_back(
            text in "(linear:|exponential:)[0-9]{1,3}(\\.[0-9]{1,9})?,[0-9]{1,3}(\\.[0-9]{1,9})?,[0-9]{1,2}\
                     |[0-9](,[1-9]{1,3}(\\.[0-9]{1,9})?){0,5}",
        ) {
            if let Ok(bounds) = text.parse::<Bounds>() {
                prop_assert!((1..=BOUNDS_MAX).contains(&bounds.upper_ns().len()));
                prop_assert!(bounds.upper_ns()[0] > 0 && bounds.largest_ns() <= BOUND_MAX_NS);
                prop_assert!(bounds.upper_ns().is_sorted_by(|below, above| below < above));
                prop_assert_eq!(bounds.to_string().parse(), Ok(bounds));
            }
        }
    }
}
