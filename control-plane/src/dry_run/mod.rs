//! A candidate policy beside the one in force, on the usage that gateways report: what each would admit and deny, counted and not enforced.
//!
//! Both are run by the same model ([`forebay_simulator::pool::what_if`]), one step of usage history after the other, so that what differs
//! is the policies' alone. Beside them stands
//! what gateways have counted under the policy in force: how far the model is from that is its own error, and differences that are smaller
//! say nothing.
//!
//! Nothing of it reaches a gateway: it reads what is in the state anyway, on a thread of its own. To compare the candidate with what
//! gateways counted was the worse alternative: the
//! model's error would be read as the effect of the policy.

mod counting;
mod listed;
mod side;
mod view;
mod worker;

pub(crate) use counting::{Counting, Expecting, Seen, Treated};
pub(crate) use listed::Listed;
pub(crate) use side::Reading;
pub(crate) use view::LINES_MOST;
pub use view::{
    CountedView, CustomerDryRun, DryRunQuery, DryRunView, LoanDryRun, ResourceDryRun, TallyView,
};
pub(crate) use worker::begin;
