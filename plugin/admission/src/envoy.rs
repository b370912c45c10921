//! The filter inside Envoy: the callbacks that Envoy calls, and the host calls that the filter makes.
//!
//! The SDK has a dispatcher for the callbacks. It is not used: it keeps a boxed context for each stream in a hash map, so that it must
//! also be told of the end of each stream, and each callback costs about 0.4 us of Envoy's time. Measured on one worker (CPU of the worker
//! thread per request, above a listener without filter): all callbacks of the SDK 3.3 us; three callbacks of our own and the look-up of a
//! header 3.1 us, of which the look-up is 0.9. See [`callbacks`] for the price: the callbacks have names of their own, which
//! `cargo xtask wasm` turns into those of the ABI.
//!
//! The SDK is used for what happens at most once in a while: start, configuration, timer, metrics, log, allocation.

mod callbacks;
mod imports;
mod proxy;
mod roots;
