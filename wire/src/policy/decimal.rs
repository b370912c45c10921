//! Decimal amounts of tokens, read exactly.
//!
//! An operator writes `0.1` tokens per second; the buckets count micro-tokens. Reading into `f64` and rounding somewhere later
//! was the worse alternative: a finer number would be cut off silently and "exact" would depend on who multiplied first. So the
//! number is turned into micro-tokens in the place where its position in the document is still known.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use std::fmt;

/// Micro-tokens in a token.
pub const MICRO_PER_TOKEN: u64 = 1_000_000;

/// Above this, an `f64` no longer distinguishes neighbouring micro-tokens, so a fraction cannot be read exactly.
const MAX_FRACTIONAL_MICRO: f64 = 1_125_899_906_842_624.0; // 2^50

/// Integers up to here are exact in an `f64`.
const MAX_INTEGER_TOKENS: f64 = 9_007_199_254_740_992.0; // 2^53

/// A non-negative decimal number of tokens, or of tokens per second, held as micro-tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    micro: i64,
}

/// Why a number cannot be an amount of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// NaN or an infinity (YAML can write them).
    #[error("not a finite number; write a decimal number such as 100 or 0.5")]
    NotFinite,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// More than the counters hold.
    #[error("too large; the greatest amount is 9223372036854 tokens")]
    TooLarge,
    /// Digits below a micro-token.
    #[error("finer than a millionth of a token; round it to 6 decimals")]
    TooFine,
}

struct DecimalVisitor;

// === impl Decimal ===

impl Decimal {
    /// Zero tokens.
    pub const ZERO: Self = Self { micro: 0 };

    /// The amount in micro-tokens; never negative.
    #[must_use]
    pub fn micro(self) -> i64 {
        self.micro
    }

    /// True for zero tokens.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde's `skip_serializing_if` calls
    pub fn is_zero(&self) -> bool {
        self.micro == 0
    }

    /// An amount given in micro-tokens.
    ///
    /// # Errors
    /// When it is negative.
    pub fn from_micro(micro: i64) -> Result<Self, DecimalError> {
        if micro < 0 {
            return Err(DecimalError::Negative);
        }
        Ok(Self { micro })
    }

    /// An amount of whole tokens.
    ///
    /// # Errors
    /// When it is too large for the counters.
    pub fn from_tokens(tokens: u64) -> Result<Self, DecimalError> {
        let micro = tokens
            .checked_mul(MICRO_PER_TOKEN)
            .ok_or(DecimalError::TooLarge)?;
        i64::try_from(micro)
            .map(|micro| Self { micro })
            .map_err(|_| DecimalError::TooLarge)
    }

    /// A decimal number as a parser hands it over.
    ///
    /// # Errors
    /// When it is not a finite number, negative, too large, or finer than a micro-token.
    // Every cast is guarded by a comparison with an exactly representable bound just above it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn from_f64(tokens: f64) -> Result<Self, DecimalError> {
        if !tokens.is_finite() {
            return Err(DecimalError::NotFinite);
        }
        if tokens < 0.0 {
            return Err(DecimalError::Negative);
        }
        let scaled = tokens * 1e6;
        let rounded = scaled.round();
        if scaled > MAX_FRACTIONAL_MICRO {
            if tokens > MAX_INTEGER_TOKENS {
                return Err(DecimalError::TooLarge);
            }
            if tokens.fract() != 0.0 {
                return Err(DecimalError::TooFine);
            }
            return Self::from_tokens(tokens as u64);
        }
        // The product is off by at most one part in 2^52, the parser's number by as much again.
        if (scaled - rounded).abs() > scaled * (4.0 * f64::EPSILON) {
            return Err(DecimalError::TooFine);
        }
        Ok(Self {
            micro: rounded as i64,
        })
    }

    /// For display and for JSON: tokens as a floating-point number.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // display only; the exact value is `micro`
    pub fn to_f64(self) -> f64 {
        self.micro as f64 / 1e6
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_f64())
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.micro) {
            Ok(micro) if micro.is_multiple_of(MICRO_PER_TOKEN) => {
                serializer.serialize_u64(micro.checked_div(MICRO_PER_TOKEN).unwrap_or(0))
            }
            _ => serializer.serialize_f64(self.to_f64()),
        }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecimalVisitor)
    }
}

impl Visitor<'_> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a non-negative number of tokens")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Decimal, E> {
        Decimal::from_tokens(value).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Decimal, E> {
        u64::try_from(value)
            .map_err(|_| E::custom(DecimalError::Negative))
            .and_then(|tokens| self.visit_u64(tokens))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Decimal, E> {
        Decimal::from_f64(value).map_err(E::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Decimal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "number",
            "minimum": 0,
            "maximum": 9_223_372_036_854_u64,
            "description": "Tokens or tokens per second, up to 6 decimals.",
        })
    }
}
