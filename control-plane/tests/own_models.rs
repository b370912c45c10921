//! Models that Forebay's trainer has not made: the guide's example scripts, judged by the real forecaster.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

use forebay_control_plane::models::{Sandbox, SandboxLimits};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Between onnxruntime, which has computed the golden vector, and the forecaster; relative to the value where that is above 1.
const DIFFERENCE_MAX: f64 = 1e-4;

/// What these tests need and `make setup` and `make wasm` provide.
struct Tools {
    python: PathBuf,
    forecaster: PathBuf,
    examples: PathBuf,
}

fn from_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn skipped(what: &str) {
    eprintln!("\n*** SKIPPED: {what}, so models of others were NOT tested ***\n");
}

fn text(output: &Output) -> String {
    let said = [&output.stdout, &output.stderr];
    said.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

// === impl Tools ===

impl Tools {
    fn find() -> Option<Self> {
        let place = |variable: &str, path: &str| {
            std::env::var_os(variable).map_or_else(|| from_root(path), PathBuf::from)
        };
        let tools = Self {
            python: place("FOREBAY_PYTHON", ".tools/venv/bin/python"),
            forecaster: place("FOREBAY_FORECASTER_WASM", "target/wasm/forecaster.wasm"),
            examples: from_root("model-export/examples"),
        };
        if !tools.forecaster.exists() {
            skipped("forecaster.wasm is missing (`cargo xtask wasm`)");
            return None;
        }
        match tools.python(&["-c", "import onnx, onnxruntime"]) {
            Some(output) if output.status.success() => Some(tools),
            _ => {
                skipped("there is no Python with onnx and onnxruntime (`cargo xtask setup`)");
                None
            }
        }
    }

    fn python(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new(&self.python);
        // Beside the examples it would leave a folder in the checkout.
        command.env("PYTHONDONTWRITEBYTECODE", "1").args(arguments);
        command.output().ok()
    }

    /// Runs an example as the guide says.
    fn example(&self, script: &str, out: &Path) {
        let script = self.examples.join(script);
        let arguments = [&script, Path::new("--out"), out].map(|path| path.to_str().unwrap());
        let output = self.python(&arguments).unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// `forebay model check`: the verdict, or what is said against the model.
    fn check(&self, model: &Path) -> Result<Value, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["model", "check"])
            .arg(model)
            .arg("--forecaster-wasm")
            .arg(&self.forecaster)
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    fn assert_agrees_with_onnxruntime(&self, model: &Path) {
        let verdict = self.check(model).unwrap();
        assert_eq!(verdict["ok"], true, "{verdict}");
        let difference = verdict["facts"]["golden_difference"].as_f64().unwrap();
        assert!(difference < DIFFERENCE_MAX, "{verdict}");
    }
}

#[test]
fn a_model_made_with_onnx_alone_forecasts_in_the_forecaster_as_in_onnxruntime() {
    let Some(tools) = Tools::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("own.onnx");
    tools.example("bring_your_own.py", &model);
    tools.assert_agrees_with_onnxruntime(&model);
}

#[test]
fn a_network_trained_with_torch_forecasts_in_the_forecaster_as_in_onnxruntime() {
    let Some(tools) = Tools::find() else { return };
    let torch = tools.python(&["-c", "import torch"]).unwrap();
    if !torch.status.success() {
        eprintln!(
            "\n*** SKIPPED: this Python has no torch, so bring_your_own_torch.py was NOT tested; name one that has with FOREBAY_PYTHON ***\n"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("own.onnx");
    tools.example("bring_your_own_torch.py", &model);
    tools.assert_agrees_with_onnxruntime(&model);
}

#[test]
fn a_model_with_a_mistake_is_refused_with_what_is_wrong() {
    let Some(tools) = Tools::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = from_root("control-plane/tests/own_models/altered.py");
    let arguments = [&script, &tools.examples, folder.path()].map(|path| path.to_str().unwrap());
    let output = tools.python(&arguments).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    // The command asks the same judge, and would compile the forecaster for each file anew.
    let sandbox = Sandbox::new(&tools.forecaster, SandboxLimits::default());
    let verdict = |name: &str| {
        let path = folder.path().join(name).with_extension("onnx");
        sandbox.check(&std::fs::read(path).unwrap()).unwrap()
    };
    for (name, says) in [
        ("no_calendar", ["calendar", "missing"]),
        ("rank", ["`usage`", "3 dimensions"]),
        (
            "no_metadata",
            ["metadata_props", "forebay.contract_version"],
        ),
        ("nan", ["forebay.golden_output", "cannot be read"]),
        ("wrong", ["golden", "differ"]),
    ] {
        let verdict = verdict(name);
        let says_all = says.iter().all(|word| verdict.message.contains(word));
        assert!(!verdict.ok && says_all, "{name}: {verdict:?}");
    }
    // What is told of the difference is what it is.
    for (name, range) in [("good", 0.0..DIFFERENCE_MAX), ("near", 4e-4..6e-4)] {
        let verdict = verdict(name);
        let difference = verdict.facts["golden_difference"].as_f64().unwrap();
        assert!(
            verdict.ok && range.contains(&difference),
            "{name}: {verdict:?}"
        );
    }
}
