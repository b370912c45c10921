//! The statement that is signed to release a model.
//!
//! A signature over the file alone would let anyone who can answer a gateway's download hand it a model that was good last year.
//! So what is signed names the digest *and* the model epoch: a gateway takes a statement only if its epoch is above the one it
//! runs. Going back to an older file is a new statement with a higher epoch, signed as a roll-back on purpose. A statement for a
//! challenger lets a file be compared with the one that runs, and can never be used to put it in force.

/// First bytes of every statement, so that the key cannot be made to sign something that means another thing elsewhere.
const DOMAIN: &[u8; 24] = b"forebay model release v1";

/// Length of [`ModelStatement::to_bytes`].
pub const STATEMENT_BYTES: usize = 24 + 1 + 8 + 32;

/// A SHA-256 digest of a model file.
pub type ModelDigest = [u8; 32];

/// Why a model is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseKind {
    /// It is the newest.
    Release,
    /// It ran before and is to run again.
    RollBack,
    /// It is to be compared with the one that runs, and decides nothing.
    Challenger,
}

/// What a signature says: from this epoch on, run this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelStatement {
    /// Digest of the file.
    pub digest: ModelDigest,
    /// Model epoch; each statement has a higher one than the last.
    pub epoch: u64,
    /// Release or roll-back.
    pub kind: ReleaseKind,
}

// === impl ===

impl ReleaseKind {
    /// The byte that stands for it in the statement and in the sync reply.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Release => 1,
            Self::RollBack => 2,
            Self::Challenger => 3,
        }
    }

    /// The kind of a byte, if it is one.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Release),
            2 => Some(Self::RollBack),
            3 => Some(Self::Challenger),
            _ => None,
        }
    }
}

impl ModelStatement {
    /// The bytes that are signed (Ed25519): domain, kind, epoch in little endian, digest.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; STATEMENT_BYTES] {
        let mut bytes = [0; STATEMENT_BYTES];
        let parts = DOMAIN
            .iter()
            .copied()
            .chain([self.kind.code()])
            .chain(self.epoch.to_le_bytes())
            .chain(self.digest);
        for (place, byte) in bytes.iter_mut().zip(parts) {
            *place = byte;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_changes_the_statement() {
        let statement = ModelStatement {
            digest: [7; 32],
            epoch: 3,
            kind: ReleaseKind::Release,
        };
        let bytes = statement.to_bytes();
        assert_eq!(bytes.len(), STATEMENT_BYTES);
        assert_eq!(&bytes[..24], DOMAIN);
        assert_eq!(&bytes[33..], &[7; 32]);
        for other in [
            ModelStatement {
                epoch: 4,
                ..statement
            },
            ModelStatement {
                digest: [8; 32],
                ..statement
            },
            ModelStatement {
                kind: ReleaseKind::RollBack,
                ..statement
            },
            ModelStatement {
                kind: ReleaseKind::Challenger,
                ..statement
            },
        ] {
            assert_ne!(other.to_bytes(), bytes);
        }
    }
}
