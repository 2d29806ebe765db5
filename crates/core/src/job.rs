//! Jobs: one unit of work in one stage each.

use std::fmt;
use std::num::NonZero;
use std::time::Duration;

use crate::gather::{Cursor, GatherKey};
use crate::pool::WorkerKey;
use crate::request::{Request, RequestKey};
use crate::rules::StageRules;
use crate::slab::Key;
use crate::time::Time;
use crate::timers::TimerKey;
use crate::topology::StageId;

/// A request's public id, a UUIDv7 whose last 20 bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

/// A job's public id: the id of its request, with the job's number within the request in the last 20 bits. So each is a
/// UUIDv7 of its own, and the kinship shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u128);

impl RequestId {
    /// How many bits at the end number the jobs.
    pub const JOB_BITS: u32 = 20;

    /// The id of this request's job number `ordinal`.
    pub fn job(self, ordinal: u32) -> JobId {
        JobId(self.0 | u128::from(ordinal & ((1 << Self::JOB_BITS) - 1)))
    }
}

fn uuid(id: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let part = |shift: u32, bits: u32| (id >> shift) & ((1 << bits) - 1);
    let (a, b, c, d, e) = (part(96, 32), part(80, 16), part(64, 16), part(48, 16), part(0, 48));
    write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid(self.0, f)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid(self.0, f)
    }
}

/// Names a job, for as long as it lives. The payload type does not matter to the name.
pub type JobKey = Key<AnyJob>;

/// Stands for a job of whatever payload in a [`JobKey`].
#[derive(Debug)]
pub struct AnyJob;

/// Names a function that calls are of, where a stage's workers call functions that they are sent. Chosen by the
/// dispatcher's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub NonZero<u32>);

/// What a request says of its first job, beside the rules of the stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How many tries may follow the first. `None`: as the stage says.
    pub retries: Option<u32>,
    /// How long one try may take, from its start. `None`: as the stage says.
    pub timeout: Option<Duration>,
    /// Which function it is a call of. How quick a function is, is known of each by itself.
    pub function: Option<FunctionId>,
    /// Of the jobs that wait for one stage, those with the highest number go first.
    pub priority: i8,
    /// Of those with one priority, the flows go in turn.
    pub flow: u16,
}

impl Terms {
    /// How many tries may follow the first.
    pub(crate) fn retries(&self, rules: &StageRules) -> u32 {
        self.retries.unwrap_or(rules.retries)
    }

    /// What goes for the job after this one.
    pub(crate) fn of_next(&self) -> Terms {
        Terms { priority: self.priority, flow: self.flow, ..Terms::default() }
    }

    /// How long one try may take.
    pub(crate) fn timeout(&self, rules: &StageRules) -> Duration {
        self.timeout.unwrap_or(rules.timeout)
    }
}

/// One unit of work in one stage.
#[derive(Debug)]
pub(crate) struct Job<P> {
    pub(crate) request: RequestKey,
    pub(crate) payload: P,
    pub(crate) stage: StageId,
    /// Which of its request's jobs it is, from 1.
    pub(crate) ordinal: u32,
    /// The fence: how often it was handed out.
    pub(crate) attempt: u32,
    /// Executions that started.
    pub(crate) tries: u32,
    /// Whether the payload is what the client sent.
    pub(crate) from_client: bool,
    /// The hash of its key, where equal keys go to the same worker; 0 is none.
    pub(crate) affinity: u32,
    /// How much it weighs, where jobs have weights. In few bits, since many jobs wait: the most stands for all that is more.
    pub(crate) weight: u16,
    pub(crate) terms: Terms,
    /// When it came into its stage.
    pub(crate) entered: Time,
    /// Where on its way it is.
    pub(crate) cursor: Cursor,
    pub(crate) place: Place,
}

/// Where a job is. Exactly one of these at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not in its stage's queue yet: its owner has been asked for its key and its weight.
    Assessed,
    /// In its stage's queue, between these two.
    Queued { previous: Option<JobKey>, next: Option<JobKey> },
    /// Waiting for its next try.
    Delayed(TimerKey<Due>),
    /// With a worker, which may have begun it.
    Running(WorkerKey),
    /// With a worker, which does another first.
    Ahead(WorkerKey),
}

/// What a timer of the dispatcher is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A request's deadline.
    Deadline(Key<Request>),
    /// The timeout of the try that a worker is at.
    Try(WorkerKey),
    /// The end of the patience with a worker that was told to stop.
    Patience(WorkerKey),
    /// The end of the patience with a worker that has jobs ahead and does not come to them.
    Overdue(WorkerKey),
    /// The next try of a job.
    Retry(JobKey),
    /// The end of the wait for more jobs, where a worker takes several as one.
    Batch(StageId),
    /// A look at whether a pool is large enough.
    Grow(StageId),
    /// A look at whether a pool is too large.
    Shrink(StageId),
    /// The timeout of a scatter.
    Scatter(GatherKey),
    /// The end of the drain.
    DrainEnd,
}
