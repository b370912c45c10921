//! Reading and writing fixed little-endian fields of a blob.
//!
//! A derive-based format would be shorter, but pages are edited in place on the draw path and every blob can be
//! damaged: here each read is checked, costs no allocation and names the blob when it fails.

use crate::error::CoreError;

/// Reads fields one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    whole: usize,
    rest: &'a [u8],
}

/// Writes fields one after the other over existing bytes. What does not fit is dropped: the caller sizes the slice.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    rest: &'a mut [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            what,
            whole: bytes.len(),
            rest: bytes,
        }
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CoreError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(self.truncated(N)),
        }
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], CoreError> {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(self.truncated(len)),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CoreError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CoreError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CoreError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u40(&mut self) -> Result<u64, CoreError> {
        self.array::<5>()
            .map(|[a, b, c, d, e]| u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]))
    }

    pub(crate) fn u56(&mut self) -> Result<u64, CoreError> {
        self.array::<7>()
            .map(|[a, b, c, d, e, f, g]| u64::from_le_bytes([a, b, c, d, e, f, g, 0]))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CoreError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CoreError> {
        self.array().map(i64::from_le_bytes)
    }

    /// The mark and version that every blob starts with.
    pub(crate) fn mark(&mut self, mark: [u8; 3], known: u8) -> Result<(), CoreError> {
        if self.array::<3>()? != mark {
            return Err(CoreError::WrongMark { what: self.what });
        }
        let found = self.u8()?;
        if found == known {
            Ok(())
        } else {
            Err(CoreError::WrongVersion {
                what: self.what,
                found,
                known,
            })
        }
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), CoreError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(CoreError::TrailingBytes {
                what: self.what,
                extra: self.rest.len(),
            })
        }
    }

    fn truncated(&self, wanted: usize) -> CoreError {
        let needed = self
            .whole
            .saturating_sub(self.rest.len())
            .saturating_add(wanted);
        CoreError::Truncated {
            what: self.what,
            needed,
            had: self.whole,
        }
    }
}

// === impl Writer ===

impl<'a> Writer<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Writer<'a> {
        Writer { rest: bytes }
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if let Some((head, rest)) =
            core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len())
        {
            head.copy_from_slice(bytes);
            self.rest = rest;
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// The largest number that fits, if `value` is larger.
    pub(crate) fn u40(&mut self, value: u64) {
        let [a, b, c, d, e, ..] = value.min((1 << 40) - 1).to_le_bytes();
        self.bytes(&[a, b, c, d, e]);
    }

    /// The largest number that fits, if `value` is larger.
    pub(crate) fn u56(&mut self, value: u64) {
        let [a, b, c, d, e, f, g, _] = value.min((1 << 56) - 1).to_le_bytes();
        self.bytes(&[a, b, c, d, e, f, g]);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }
}
