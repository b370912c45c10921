//! Usage history leaves and enters by Prometheus' protocols: remote write out, `query_range` in. What else was measured comes by remote write too.
//!
//! Many databases of time series speak both, so one protocol each way serves all of them. Only what crosses the network is here: what
//! a step of history is comes from `plane`, and what an import does with an answer is in `cli`.
//!
//! Usage in `/metrics` was the worse alternative: a scrape reads a moment and not a step, two scrapes in one step count it twice, and a
//! series per customer would have to be answered to everybody who may scrape.

mod endpoint;
mod message;
mod outbox;
mod query;
mod received;
mod sender;
#[cfg(test)]
mod sender_tests;

pub(crate) use endpoint::{Answer, Bounds, Connection};
pub use endpoint::{BadEndpoint, Endpoint, Unreachable};
pub(crate) use message::{Label, TimeSeries};
#[cfg(test)]
pub(crate) use message::{TimedValue, WriteRequest};
pub use outbox::{Counts, DropReason, Outbox, Sample, StepSamples};
pub use query::{QueriedSeries, Query, QueryError, query_range};
pub use received::BadWrite;
pub(crate) use received::{COMPRESSED_BYTES_MOST, SAMPLES_MOST, each_series};
pub use sender::RemoteWrite;
