//! The search for the bucket of a duration.

use super::bounds::{BOUND_MAX_NS, Bounds};

/// The mantissa bits that select a cell: eight cells for each power of two.
const CELL_BITS: u32 = 3;

/// A power of two above the number of cells from 0 to [`BEYOND_NS`].
const CELLS: usize = 512;

/// Above every bound.
const BEYOND_NS: u64 = BOUND_MAX_NS + 1;

/// The bounds, prepared for the search: 1.5 ns an observation faster than a binary search.
///
/// The next bucket is random, so any branch on it would be mispredicted, which costs as much as all the rest of an
/// observation. There is none here. The exponent and the topmost mantissa bits of a duration, as a float64, select one of
/// [`CELLS`] cells, which rise with the duration. For each cell a table has the number of bounds below it. What is left to
/// compare are the bounds within the cell, as many for each cell as the fullest one has; usually that is one.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// By cell: the number of bounds below all of its durations.
    below: [u8; CELLS],
    /// The number of comparisons after the first.
    more: usize,
    /// The bounds, and after them `u64::MAX`, which no duration is above. A `u8` plus `more` stays within it.
    upper_ns: [u64; 2 * (u8::MAX as usize + 1)],
    count: usize,
}

/// Returns the cell of a duration up to [`BEYOND_NS`]: that of its successor in fact, since 0 has no logarithm.
#[inline]
fn cell_of(ns: u64) -> usize {
    let magnitude = |ns: u64| ((ns as i64 as f64).to_bits() >> (f64::MANTISSA_DIGITS - 1 - CELL_BITS)) as usize;
    (magnitude(ns + 1) - magnitude(1)) % CELLS
}

impl Buckets {
    pub(crate) fn new(bounds: &Bounds) -> Buckets {
        let mut below = [0; CELLS];
        let mut within = [0usize; CELLS];
        let mut upper_ns = [u64::MAX; _];
        for (place, &bound_ns) in bounds.upper_ns().iter().enumerate() {
            upper_ns[place] = bound_ns;
            within[cell_of(bound_ns)] += 1;
            for count in &mut below[cell_of(bound_ns) + 1..] {
                *count += 1;
            }
        }
        let fullest = within.into_iter().max().unwrap_or(0);
        Buckets {
            below,
            more: fullest.saturating_sub(1),
            upper_ns,
            count: bounds.upper_ns().len() + 1,
        }
    }

    /// Returns the number of buckets, `+Inf` included.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the place of the first bucket that contains the duration.
    #[inline]
    pub(crate) fn of(&self, duration_ns: u64) -> usize {
        // All durations beyond the largest bound have one bucket.
        let below = usize::from(self.below[cell_of(duration_ns.min(BEYOND_NS))]);
        let mut place = below + usize::from(self.upper_ns[below] < duration_ns);
        for more in 1..=self.more {
            place += usize::from(self.upper_ns[below + more] < duration_ns);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::BOUNDS_MAX;
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
                assert_eq!(buckets.of(upper_ns), place);
                assert_eq!(buckets.of(upper_ns - 1), place);
                assert_eq!(buckets.of(upper_ns + 1), place + 1);
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_fall_into_the_first_and_last_bucket() {
        let buckets = buckets("0.000000001,0.000000002,100000");
        for (duration_ns, place) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (BOUND_MAX_NS, 2),
            (BEYOND_NS, 3),
            (1 << 53, 3),
            (u64::MAX, 3),
        ] {
            assert_eq!(buckets.of(duration_ns), place, "{duration_ns}");
        }
    }

    #[test]
    fn cells_rise_and_end_within_the_table() {
        let sizes = || (0..BOUND_MAX_NS.ilog2()).flat_map(|power| (0..8).map(move |part| (8 + part) << power >> 3));
        assert!(sizes().map(cell_of).is_sorted());
        assert_eq!(cell_of(0), 0);
        assert!(cell_of(BEYOND_NS) > cell_of(1 << 46) && cell_of(BEYOND_NS) < CELLS);
    }

    #[test]
    fn the_default_bounds_need_one_comparison() {
        assert_eq!(Buckets::new(&Bounds::default()).more, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn a_duration_falls_into_the_first_bucket_that_contains_it(
            upper_ns in proptest::collection::btree_set(1..=BOUND_MAX_NS, 1..=BOUNDS_MAX),
            anywhere: u64,
            small in 0..=10_000_000_000u64,
            at in any::<proptest::sample::Index>(),
            off in -2i64..=2,
        ) {
            let upper_ns: Vec<u64> = upper_ns.into_iter().collect();
            let buckets = Buckets::new(&Bounds::new(upper_ns.clone()).unwrap());
            let near = at.get(&upper_ns).saturating_add_signed(off);
            for duration_ns in [anywhere, small, near] {
                let place = upper_ns.iter().position(|&upper_ns| duration_ns <= upper_ns);
                prop_assert_eq!(buckets.of(duration_ns), place.unwrap_or(upper_ns.len()));
            }
        }
    }
}
