//! The command line.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{io, thread};

use clap::{Args, Parser, Subcommand};
use forebay_traces::Join;

use crate::card::{self, Card, sha256};
use crate::destination::{Destination, keep_apart};
use crate::drift;
use crate::error::TrainError;
use crate::evaluate;
use crate::export::{MODEL_BYTES_MAX, from_onnx, to_onnx};
use crate::fit::{Data, fit};
use crate::output::Output;
use crate::prepare::{self, Preparation};
use crate::progress::{self, Progress};
use crate::recipe::Recipe;
use crate::regular_file::read;
use crate::replay;
use crate::retrain::{self, Retraining};
use crate::train::Settings;
use crate::unfinished;
use crate::verify::verify;

/// The interpreter of the project's own tools, made by `make setup`.
const PYTHON: &str = ".tools/venv/bin/python";
const REPORT: &str = "target/report/evaluate.json";

/// Train, export, verify and score forecast models.
#[derive(Parser)]
#[command(name = "forebay-train", version)]
struct Cli {
    /// End when standard input ends, as it does when the program that holds it is killed
    #[arg(long, global = true)]
    end_with_stdin: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model and write it as ONNX, with its card beside it
    Train(Train),
    /// Make a versioned data set of usage history
    Prepare(Prepare),
    /// Write a model of this program again with this version's exporter
    Export {
        /// The model
        model: PathBuf,
        /// The new file
        #[arg(long)]
        out: PathBuf,
    },
    /// Compare trainer, tract and onnxruntime on a model
    Verify {
        /// The models; the committed ones when none is named
        models: Vec<PathBuf>,
        /// A Python with onnx, onnxruntime and numpy
        #[arg(long, env = "FOREBAY_PYTHON", default_value = PYTHON)]
        python: PathBuf,
    },
    /// Score what would be deployed for each trace of a folder, beside every family alone
    Evaluate(Evaluate),
    /// Replay traces through the gateway's ensemble with the committed models, beside simple methods
    Replay(Replay),
    /// Measure detectors of change on made-up series, beside what theory promises
    Drift {
        /// Seed of the series: the same seed gives the same figures
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Print the card of a model
    Card {
        /// The model
        model: PathBuf,
    },
}

#[derive(Args)]
struct DataFolder {
    /// Folder with the traces
    #[arg(long = "data", env = "FOREBAY_DATA")]
    folder: Option<PathBuf>,
}

#[derive(Args)]
struct Train {
    #[command(flatten)]
    data: DataFolder,
    /// Which network and data set: edge, servegen_10m or ms_rate_1m
    #[arg(long, default_value = "servegen_10m")]
    recipe: String,
    /// Train on generated demand of this seed instead of a trace
    #[arg(long, value_name = "SEED")]
    generate: Option<u64>,
    /// Train on a data set of `prepare` instead, and try the model on the last fifth of its time
    #[arg(long, value_name = "DIR", conflicts_with_all = ["generate", "recipe"])]
    set: Option<PathBuf>,
    /// Which resource of the data set; may be left out where there is one
    #[arg(long, value_name = "NAME", requires = "set")]
    resource: Option<String>,
    /// Say how far it is in lines of JSON
    #[arg(long)]
    json_progress: bool,
    /// The ONNX file to write [default: target/models/RECIPE.onnx]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seed of weights and order: the same seed and data give the same file
    #[arg(long, default_value_t = Settings::default().seed)]
    seed: u64,
    /// Most passes over the data
    #[arg(long, default_value_t = Settings::default().epochs)]
    epochs: usize,
}

#[derive(Args)]
struct Prepare {
    /// Parquet and CSV tables, usage history of the control plane (.json), answers of Prometheus to range queries (.json), and descriptions of sources, such as a running Prometheus (.toml)
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// The data set's folder, which must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Column of the amount, or several joined by + [default: amount, else requests]
    #[arg(long, value_name = "COLUMN")]
    value: Option<String>,
    /// Resource of rows that do not name one [default: the name of the amount's column, requests if that is `amount`]
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,
    /// Label of Prometheus that names the customer
    #[arg(long, default_value = "customer", value_name = "LABEL")]
    customer_label: String,
    /// Step in seconds [default: the usual distance of two samples, for each resource]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    step_s: Option<u32>,
    /// Add up rows of one step, as of several functions of one customer, instead of averaging them; then none is a duplicate
    #[arg(long)]
    sum: bool,
    /// IANA time zone of the hours and weekdays that are written beside each step
    #[arg(long, default_value = "UTC")]
    zone: String,
}

#[derive(Args)]
struct Evaluate {
    /// Folder with the traces, or one of them
    #[arg(env = "FOREBAY_DATA", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Settings of the traces, as TOML; what they do not say is inferred [default: those of the traces that are known by name]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The report for people, a page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The report for programs
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Replay {
    #[command(flatten)]
    data: DataFolder,
    /// Folder with the committed models and their cards
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// The JSON report
    #[arg(long, default_value = REPORT)]
    out: PathBuf,
    /// Only this data set
    #[arg(long)]
    recipe: Option<String>,
    /// Steps whose errors make the ensemble's simple methods [default: as in the gateway]
    #[arg(long)]
    error_rows: Option<usize>,
}

/// Reads the arguments and does what they say.
pub(crate) fn run() -> Result<(), TrainError> {
    let cli = Cli::parse();
    if cli.end_with_stdin {
        thread::spawn(end_with_stdin);
    }
    let mut stdout = io::stdout();
    let out = &mut Output::new(&mut stdout);
    match cli.command {
        Command::Train(train) => train.run(),
        Command::Prepare(prepare) => prepare.run(out),
        Command::Export { model, out } => export(&model, &out),
        Command::Verify { models, python } => verify_all(models, &python, out),
        Command::Evaluate(evaluate) => evaluate.run(out),
        Command::Replay(replay) => replay.run(out),
        Command::Drift { seed } => drift::print(seed, out),
        Command::Card { model } => print_card(&model, out),
    }
}

fn end_with_stdin() {
    let ended = io::copy(&mut io::stdin(), &mut io::sink());
    eprintln!("forebay-train: standard input has ended ({ended:?})");
    unfinished::exit(1)
}

fn export(model: &Path, out: &Path) -> Result<(), TrainError> {
    let places = ModelPlaces::open(out, &[model.to_owned(), card::path_beside(model)])?;
    let (shape, weights, spec) = from_onnx(model)?;
    let mut card = Card::of(model, &read(model, MODEL_BYTES_MAX)?)?;
    let bytes = to_onnx(&shape, &weights, &spec);
    card.model_sha256 = sha256(&bytes);
    card.model_bytes = bytes.len();
    places.write(&bytes, &card)
}

fn verify_all(models: Vec<PathBuf>, python: &Path, out: &mut Output<'_>) -> Result<(), TrainError> {
    let models = match models.is_empty() {
        true => Recipe::committed()
            .map(|recipe| Path::new("models").join(recipe.model))
            .to_vec(),
        false => models,
    };
    out.line("| model | trainer - tract | tract - onnxruntime |\n|---|---|---|")?;
    for model in models {
        let found = verify(&model, python)?;
        out.line(format_args!(
            "| {} | {:.1e} | {:.1e} |",
            model.display(),
            found.trainer_tract,
            found.tract_onnxruntime
        ))?;
    }
    Ok(())
}

fn print_card(model: &Path, out: &mut Output<'_>) -> Result<(), TrainError> {
    let card = Card::of(model, &read(model, MODEL_BYTES_MAX)?)?;
    out.line(card.to_json(model)?)
}

/// Where a model and its card are written.
struct ModelPlaces {
    path: PathBuf,
    model: Destination,
    card: Destination,
}

// === impl ModelPlaces ===

impl ModelPlaces {
    /// Fails if one of them cannot be written, or is what is read.
    fn open(model: &Path, read: &[PathBuf]) -> Result<Self, TrainError> {
        let places = Self {
            path: model.to_owned(),
            model: Destination::open(model)?,
            card: Destination::open(&card::path_beside(model))?,
        };
        keep_apart(&[&places.model, &places.card], read)?;
        Ok(places)
    }

    fn write(self, bytes: &[u8], card: &Card) -> Result<(), TrainError> {
        let card = card.to_json(&self.path)? + "\n";
        self.model.write(bytes)?;
        self.card.write(card.as_bytes())
    }
}

// === impl Train ===

impl Train {
    fn run(self) -> Result<(), TrainError> {
        let (name, read) = self.reads()?;
        let out = self.out.clone().unwrap_or_else(|| {
            PathBuf::from("target/models")
                .join(name)
                .with_extension("onnx")
        });
        let places = ModelPlaces::open(&out, &read)?;
        let (recipe, data, retraining) = match &self.set {
            Some(set) => {
                let retraining = Retraining::open(set, self.resource.as_deref())?;
                (retraining.recipe.clone(), None, Some(retraining))
            }
            None => {
                let (recipe, data) = self.data()?;
                (recipe, Some(data), None)
            }
        };
        let Some(data) = data.as_ref().or(retraining.as_ref().map(|set| &set.data)) else {
            return Err(TrainError::NoData);
        };
        let settings = Settings {
            seed: self.seed,
            epochs: self.epochs,
            ..Settings::default()
        };
        let progress = match self.json_progress {
            true => Progress::lines(),
            false => Progress::bar(),
        };
        progress.announce(&format!(
            "training on {} series of {}",
            data.series.len(),
            data.source
        ))?;
        let start = Instant::now();
        let (bytes, mut card) = fit(&recipe, data, &settings, &out, &progress)?;
        card.trial = retraining
            .map(|retraining| retraining.trial(&bytes, &out))
            .transpose()?;
        places.write(&bytes, &card)?;
        progress.announce(&format!(
            "{}: {} parameters, {} bytes, validation loss {:.4} (last value: {:.4}), {:.0} s",
            out.display(),
            card.parameters,
            card.model_bytes,
            card.validation_loss,
            card.start_loss,
            start.elapsed().as_secs_f32()
        ))
    }

    /// Name of what is learned, and the files that are learned from.
    fn reads(&self) -> Result<(String, Vec<PathBuf>), TrainError> {
        if let Some(set) = &self.set {
            return Ok((retrain::NAME.to_owned(), prepare::files_of(set)));
        }
        if self.generate.is_some() {
            return Ok((Recipe::generated().name, Vec::new()));
        }
        let recipe = Recipe::named(&self.recipe)?;
        let folder = self.data.folder.as_ref().ok_or(TrainError::NoData)?;
        let read = vec![recipe.path(folder)];
        Ok((recipe.name, read))
    }

    fn data(&self) -> Result<(Recipe, Data), TrainError> {
        if let Some(seed) = self.generate {
            return Ok((Recipe::generated(), Data::generated(seed)));
        }
        let recipe = Recipe::named(&self.recipe)?;
        let folder = self.data.folder.clone().ok_or(TrainError::NoData)?;
        let data = Data::from_trace(&recipe, &folder)?;
        Ok((recipe, data))
    }
}

// === impl Prepare ===

impl Prepare {
    fn run(self, out: &mut Output<'_>) -> Result<(), TrainError> {
        let preparation = Preparation {
            inputs: self.inputs,
            out: self.out,
            value: self.value,
            resource: self.resource,
            customer_label: self.customer_label,
            step_s: self.step_s,
            join: if self.sum { Join::Sum } else { Join::Mean },
            zone: self.zone,
        };
        preparation.run(out)
    }
}

// === impl Evaluate ===

impl Evaluate {
    fn run(self, out: &mut Output<'_>) -> Result<(), TrainError> {
        let folder = self.folder.ok_or(TrainError::NoData)?;
        evaluate::run(
            &folder,
            self.settings.as_deref(),
            self.report.as_deref(),
            self.json.as_deref(),
            out,
        )
    }
}

// === impl Replay ===

impl Replay {
    fn run(self, out: &mut Output<'_>) -> Result<(), TrainError> {
        let folder = self.data.folder.clone().ok_or(TrainError::NoData)?;
        let recipes = match &self.recipe {
            Some(name) => vec![Recipe::named(name)?],
            None => Recipe::committed().to_vec(),
        };
        let read = recipes.iter().flat_map(|recipe| {
            let model = self.models.join(&recipe.model);
            [recipe.path(&folder), card::path_beside(&model), model]
        });
        let report = Destination::open(&self.out)?;
        keep_apart(&[&report], &read.collect::<Vec<_>>())?;
        let mut evaluations = Vec::new();
        for recipe in recipes {
            let model = self.models.join(&recipe.model);
            let bar = progress::bar();
            evaluations.push(replay::replay(
                &recipe,
                &folder,
                &model,
                self.error_rows,
                &bar,
            )?);
        }
        replay::write(&evaluations, &self.out, report, out)
    }
}
