//! The request header `traceparent`: W3C Trace Context Level 1, section 3.2.

/// The trace that a request belongs to, and the caller's span in it. Neither id is zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    is_sampled: bool,
}

impl TraceContext {
    /// Parses the value of a `traceparent` line.
    ///
    /// Returns `None` if section 3.2.2 calls it invalid: a wrong length or separator, anything but lower-case
    /// hexadecimal digits, an id of zeros, version `ff`. A version above `00` may have more after a further `-`, which
    /// is ignored (section 4, "Versioning of traceparent").
    pub fn parse(value: &str) -> Option<TraceContext> {
        // Bytes, since the value may be any text, and slicing a `str` within a character panics.
        let value = value.as_bytes();
        let (fields, rest) = value.split_at_checked(55)?;
        if [fields[2], fields[35], fields[52]] != *b"---" {
            return None;
        }
        let version = lower_hex(&fields[..2])?;
        let trace_id = lower_hex(&fields[3..35])?;
        let span_id = lower_hex(&fields[36..52])? as u64;
        let flags = lower_hex(&fields[53..55])?;
        let rest_is_allowed = match version {
            0x00 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|&byte| byte == b'-'),
        };
        let context = TraceContext::sampled(trace_id, span_id).filter(|_| rest_is_allowed)?;
        let is_sampled = flags & 1 == 1;
        Some(TraceContext { is_sampled, ..context })
    }

    /// Returns the sampled context with these ids, or `None` if one of them is zero.
    pub(crate) fn sampled(trace_id: u128, span_id: u64) -> Option<TraceContext> {
        (trace_id != 0 && span_id != 0).then_some(TraceContext {
            trace_id,
            span_id,
            is_sampled: true,
        })
    }

    /// Returns whether the caller may have recorded the trace: the flag "sampled" (section 3.2.3.3).
    pub fn is_sampled(self) -> bool {
        self.is_sampled
    }

    /// Returns the trace's id, printed as 32 hexadecimal digits.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// Returns the id of the caller's span (`parent-id`), printed as 16 hexadecimal digits.
    pub fn span_id(self) -> u64 {
        self.span_id
    }
}

fn lower_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_is_parsed() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id(), 0x00f0_67aa_0ba9_02b7);
    }

    #[test]
    fn the_known_fields_of_a_later_version_are_parsed() {
        let known = TraceContext::parse(EXAMPLE);
        assert_eq!(TraceContext::parse(&EXAMPLE.replacen("00-", "cc-", 1)), known);
        assert_eq!(
            TraceContext::parse(&(EXAMPLE.replacen("00-", "cc-", 1) + "-what the future brings")),
            known
        );
        assert_eq!(
            TraceContext::parse(&(EXAMPLE.replacen("00-", "cc-", 1) + ".what")),
            None
        );
    }

    #[test]
    fn values_that_the_specification_calls_invalid_are_rejected() {
        for value in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é",
        ] {
            assert_eq!(TraceContext::parse(value), None, "{value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn parsing_never_panics(value in ".*") {
            let _ = TraceContext::parse(&value);
        }

        #[test]
        fn a_valid_value_with_one_changed_byte_is_parsed_exactly_or_rejected(
            place in 0..EXAMPLE.len(),
            byte in 0u8..128,
        ) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[place] = byte;
            let value = String::from_utf8(bytes).unwrap();
            if let Some(context) = TraceContext::parse(&value) {
                prop_assert_eq!(&value[3..35], format!("{:032x}", context.trace_id()));
                prop_assert_eq!(&value[36..52], format!("{:016x}", context.span_id()));
            }
        }

        #[test]
        fn every_valid_value_is_parsed(trace_id in 1u128.., span_id in 1u64.., flags: u8) {
            let context = TraceContext::parse(&format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}"));
            let context = context.unwrap();
            prop_assert_eq!((context.trace_id(), context.span_id()), (trace_id, span_id));
            prop_assert_eq!(context.is_sampled(), flags % 2 == 1);
        }
    }
}
