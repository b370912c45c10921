//! The sandbox: the real forecaster.wasm judges a model before anyone signs it.
//!
//! A hostile ONNX file can make the inference library panic, loop or ask for all memory. At a gateway that would stop Envoy's
//! main thread. Here it happens under wasmtime with bounded fuel, memory and time, and in the same code with the same limits
//! that the gateways run: what passes here loads there. A check written a second time in this process was the worse
//! alternative: it would drift from what gateways do, and a panic would take the control plane down.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use wasmtime::{
    Config, Engine, Linker, Module, OptLevel, RegallocAlgorithm, Store, StoreLimits,
    StoreLimitsBuilder, Trap, TypedFunc,
};

/// The function of forecaster.wasm that judges: (pointer, length) of a file -> (pointer, length) of a JSON verdict.
const CHECK_EXPORT: &str = "forebay_check_model";
/// Functions of forecaster.wasm that give memory, in order of preference.
const ALLOCATE_EXPORTS: [&str; 2] = ["proxy_on_memory_allocate", "malloc"];
/// Runs static constructors.
const INITIALIZE_EXPORT: &str = "_initialize";

/// Longest verdict that is read.
const MAX_VERDICT_BYTES: usize = 1 << 20;

/// What judging one model may take.
#[derive(Clone, Copy, Debug)]
pub struct SandboxLimits {
    /// Memory. A gateway's VM may have 1 GiB; no honest model needs a quarter of it.
    pub memory_bytes: usize,
    /// Units of fuel, about one per instruction: a hundred times what an honest model needs.
    pub fuel: u64,
    /// Time after which the sandbox is stopped, whatever it does.
    pub time: Duration,
}

/// A judge of models.
#[derive(Debug)]
pub struct Sandbox {
    path: PathBuf,
    limits: SandboxLimits,
    compiled: OnceLock<Result<(Engine, Module), String>>,
    /// One model at a time: stopping a late one interrupts all that run in the engine, and each may take much memory.
    turn: Mutex<()>,
}

/// What the forecaster says of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// True if gateways would load it.
    pub ok: bool,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whatever else the forecaster found out: step, window, horizons, cost.
    #[serde(flatten)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// The plugin cannot be used.
    #[error("cannot use the forecaster {path}: {reason}")]
    Forecaster {
        /// The .wasm file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model made the sandbox trap.
    #[error("the model makes the forecaster trap ({0}): it must not reach a gateway")]
    Trap(String),
    /// The model takes too long.
    #[error("judging the model takes more than {limit}: it must not reach a gateway")]
    TooLong {
        /// Which bound.
        limit: &'static str,
    },
    /// The forecaster answered with something else.
    #[error("the forecaster gave no readable verdict: {0}")]
    Unreadable(String),
}

// === impl SandboxLimits ===

impl Default for SandboxLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            fuel: 20_000_000_000,
            time: Duration::from_secs(60),
        }
    }
}

// === impl Sandbox ===

impl Sandbox {
    /// A sandbox around this forecaster.wasm. Nothing is read before the first check.
    #[must_use]
    pub fn new(forecaster: &Path, limits: SandboxLimits) -> Self {
        Self {
            path: forecaster.to_owned(),
            limits,
            compiled: OnceLock::new(),
            turn: Mutex::new(()),
        }
    }

    /// Lets the forecaster judge a model file. Takes seconds the first time, when the plugin is compiled: call it on a thread
    /// that may block.
    ///
    /// # Errors
    /// When the model breaks the sandbox, or there is no forecaster.
    pub fn check(&self, file: &[u8]) -> Result<Verdict, SandboxError> {
        let compiled = self.compiled.get_or_init(|| compile(&self.path));
        let (engine, module) = compiled
            .as_ref()
            .map_err(|reason| SandboxError::Forecaster {
                path: self.path.clone(),
                reason: reason.clone(),
            })?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let timer = engine.clone();
        let time = self.limits.time;
        let watch = std::thread::spawn(move || {
            if stopped
                .recv_timeout(time)
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                timer.increment_epoch();
            }
        });
        let result = self.run(engine, module, file);
        drop(stop);
        drop(watch.join());
        result
    }

    fn run(&self, engine: &Engine, module: &Module, file: &[u8]) -> Result<Verdict, SandboxError> {
        let unusable = |reason: String| SandboxError::Forecaster {
            path: self.path.clone(),
            reason,
        };
        let limits = StoreLimitsBuilder::new()
            .memory_size(self.limits.memory_bytes)
            .instances(1)
            .build();
        let mut store = Store::new(engine, limits);
        store.limiter(|limits: &mut StoreLimits| limits);
        store
            .set_fuel(self.limits.fuel)
            .map_err(|error| unusable(error.to_string()))?;
        store.set_epoch_deadline(1);
        let mut linker = Linker::new(engine);
        super::stub::add(&mut linker).map_err(|error| unusable(error.to_string()))?;
        // Judging a model needs no other host: each import does nothing and says 0, which is "ok".
        linker
            .define_unknown_imports_as_default_values(&mut store, module)
            .map_err(|error| unusable(error.to_string()))?;
        let instance = linker
            .instantiate(&mut store, module)
            .map_err(|error| broken(&error))?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, INITIALIZE_EXPORT) {
            initialize
                .call(&mut store, ())
                .map_err(|error| broken(&error))?;
        }
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or_else(|| unusable("it exports no memory".to_owned()))?;
        let allocate: TypedFunc<u32, u32> = ALLOCATE_EXPORTS
            .iter()
            .find_map(|name| instance.get_typed_func(&mut store, name).ok())
            .ok_or_else(|| unusable("it exports no way to give it memory".to_owned()))?;
        let check: TypedFunc<(u32, u32), u64> = instance
            .get_typed_func(&mut store, CHECK_EXPORT)
            .map_err(|_| {
            unusable(format!(
                "it does not export {CHECK_EXPORT}: use the forecaster.wasm of the same release"
            ))
        })?;
        let length = u32::try_from(file.len())
            .map_err(|_| unusable("the model is larger than 4 GiB".to_owned()))?;
        let pointer = allocate
            .call(&mut store, length)
            .map_err(|error| broken(&error))?;
        memory
            .write(&mut store, pointer as usize, file)
            .map_err(|error| SandboxError::Trap(error.to_string()))?;
        let packed = check
            .call(&mut store, (pointer, length))
            .map_err(|error| broken(&error))?;
        let start = usize::try_from(packed >> 32).unwrap_or(usize::MAX);
        let length = usize::try_from(packed & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        if length > MAX_VERDICT_BYTES {
            return Err(SandboxError::Unreadable(format!("{length} bytes long")));
        }
        let mut verdict = vec![0; length];
        memory
            .read(&store, start, &mut verdict)
            .map_err(|error| SandboxError::Unreadable(error.to_string()))?;
        serde_json::from_slice(&verdict)
            .map_err(|error| SandboxError::Unreadable(error.to_string()))
    }
}

fn compile(path: &Path) -> Result<(Engine, Module), String> {
    let file = std::fs::read(path).map_err(|error| {
        format!("{error}; give its place with --forecaster-wasm (`cargo xtask wasm` builds target/wasm/forecaster.wasm)")
    })?;
    let mut config = Config::new();
    config.consume_fuel(true).epoch_interruption(true);
    // The module judges a few models in its life: what counts is how fast it is compiled.
    config
        .cranelift_opt_level(OptLevel::None)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
    let engine = Engine::new(&config).map_err(|error| error.to_string())?;
    let module = Module::new(&engine, file).map_err(|error| format!("{error:#}"))?;
    Ok((engine, module))
}

fn broken(error: &wasmtime::Error) -> SandboxError {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => SandboxError::TooLong {
            limit: "the instructions allowed",
        },
        Some(Trap::Interrupt) => SandboxError::TooLong {
            limit: "the time allowed",
        },
        Some(trap) => SandboxError::Trap(trap.to_string()),
        None => SandboxError::Trap(format!("{error:#}")),
    }
}
