//! Training: minibatches of pinball loss, early stopping on the last part of the training span.

use burn_core::tensor::{Device, Tensor, activation};
use forebay_traces::generator::SeededRandom;

use crate::error::TrainError;
use crate::gradient_tape::{GradientTape, tensor};
use crate::network::{Inputs, Shape, forward};
use crate::progress::Progress;
use crate::samples::{Minibatch, Samples};
use crate::weights::{self, Optimiser, Weights};

/// How to train.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Seed of weights and order.
    pub(crate) seed: u64,
    /// Most passes over the data.
    pub(crate) epochs: usize,
    /// Stop after this many passes without a better validation loss.
    pub(crate) patience: usize,
    /// Samples per update.
    pub(crate) minibatch: usize,
    /// Highest learning rate; it falls to zero along a cosine.
    pub(crate) rate: f32,
    /// Last share of the training span that is held back for validation and calibration.
    pub(crate) held_back: f64,
}

/// What training gave.
pub(crate) struct Trained {
    pub(crate) weights: Weights,
    /// The pass that was best.
    pub(crate) epoch: usize,
    /// Its validation loss, and that of the first forecast ("as the last value").
    pub(crate) validation_loss: f32,
    pub(crate) start_loss: f32,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 16,
            patience: 4,
            minibatch: 256,
            rate: 4e-3,
            held_back: 0.15,
        }
    }
}

/// Trains on the samples `fit`, keeps the weights that are best on `held_back`.
///
/// # Errors
/// When nobody reads how far it is any more.
pub(crate) fn train(
    samples: &Samples,
    fit: &[usize],
    held_back: &[usize],
    shape: &Shape,
    settings: &Settings,
    progress: &Progress,
) -> Result<Trained, TrainError> {
    let device = Device::flex().autodiff();
    let mut random = SeededRandom::new(settings.seed);
    let mut optimiser = Optimiser::new(weights::start(shape, &mut random));
    let start_loss = validate(samples, held_back, shape, &optimiser.average);
    let mut best = Trained {
        weights: optimiser.average.clone(),
        epoch: 0,
        validation_loss: start_loss,
        start_loss,
    };
    let mut order = fit.to_vec();
    let updates = settings.epochs * order.len().div_ceil(settings.minibatch);
    progress.set_length(updates as u64);
    let mut done = 0;
    for epoch in 1..=settings.epochs {
        shuffle(&mut order, &mut random);
        for chosen in order.chunks(settings.minibatch) {
            let batch = samples.minibatch(chosen, shape.quantiles.len());
            let mut tape = GradientTape::new(&optimiser.current, &device);
            let loss = loss(&mut tape, shape, batch, &device);
            let gradients = tape.gradients(&loss);
            let part = done as f32 / updates as f32;
            let rate = settings.rate * 0.5 * (1.0 + (std::f32::consts::PI * part).cos());
            optimiser.update(&gradients, rate);
            done += 1;
            progress.inc()?;
        }
        let validation_loss = validate(samples, held_back, shape, &optimiser.average);
        progress.say(format!(
            "epoch {epoch}: validation loss {validation_loss:.4}"
        ))?;
        if validation_loss < best.validation_loss {
            best = Trained {
                weights: optimiser.average.clone(),
                epoch,
                validation_loss,
                start_loss,
            };
        } else if epoch - best.epoch >= settings.patience {
            break;
        }
    }
    progress.finish(format!(
        "best after epoch {}: validation loss {:.4}",
        best.epoch, best.validation_loss
    ))?;
    Ok(best)
}

fn shuffle(items: &mut [usize], random: &mut SeededRandom) {
    for i in (1..items.len()).rev() {
        items.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
    }
}

/// Mean loss over `chosen` without gradients.
fn validate(samples: &Samples, chosen: &[usize], shape: &Shape, weights: &Weights) -> f32 {
    let device = Device::flex();
    let mut sum = 0.0;
    for chunk in chosen.chunks(1024) {
        let batch = samples.minibatch(chunk, shape.quantiles.len());
        let mut tape = GradientTape::new(weights, &device);
        sum += scalar(loss(&mut tape, shape, batch, &device)) * chunk.len() as f32;
    }
    sum / chosen.len().max(1) as f32
}

fn scalar(value: Tensor<1>) -> f32 {
    value
        .into_data()
        .try_to_vec()
        .ok()
        .and_then(|v| v.first().copied())
        .unwrap_or(f32::NAN)
}

/// Forecasts of a batch, `[N, H * Q]`.
pub(crate) fn forecast(
    tape: &mut GradientTape,
    shape: &Shape,
    batch: &Minibatch,
    device: &Device,
) -> Tensor<2> {
    let inputs = Inputs {
        usage: tensor(batch.usage.clone(), device),
        mask: tensor(batch.mask.clone(), device),
        season: tensor(batch.season.clone(), device),
        season_mask: tensor(batch.season_mask.clone(), device),
        calendar: tensor(batch.calendar.clone(), device),
    };
    forward(tape, shape, &inputs)
}

/// Weighted pinball loss, the mean over samples, horizons and quantiles.
fn loss(tape: &mut GradientTape, shape: &Shape, batch: Minibatch, device: &Device) -> Tensor<1> {
    let forecast = forecast(tape, shape, &batch, device);
    let miss = tensor(batch.target, device) - forecast;
    let levels: Vec<f32> = (0..shape.horizons)
        .flat_map(|_| shape.quantiles.iter().copied())
        .collect();
    let levels: Tensor<2> = Tensor::<1>::from_floats(levels.as_slice(), device).unsqueeze();
    // max(q m, (q - 1) m) = q m + max(-m, 0)
    let pinball = levels * miss.clone() + activation::relu(-miss);
    (pinball * tensor(batch.weight, device)).mean()
}
