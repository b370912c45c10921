//! Models from the usage of one's own customers: when to train, the trainer as a process of its own, and what becomes of what it makes.
//!
//! Training wants minutes of all processors, much memory, and a deep learning library. Beside the process that hands out tokens it would be
//! one more way for that to stand still, so it is another program, with limits, at the lowest priority, that this one may end at any time.

mod covariate_files;
mod desk;
mod job;
mod keeper;
mod lines;
mod options;
mod program;
mod run;
mod schedule;
mod trial;
mod usage_files;

pub(crate) use covariate_files::CovariateFiles;
pub use desk::{Desk, RunningView, Stage, TrainingView};
pub use job::{Job, JobError, JobLimits};
pub use keeper::keep_group;
pub use options::{Chosen, TrainingOptions, TrainingOptionsError};
pub use program::{Program, Unusable};
pub use run::Training;
pub use schedule::{Cause, Schedule};
pub(crate) use usage_files::UsageFiles;
