//! Numbers as decimal text, appended to a page without an intermediate string.

/// Nanoseconds in a second.
pub(super) const NS_PER_SECOND: u64 = 1_000_000_000;

/// Appends a whole number.
pub(super) fn integer(page: &mut Vec<u8>, value: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let start = fill(&mut digits, value);
    page.extend_from_slice(&digits[start..]);
}

/// Appends nanoseconds as seconds, exactly: no rounding, no exponent, no trailing zeros, `7` rather than `7.0`.
pub(super) fn seconds(page: &mut Vec<u8>, ns: u128) {
    let (whole, fraction_ns) = match u64::try_from(ns) {
        // Division in 64 bits is many times as fast as in 128.
        Ok(ns) => (u128::from(ns / NS_PER_SECOND), ns % NS_PER_SECOND),
        Err(_) => (ns / u128::from(NS_PER_SECOND), (ns % u128::from(NS_PER_SECOND)) as u64),
    };
    match u64::try_from(whole) {
        Ok(whole) => integer(page, whole),
        // 10^19 fits a u64, and u128::MAX / 10^9 / 10^19 does, too.
        Err(_) => {
            integer(page, (whole / 10_u128.pow(19)) as u64);
            padded(page, (whole % 10_u128.pow(19)) as u64, 19);
        }
    }
    if fraction_ns != 0 {
        page.push(b'.');
        padded(page, fraction_ns, 9);
        while page.last() == Some(&b'0') {
            page.pop();
        }
    }
}

/// Appends milliseconds as seconds with three decimals: the form of a timestamp.
pub(super) fn timestamp(page: &mut Vec<u8>, ms: u64) {
    integer(page, ms / 1_000);
    page.push(b'.');
    padded(page, ms % 1_000, 3);
}

/// Appends the lowest `width` (at most 20) decimal digits, zeros in front.
fn padded(page: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    fill(&mut digits, value);
    page.extend_from_slice(&digits[20 - width..]);
}

/// Writes the number at the end of `digits` and tells where it starts.
fn fill(digits: &mut [u8; 20], mut value: u64) -> usize {
    let mut start = digits.len();
    // Two digits a turn: half the divisions, which are by constants and so multiplications.
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
        let mut page = Vec::new();
        append(&mut page);
        String::from_utf8(page).unwrap()
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
            assert_eq!(text(|page| seconds(page, ns)), expected);
        }
    }

    #[test]
    fn timestamps_have_three_decimals() {
        assert_eq!(text(|page| timestamp(page, 1_700_000_000_007)), "1700000000.007");
        assert_eq!(text(|page| timestamp(page, 0)), "0.000");
    }

    proptest! {
        #[test]
        fn integers_are_printed_as_std_prints_them(value: u64) {
            prop_assert_eq!(text(|page| integer(page, value)), value.to_string());
        }

        #[test]
        fn seconds_are_read_back_to_the_nanosecond(ns: u128) {
            let printed = text(|page| seconds(page, ns));
            let (whole, fraction) = printed.split_once('.').unwrap_or((&printed, ""));
            let read = format!("{whole}{fraction:0<9}").parse::<u128>().unwrap();
            prop_assert_eq!(read, ns);
        }
    }
}
