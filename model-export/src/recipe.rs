//! How a data set is cut: which column, which season, where the test span begins. The two recipes that have names are
//! the settings of the reference scorer for these files.

use std::path::{Path, PathBuf};

use forebay_forecast::CalendarFeature;
use forebay_traces::{ReadOptions, Series, read};

use crate::error::TrainError;
use crate::network::Shape;
use crate::scoring::Cut;

/// Quantiles that are trained and scored.
pub(crate) const QUANTILES: [f32; 4] = [0.1, 0.5, 0.9, 0.99];

/// A series shorter than this many seasons is not scored.
const SEASONS_MIN: f64 = 4.0;

/// Everything about a data set that training and evaluation must agree on.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// Name in reports.
    pub(crate) name: String,
    /// File inside the data folder; empty for generated data.
    pub(crate) file: String,
    /// The committed model of this recipe, in `models/`.
    pub(crate) model: String,
    /// Value column, or several joined by `+`.
    pub(crate) value: String,
    /// Steps per season.
    pub(crate) season_steps: usize,
    /// Forecast steps.
    pub(crate) horizons: usize,
    /// Steps ahead that are reported.
    pub(crate) reported: Vec<usize>,
    /// Last share of each series that is the test span.
    pub(crate) test_share: f64,
    /// Origins per tenant in the test span.
    pub(crate) origins: usize,
    /// Steps of trailing errors for the quantiles of the simple methods.
    pub(crate) error_rows: usize,
    /// Tenants active in this share of their steps, or less, are not scored.
    pub(crate) min_active: f64,
    /// Usage steps that the network sees.
    pub(crate) window: usize,
    /// Usage steps per recurrent step.
    pub(crate) patch: usize,
    /// Size of the recurrent state.
    pub(crate) hidden: usize,
    /// Size of the dense layer.
    pub(crate) dense: usize,
    /// What the network knows of the calendar.
    pub(crate) calendar: Vec<CalendarFeature>,
}

// === impl Recipe ===

impl Recipe {
    /// Many customers of language models, ten-minute steps.
    pub(crate) fn servegen_10m() -> Self {
        Self {
            name: "servegen_10m".into(),
            file: "servegen_10m.parquet".into(),
            model: "demo.onnx".into(),
            value: "requests".into(),
            season_steps: 144,
            horizons: 6,
            reported: vec![1, 6],
            test_share: 0.3,
            origins: 30,
            error_rows: 432,
            min_active: 0.2,
            window: 48,
            patch: 6,
            hidden: 16,
            dense: 32,
            calendar: vec![CalendarFeature::DaySin, CalendarFeature::DayCos],
        }
    }

    /// Smooth service rates, one-minute steps.
    pub(crate) fn ms_rate_1m() -> Self {
        Self {
            name: "ms_rate_1m".into(),
            file: "ms_rate_1m.parquet".into(),
            model: "minute.onnx".into(),
            season_steps: 1440,
            horizons: 15,
            reported: vec![1, 5, 15],
            test_share: 0.25,
            origins: 100,
            error_rows: 1440,
            min_active: 0.0,
            ..Self::servegen_10m()
        }
    }

    /// The network that gateways run. They forecast the step that is running, so it has one step ahead, and half of the window of the others: on
    /// `servegen_10m` that costs 1 to 2 % of the loss and saves more than half of the time.
    pub(crate) fn edge() -> Self {
        Self {
            name: "edge".into(),
            model: "edge.onnx".into(),
            horizons: 1,
            reported: vec![1],
            window: 24,
            patch: 8,
            hidden: 12,
            dense: 24,
            ..Self::servegen_10m()
        }
    }

    /// Data of the generator, cut like `servegen_10m`.
    pub(crate) fn generated() -> Self {
        Self {
            name: "generated".into(),
            file: String::new(),
            ..Self::servegen_10m()
        }
    }

    /// The recipes with a committed model.
    pub(crate) fn committed() -> [Self; 3] {
        [Self::servegen_10m(), Self::ms_rate_1m(), Self::edge()]
    }

    /// The recipe of that name.
    pub(crate) fn named(name: &str) -> Result<Self, TrainError> {
        match name {
            "servegen_10m" => Ok(Self::servegen_10m()),
            "ms_rate_1m" => Ok(Self::ms_rate_1m()),
            "edge" => Ok(Self::edge()),
            _ => Err(TrainError::Options(format!(
                "unknown recipe `{name}`; known are servegen_10m, ms_rate_1m and edge"
            ))),
        }
    }

    /// The file of this recipe in a data folder.
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.file)
    }

    /// All series of the recipe's file.
    pub(crate) fn read(&self, folder: &Path) -> Result<Vec<Series>, TrainError> {
        Ok(read(&self.path(folder), &ReadOptions::value(&self.value))?)
    }

    /// How its series are cut.
    pub(crate) fn cut(&self) -> Cut {
        Cut {
            season_steps: self.season_steps,
            horizons: self.horizons,
            test_share: self.test_share,
            origins: self.origins,
            min_active: self.min_active,
            min_seasons: SEASONS_MIN,
        }
    }

    /// Index of the first step of the test span.
    pub(crate) fn test_start(&self, len: usize) -> usize {
        self.cut().test_start(len)
    }

    /// Sizes of the network.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            window: self.window,
            horizons: self.horizons,
            quantiles: QUANTILES.to_vec(),
            calendar: self.calendar.len(),
            patch: self.patch,
            hidden: self.hidden,
            dense: self.dense,
        }
    }
}
