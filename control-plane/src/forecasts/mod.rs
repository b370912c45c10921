//! Forecasts of the control plane: each customer, each resource and each group of customers, from five minutes to a week ahead.
//!
//! Gateways forecast one step ahead, because that is how far a shadow bucket needs to see. Whoever operates a fleet, or hands out capacity, asks how
//! much will be wanted in the next hour or on the next day, of a tier or of a whole resource. For a horizon two things are forecast, as quantiles: the mean rate
//! within it, which capacity that can wait is sized by and which adds up over customers, and the rate of its peak step, which capacity that cannot wait is
//! sized by. The rate of the step at the far end was the worse alternative: nobody provides for one minute a week ahead.
//!
//! A forecast is a function of the usage history up to a closed step (`forecast`), so nothing of it is stored and a restart loses only the scores. It is made
//! in a thread of its own, at the lowest priority, from tapes in memory (`known`) that a survey of the store fills (`survey`) and closed steps make longer.
//! Customers that are not among the largest are forecast together, as `rest`.

mod book;
mod cells;
mod forecast;
mod groups;
mod horizon;
mod known;
mod pass;
mod score;
mod survey;
mod tape;
mod thread;
mod view;
mod worker;

pub(crate) use book::{Book, Desk, Tally};
pub(crate) use groups::{ContractGroups, Grouping, Linked};
pub(crate) use known::ClosedStep;
pub(crate) use survey::Pace;
pub(crate) use thread::begin;
pub(crate) use view::Wanted;
pub use view::{
    ForecastScore, ForecastsQuery, ForecastsView, HorizonForecast, HorizonView, OddsView,
    QuantilesView, SubjectForecasts,
};
pub use worker::{Limits, Worker};
