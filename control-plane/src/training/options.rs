//! Options of `forebay serve` that are about training.

use super::job::JobLimits;
use super::program::{Program, Unusable};
use super::schedule::Schedule;
use crate::plane::{Promotion, Share};
use clap::Args;
use std::path::PathBuf;

const HOUR_MS: u64 = 3_600_000;
/// With less usage than that the trainer lets no model win.
const ENOUGH_MS: u64 = 7 * 24 * HOUR_MS;

/// Options of training.
#[derive(Clone, Debug, Default, Args)]
pub struct TrainingOptions {
    /// forebay-train, which trains models on the usage history of this server; beside this program by default. A name without a slash is looked for in PATH
    #[arg(long, value_name = "FILE")]
    pub trainer: Option<PathBuf>,
    /// Train so often, like 1d, 7d or 12h; without it only when asked
    #[arg(long, value_name = "TIME", value_parser = interval_ms)]
    pub train_every: Option<u64>,
    /// Train when forecasts have become worse than they were, at most once a day
    #[arg(long)]
    pub train_on_drift: bool,
    /// Let a model that has won its trial run at this share of the gateways, like 10%, from where the comparison with the model before decides; without it
    /// it waits in the registry
    #[arg(long, value_name = "SHARE", requires = "model_signing_key", value_parser = Share::percent_from)]
    pub train_canary: Option<u8>,
}

/// What cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TrainingOptionsError {
    /// There is a schedule and nothing to run.
    #[error(
        "{option} needs the trainer, and {reason}: build forebay-train, or name it with --trainer FILE"
    )]
    NoTrainer {
        /// Which option asks for it.
        option: &'static str,
        /// What is wrong with it.
        reason: Unusable,
    },
    /// No model could win.
    #[error(
        "{option} needs a history of seven days, and --history-steps {history_steps} of --step-ms {step_ms} are less: keep {steps_needed} steps"
    )]
    ShortHistory {
        /// Which option asks for it.
        option: &'static str,
        /// Steps that are kept.
        history_steps: u64,
        /// Their length.
        step_ms: u32,
        /// Steps of seven days.
        steps_needed: u64,
    },
    /// The trainer knows seconds.
    #[error("{0} needs steps of whole seconds, and --step-ms is {1}")]
    PartsOfSeconds(&'static str, u32),
}

/// What the options say, checked.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub(super) program: Program,
    /// What keeps its processes together.
    pub(super) keeper: PathBuf,
    pub(super) schedule: Schedule,
    pub(super) canary: Option<Share>,
    pub(super) limits: JobLimits,
}

fn interval_ms(text: &str) -> Result<u64, String> {
    let (number, hours) = match text.strip_suffix('d') {
        Some(number) => (number, 24),
        None => (text.strip_suffix('h').unwrap_or_default(), 1),
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(hours))
    {
        Some(hours @ 1..=8_784) => Ok(hours.saturating_mul(HOUR_MS)),
        _ => Err("not a time from 1h to 366d, in hours (12h) or days (7d)".to_owned()),
    }
}

// === impl TrainingOptions ===

impl TrainingOptions {
    /// Checks them.
    ///
    /// # Errors
    /// When something that they need is missing.
    pub fn choose(&self, step_ms: u32, history_steps: u64) -> Result<Chosen, TrainingOptionsError> {
        let option = match self {
            Self {
                trainer: Some(_), ..
            } => Some("--trainer"),
            Self {
                train_every: Some(_),
                ..
            } => Some("--train-every"),
            Self {
                train_on_drift: true,
                ..
            } => Some("--train-on-drift"),
            Self { .. } => None,
        };
        let needs_a_week = match self {
            Self {
                train_canary: Some(_),
                ..
            } => Some("--train-canary"),
            Self {
                train_every: Some(_),
                ..
            } => Some("--train-every"),
            Self {
                train_on_drift: true,
                ..
            } => Some("--train-on-drift"),
            Self { .. } => None,
        };
        let steps_needed = ENOUGH_MS.div_ceil(u64::from(step_ms.max(1)));
        if let Some(option) = needs_a_week
            && history_steps < steps_needed
        {
            return Err(TrainingOptionsError::ShortHistory {
                option,
                history_steps,
                step_ms,
                steps_needed,
            });
        }
        let search = std::env::var_os("PATH").unwrap_or_default();
        let program = match &self.trainer {
            Some(given) => Program::named(given, &search),
            None => Ok(Program::beside_us()),
        };
        let no_trainer = |reason| TrainingOptionsError::NoTrainer {
            option: option.unwrap_or("--trainer"),
            reason,
        };
        let program = program.map_err(no_trainer)?;
        if let Some(option) = option {
            program.check().map_err(no_trainer)?;
            if !step_ms.is_multiple_of(1_000) {
                return Err(TrainingOptionsError::PartsOfSeconds(option, step_ms));
            }
        }
        Ok(Chosen {
            program,
            // This program, also when its file has been replaced meanwhile.
            keeper: PathBuf::from("/proc/self/exe"),
            schedule: Schedule {
                every_ms: self.train_every,
                on_drift: self.train_on_drift,
            },
            canary: self.train_canary.map(|percent| Share {
                percent,
                promotion: Promotion::Auto,
            }),
            limits: JobLimits::default(),
        })
    }
}

// === impl Chosen ===

impl Chosen {
    /// The same with `forebay` in another place, for a server inside another program.
    #[must_use]
    pub fn kept_by(self, keeper: PathBuf) -> Self {
        Self { keeper, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_hours_or_days_and_nothing_else() {
        assert_eq!(interval_ms("12h"), Ok(12 * HOUR_MS));
        assert_eq!(interval_ms("7d"), Ok(7 * 24 * HOUR_MS));
        for wrong in [
            "",
            "7",
            "0h",
            "d",
            "-1d",
            "1.5d",
            "7 d",
            "367d",
            "99999999999999999999d",
        ] {
            assert!(interval_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_schedule_without_its_trainer_is_refused_and_none_needs_none() {
        const WEEK: u64 = 7 * 24 * 60;
        let nowhere = TrainingOptions {
            trainer: Some("/no/such/trainer".into()),
            ..TrainingOptions::default()
        };
        let error = nowhere.choose(60_000, WEEK).unwrap_err().to_string();
        assert!(error.contains("/no/such/trainer"), "{error}");
        let here = TrainingOptions {
            trainer: std::env::current_exe().ok(),
            ..TrainingOptions::default()
        };
        assert!(here.choose(60_000, 1).is_ok());
        assert!(here.choose(250, WEEK).is_err());
        assert!(TrainingOptions::default().choose(250, 1).is_ok());
        let daily = TrainingOptions {
            train_every: Some(HOUR_MS),
            ..here
        };
        let error = daily.choose(60_000, WEEK - 1).unwrap_err().to_string();
        assert!(error.contains("keep 10080 steps"), "{error}");
        assert!(daily.choose(60_000, WEEK).is_ok());
    }
}
