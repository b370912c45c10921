//! What the trainer says of how far it is: one JSON object a line.
//!
//! The trainer is ours, and its lines are data all the same: a line that is too long or none of ours is passed over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A longer line is none of ours.
const LINE_BYTES_MAX: usize = 16 << 10;
/// A longer message is cut.
pub(super) const MESSAGE_CHARS_MAX: usize = 500;
/// A larger count is none: readers of JSON take no larger one as it is.
pub(super) const COUNT_MAX: u64 = 1 << 53;

/// How far a training is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// Of `of`.
    pub done: u64,
    /// All that is to be done.
    pub of: u64,
    /// What the trainer has said last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Bytes as they come, cut into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    is_too_long: bool,
}

// === impl Lines ===

impl Lines {
    /// Takes more of the stream; `heard` gets each line that tells something.
    pub(super) fn take(&mut self, bytes: &[u8], mut heard: impl FnMut(Told)) {
        for byte in bytes {
            if *byte != b'\n' {
                self.is_too_long |= self.line.len() >= LINE_BYTES_MAX;
                if !self.is_too_long {
                    self.line.push(*byte);
                }
                continue;
            }
            if !self.is_too_long
                && let Ok(told) = serde_json::from_slice::<Told>(&self.line)
                && told.done <= told.of
                && told.of <= COUNT_MAX
            {
                heard(told.shortened());
            }
            self.line.clear();
            self.is_too_long = false;
        }
    }
}

// === impl Told ===

impl Told {
    fn shortened(self) -> Self {
        Self {
            message: printable(&self.message, MESSAGE_CHARS_MAX),
            ..self
        }
    }
}

/// At most so many characters, none of which could do anything to a terminal or a log.
pub(super) fn printable(text: &str, chars_max: usize) -> String {
    let is_harmless = |letter: char| letter == '\n' || !letter.is_control();
    let harmless = |letter| if is_harmless(letter) { letter } else { ' ' };
    text.trim().chars().map(harmless).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(parts: &[&[u8]]) -> Vec<(u64, u64, String)> {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for part in parts {
            lines.take(part, |told| heard.push((told.done, told.of, told.message)));
        }
        heard
    }

    #[test]
    fn lines_are_put_together_from_parts_and_what_is_none_of_ours_is_passed_over() {
        let found = heard(&[
            b"{\"done\":1,\"of\":4}\n{\"do",
            b"ne\":2,\"of\":4,\"message\":\"epoch 1\"}\nnothing\n[]\n\xff\n",
            b"{\"done\":3,\"of\":4}",
        ]);
        let expected = [(1, 4, String::new()), (2, 4, "epoch 1".to_owned())];
        assert_eq!(found, expected, "the last line has not ended");
    }

    #[test]
    fn what_cannot_be_a_progress_is_passed_over_and_nothing_reaches_a_terminal() {
        let long = "x".repeat(MESSAGE_CHARS_MAX + 1);
        let long = format!("{{\"done\":2,\"of\":2,\"message\":\"{long}\"}}\n");
        let found = heard(&[
            b"{\"done\":5,\"of\":4}\n",
            b"{\"done\":1,\"of\":9007199254740993}\n",
            b"{\"done\":-1,\"of\":4}\n{\"done\":0.5,\"of\":1}\n{\"done\":1e999,\"of\":1}\n",
            b"{\"done\":1,\"of\":2,\"message\":\"\\u001b[2Jepoch\\u0000\\u009b1\"}\n",
            long.as_bytes(),
        ]);
        let counts: Vec<(u64, u64)> = found.iter().map(|(done, of, _)| (*done, *of)).collect();
        assert_eq!(counts, [(1, 2), (2, 2)]);
        assert_eq!(found[0].2, " [2Jepoch  1");
        assert_eq!(found[1].2.len(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_the_next_one_is_heard() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.take(&[b'x'; 4096], |_| panic!("that is none"));
        }
        assert!(lines.line.capacity() <= 2 * LINE_BYTES_MAX);
        let mut found = Vec::new();
        lines.take(b"\n{\"done\":1,\"of\":2}\n", |told| found.push(told.done));
        assert_eq!(found, [1]);
    }
}
