//! Calendar months, by which statements are kept: UTC, counted from January 1970.

use std::fmt;
use std::str::FromStr;

const DAY_MS: u64 = 86_400_000;
/// A clock that is ten thousand years ahead is none.
const MONTHS_MOST: u32 = 120_000;

/// A month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month(pub(crate) u32);

// === impl Month ===

impl Month {
    /// The month of a time.
    pub(crate) fn at(unix_ms: u64) -> Self {
        let mut days = unix_ms / DAY_MS;
        let mut month = 0_u32;
        // A few hundred steps, and nothing to get wrong about leap years.
        while days >= length(month) && month < MONTHS_MOST {
            days = days.saturating_sub(length(month));
            month = month.saturating_add(1);
        }
        Self(month)
    }

    /// When it is over.
    pub(crate) fn ends_unix_ms(self) -> u64 {
        let days = (0..=self.0.min(MONTHS_MOST)).map(length);
        days.fold(0, u64::saturating_add).saturating_mul(DAY_MS)
    }

    /// So many months before.
    pub(crate) fn before(self, months: u32) -> Self {
        Self(self.0.saturating_sub(months))
    }
}

/// Days of a month.
fn length(month: u32) -> u64 {
    let year = (month / 12).saturating_add(1970);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month % 12 {
        1 if is_leap => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let year = (self.0 / 12).saturating_add(1970);
        let month = (self.0 % 12).saturating_add(1);
        write!(formatter, "{year:04}-{month:02}")
    }
}

/// `2026-11`.
impl FromStr for Month {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (year, month) = text.split_once('-').ok_or(())?;
        let is_plain = |part: &str, digits| {
            part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_plain(year, 4) || !is_plain(month, 2) {
            return Err(());
        }
        let year: u32 = year.parse().map_err(|_| ())?;
        let month: u32 = month.parse().map_err(|_| ())?;
        match (year.checked_sub(1970), month) {
            (Some(years), 1..=12) => Ok(Self(years.saturating_mul(12).saturating_add(month - 1))),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_months() {
        for (unix_ms, month) in [
            (0, "1970-01"),
            (951_782_400_000, "2000-02"),
            (951_868_800_000, "2000-03"),
            (1_709_164_799_999, "2024-02"),
            (1_709_164_800_000, "2024-02"),
            (1_709_251_200_000, "2024-03"),
            (1_790_000_000_000, "2026-09"),
        ] {
            assert_eq!(Month::at(unix_ms).to_string(), month, "{unix_ms}");
            assert_eq!(month.parse(), Ok(Month::at(unix_ms)));
            let ends = Month::at(unix_ms).ends_unix_ms();
            assert_eq!(
                (Month::at(ends - 1), Month::at(ends)),
                (Month::at(unix_ms), Month(Month::at(unix_ms).0 + 1))
            );
        }
        for wrong in [
            "2026", "2026-13", "2026-00", "1969-12", "26-01", "2026-1", "2026-+1",
        ] {
            assert_eq!(wrong.parse::<Month>(), Err(()), "{wrong}");
        }
    }
}
