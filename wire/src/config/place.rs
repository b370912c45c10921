//! From the line and column of a JSON error to its path in the document.
//!
//! An error should name the place as an operator thinks of it, `rules[0].key.header.name`. `serde_path_to_error` finds it by wrapping
//! every deserializer that the derived code calls, which made 120 KB of the 300 KB that the plugin may have. `serde_json` knows where in the
//! text it stopped; walking the text to that point tells the same, in one small function that no type multiplies.

use super::ConfigError;

/// What `serde` says when an object ends without a field: then the place is the object, not its last field.
const MISSING_FIELD: &str = "missing field";

/// The error with its path.
pub(super) fn locate(json: &[u8], error: &serde_json::Error) -> ConfigError {
    let text = error.to_string();
    let message = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    let end = offset(json, error.line(), error.column());
    let before = json.get(..end).unwrap_or(json);
    // The byte that it stopped at counts as read; if it closes a container, the error is still in there.
    let inside = before
        .strip_suffix(b"}")
        .or_else(|| before.strip_suffix(b"]"))
        .unwrap_or(before);
    let path = path_to(inside, message.starts_with(MISSING_FIELD));
    let place = format!(
        "{message} (line {}, column {})",
        error.line(),
        error.column()
    );
    ConfigError::at(path, place)
}

/// Bytes before a position that `serde_json` counts from line 1 and column 0.
fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let lines_before = line.saturating_sub(1);
    let line_start: usize = json
        .split_inclusive(|byte| *byte == b'\n')
        .take(lines_before)
        .map(<[u8]>::len)
        .fold(0, usize::saturating_add);
    line_start.saturating_add(column).min(json.len())
}

/// One step of a path.
enum Step {
    /// In an object, at this key.
    Key(String),
    /// In an array, at this position.
    Index(usize),
}

fn path_to(json: &[u8], at_container: bool) -> String {
    let mut steps = Vec::new();
    let mut text: Option<Vec<u8>> = None;
    let mut escaped = false;
    let mut key_comes = false;
    for byte in json {
        if let Some(string) = &mut text {
            match byte {
                _ if escaped => {
                    escaped = false;
                    string.push(*byte);
                }
                b'\\' => escaped = true,
                b'"' => {
                    if key_comes && let Some(Step::Key(key)) = steps.last_mut() {
                        *key = String::from_utf8_lossy(string).into_owned();
                    }
                    text = None;
                }
                _ => string.push(*byte),
            }
            continue;
        }
        match byte {
            b'"' => text = Some(Vec::new()),
            b'{' => {
                steps.push(Step::Key(String::new()));
                key_comes = true;
            }
            b'[' => {
                steps.push(Step::Index(0));
                key_comes = false;
            }
            b'}' | b']' => {
                steps.pop();
                key_comes = false;
            }
            b':' => key_comes = false,
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index = index.saturating_add(1),
                Some(Step::Key(_)) => key_comes = true,
                None => {}
            },
            _ => {}
        }
    }
    if at_container {
        steps.pop();
    }
    render(&steps)
}

fn render(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if key.is_empty() => {}
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Step::Index(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
        }
    }
    if path.is_empty() {
        String::from(".")
    } else {
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_byte_before_the_end() {
        for (json, path) in [
            (r#""#, "."),
            (r#"{"a""#, "a"),
            (r#"{"a": 1, "b": {"c"#, "b"),
            (r#"{"a": [1, {"b": tru"#, "a[1].b"),
            (r#"{"a": [1, {"b": true}, 3"#, "a[2]"),
            (r#"{"a": {"b": 1}, "c,]}\"": [[0],[0, 7"#, "c,]}\"[1][1]"),
        ] {
            assert_eq!(path_to(json.as_bytes(), false), path, "{json}");
        }
    }

    #[test]
    fn a_field_that_is_missing_is_missing_in_its_object() {
        assert_eq!(path_to(br#"{"a": [{"b": 1"#, true), "a[0]");
        assert_eq!(path_to(br#"{"a": 1"#, true), ".");
    }

    #[test]
    fn a_position_is_counted_over_lines() {
        let json = b"{\n  \"a\":\n 1}";
        assert_eq!(offset(json, 1, 1), 1);
        assert_eq!(offset(json, 3, 2), 11);
        assert_eq!(offset(json, 9, 9), json.len());
    }
}
