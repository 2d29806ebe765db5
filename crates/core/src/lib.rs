//! Jobs, pipelines, queues, pools and requests as plain state machines.
//!
//! Every fate of a job is decided here: who runs it, when it is tried again, when it is given up, and what its client is
//! told. [`Dispatcher`] takes an input and the time, and puts out [`Action`]s for its owner to carry out.
//!
//! What this crate will never do: no I/O, no clock, no threads, no locks, no randomness, no serialization. Time and random
//! numbers are arguments, payloads are a type parameter that is never looked into, and the same inputs give the same
//! actions, so that a simulation can replay any history.
//!
//! The parts, each with one owner:
//!
//! - [`topology`]: the immutable plan, stages and pipelines and their rules;
//! - `queue`: the jobs that wait, stage by stage;
//! - `pool`: the workers of each stage, and all that is in flight;
//! - `request`: who waits for an answer, and until when;
//! - `gather`: how far along its way each job is, and what the branches of a scatter have come to;
//! - [`dispatcher`]: joins the three, and is the only part that others call.

pub mod budget;
pub mod dispatcher;
mod gather;
mod job;
pub mod outcome;
mod pool;
pub mod problem;
mod queue;
mod request;
mod rules;
pub mod slab;
pub mod state;
pub mod time;
pub mod timers;
pub mod topology;

pub use budget::{Budget, Reservation};
pub use dispatcher::{
    Action, Assessment, Cover, Dispatcher, Landed, Refused, Stop, Submission, Totals, Withdrawal, fallback_or,
};
pub use gather::{GatherParts, Part, Payloads};
pub use job::{FunctionId, JobId, JobKey, RequestId, Terms};
pub use outcome::{Answer, Failure, Loss, Outcome, Reply};
pub use pool::{StageCounts, WorkerKey};
pub use problem::{Cause, Code, Problem};
pub use request::{FallbackOn, RequestKey};
pub use rules::{Batch, OnCancel, RetryOn, Scale, StageRules};
pub use time::Time;
pub use topology::{OnFailure, Over, Path, Scatter, StageId, Step, Topology};
