//! Spans of native buckets, which OpenMetrics 2.0 and protobuf share.

use crate::metrics::record::NATIVE_INDEX_OF_0;

/// Consecutive native buckets. The first and the last are not empty, and no two adjacent ones are.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Span<'a> {
    /// The number of buckets left out since the last span; for the first one, the index of its first bucket.
    pub offset: i32,
    /// The counts of its buckets, not cumulative.
    pub counts: &'a [u64],
}

/// Returns the spans of all buckets in use except the zero bucket, which is the first of `native`.
///
/// A single empty bucket does not end a span, since another span takes more space than the bucket's count (OpenMetrics
/// 2.0, "Histogram with Native Buckets").
pub(super) fn spans(native: &[u64]) -> impl Iterator<Item = Span<'_>> {
    let mut from = 1;
    // A first span that starts at index 0 has offset 0.
    let mut last_end = -NATIVE_INDEX_OF_0;
    std::iter::from_fn(move || {
        let start = from + native[from..].iter().position(|&count| count != 0)?;
        let mut end = start + 1;
        while native[end..].iter().take(2).any(|&count| count != 0) {
            end += 1;
        }
        let offset = start as i32 - last_end;
        (from, last_end) = (end, end as i32);
        Some(Span {
            offset,
            counts: &native[start..end],
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(in_use: &[(usize, u64)]) -> [u64; 257] {
        let mut native = [0; 257];
        for &(bucket, count) in in_use {
            native[bucket] = count;
        }
        native
    }

    #[test]
    fn the_zero_bucket_makes_no_span() {
        assert_eq!(spans(&native(&[(0, 7)])).count(), 0);
    }

    #[test]
    fn the_first_and_the_last_bucket_have_their_indices() {
        let native = native(&[(1, 3), (256, 4)]);
        let spans: Vec<_> = spans(&native).collect();
        assert_eq!(
            spans,
            [
                Span {
                    offset: -159,
                    counts: &[3]
                },
                Span {
                    offset: 254,
                    counts: &[4]
                }
            ]
        );
    }

    #[test]
    fn one_empty_bucket_does_not_end_a_span_and_two_do() {
        let native = native(&[(160, 1), (162, 2), (163, 3), (166, 4)]);
        let spans: Vec<_> = spans(&native).collect();
        assert_eq!(
            spans,
            [
                Span {
                    offset: 0,
                    counts: &[1, 0, 2, 3]
                },
                Span {
                    offset: 2,
                    counts: &[4]
                }
            ]
        );
    }
}
