//! A plugin configuration as it arrives: JSON text, or a protobuf `Struct`.
//!
//! An operator may write the configuration of a plugin as `google.protobuf.StringValue` with JSON in it or, so that it is part of the YAML
//! around it, as `google.protobuf.Struct`. Envoy unwraps the first and hands over the second as it is, in protobuf. So a `Struct` is turned
//! into JSON text here and read by the same parser, with the same checks and the same error messages. A second reader for the same
//! types would be the alternative, and one day the two would differ.

use std::borrow::Cow;

/// Structures inside structures that are followed: as deep as the JSON parser goes.
const MAX_DEPTH: usize = 64;

/// Field numbers of `Struct`, `Value` and `ListValue` are all small, so a tag is one byte: number x 8 + wire type.
const ENTRY: u8 = 0x0a;
const ENTRY_KEY: u8 = 0x0a;
const ENTRY_VALUE: u8 = 0x12;
const VALUE_NULL: u8 = 0x08;
const VALUE_NUMBER: u8 = 0x11;
const VALUE_STRING: u8 = 0x1a;
const VALUE_BOOL: u8 = 0x20;
const VALUE_STRUCT: u8 = 0x2a;
const VALUE_LIST: u8 = 0x32;
const LIST_ITEM: u8 = 0x0a;

/// Whole numbers up to here are exact in a double, which is all that a `Struct` has.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Decimal digits that survive a double.
const SIGNIFICANT_DIGITS: usize = 15;

/// The configuration as JSON text.
///
/// Text is returned as it is. Only bytes that are a `Struct` to the last one are converted: JSON may start with the same byte (a line
/// feed), but it does not go on like this.
#[must_use]
pub fn json_text(configuration: &[u8]) -> Cow<'_, [u8]> {
    if configuration.first() != Some(&ENTRY) {
        return Cow::Borrowed(configuration);
    }
    let mut json = String::new();
    match write_struct(configuration, &mut json, 0) {
        Some(()) => Cow::Owned(json.into_bytes()),
        None => Cow::Borrowed(configuration),
    }
}

fn write_struct(mut bytes: &[u8], json: &mut String, depth: usize) -> Option<()> {
    let depth = depth.checked_add(1).filter(|depth| *depth <= MAX_DEPTH)?;
    json.push('{');
    let mut first = true;
    while !bytes.is_empty() {
        let mut entry = take_field(&mut bytes, ENTRY)?;
        let key = take_field(&mut entry, ENTRY_KEY)?;
        let value = take_field(&mut entry, ENTRY_VALUE)?;
        if !entry.is_empty() {
            return None;
        }
        if !std::mem::take(&mut first) {
            json.push(',');
        }
        write_text(key, json)?;
        json.push(':');
        write_value(value, json, depth)?;
    }
    json.push('}');
    Some(())
}

fn write_list(mut bytes: &[u8], json: &mut String, depth: usize) -> Option<()> {
    let depth = depth.checked_add(1).filter(|depth| *depth <= MAX_DEPTH)?;
    json.push('[');
    let mut first = true;
    while !bytes.is_empty() {
        let item = take_field(&mut bytes, LIST_ITEM)?;
        if !std::mem::take(&mut first) {
            json.push(',');
        }
        write_value(item, json, depth)?;
    }
    json.push(']');
    Some(())
}

fn write_value(mut bytes: &[u8], json: &mut String, depth: usize) -> Option<()> {
    let tag = take_byte(&mut bytes)?;
    match tag {
        VALUE_NULL => {
            take_varint(&mut bytes)?;
            json.push_str("null");
        }
        VALUE_NUMBER => {
            let (number, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            write_number(f64::from_le_bytes(*number), json)?;
        }
        VALUE_BOOL => json.push_str(if take_varint(&mut bytes)? == 0 {
            "false"
        } else {
            "true"
        }),
        VALUE_STRING => write_text(take_bytes(&mut bytes)?, json)?,
        VALUE_STRUCT => write_struct(take_bytes(&mut bytes)?, json, depth)?,
        VALUE_LIST => write_list(take_bytes(&mut bytes)?, json, depth)?,
        _ => return None,
    }
    bytes.is_empty().then_some(())
}

/// A whole number is written without a point, so that it fits fields that are integers. Others are written with 15 significant digits,
/// which every decimal number that somebody typed survives. (`serde_json` writes the shortest form, with tables as large as this module.)
fn write_number(number: f64, json: &mut String) -> Option<()> {
    if !number.is_finite() {
        return None;
    }
    if number.is_sign_negative() && number != 0.0 {
        json.push('-');
    }
    let number = number.abs();
    if number.fract() == 0.0 && number <= MAX_WHOLE {
        json.push_str(&(number as u64).to_string());
        return Some(());
    }
    if number > MAX_WHOLE {
        // Beyond what a double tells apart, and beyond every bound of ours: the order is enough to be refused.
        json.push_str("1e30");
        return Some(());
    }
    let whole = number.trunc();
    let places = SIGNIFICANT_DIGITS.saturating_sub((whole as u64).to_string().len());
    let scale = (0..places).fold(1.0_f64, |scale, _| scale * 10.0);
    let scaled = (number * scale).round() as u64;
    if scaled == 0 {
        // Too small to be anything but a mistake; not to be read as 0.
        json.push_str("1e-30");
        return Some(());
    }
    let digits = format!("{scaled:0width$}", width = places.saturating_add(1));
    let (whole, fraction) = digits.split_at_checked(digits.len().saturating_sub(places))?;
    json.push_str(whole);
    json.push('.');
    json.push_str(fraction.trim_end_matches('0'));
    if json.ends_with('.') {
        json.push('0');
    }
    Some(())
}

fn write_text(bytes: &[u8], json: &mut String) -> Option<()> {
    json.push('"');
    for character in std::str::from_utf8(bytes).ok()?.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\0'..='\x1f' => {
                json.push_str("\\u00");
                for nibble in [character as u32 >> 4, character as u32 & 0xf] {
                    json.push(char::from_digit(nibble, 16)?);
                }
            }
            other => json.push(other),
        }
    }
    json.push('"');
    Some(())
}

/// The content of a field with this tag.
fn take_field<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    if take_byte(bytes)? != tag {
        return None;
    }
    take_bytes(bytes)
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(content)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64_u32).step_by(7) {
        let byte = take_byte(bytes)?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test: an overflow must stop it"
)]
mod tests {
    use super::*;
    use crate::config::PluginConfig;
    use serde_json::{Value, json};

    fn field(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(content);
        bytes
    }

    /// What Envoy hands over for a `Struct`.
    fn encode_struct(value: &Value) -> Vec<u8> {
        let entries = value.as_object().unwrap().iter();
        entries
            .flat_map(|(key, value)| {
                let entry = [
                    field(ENTRY_KEY, key.as_bytes()),
                    field(ENTRY_VALUE, &encode_value(value)),
                ]
                .concat();
                field(ENTRY, &entry)
            })
            .collect()
    }

    fn encode_value(value: &Value) -> Vec<u8> {
        match value {
            Value::Null => vec![VALUE_NULL, 0],
            Value::Bool(on) => vec![VALUE_BOOL, u8::from(*on)],
            Value::Number(number) => {
                [&[VALUE_NUMBER][..], &number.as_f64().unwrap().to_le_bytes()].concat()
            }
            Value::String(text) => field(VALUE_STRING, text.as_bytes()),
            Value::Array(items) => {
                let items: Vec<u8> = items
                    .iter()
                    .flat_map(|item| field(LIST_ITEM, &encode_value(item)))
                    .collect();
                field(VALUE_LIST, &items)
            }
            Value::Object(_) => field(VALUE_STRUCT, &encode_struct(value)),
        }
    }

    fn example() -> Value {
        json!({
            "version": 1,
            "rules": [{
                "name": "api",
                "key": { "header": { "name": "x-customer", "trusted": true } },
                "charges": [{ "resource": "requests", "cost": { "constant": 0.25 } }],
            }],
            "denial": { "body": "\"too many\"\nügly\u{1}" },
            "policy": {
                "version": 1,
                "resources": { "requests": {} },
                "contracts": { "gold": { "limits": { "requests": { "rate_per_s": 100, "burst": 2e15 } } } },
            },
        })
    }

    #[test]
    fn a_struct_says_the_same_as_the_json_that_it_was_written_as() {
        let json = json_text(&encode_struct(&example())).into_owned();
        let read: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(read["denial"], example()["denial"]);
        let read = PluginConfig::parse(&encode_struct(&example())).unwrap_err();
        assert!(
            read.to_string().contains("burst"),
            "the same checks apply: {read}"
        );
    }

    #[test]
    fn a_struct_is_a_configuration() {
        let mut config = example();
        config["policy"]["contracts"]["gold"]["limits"]["requests"]["burst"] = json!(200);
        let text = config.to_string();
        assert_eq!(
            PluginConfig::parse(&encode_struct(&config)).unwrap(),
            PluginConfig::parse(text.as_bytes()).unwrap()
        );
    }

    #[test]
    fn text_is_left_alone_even_if_it_starts_with_a_line_feed() {
        for text in ["{}", "\n{\n  \"version\": 1\n}", "\n", "", "\n{"] {
            assert_eq!(json_text(text.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn a_damaged_struct_is_left_to_the_json_parser_to_refuse() {
        let whole = encode_struct(&example());
        for length in 1..whole.len() {
            let part = &whole[..length];
            // Cut between two entries it is whole again, only smaller.
            if let Cow::Owned(json) = json_text(part) {
                serde_json::from_slice::<Value>(&json).unwrap();
            } else {
                assert!(PluginConfig::parse(part).is_err());
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({ "a": deep });
        }
        assert!(matches!(json_text(&encode_struct(&deep)), Cow::Borrowed(_)));
    }

    #[test]
    fn numbers_and_text_are_written_as_they_were_typed() {
        let written = |number: f64| {
            let mut json = String::new();
            write_number(number, &mut json).unwrap();
            json
        };
        for typed in [
            "0",
            "1",
            "-1",
            "0.1",
            "0.3",
            "-0.25",
            "1.000001",
            "123456789.1",
            "9007199254740991",
            "0.000001",
            "0.0000001",
            "999999.999999",
            "1.05",
            "100.5",
        ] {
            assert_eq!(written(typed.parse().unwrap()), typed);
        }
        assert_eq!(
            (written(1e300).as_str(), written(1e-300).as_str()),
            ("1e30", "1e-30")
        );
        for text in ["", "plain", "\"\\\n\u{1}\u{1f}", "\u{fffd}\u{1f600}"] {
            let mut json = String::new();
            write_text(text.as_bytes(), &mut json).unwrap();
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
