//! Numbers as text, appended without an intermediate string.

use std::fmt;
use std::io::Write;

/// Nanoseconds in a second.
pub(crate) const NS_PER_SECOND: u64 = 1_000_000_000;

/// Appends a whole number.
pub(crate) fn integer(out: &mut Vec<u8>, value: u64) {
    append(out, format_args!("{value}"));
}

/// Appends nanoseconds as seconds, exactly: no rounding, no exponent, no trailing zeros, `7` rather than `7.0`.
pub(crate) fn seconds(out: &mut Vec<u8>, ns: u128) {
    let second = u128::from(NS_PER_SECOND);
    append(out, format_args!("{}", ns / second));
    if !ns.is_multiple_of(second) {
        append(out, format_args!(".{:09}", ns % second));
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Appends milliseconds as seconds with three decimals: the form of a timestamp.
pub(crate) fn timestamp(out: &mut Vec<u8>, ms: u64) {
    append(out, format_args!("{}.{:03}", ms / 1_000, ms % 1_000));
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(append: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        append(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn seconds_are_exact_and_shortest() {
        for (ns, expected) in [
            (0, "0"),
            (1, "0.000000001"),
            (150_000_000, "0.15"),
            (1_000_000_000, "1"),
            (10_000_000_000, "10"),
            (1_000_000_001, "1.000000001"),
            (u128::from(u64::MAX), "18446744073.709551615"),
            (u128::MAX, "340282366920938463463374607431.768211455"),
        ] {
            assert_eq!(text(|out| seconds(out, ns)), expected);
        }
    }

    #[test]
    fn timestamps_have_three_decimals() {
        assert_eq!(text(|out| timestamp(out, 1_700_000_000_007)), "1700000000.007");
        assert_eq!(text(|out| timestamp(out, 0)), "0.000");
    }

    proptest! {
        #[test]
        fn seconds_are_exact_to_the_nanosecond(ns: u128) {
            let printed = text(|out| seconds(out, ns));
            let (whole, fraction) = printed.split_once('.').unwrap_or((&printed, ""));
            let read = format!("{whole}{fraction:0<9}").parse::<u128>().unwrap();
            prop_assert_eq!(read, ns);
        }
    }
}
