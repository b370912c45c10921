//! Reading typed values out of the tree.

use super::{Json, Place};
use crate::config::ConfigError;
use crate::policy::{Decimal, Named};

/// A value that can be read from JSON. `None` stands for a field that is not there.
pub(crate) trait Read: Sized {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError>;
}

/// The fields of an object, all of which are known and given once.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    fields: &'a [(String, Json)],
    place: &'a Place<'a>,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(crate) fn of(
        json: &'a Json,
        place: &'a Place<'a>,
        known: &[&str],
    ) -> Result<Self, ConfigError> {
        let Json::Object(fields) = json else {
            return Err(expected("an object", json, place));
        };
        for (position, (name, _)) in fields.iter().enumerate() {
            let place = Place::Field(place, name);
            if !known.contains(&name.as_str()) {
                let message = format!("unknown field `{name}`; known are {}", known.join(", "));
                return Err(ConfigError::at(place.render(), message));
            }
            if fields
                .iter()
                .take(position)
                .any(|(earlier, _)| earlier == name)
            {
                return Err(ConfigError::at(place.render(), "duplicate field"));
            }
        }
        Ok(Self { fields, place })
    }

    /// A field that must be there.
    pub(crate) fn required<T: Read>(&self, name: &str) -> Result<T, ConfigError> {
        match self.optional(name)? {
            Some(value) => Ok(value),
            None => Err(self.missing(name)),
        }
    }

    /// A field that can be left out or be null.
    pub(crate) fn optional<T: Read>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        match self.find(name) {
            None => Ok(None),
            Some(json) => T::read(json, &Place::Field(self.place, name)).map(Some),
        }
    }

    /// A field with a value to fall back on.
    pub(crate) fn or<T: Read>(&self, name: &str, otherwise: T) -> Result<T, ConfigError> {
        Ok(self.optional(name)?.unwrap_or(otherwise))
    }

    // Out of line, like `missing`: the readers above are made for each type, and these need not be.
    #[inline(never)]
    fn find(&self, name: &str) -> Option<&'a Json> {
        let (_, json) = self.fields.iter().find(|(field, _)| field == name)?;
        (!matches!(json, Json::Null)).then_some(json)
    }

    #[inline(never)]
    fn missing(&self, name: &str) -> ConfigError {
        ConfigError::at(self.place.render(), format!("missing field `{name}`"))
    }
}

/// The one field of an object that stands for a choice, or a string that does.
pub(crate) fn variant<'a>(
    json: &'a Json,
    place: &Place<'_>,
    known: &[&str],
) -> Result<(&'a str, Option<&'a Json>), ConfigError> {
    let (name, content) = match json {
        Json::Text(name) => (name, None),
        Json::Object(fields) => match fields.as_slice() {
            [(name, content)] => (name, Some(content)),
            _ => {
                let message = format!("give exactly one of {}", known.join(", "));
                return Err(ConfigError::at(place.render(), message));
            }
        },
        other => return Err(expected("an object or a string", other, place)),
    };
    if known.contains(&name.as_str()) {
        return Ok((name, content));
    }
    let message = format!("unknown variant `{name}`; known are {}", known.join(", "));
    Err(ConfigError::at(Place::Field(place, name).render(), message))
}

// === impl Read ===

impl Read for bool {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        match json {
            Json::Bool(value) => Ok(*value),
            other => Err(expected("true or false", other, place)),
        }
    }
}

impl Read for String {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        match json {
            Json::Text(text) => Ok(text.clone()),
            other => Err(expected("a string", other, place)),
        }
    }
}

impl Read for u64 {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        whole(json, place, u64::MAX)
    }
}

impl Read for u32 {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        Ok(whole(json, place, u64::from(u32::MAX))? as u32)
    }
}

impl Read for u16 {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        Ok(whole(json, place, u64::from(u16::MAX))? as u16)
    }
}

impl Read for u8 {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        Ok(whole(json, place, u64::from(u8::MAX))? as u8)
    }
}

impl Read for Decimal {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let Json::Number(text) = json else {
            return Err(expected("a number", json, place));
        };
        Self::from_text(text).map_err(|error| ConfigError::at(place.render(), error.to_string()))
    }
}

/// A share such as 0.9, to six digits.
impl Read for f64 {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let decimal = Decimal::read(json, place)?;
        Ok(decimal.micro() as Self / crate::policy::MICRO_PER_TOKEN as Self)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let Json::List(items) = json else {
            return Err(expected("an array", json, place));
        };
        // A loop, because collecting results through the iterator makes the plugin 3 KB larger.
        let mut values = Self::new();
        for (index, item) in items.iter().enumerate() {
            values.push(T::read(item, &Place::Item(place, index))?);
        }
        Ok(values)
    }
}

impl<T: Read> Read for Named<T> {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let Json::Object(fields) = json else {
            return Err(expected("an object", json, place));
        };
        let mut named = Self::default();
        for (name, value) in fields {
            let place = Place::Field(place, name);
            if named.get(name).is_some() {
                return Err(ConfigError::at(place.render(), "duplicate field"));
            }
            named.insert(name.as_str(), T::read(value, &place)?);
        }
        Ok(named)
    }
}

fn whole(json: &Json, place: &Place<'_>, most: u64) -> Result<u64, ConfigError> {
    let Json::Number(text) = json else {
        return Err(expected("a number", json, place));
    };
    // Envoy writes the numbers of a Struct as doubles, large ones with an exponent.
    let number = Decimal::from_text(text)
        .ok()
        .map(Decimal::micro)
        .map(i64::unsigned_abs);
    let tokens =
        number.filter(|micro| micro.checked_rem(crate::policy::MICRO_PER_TOKEN) == Some(0));
    let exact = text
        .parse::<u64>()
        .ok()
        .or(tokens.and_then(|micro| micro.checked_div(crate::policy::MICRO_PER_TOKEN)));
    match exact {
        Some(number) if number <= most => Ok(number),
        _ => Err(ConfigError::at(
            place.render(),
            format!("must be a whole number from 0 to {most}"),
        )),
    }
}

fn expected(what: &str, found: &Json, place: &Place<'_>) -> ConfigError {
    ConfigError::at(
        place.render(),
        format!("invalid type: expected {what}, found {}", found.kind()),
    )
}
