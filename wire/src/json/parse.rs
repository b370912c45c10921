//! From text to tree (RFC 8259). A field given twice, nesting without end and anything behind the document are errors.

use super::{Json, Place};
use crate::config::ConfigError;

/// Nesting at most: no document of ours is half as deep, and the stack of a plugin is small.
const MAX_DEPTH: usize = 32;

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

/// Reads a whole document.
pub(crate) fn parse(text: &[u8]) -> Result<Json, ConfigError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let json = parser.value(&Place::Root)?;
    if parser.peek().is_some() {
        return Err(parser.error(&Place::Root, "more text follows the end of the document"));
    }
    Ok(json)
}

// === impl Parser ===

impl Parser<'_> {
    fn value(&mut self, place: &Place<'_>) -> Result<Json, ConfigError> {
        match self.peek() {
            Some(b'{') => self.nested(place, Self::object),
            Some(b'[') => self.nested(place, Self::list),
            Some(b'"') => self.string(place).map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(place),
            Some(b't') => self.word(place, b"true", Json::Bool(true)),
            Some(b'f') => self.word(place, b"false", Json::Bool(false)),
            Some(b'n') => self.word(place, b"null", Json::Null),
            Some(_) => Err(self.error(place, "expected a JSON value")),
            None => Err(self.error(place, "the document ends here, before it is complete")),
        }
    }

    fn nested(
        &mut self,
        place: &Place<'_>,
        read: impl FnOnce(&mut Self, &Place<'_>) -> Result<Json, ConfigError>,
    ) -> Result<Json, ConfigError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(place, "nested too deep"));
        }
        self.depth = self.depth.saturating_add(1);
        self.skip();
        let json = read(self, place);
        self.depth = self.depth.saturating_sub(1);
        json
    }

    fn object(&mut self, place: &Place<'_>) -> Result<Json, ConfigError> {
        let mut fields: Vec<(String, Json)> = Vec::new();
        if self.take(b'}') {
            return Ok(Json::Object(fields));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error(place, "expected a field name in quotes"));
            }
            let name = self.string(place)?;
            let field = Place::Field(place, &name);
            if !self.take(b':') {
                return Err(self.error(&field, "expected a colon"));
            }
            let value = self.value(&field)?;
            fields.push((name, value));
            if self.take(b'}') {
                return Ok(Json::Object(fields));
            }
            if !self.take(b',') {
                return Err(self.error(place, "expected a comma or a closing brace"));
            }
        }
    }

    fn list(&mut self, place: &Place<'_>) -> Result<Json, ConfigError> {
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(&Place::Item(place, items.len()))?);
            if self.take(b']') {
                return Ok(Json::List(items));
            }
            if !self.take(b',') {
                return Err(self.error(place, "expected a comma or a closing bracket"));
            }
        }
    }

    /// A string whose opening quote is next.
    fn string(&mut self, place: &Place<'_>) -> Result<String, ConfigError> {
        self.skip();
        let mut bytes = Vec::new();
        loop {
            let Some(byte) = self.next() else {
                return Err(self.error(place, "a string does not end"));
            };
            match byte {
                b'"' => {
                    return String::from_utf8(bytes)
                        .map_err(|_| self.error(place, "a string is not UTF-8"));
                }
                b'\\' => {
                    let character = self.escape(place)?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..=0x1f => {
                    return Err(self.error(place, "a string has a control character; escape it"));
                }
                byte => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self, place: &Place<'_>) -> Result<char, ConfigError> {
        let plain = match self.next() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.code_point(place),
            _ => return Err(self.error(place, "no such escape in a string")),
        };
        Ok(plain)
    }

    fn code_point(&mut self, place: &Place<'_>) -> Result<char, ConfigError> {
        let mut code = self.four_digits(place)?;
        // A character above the first plane comes as two escapes that carry ten bits each.
        if let 0xd800..=0xdbff = code
            && self.next() == Some(b'\\')
            && self.next() == Some(b'u')
            && let low @ 0xdc00..=0xdfff = self.four_digits(place)?
        {
            let high_bits = (code & 0x3ff).checked_shl(10).unwrap_or(0);
            code = 0x1_0000_u32
                .saturating_add(high_bits)
                .saturating_add(low & 0x3ff);
        }
        char::from_u32(code).ok_or_else(|| self.error(place, "an escape is half a character"))
    }

    fn four_digits(&mut self, place: &Place<'_>) -> Result<u32, ConfigError> {
        let mut code = 0_u32;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.error(place, "\\u needs four hexadecimal digits"));
            };
            code = code.saturating_mul(16).saturating_add(digit);
        }
        Ok(code)
    }

    fn number(&mut self, place: &Place<'_>) -> Result<Json, ConfigError> {
        let start = self.at;
        while matches!(
            self.text.get(self.at),
            Some(b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9')
        ) {
            self.skip();
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        match core::str::from_utf8(text) {
            Ok(number) if is_number(text) => Ok(Json::Number(number.to_owned())),
            _ => Err(self.error(place, "not a number of JSON")),
        }
    }

    fn word(&mut self, place: &Place<'_>, word: &[u8], json: Json) -> Result<Json, ConfigError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.error(place, "expected a JSON value"));
        }
        self.at = self.at.saturating_add(word.len());
        Ok(json)
    }

    /// The next byte that is not white space; it stays.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.skip();
        }
        self.text.get(self.at).copied()
    }

    /// Takes the next byte that is not white space if it is this one.
    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.skip();
        }
        found
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.text.get(self.at).copied();
        self.skip();
        byte
    }

    fn skip(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn error(&self, place: &Place<'_>, what: &str) -> ConfigError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let line = before.split(|byte| *byte == b'\n').count();
        let column = before
            .rsplit(|byte| *byte == b'\n')
            .next()
            .map_or(0, <[u8]>::len)
            .saturating_add(1);
        ConfigError::at(
            place.render(),
            format!("{what} (line {line}, column {column})"),
        )
    }
}

/// Minus, digits without leading zero, fraction, exponent.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (mantissa, exponent) = split(text, |byte| matches!(byte, b'e' | b'E'));
    let (whole, fraction) = split(mantissa, |byte| *byte == b'.');
    let exponent_is_right = exponent.is_none_or(|exponent| {
        digits(
            exponent
                .strip_prefix(b"+")
                .or(exponent.strip_prefix(b"-"))
                .unwrap_or(exponent),
        )
    });
    digits(whole)
        && (whole.len() == 1 || whole.first() != Some(&b'0'))
        && fraction.is_none_or(digits)
        && exponent_is_right
}

fn split(text: &[u8], at: impl Fn(&u8) -> bool) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(at) {
        None => (text, None),
        Some(position) => {
            let (before, rest) = text.split_at_checked(position).unwrap_or((text, b""));
            (before, rest.get(1..))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        for text in [
            r#"{"a": [1, -2.5e+3, true, false, null, "x"], "b": {}, "c": []}"#,
            r#" "\u00e9 \ud83d\ude00 \n\t\"\\\/" "#,
            "\"\u{fffd}\u{1F600}\"",
            "[[[[[[]]]]]]",
            "0",
            "-0.0e-0",
        ] {
            let ours = parse(text.as_bytes());
            let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
            assert!(equal(&ours.unwrap(), &theirs), "{text}");
        }
    }

    #[test]
    fn refuses_what_serde_json_refuses() {
        let deep = "[".repeat(40) + &"]".repeat(40);
        for text in [
            "",
            " ",
            "{",
            "[",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "tru",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\n\"",
            "[1 2]",
            "{\"a\" 1}",
            "1 2",
            "nan",
            "\u{feff}1",
            "'a'",
            &deep,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    fn equal(ours: &Json, theirs: &serde_json::Value) -> bool {
        use serde_json::Value;
        match (ours, theirs) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(ours), Value::Bool(theirs)) => ours == theirs,
            (Json::Number(ours), Value::Number(theirs)) => {
                ours.parse::<f64>().ok() == theirs.as_f64()
            }
            (Json::Text(ours), Value::String(theirs)) => ours == theirs,
            (Json::List(ours), Value::Array(theirs)) => {
                ours.len() == theirs.len()
                    && ours
                        .iter()
                        .zip(theirs)
                        .all(|(ours, theirs)| equal(ours, theirs))
            }
            (Json::Object(ours), Value::Object(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().all(|(name, ours)| {
                        theirs.get(name).is_some_and(|theirs| equal(ours, theirs))
                    })
            }
            _ => false,
        }
    }
}
