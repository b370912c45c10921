//! What people read of a verdict.

use crate::signs::Sign;
use crate::verdict::{Evidence, Kind, Verdict};
use core::fmt::{Display, Formatter, Result};

// === impl Evidence ===

impl Display for Evidence {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { sign, times, z, p } = self;
        match sign {
            Sign::Burst => write!(
                f,
                "{times:.1} times the demand that is usual at this hour, over 5 minutes"
            )?,
            Sign::Rise => write!(
                f,
                "{times:.1} times the demand that is usual at this hour, over 20 minutes"
            )?,
            Sign::Level => write!(
                f,
                "{times:.1} times the demand that is usual at this hour, over 2 hours"
            )?,
            Sign::Forecast => write!(f, "{times:.1} times the upper forecast, over 5 minutes")?,
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
