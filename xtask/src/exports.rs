//! Which exports a plugin keeps, and under which names.
//!
//! A plugin that calls its own callbacks instead of the SDK's dispatcher cannot give them the names of the ABI: the SDK defines those
//! already. So `exports.txt` may say `WANTED = LINKED`, and the export section of the finished module is rewritten. No tool of binaryen
//! renames exports, and a linker script for wasm does not exist.

use anyhow::{Context, Result, bail};

/// Magic and version in front of the first section.
const PREAMBLE_BYTES: usize = 8;
const EXPORT_SECTION: u8 = 7;

/// An export that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    /// Name in the shipped module.
    pub(crate) wanted: String,
    /// Name in the linked module.
    pub(crate) linked: String,
}

/// Reads `exports.txt`: one export a line, `WANTED` or `WANTED = LINKED`; `#` begins a comment.
pub(crate) fn parse(text: &str) -> Vec<Export> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (wanted, linked) = line.split_once('=').unwrap_or((line, line));
            Export {
                wanted: wanted.trim().to_owned(),
                linked: linked.trim().to_owned(),
            }
        })
        .collect()
}

/// Gives the exports of a module the names that are wanted.
pub(crate) fn rename(module: &[u8], exports: &[Export]) -> Result<Vec<u8>> {
    let mut renamed = module
        .get(..PREAMBLE_BYTES)
        .context("the module ends within its preamble")?
        .to_vec();
    let mut rest = Reader(module.get(PREAMBLE_BYTES..).unwrap_or_default());
    while !rest.0.is_empty() {
        let id = rest.byte()?;
        let len = rest.number()?;
        let body = rest.take(len)?;
        let body = if id == EXPORT_SECTION {
            rename_section(body, exports)?
        } else {
            body.to_vec()
        };
        renamed.push(id);
        push_number(&mut renamed, body.len());
        renamed.extend_from_slice(&body);
    }
    Ok(renamed)
}

fn rename_section(section: &[u8], exports: &[Export]) -> Result<Vec<u8>> {
    let mut reader = Reader(section);
    let count = reader.number()?;
    let mut renamed = Vec::with_capacity(section.len());
    push_number(&mut renamed, count);
    for _ in 0..count {
        let len = reader.number()?;
        let linked = reader.take(len)?;
        let export = exports
            .iter()
            .find(|export| export.linked.as_bytes() == linked);
        let wanted = export.map_or(linked, |export| export.wanted.as_bytes());
        push_number(&mut renamed, wanted.len());
        renamed.extend_from_slice(wanted);
        renamed.push(reader.byte()?);
        push_number(&mut renamed, reader.number()?);
    }
    Ok(renamed)
}

/// Reads the binary format: bytes, and unsigned LEB128 numbers.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            bail!(
                "the module is cut off: {len} bytes wanted, {} left",
                self.0.len()
            );
        };
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize> {
        let mut number = 0_usize;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        bail!("a number of the module has more than 35 bits")
    }
}

fn push_number(into: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest > 0x7f {
        into.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_or_a_name_and_what_it_is_linked_as() {
        let exports = parse("# comment\nmemory\n\nproxy_on_tick = own_tick # why\n");
        let export = |wanted: &str, linked: &str| Export {
            wanted: wanted.to_owned(),
            linked: linked.to_owned(),
        };
        assert_eq!(
            exports,
            [
                export("memory", "memory"),
                export("proxy_on_tick", "own_tick")
            ]
        );
    }

    #[test]
    fn renames_in_the_export_section_and_nowhere_else() {
        // A custom section (0) with the same text, then two exports: function 3 and memory 0.
        let module = b"\0asm\x01\0\0\0\x00\x05own_t\x07\x12\x02\x05own_t\x00\x03\x06memory\x02\x00";
        let renamed = rename(module, &parse("proxy_on_tick = own_t\nmemory")).unwrap();
        assert_eq!(
            renamed,
            b"\0asm\x01\0\0\0\x00\x05own_t\x07\x1a\x02\x0dproxy_on_tick\x00\x03\x06memory\x02\x00"
        );
    }

    #[test]
    fn a_module_that_is_cut_off_is_an_error() {
        let module = b"\0asm\x01\0\0\0\x07\x12\x02\x05own_t";
        assert!(rename(module, &[]).is_err());
    }
}
