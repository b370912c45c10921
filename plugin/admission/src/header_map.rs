//! The binary form in which proxy-wasm passes several headers at once, read and written in place.
//!
//! The SDK turns it into a vector of owned strings: an allocation for each name and each value of each request, and a panic when a name is
//! not UTF-8. Here a look-up walks the bytes and nothing is copied.
//!
//! Layout: count, then the length of name and value of each pair (all u32, little-endian), then name, NUL, value, NUL of each pair.

const WORD: usize = 4;

/// The value of the first header with this name.
#[must_use]
pub fn find<'a>(map: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let count = usize::try_from(word(map, 0)?).ok()?;
    let lengths = map.get(WORD..)?;
    let mut at = count.checked_mul(2 * WORD)?.checked_add(WORD)?;
    for pair in lengths.chunks_exact(2 * WORD).take(count) {
        let name_len = usize::try_from(word(pair, 0)?).ok()?;
        let value_len = usize::try_from(word(pair, WORD)?).ok()?;
        let name_end = at.checked_add(name_len)?;
        let value_start = name_end.checked_add(1)?;
        let value_end = value_start.checked_add(value_len)?;
        if map.get(at..name_end)? == name.as_bytes() {
            return map.get(value_start..value_end);
        }
        at = value_end.checked_add(1)?;
    }
    None
}

/// Replaces `into` by a map of these headers.
pub fn write(headers: &[(&str, &[u8])], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&length(headers.len()));
    for (name, value) in headers {
        into.extend_from_slice(&length(name.len()));
        into.extend_from_slice(&length(value.len()));
    }
    for (name, value) in headers {
        into.extend_from_slice(name.as_bytes());
        into.push(0);
        into.extend_from_slice(value);
        into.push(0);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(WORD)?;
    Some(u32::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
}

fn length(len: usize) -> [u8; WORD] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_written_and_the_first_of_several() {
        let mut map = Vec::new();
        let headers: [(&str, &[u8]); 4] = [
            (":path", b"/a"),
            ("x-key", b"\xff\x00z"),
            ("x-key", b"second"),
            ("x-empty", b""),
        ];
        write(&headers, &mut map);
        assert_eq!(find(&map, ":path"), Some(&b"/a"[..]));
        assert_eq!(find(&map, "x-key"), Some(&b"\xff\x00z"[..]));
        assert_eq!(find(&map, "x-empty"), Some(&b""[..]));
        assert_eq!(find(&map, "x-other"), None);
    }

    #[test]
    fn a_truncated_or_lying_map_finds_nothing_and_does_not_panic() {
        let mut map = Vec::new();
        write(&[("a", b"1"), ("b", b"2")], &mut map);
        for end in 0..map.len() {
            let cut = map.get(..end).unwrap();
            assert!(find(cut, "b").is_none() || end + 1 >= map.len());
        }
        for lie in 0..map.len() {
            let mut wrong = map.clone();
            wrong[lie] = 0xff;
            let _ = find(&wrong, "b");
        }
    }
}
