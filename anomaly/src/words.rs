//! What people read of a verdict.

use crate::pace::WINDOWS_MINUTES;
use crate::signs::Sign;
use crate::verdict::{Evidence, Kind, Verdict};
use core::fmt::{Display, Formatter, Result};

// === impl Evidence ===

impl Display for Evidence {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { sign, times, z, p } = self;
        let [burst, rise, level] = WINDOWS_MINUTES;
        let mut demand = |minutes: f64| {
            write!(
                f,
                "{times:.1} times the demand that is usual at this hour, over {minutes} minutes"
            )
        };
        match sign {
            Sign::Burst => demand(burst)?,
            Sign::Rise => demand(rise)?,
            Sign::Level => demand(level)?,
            Sign::Forecast => write!(
                f,
                "{times:.1} times the upper forecast, over {burst} minutes"
            )?,
            Sign::Denied => write!(f, "{:.0} % denied by the contract", 100.0 * times)?,
            Sign::Keys => write!(f, "{times:.1} times as many keys or gateways as usual")?,
        }
        write!(f, " (z {z:.1}, p {p:.2})")
    }
}

// === impl Verdict ===

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self.kind {
            Kind::Normal => "as usual",
            Kind::Unusual => "unusual, and its peers are not",
            Kind::Crowd => "unusual, by a known event or with its peers",
        })?;
        for (place, evidence) in self.evidence().enumerate() {
            f.write_str(if place == 0 { ": " } else { "; " })?;
            evidence.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_average_is_said_to_be_over_as_many_minutes_as_it_is() {
        let said = |sign| {
            let evidence = Evidence {
                sign,
                times: 3.0,
                z: 7.5,
                p: 0.05,
            };
            evidence.to_string()
        };
        for (sign, minutes) in [(Sign::Burst, 5), (Sign::Rise, 20), (Sign::Level, 180)] {
            assert_eq!(
                said(sign),
                format!(
                    "3.0 times the demand that is usual at this hour, over {minutes} minutes (z 7.5, p 0.05)"
                )
            );
        }
        assert_eq!(
            said(Sign::Forecast),
            "3.0 times the upper forecast, over 5 minutes (z 7.5, p 0.05)"
        );
    }
}
