//! Work that gives way to all other threads.
//!
//! Each such piece has a thread of its own, because whoever has given way once can hold no lock without all others giving way with it:
//! the work must not take one that a sync needs.

use super::StoreError;

/// Priority of such a thread, as of `nice`.
const NICE: i32 = 19;

/// Does `work` by a thread of this name that lets all others go first, and waits for it.
///
/// # Errors
/// When the system gives no thread, or the work panics.
pub(crate) fn giving_way<T: Send>(
    name: &str,
    work: impl FnOnce() -> T + Send,
) -> Result<T, StoreError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread
            .spawn_scoped(scope, || {
                give_way();
                work()
            })
            .map_err(|error| StoreError::Write(format!("no thread for the {name}: {error}")))?;
        thread
            .join()
            .map_err(|_| StoreError::Write(format!("the thread for the {name} has panicked")))
    })
}

fn give_way() {
    // On Linux a thread has a priority of its own. One that cannot be lowered only costs time.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "what gives way runs at the priority of all else");
    }
}
