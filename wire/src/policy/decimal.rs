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

/// Digits behind the point of a micro-token.
const MICRO_PLACES: i64 = 6;

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

    /// A decimal number as it is written, with or without an exponent; read exactly.
    ///
    /// # Errors
    /// When it is no number, negative, too large, or finer than a micro-token.
    pub fn from_text(text: &str) -> Result<Self, DecimalError> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        // Beyond this the number is 0, too large or too fine whatever its digits are.
        let exponent: i64 = exponent
            .parse::<i64>()
            .map_err(|_| DecimalError::NotFinite)?
            .clamp(-400, 400);
        let (is_negative, digits) = match mantissa.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, mantissa),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mut places = exponent
            .saturating_add(MICRO_PLACES)
            .saturating_sub(fraction.len() as i64);
        let mut micro = 0_i64;
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(DecimalError::NotFinite);
        }
        // Zeros at the end that the exponent takes back say nothing.
        let needless = digits
            .iter()
            .rev()
            .take_while(|digit| **digit == b'0')
            .count();
        let significant = digits.len().saturating_sub(needless);
        places = places.saturating_add(needless as i64);
        for digit in digits.iter().take(significant) {
            let value = i64::from(digit.wrapping_sub(b'0'));
            micro = micro
                .checked_mul(10)
                .and_then(|micro| micro.checked_add(value))
                .ok_or(DecimalError::TooLarge)?;
        }
        if micro == 0 {
            return Ok(Self::ZERO);
        }
        if is_negative {
            return Err(DecimalError::Negative);
        }
        if places < 0 {
            return Err(DecimalError::TooFine);
        }
        for _ in 0..places {
            micro = micro.checked_mul(10).ok_or(DecimalError::TooLarge)?;
        }
        Ok(Self { micro })
    }

    /// For JSON: tokens as a floating-point number.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // display only; the exact value is `micro`
    pub fn to_f64(self) -> f64 {
        self.micro as f64 / 1e6
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micro = self.micro.unsigned_abs();
        let whole = micro.checked_div(MICRO_PER_TOKEN).unwrap_or(0);
        let rest = micro.checked_rem(MICRO_PER_TOKEN).unwrap_or(0);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{rest:06}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
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
