//! The one place every host call passes, where a test decides what becomes of it.

use std::fmt;
use std::sync::Arc;

/// proxy-wasm's answers to a host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// There is no such thing.
    NotFound = 1,
    /// The caller's mistake.
    BadArgument = 2,
    /// The compare-and-swap found another version.
    CasMismatch = 8,
    /// The host's mistake.
    InternalFailure = 10,
}

/// A host call about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCall {
    /// The worker that makes it.
    pub worker: usize,
    /// The import's name, such as `proxy_set_shared_data`.
    pub name: &'static str,
}

/// What becomes of a host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out.
    Proceed,
    /// It is not carried out and answers this.
    Fail(Status),
    /// The VM traps instead.
    Trap,
}

/// Decides on host calls; it may block, which is how schedules are explored.
#[derive(Clone)]
pub struct Gate(Arc<dyn Fn(HostCall) -> Fate + Send + Sync>);

// === impl HostCall ===

impl HostCall {
    /// Whether other workers can notice the call.
    pub fn is_shared(&self) -> bool {
        self.name.ends_with("_shared_data")
    }
}

// === impl Gate ===

impl Gate {
    /// A gate that asks `decide`.
    pub fn new(decide: impl Fn(HostCall) -> Fate + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// A gate that lets everything pass.
    pub fn open() -> Self {
        Self::new(|_| Fate::Proceed)
    }

    pub(crate) fn decide(&self, call: HostCall) -> Fate {
        (self.0)(call)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Gate")
    }
}
