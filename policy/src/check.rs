//! Small checks that several parts of the document share: names, ranges, and the nearest name to one that does not exist.

use crate::error::{Mistakes, Problem};
use forebay_core::amount::{Micro, Rate};
use forebay_core::limits::{MAX_MICRO, MAX_NAME_BYTES, MAX_TOKENS};
use forebay_wire::policy::Decimal;

/// What is larger is not shown by its digits.
const SHOWN_MOST: f64 = 1e6;

/// Names go into metric names, paths and headers, so they are plain.
pub(crate) fn name(mistakes: &mut Mistakes, path: &str, name: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
        mistakes.add(path, Problem::Name);
    }
}

/// An amount of tokens within the bounds of the core.
pub(crate) fn amount(mistakes: &mut Mistakes, path: &str, value: Decimal) -> Micro {
    if value.micro() > MAX_MICRO {
        mistakes.add(path, too_large(value));
        return Micro::ZERO;
    }
    Micro::new(value.micro())
}

/// A rate within the bounds of the core.
pub(crate) fn rate(mistakes: &mut Mistakes, path: &str, value: Decimal) -> Rate {
    match u64::try_from(amount(mistakes, path, value).get()) {
        Ok(micro_per_s) => Rate::new(micro_per_s),
        Err(_) => Rate::ZERO,
    }
}

/// The same of what there is of something. What is too large is as large as may be, so that nothing else seems not to fit into it.
pub(crate) fn capacity(mistakes: &mut Mistakes, path: &str, value: Decimal) -> Rate {
    let compiled = rate(mistakes, path, value);
    match value.micro() > MAX_MICRO {
        true => Rate::new(MAX_MICRO.unsigned_abs()),
        false => compiled,
    }
}

/// A whole number within a range.
pub(crate) fn range(mistakes: &mut Mistakes, path: &str, found: u64, least: u64, most: u64) {
    if !(least..=most).contains(&found) {
        let allowed = format!("{least} to {most}");
        mistakes.add(
            path,
            Problem::Range {
                found: found.to_string(),
                allowed,
            },
        );
    }
}

/// A share or quantile, in thousandths. `NaN` is in no range.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // guarded by the range test
pub(crate) fn permille(
    mistakes: &mut Mistakes,
    path: &str,
    found: f64,
    least: u16,
    most: u16,
) -> u16 {
    let thousandths = (found * 1000.0).round();
    if thousandths >= f64::from(least) && thousandths <= f64::from(most) {
        return thousandths as u16;
    }
    let allowed = format!("{} to {}", share(i64::from(least)), share(i64::from(most)));
    // As it was written: rounded to thousandths it might look as if it were allowed.
    let found = match found {
        _ if found.is_nan() => String::from("no number"),
        _ if found > SHOWN_MOST => String::from("more than a million"),
        _ if found < -SHOWN_MOST => String::from("less than minus a million"),
        _ => decimal((found * 1e9).round() as i64),
    };
    mistakes.add(path, Problem::Range { found, allowed });
    least
}

/// ` (did you mean ...?)` if a known name differs by at most two letters.
pub(crate) fn suggestion<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, name)| format!(" (did you mean `{name}`?)"))
        .unwrap_or_default()
}

fn too_large(value: Decimal) -> Problem {
    Problem::Range {
        found: value.to_string(),
        allowed: format!("0 to {MAX_TOKENS}"),
    }
}

/// Letters to add, drop or change. Names are at most 64 bytes where it matters; longer ones are simply far away.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > MAX_NAME_BYTES || right.len() > MAX_NAME_BYTES {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (position, letter) in left.bytes().enumerate() {
        let mut diagonal = position;
        let mut before = position.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(right.bytes()) {
            let change = diagonal.saturating_add(usize::from(letter != other));
            diagonal = *cell;
            *cell = change
                .min(before.saturating_add(1))
                .min(cell.saturating_add(1));
            before = *cell;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Thousandths as a decimal number.
fn share(thousandths: i64) -> String {
    decimal(thousandths.saturating_mul(1_000_000))
}

/// Billionths as a decimal number. Formatting floating-point numbers would bring 24 KB into the plugin, for these messages.
fn decimal(billionths: i64) -> String {
    let sign = if billionths < 0 { "-" } else { "" };
    let whole = billionths.unsigned_abs() / 1_000_000_000;
    let rest = billionths.unsigned_abs() % 1_000_000_000;
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_refused_is_shown_as_it_was_written() {
        for (found, shown) in [
            (0.0001, "0.0001"),
            (0.6, "0.6"),
            (-0.2, "-0.2"),
            (1e300, "more than a million"),
            (f64::NEG_INFINITY, "less than minus a million"),
            (f64::NAN, "no number"),
            (f64::INFINITY, "more than a million"),
        ] {
            let mut mistakes = Mistakes::default();
            assert_eq!(permille(&mut mistakes, "share", found, 1, 500), 1);
            let told = mistakes.into_result(()).unwrap_err().to_string();
            let expected = format!("share is {shown}, allowed is 0.001 to 0.5");
            assert_eq!(told, expected, "{found}");
        }
    }
}
