//! Amounts of tokens as they come in headers.

use forebay_core::amount::Micro;
use forebay_core::limits::MAX_TOKENS;

/// Digits after the point that a micro-token has.
const FRACTION_DIGITS: usize = 6;

/// Why a header is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAnAmount {
    /// It has a minus sign.
    Negative,
    /// It is not a decimal number.
    NotANumber,
}

/// Reads a decimal number such as `12` or `0.5`. Digits finer than a micro-token round up: a cost is never lost. A number beyond every
/// bound is the largest amount; the rule's `max` is applied afterwards.
pub(crate) fn parse(text: &[u8]) -> Result<Micro, NotAnAmount> {
    let text = text.trim_ascii();
    if text.first() == Some(&b'-') {
        return Err(NotAnAmount::Negative);
    }
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        None => (text, &b""[..]),
        Some(point) => {
            let (whole, rest) = text
                .split_at_checked(point)
                .ok_or(NotAnAmount::NotANumber)?;
            (whole, rest.get(1..).unwrap_or_default())
        }
    };
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(NotAnAmount::NotANumber);
    }
    let tokens = whole
        .iter()
        .fold(0_u64, |sum, digit| push_digit(sum, *digit).min(MAX_TOKENS));
    let (kept, finer) = fraction
        .split_at_checked(FRACTION_DIGITS)
        .unwrap_or((fraction, b""));
    let padding = core::iter::repeat_n(&b'0', FRACTION_DIGITS.saturating_sub(kept.len()));
    let mut micro = kept
        .iter()
        .chain(padding)
        .fold(0_u64, |sum, digit| push_digit(sum, *digit));
    if finer.iter().any(|digit| *digit != b'0') {
        micro = micro.saturating_add(1);
    }
    let micro = Micro::new(i64::try_from(micro).unwrap_or(0));
    Ok(Micro::from_tokens(tokens).plus(micro).min(Micro::MAX))
}

fn push_digit(sum: u64, digit: u8) -> u64 {
    sum.saturating_mul(10)
        .saturating_add(u64::from(digit.wrapping_sub(b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_are_read_exactly() {
        for (text, micro) in [
            ("0", 0),
            ("7", 7_000_000),
            (" 12 ", 12_000_000),
            ("0.5", 500_000),
            ("1.000001", 1_000_001),
            ("1.0000001", 1_000_001),
            ("3.", 3_000_000),
            ("00012", 12_000_000),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Micro::new(micro)), "{text:?}");
        }
    }

    #[test]
    fn a_number_beyond_every_bound_is_the_largest_amount() {
        assert_eq!(parse("9".repeat(4_000).as_bytes()), Ok(Micro::MAX));
        assert_eq!(parse(b"18446744073709551616.9"), Ok(Micro::MAX));
    }

    #[test]
    fn what_is_no_number_from_zero_up_is_refused() {
        for text in ["-1", "-", "-0"] {
            assert_eq!(
                parse(text.as_bytes()),
                Err(NotAnAmount::Negative),
                "{text:?}"
            );
        }
        for text in [
            "", ".", ".5", "1e9", "+1", "0x10", "nan", "1,5", "1.2.3", "\u{663}",
        ] {
            assert_eq!(
                parse(text.as_bytes()),
                Err(NotAnAmount::NotANumber),
                "{text:?}"
            );
        }
        assert_eq!(parse(b"\xff\xfe"), Err(NotAnAmount::NotANumber));
    }
}
