//! Is this a reply at all, and to our request?
//!
//! Nothing of a reply is applied before this has passed. The server is authenticated by the cluster that the operator configured, but
//! bytes get lost, versions differ, and a proxy in between may answer for it.

use forebay_wire::sync::{SyncErrorCode, SyncReply};
use prost::Message;

use super::session::InFlight;
use crate::host::HttpAnswer;
use crate::limits::{
    ALLOCATIONS_MOST, GRANTS_MOST, POLICY_BYTES_MOST, POLICY_CUSTOMERS_MOST, STEP_USAGE_MOST,
    SYNC_BYTES_MOST, WINDOW_STEPS_MOST, WINDOWS_IN_REPLY_MOST,
};

/// Why a sync failed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReplyError {
    /// There was no answer within the timeout.
    #[error("the control plane did not answer; is it running, and does the cluster point to it?")]
    NoAnswer,
    /// The request was refused before it was read.
    #[error("the control plane answered with status {status}{hint}")]
    Status {
        /// HTTP status.
        status: u16,
        /// What to do about it.
        hint: &'static str,
    },
    /// The body is too long.
    #[error("the reply has {bytes} bytes, more than {SYNC_BYTES_MOST}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The body is not a reply.
    #[error(
        "the reply cannot be decoded ({reason}); do control plane and plugin have the same version?"
    )]
    Undecodable {
        /// What the decoder says.
        reason: String,
    },
    /// It answers another request.
    #[error("the reply is to request {found}, not {expected}")]
    OtherRequest {
        /// Sequence in the reply.
        found: u64,
        /// Sequence of the request.
        expected: u64,
    },
    /// A list is too long.
    #[error("the reply has {found} {what}, more than {most}")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// The control plane refused and says why.
    #[error("the control plane refused: {message} ({code:?})")]
    Refused {
        /// Its code.
        code: SyncErrorCode,
        /// Its message for the operator.
        message: String,
    },
}

/// Longest message of a refusal that is repeated in our log.
const MESSAGE_CHARS_MOST: usize = 300;

/// Reads and checks the answer to `in_flight`.
///
/// # Errors
/// Why nothing of it may be applied.
pub fn parse(answer: &HttpAnswer, in_flight: &InFlight) -> Result<SyncReply, ReplyError> {
    if answer.status == 0 {
        return Err(ReplyError::NoAnswer);
    }
    if answer.body.len() > SYNC_BYTES_MOST {
        return Err(ReplyError::TooLong {
            bytes: answer.body.len(),
        });
    }
    let reply = match SyncReply::decode(answer.body.as_slice()) {
        Ok(reply) => reply,
        Err(_) if answer.status != 200 => return Err(status_error(answer.status)),
        Err(error) => {
            return Err(ReplyError::Undecodable {
                reason: error.to_string(),
            });
        }
    };
    if let Some(error) = &reply.error {
        let message = error
            .message
            .chars()
            .filter(|c| !c.is_control())
            .take(MESSAGE_CHARS_MOST)
            .collect();
        let code = SyncErrorCode::try_from(error.code).unwrap_or(SyncErrorCode::Malformed);
        return Err(ReplyError::Refused { code, message });
    }
    if answer.status != 200 {
        return Err(status_error(answer.status));
    }
    if reply.sequence != in_flight.sequence || reply.sent_at_us != in_flight.sent_at_us {
        return Err(ReplyError::OtherRequest {
            found: reply.sequence,
            expected: in_flight.sequence,
        });
    }
    check_lengths(&reply)?;
    Ok(reply)
}

fn check_lengths(reply: &SyncReply) -> Result<(), ReplyError> {
    let policy = reply.policy.as_ref();
    let longest_window = reply
        .windows
        .iter()
        .map(|window| window.usage.len())
        .max()
        .unwrap_or(0);
    let resources = forebay_core::limits::MAX_RESOURCES;
    for (what, found, most) in [
        ("grants", reply.grants.len(), GRANTS_MOST),
        ("pool grants", reply.pools.len(), resources),
        ("allocations", reply.allocations.len(), ALLOCATIONS_MOST),
        ("windows", reply.windows.len(), WINDOWS_IN_REPLY_MOST),
        ("steps in a window", longest_window, WINDOW_STEPS_MOST),
        ("step usages", reply.step_usage.len(), STEP_USAGE_MOST),
        (
            "bytes of policy",
            policy.map_or(0, |policy| policy.compiled.len()),
            POLICY_BYTES_MOST,
        ),
        (
            "policy customers",
            policy.map_or(0, |policy| policy.customers.len()),
            POLICY_CUSTOMERS_MOST,
        ),
    ] {
        if found > most {
            return Err(ReplyError::TooMany { what, found, most });
        }
    }
    Ok(())
}

fn status_error(status: u16) -> ReplyError {
    let hint = match status {
        401 | 403 => {
            ": neither FOREBAY_GATEWAY_TOKEN nor the certificate of the cluster is what the control plane expects"
        }
        404 => ": the cluster does not lead to a control plane",
        409 => ": something between here and the control plane refused it",
        503 => ": Envoy says so itself when nothing listens where the cluster points to",
        _ => "",
    };
    ReplyError::Status { status, hint }
}
