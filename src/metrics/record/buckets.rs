//! The buckets of a histogram, classic and native, and the search for the buckets of a duration.

use super::bounds::{BOUND_MAX_NS, Bounds};
use crate::metrics::decimal::NS_PER_SECOND;

/// The schema of the native buckets: 2^3 = 8 for each power of two (OpenMetrics 2.0, "Native Buckets").
pub(crate) const NATIVE_SCHEMA: i8 = 3;

/// The width of the zero bucket: 2^-20 seconds, which is also the lower limit of the first native bucket.
pub(crate) const ZERO_THRESHOLD_SECONDS: f64 = 1.0 / (1u64 << 20) as f64;

/// The number of native buckets: the zero bucket, and 256 from 2^-20 to 2^12 seconds. Longer durations are in the last
/// one.
pub(crate) const NATIVE_BUCKETS: usize = 257;

/// The index that native bucket 0, the zero bucket, would have in the schema: bucket *i* has index *i* − 160 and the
/// upper limit 2^(index / 8) seconds.
pub(crate) const NATIVE_INDEX_OF_0: i32 = -160;

/// The upper limits of the native buckets from 0.5 to 1: the powers of 2^(1/8), as client_golang has them.
const NATIVE_LIMITS: [f64; 8] = [
    0.5,
    0.545_253_866_332_628_8,
    0.594_603_557_501_360_5,
    0.648_419_777_325_504_8,
    0.707_106_781_186_547_5,
    0.771_105_412_703_970_4,
    0.840_896_415_253_714_4,
    0.917_004_043_204_671_1,
];

/// The mantissa bits that select a cell: 16 cells for each power of two, each narrower than a native bucket.
const CELL_BITS: u32 = 4;

/// A power of two above the number of cells from 0 to [`BEYOND_NS`].
const CELLS: usize = 1_024;

/// Above every bound.
const BEYOND_NS: u64 = BOUND_MAX_NS + 1;

/// The classic and the native bucket of a duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub classic: usize,
    pub native: usize,
}

/// The limits of all buckets, prepared for the search. A binary search would cost 1.5 ns more an observation.
///
/// The next bucket is random, so a branch on it would be mispredicted, which costs as much as the rest of an
/// observation. The search therefore has no branches. The exponent and the highest mantissa bits of a duration, as a
/// float64, select one of [`CELLS`] cells, which are in the order of durations. A table has the number of limits below
/// each cell, so only the limits within the cell are left to compare. At most one of those is native. The number of
/// classic comparisons is the same for every cell: as many as the fullest cell has limits, usually one.
#[derive(Debug)]
pub(crate) struct Buckets {
    cells: [Cell; CELLS],
    /// The number of comparisons with classic limits after the first.
    more: usize,
    /// The bounds, followed by `u64::MAX`, which no duration exceeds. A `u8` plus `more` is always a valid index.
    classic_ns: [u64; 2 * (u8::MAX as usize + 1)],
    /// The upper limits of all native buckets except the last, rounded down, since a duration is a whole number.
    native_ns: [u64; NATIVE_BUCKETS - 1],
    classic_count: usize,
}

/// The numbers of limits below every duration of a cell. The number of native ones is at most 255: the last limit is
/// not counted but always compared.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    classic: u8,
    native: u8,
}

/// Returns the cell of a duration up to [`BEYOND_NS`]. Computed from the duration plus one, since 0 has no logarithm.
#[inline]
fn cell_of(ns: u64) -> usize {
    let magnitude = |ns: u64| ((ns as i64 as f64).to_bits() >> (f64::MANTISSA_DIGITS - 1 - CELL_BITS)) as usize;
    (magnitude(ns + 1) - magnitude(1)) % CELLS
}

/// Returns the upper limit of a native bucket other than the last, in nanoseconds, rounded down.
fn native_limit_ns(bucket: usize) -> u64 {
    // Bucket 0 has the limit 2^-20 = 0.5 * 2^-19.
    let power_of_two = f64::powi(2.0, (bucket / NATIVE_LIMITS.len()) as i32 - 19);
    (NATIVE_LIMITS[bucket % NATIVE_LIMITS.len()] * power_of_two * NS_PER_SECOND as f64) as u64
}

impl Buckets {
    pub(crate) fn new(bounds: &Bounds) -> Buckets {
        let mut buckets = Buckets {
            cells: [Cell::default(); CELLS],
            more: 0,
            classic_ns: [u64::MAX; _],
            native_ns: std::array::from_fn(native_limit_ns),
            classic_count: bounds.upper_ns().len() + 1,
        };
        let mut within = [0usize; CELLS];
        for (place, &bound_ns) in bounds.upper_ns().iter().enumerate() {
            buckets.classic_ns[place] = bound_ns;
            within[cell_of(bound_ns)] += 1;
            for cell in &mut buckets.cells[cell_of(bound_ns) + 1..] {
                cell.classic += 1;
            }
        }
        buckets.more = within.into_iter().max().unwrap_or(0).saturating_sub(1);
        for &limit_ns in &buckets.native_ns[..NATIVE_BUCKETS - 2] {
            for cell in &mut buckets.cells[cell_of(limit_ns) + 1..] {
                cell.native += 1;
            }
        }
        buckets
    }

    /// Returns the number of classic buckets, `+Inf` included.
    pub(crate) fn classic_count(&self) -> usize {
        self.classic_count
    }

    /// Returns the first classic and the first native bucket that contain the duration.
    #[inline]
    pub(crate) fn of(&self, duration_ns: u64) -> Place {
        // All durations beyond the largest bound have the same buckets.
        let cell = self.cells[cell_of(duration_ns.min(BEYOND_NS))];
        let (below, native) = (usize::from(cell.classic), usize::from(cell.native));
        let mut classic = below + usize::from(self.classic_ns[below] < duration_ns);
        for more in 1..=self.more {
            classic += usize::from(self.classic_ns[below + more] < duration_ns);
        }
        let native = native + usize::from(self.native_ns[native] < duration_ns);
        Place { classic, native }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::{BOUND_MIN_NS, BOUNDS_MAX};
    use super::*;
    use proptest::prelude::*;

    fn buckets(bounds: &str) -> Buckets {
        Buckets::new(&bounds.parse().unwrap())
    }

    #[test]
    fn a_duration_equal_to_a_bound_falls_into_its_bucket() {
        for bounds in [
            "0.1,0.15,0.225,0.3375,0.50625,0.75,1,1.25,1.5,1.75,2,2.5",
            "linear:1,0.000000003,63",
        ] {
            let (bounds, buckets) = (bounds.parse::<Bounds>().unwrap(), buckets(bounds));
            for (place, &upper_ns) in bounds.upper_ns().iter().enumerate() {
                assert_eq!(buckets.of(upper_ns).classic, place);
                assert_eq!(buckets.of(upper_ns - 1).classic, place);
                assert_eq!(buckets.of(upper_ns + 1).classic, place + 1);
            }
        }
    }

    #[test]
    fn the_limits_of_the_range_fall_into_the_first_and_last_bucket() {
        let buckets = buckets("0.0001,0.000100001,100000");
        for (duration_ns, classic, native) in [
            (0, 0, 0),
            (BOUND_MIN_NS, 0, 54),
            (BOUND_MIN_NS + 1, 1, 54),
            (BOUND_MIN_NS + 2, 2, 54),
            (BOUND_MAX_NS, 2, 256),
            (BEYOND_NS, 3, 256),
            (1 << 53, 3, 256),
            (u64::MAX, 3, 256),
        ] {
            assert_eq!(buckets.of(duration_ns), Place { classic, native }, "{duration_ns}");
        }
    }

    #[test]
    fn native_limits_are_the_powers_of_the_eighth_root_of_two() {
        let buckets = buckets("1");
        for bucket in 0..NATIVE_BUCKETS - 1 {
            let index = bucket as i32 + NATIVE_INDEX_OF_0;
            let limit_ns = (f64::from(index) / 8.0).exp2() * 1e9;
            // No limit is so close to a whole number that rounding could matter, except those that are whole numbers.
            let near = (limit_ns - limit_ns.round()).abs() < limit_ns * 1e-15;
            assert!(!near || limit_ns.fract() == 0.0, "{limit_ns}");
            assert_eq!(native_limit_ns(bucket), limit_ns as u64);
            assert_eq!(buckets.of(native_limit_ns(bucket)).native, bucket);
            assert_eq!(buckets.of(native_limit_ns(bucket) + 1).native, bucket + 1);
        }
        assert_eq!(native_limit_ns(0), (ZERO_THRESHOLD_SECONDS * 1e9) as u64);
        assert_eq!(native_limit_ns(160), NS_PER_SECOND);
        assert_eq!(NATIVE_INDEX_OF_0 + 256, 8 * 12, "the last limit is 2^12");
    }

    #[test]
    fn cells_increase_with_the_duration_and_stay_within_the_table() {
        let sizes = || (0..BOUND_MAX_NS.ilog2()).flat_map(|power| (0..16).map(move |part| (16 + part) << power >> 4));
        assert!(sizes().map(cell_of).is_sorted());
        assert_eq!(cell_of(0), 0);
        assert!(cell_of(BEYOND_NS) > cell_of(1 << 46) && cell_of(BEYOND_NS) < CELLS);
    }

    #[test]
    fn the_default_bounds_need_only_one_comparison() {
        assert_eq!(Buckets::new(&Bounds::default()).more, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn a_duration_falls_into_the_first_buckets_that_contain_it(
            upper_ns in proptest::collection::btree_set(BOUND_MIN_NS..=BOUND_MAX_NS, 1..=BOUNDS_MAX),
            anywhere: u64,
            power in 0..64u32,
            small in 0..=10_000_000_000u64,
            at in any::<proptest::sample::Index>(),
            off in -2i64..=2,
        ) {
            let upper_ns: Vec<u64> = upper_ns.into_iter().collect();
            let buckets = Buckets::new(&Bounds::new(upper_ns.clone()).unwrap());
            let near = at.get(&upper_ns).saturating_add_signed(off);
            for duration_ns in [anywhere, anywhere >> power, small, near] {
                let Place { classic, native } = buckets.of(duration_ns);
                let expected = upper_ns.iter().position(|&upper_ns| duration_ns <= upper_ns);
                prop_assert_eq!(classic, expected.unwrap_or(upper_ns.len()));
                let expected = (0..NATIVE_BUCKETS - 1).position(|bucket| duration_ns <= native_limit_ns(bucket));
                prop_assert_eq!(native, expected.unwrap_or(NATIVE_BUCKETS - 1));
            }
        }
    }
}
