//! Moments as people write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// Later and earlier ones are slips of the pen: from year 0 to 9999.
const UNIX_S_MIN: f64 = -62_167_219_200.0;
const UNIX_S_MAX: f64 = 253_402_300_799.0;

/// Unix time in seconds of an RFC 3339 date and time (`T` or a space between them), of one without an offset, which is UTC, of a date, which is its
/// first moment in UTC, or of Unix seconds.
pub(crate) fn unix_s(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(stamp) = text.parse::<DateTime<chrono::FixedOffset>>() {
        return Ok(stamp.timestamp());
    }
    if let Ok(stamp) = text.replacen(' ', "T", 1).parse::<NaiveDateTime>() {
        return Ok(stamp.and_utc().timestamp());
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(NaiveTime::MIN).and_utc().timestamp());
    }
    match text.parse::<f64>() {
        Ok(seconds) if (UNIX_S_MIN..=UNIX_S_MAX).contains(&seconds) => Ok(seconds as i64),
        _ => Err(format!(
            "`{text}` is no moment: write 2026-03-01T09:00:00Z, 2026-03-01, or Unix seconds"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_a_moment_mean_the_same() {
        for text in [
            "2026-03-01T09:00:00Z",
            "2026-03-01 09:00:00+00:00",
            "2026-03-01T10:00:00+01:00",
            "2026-03-01 09:00:00",
            "1772355600",
        ] {
            assert_eq!(unix_s(text), Ok(1_772_355_600), "{text}");
        }
        assert_eq!(unix_s("2026-03-01"), Ok(1_772_323_200));
        for text in ["", "soon", "1e300", "NaN", "2026-02-30"] {
            assert!(unix_s(text).is_err(), "{text}");
        }
    }
}
