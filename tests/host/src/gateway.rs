//! One gateway: the shared data, metrics and clock that its workers have in common.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, bail};
use wasmtime::{Config, Engine, Module};

use crate::clock::VirtualClock;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::shared_data::SharedData;
use crate::worker::Worker;

/// A compiled module.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) engine: Engine,
    pub(crate) module: Module,
}

/// What the workers of one Envoy process share.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The namespace of the plugin's `vm_id`.
    pub shared: SharedData,
    /// Process-wide metrics.
    pub metrics: Metrics,
    /// Virtual time.
    pub clock: VirtualClock,
    environment: Vec<(String, String)>,
    started: usize,
}

// === impl Plugin ===

impl Plugin {
    /// A shipped module, `target/wasm/NAME.wasm`, compiled once for all tests of a process.
    pub fn shipped(name: &str) -> Result<Self> {
        static COMPILED: OnceLock<Mutex<HashMap<String, Plugin>>> = OnceLock::new();
        let mut compiled = COMPILED.get_or_init(Mutex::default).lock().unwrap();
        if let Some(plugin) = compiled.get(name) {
            return Ok(plugin.clone());
        }
        let path = target_dir().join("wasm").join(format!("{name}.wasm"));
        if !path.is_file() {
            bail!("{} is missing: run `make wasm`", path.display());
        }
        let plugin = Self::from_file(&path)?;
        compiled.insert(name.to_owned(), plugin.clone());
        Ok(plugin)
    }

    /// Any module.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut config = Config::new();
        // Fuel bounds a call that would never end, and it counts instructions the same way in every run.
        config.consume_fuel(true);
        let engine = Engine::new(&config).map_err(into_anyhow)?;
        let module = Module::from_file(&engine, path)
            .map_err(into_anyhow)
            .with_context(|| format!("cannot compile {}", path.display()))?;
        Ok(Self { engine, module })
    }

    /// The names of the module's exports.
    pub fn exports(&self) -> Vec<String> {
        self.module
            .exports()
            .map(|export| export.name().to_owned())
            .collect()
    }
}

// === impl Gateway ===

impl Gateway {
    /// A gateway that was just started.
    pub fn new() -> Self {
        Self {
            shared: SharedData::default(),
            metrics: Metrics::default(),
            clock: VirtualClock::new(),
            environment: Vec::new(),
            started: 0,
        }
    }

    /// With an environment variable that the plugin sees.
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts a further worker with this plugin configuration. A refused configuration is an error with the log.
    pub fn worker(&mut self, plugin: &Plugin, configuration: &str) -> Result<Worker> {
        self.worker_behind(plugin, configuration, Gate::open())
    }

    /// Starts a further worker whose host calls pass `gate` from the first one on.
    pub fn worker_behind(
        &mut self,
        plugin: &Plugin,
        configuration: &str,
        gate: Gate,
    ) -> Result<Worker> {
        let number = self.started;
        self.started += 1;
        Worker::start(plugin, self, number, configuration, gate)
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}

/// wasmtime has an error type of its own; its cause chain must not be lost.
pub(crate) fn into_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

fn target_dir() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_dir.ancestors().nth(2).unwrap_or(crate_dir);
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
