//! The model card: what a model was made from and how, in a file beside it that people and `evaluate` read.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::TrainError;
use crate::network::Shape;
use crate::regular_file::read_text;
use crate::retrain::Trial;
use crate::train::Settings;

/// Most bytes of a card, which has some thousand.
const CARD_BYTES_MAX: u64 = 1 << 20;

/// What is known about a model. Nothing here depends on the machine or the time of training: the same data and seed
/// give the same card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    /// Recipe of the data.
    pub(crate) recipe: String,
    /// Kind of network.
    pub(crate) family: String,
    /// SHA-256 of the ONNX file that the card describes, hex.
    pub(crate) model_sha256: String,
    /// Size of that file.
    pub(crate) model_bytes: usize,
    /// Learned numbers.
    pub(crate) parameters: usize,
    /// SHA-256 of the trace file, hex; of the generator's values when there was no file.
    pub(crate) data_sha256: String,
    /// Where the data come from.
    pub(crate) data_source: String,
    /// Series that were learned from.
    pub(crate) series: usize,
    /// Samples that were learned from.
    pub(crate) samples: usize,
    /// First instant of the data.
    pub(crate) training_start: String,
    /// Instant before which all data lie, inputs and targets of training, validation and calibration alike.
    pub(crate) training_end: String,
    /// The same in seconds since 1970.
    pub(crate) training_end_unix_s: i64,
    /// Passes over the data.
    pub(crate) epochs: usize,
    /// Loss on the held-back part.
    pub(crate) validation_loss: f32,
    /// Loss there of "as the last value", from which training starts.
    pub(crate) start_loss: f32,
    /// Sizes of the network.
    pub(crate) shape: Shape,
    /// Settings of the training.
    pub(crate) settings: Settings,
    /// How it fared after its training span; absent where nobody has tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trial: Option<Trial>,
    /// Version of the trainer.
    pub(crate) trainer_version: String,
}

/// SHA-256 as hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of what need not fit memory, as hex.
pub(crate) fn sha256_of(mut source: impl Read) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(hex(&sum.finalize())),
            Ok(bytes) => sum.update(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The card's place beside its model: `demo.onnx` has `demo.card.json`.
pub(crate) fn path_beside(model: &Path) -> PathBuf {
    model.with_extension("card.json")
}

// === impl Card ===

impl Card {
    /// Reads the card of a model and checks that it is that model's card.
    pub(crate) fn of(model: &Path, bytes: &[u8]) -> Result<Self, TrainError> {
        let path = path_beside(model);
        let text = read_text(&path, CARD_BYTES_MAX)?;
        let card: Self = serde_json::from_str(&text).map_err(|source| TrainError::Json {
            path: path.clone(),
            source,
        })?;
        if card.model_sha256 != sha256(bytes) {
            return Err(TrainError::Disagree {
                path,
                reason: format!(
                    "the card describes another file than {}; train or export it again",
                    model.display()
                ),
            });
        }
        Ok(card)
    }

    /// The card as JSON text. `model` is only named in errors.
    pub(crate) fn to_json(&self, model: &Path) -> Result<String, TrainError> {
        serde_json::to_string_pretty(self).map_err(|source| TrainError::Json {
            path: path_beside(model),
            source,
        })
    }
}
