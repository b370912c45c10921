//! Rewrites a wasm module's export section: which of its items the host sees, and under which names.
//!
//! binaryen can drop exports but not rename them, and the admission plugin needs both: the SDK occupies the names
//! of the ABI with its own dispatcher. A parsing crate would be larger than the little that is parsed here: a
//! module is a list of (number, length, bytes), and only number 7 is looked into.

use anyhow::{Context, Result, bail};

/// One line of an `exports.txt`: the name that the host sees, and the name that the linker gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    shown: String,
    linked: String,
}

/// `\0asm` and version 1.
const HEADER: &[u8] = b"\0asm\x01\0\0\0";
const EXPORT_SECTION: u8 = 7;

// === impl Export ===

impl Export {
    /// Reads an `exports.txt`: `NAME` or `NAME = LINKED_NAME` a line, `#` begins a comment.
    pub(crate) fn read_list(text: &str) -> Vec<Self> {
        text.lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (shown, linked) = line.split_once('=').unwrap_or((line, line));
                Self {
                    shown: shown.trim().to_owned(),
                    linked: linked.trim().to_owned(),
                }
            })
            .collect()
    }
}

/// The same module with these exports and no others.
pub(crate) fn keep(module: &[u8], wanted: &[Export]) -> Result<Vec<u8>> {
    let mut rest = module
        .strip_prefix(HEADER)
        .context("this is no wasm module of version 1")?;
    let mut out = HEADER.to_vec();
    while let Some((&number, after)) = rest.split_first() {
        let (length, after) = number_from(after)?;
        let (body, after) = after
            .split_at_checked(length)
            .context("a section is cut short")?;
        let body = if number == EXPORT_SECTION {
            section(body, wanted)?
        } else {
            body.to_vec()
        };
        out.push(number);
        append_number(&mut out, body.len());
        out.extend(body);
        rest = after;
    }
    Ok(out)
}

/// An export section with the wanted items of `body`, in the order wanted.
fn section(body: &[u8], wanted: &[Export]) -> Result<Vec<u8>> {
    let (count, mut rest) = number_from(body)?;
    let mut linked = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = number_from(rest)?;
        let (name, after) = after
            .split_at_checked(length)
            .context("an export's name is cut short")?;
        let (&kind, after) = after.split_first().context("an export is cut short")?;
        let (index, after) = number_from(after)?;
        linked.push((name, kind, index));
        rest = after;
    }
    let mut out = Vec::new();
    append_number(&mut out, wanted.len());
    for export in wanted {
        let Some((_, kind, index)) = linked
            .iter()
            .find(|(name, ..)| *name == export.linked.as_bytes())
        else {
            bail!("the linked module does not export `{}`", export.linked);
        };
        append_number(&mut out, export.shown.len());
        out.extend(export.shown.as_bytes());
        out.push(*kind);
        append_number(&mut out, *index);
    }
    Ok(out)
}

/// An unsigned LEB128 number and what follows it.
fn number_from(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0_u64;
    for (position, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            let rest = bytes.get(position + 1..).unwrap_or_default();
            return Ok((usize::try_from(value)?, rest));
        }
    }
    bail!("a number is cut short")
}

fn append_number(out: &mut Vec<u8>, value: usize) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that exports function 0 as `f`, function 200 as `g` and memory 0 as `memory`.
    fn module() -> Vec<u8> {
        let exports = [
            &[3, 1, b'f', 0, 0, 1, b'g', 0, 0xc8, 1, 6][..],
            b"memory",
            &[2, 0],
        ]
        .concat();
        let other = [1, 2, 0xaa, 0xbb];
        [
            HEADER,
            &other,
            &[EXPORT_SECTION, exports.len() as u8],
            &exports,
            &[10, 1, 0],
        ]
        .concat()
    }

    #[test]
    fn unwanted_exports_go_and_wanted_ones_get_their_names() {
        let wanted = Export::read_list("# why\nshown = g # the second function\n\nmemory\n");
        let kept = keep(&module(), &wanted).unwrap();
        let exports = [&[2, 5][..], b"shown", &[0, 0xc8, 1, 6], b"memory", &[2, 0]].concat();
        let expected = [
            HEADER,
            &[1, 2, 0xaa, 0xbb],
            &[EXPORT_SECTION, exports.len() as u8],
            &exports,
            &[10, 1, 0],
        ]
        .concat();
        assert_eq!(kept, expected);
    }

    #[test]
    fn a_missing_export_is_an_error_that_names_it() {
        let error = keep(&module(), &Export::read_list("x = gone")).unwrap_err();
        assert!(error.to_string().contains("`gone`"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_module_or_ends_early_is_refused() {
        assert!(keep(b"hello", &[]).is_err());
        let module = module();
        for length in HEADER.len() + 1..module.len() {
            // A cut between two sections is a shorter module; any other cut is an error, and none panics.
            let _outcome = keep(&module[..length], &Export::read_list("f"));
        }
    }
}
