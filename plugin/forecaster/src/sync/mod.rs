//! The conversation with the control plane.

mod apply;
mod reply;
mod request;
mod session;
mod windows;

pub use apply::{Applied, Inbox};
pub use reply::parse;
pub use request::Outbox;
pub use session::{InFlight, Session};
pub use windows::Windows;
