//! Numbers as text, appended without an intermediate string.

/// Nanoseconds in a second.
pub(crate) const NS_PER_SECOND: u64 = 1_000_000_000;

/// Appends a whole number.
pub(crate) fn integer(out: &mut Vec<u8>, value: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let start = fill(&mut digits, value);
    out.extend_from_slice(&digits[start..]);
}

/// Appends nanoseconds as seconds, exactly: no rounding, no exponent, no trailing zeros, `7` rather than `7.0`.
pub(crate) fn seconds(out: &mut Vec<u8>, ns: u128) {
    let (whole, fraction_ns) = match u64::try_from(ns) {
        // Division in 64 bits is many times faster than in 128.
        Ok(ns) => (u128::from(ns / NS_PER_SECOND), ns % NS_PER_SECOND),
        Err(_) => (ns / u128::from(NS_PER_SECOND), (ns % u128::from(NS_PER_SECOND)) as u64),
    };
    match u64::try_from(whole) {
        Ok(whole) => integer(out, whole),
        // 10^19 fits a u64, and so does u128::MAX / 10^9 / 10^19.
        Err(_) => {
            integer(out, (whole / 10_u128.pow(19)) as u64);
            padded(out, (whole % 10_u128.pow(19)) as u64, 19);
        }
    }
    if fraction_ns != 0 {
        out.push(b'.');
        padded(out, fraction_ns, 9);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Appends milliseconds as seconds with three decimals: the form of a timestamp.
pub(crate) fn timestamp(out: &mut Vec<u8>, ms: u64) {
    integer(out, ms / 1_000);
    out.push(b'.');
    padded(out, ms % 1_000, 3);
}

/// Appends the lowest `width` (at most 20) decimal digits, with leading zeros.
fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    fill(&mut digits, value);
    out.extend_from_slice(&digits[20 - width..]);
}

/// Writes the number at the end of `digits` and returns where it starts.
fn fill(digits: &mut [u8; 20], mut value: u64) -> usize {
    let mut start = digits.len();
    // Two digits an iteration halve the number of divisions. Those are by constants, so they compile to
    // multiplications.
    while value >= 100 {
        let pair = (value % 100) as u8;
        value /= 100;
        start -= 2;
        digits[start] = b'0' + pair / 10;
        digits[start + 1] = b'0' + pair % 10;
    }
    let rest = value as u8;
    start -= 1;
    digits[start] = b'0' + rest % 10;
    if rest >= 10 {
        start -= 1;
        digits[start] = b'0' + rest / 10;
    }
    start
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
        fn integers_are_written_as_std_writes_them(value: u64) {
            prop_assert_eq!(text(|out| integer(out, value)), value.to_string());
        }

        #[test]
        fn seconds_are_exact_to_the_nanosecond(ns: u128) {
            let printed = text(|out| seconds(out, ns));
            let (whole, fraction) = printed.split_once('.').unwrap_or((&printed, ""));
            let read = format!("{whole}{fraction:0<9}").parse::<u128>().unwrap();
            prop_assert_eq!(read, ns);
        }
    }
}
