//! What a request waits for inside: the branches of a scatter, until all of them have ended.

use crate::job::{Due, JobKey, Terms};
use crate::problem::Problem;
use crate::request::RequestKey;
use crate::slab::{Key, Slab};
use crate::timers::TimerKey;
use crate::topology::{Path, Topology};

/// Names a gather, for as long as it waits.
pub(crate) type GatherKey = Key<AnyGather>;

/// Stands for a gather of whatever payload in a [`GatherKey`].
#[derive(Debug)]
pub(crate) struct AnyGather;

/// All gathers of a dispatcher.
pub(crate) type Gathers<P> = Slab<Gather<P>, AnyGather>;

/// How far along its way a job or a gather is. All it takes to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) path: Path,
    /// Which step of the path it is at.
    pub(crate) step: u32,
    /// Gotos that led here.
    pub(crate) hops: u32,
    /// Who waits for the end of the path: that branch of that gather, or else the client.
    pub(crate) within: Option<(GatherKey, u32)>,
}

impl Cursor {
    /// The same way, one step on.
    pub(crate) fn next(self) -> Cursor {
        Cursor { step: self.step + 1, ..self }
    }
}

/// What serves a request, or one of its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing yet.
    Nothing,
    /// A job.
    Job(JobKey),
    /// Branches of a scatter.
    Gather(GatherKey),
}

/// One branch of a scatter.
#[derive(Debug)]
pub(crate) enum Branch<P> {
    /// It has not begun: so many others have that it waits its turn.
    Waiting(P),
    /// It is on its way.
    Begun(Work),
    /// It came to a value.
    Value(P),
    /// It came to none, and the others go on.
    Failed(Box<Problem>),
}

impl<P> Branch<P> {
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Branch::Value(_) | Branch::Failed(_))
    }

    /// What serves it.
    pub(crate) fn work(&self) -> Option<Work> {
        match self {
            Branch::Begun(work) => Some(*work),
            Branch::Waiting(_) | Branch::Value(_) | Branch::Failed(_) => None,
        }
    }
}

/// A scatter on its way.
#[derive(Debug)]
pub(crate) struct Gather<P> {
    pub(crate) request: RequestKey,
    /// The step of the scatter; the gathered value goes to the one behind it.
    pub(crate) cursor: Cursor,
    pub(crate) terms: Terms,
    pub(crate) branches: Vec<Branch<P>>,
    /// How many have not ended.
    pub(crate) open: usize,
    /// The first that has not begun.
    pub(crate) next: usize,
    /// Whether branches are beginning just now, or are about to.
    pub(crate) is_beginning: bool,
    pub(crate) timer: Option<TimerKey<Due>>,
}

/// What came of one branch, as it is gathered.
#[derive(Debug)]
pub struct Part<'a, P> {
    /// The branch's name; empty for an element of a list.
    pub name: &'a str,
    /// Its value; or the problem that it ended with, where those are collected.
    pub value: Result<&'a P, &'a Problem>,
}

/// Puts parts together: by name if they are `named`, else in their order.
pub type GatherParts<P> = fn(topology: &Topology, parts: &[Part<'_, P>], named: bool) -> Result<P, String>;

/// What the dispatcher cannot know about payloads, since it never looks into one.
#[derive(Debug)]
pub struct Payloads<P> {
    /// Makes one value of those of all branches: by name, or else as a list in their order. The error says what cannot be
    /// gathered, in a sentence for clients.
    pub gather: GatherParts<P>,
    /// The payload that a fallback stands for, which the service file gives as JSON.
    pub constant: fn(&str) -> P,
}
