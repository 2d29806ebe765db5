//! The way of a request: from one step to the next.
//!
//! What follows from a step is not done within it, but noted and done after it. Otherwise a way of many steps that end at once,
//! and scatters in branches of scatters without end, which a goto can make, would each need a stack as deep.

use super::Dispatcher;
use crate::gather::{Cursor, GatherKey};
use crate::job::Terms;
use crate::request::RequestKey;
use crate::time::Time;
use crate::topology::{Over, Step};

/// A value on its way to a step.
#[derive(Debug, Clone)]
pub(super) struct Load<P> {
    /// What goes for its job.
    pub(super) terms: Terms,
    pub(super) payload: P,
    /// Whether it is what the client sent.
    pub(super) from_client: bool,
}

/// What is to happen next on the way of a request.
#[derive(Debug)]
pub(super) enum Next<P> {
    /// A value comes to a step.
    Step(RequestKey, Cursor, Load<P>),
    /// The named branch of that number begins, and then those behind it.
    Branch(GatherKey, u32, Load<P>),
    /// The next branch that waits its turn begins; or, if all have ended, what they came to is gathered.
    GoOn(GatherKey),
}

/// What is to happen next on the way of a request, while something is happening there: what came up last first, so that all
/// that follows from a branch happens before the next branch begins.
#[derive(Debug)]
pub(super) struct Agenda<P> {
    next: Vec<Next<P>>,
    at_work: bool,
}

impl<P> Default for Agenda<P> {
    fn default() -> Self {
        Agenda { next: Vec::new(), at_work: false }
    }
}

impl<P> Agenda<P> {
    /// That is to happen before all that was noted earlier.
    pub(super) fn note(&mut self, what: Next<P>) {
        self.next.push(what);
    }
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// A value comes to a step of its way: to a stage, to a scatter, or to the end.
    pub(super) fn go(&mut self, now: Time, request: RequestKey, cursor: Cursor, load: Load<P>) {
        self.do_next(now, Next::Step(request, cursor, load));
    }

    /// Does that, and all that follows from it; or notes it, if it follows from something itself.
    pub(super) fn do_next(&mut self, now: Time, what: Next<P>) {
        if std::mem::replace(&mut self.agenda.at_work, true) {
            return self.agenda.note(what);
        }
        let mut next = Some(what);
        while let Some(what) = next {
            match what {
                Next::Step(request, cursor, load) => self.come_to(now, request, cursor, load),
                Next::Branch(gather, number, load) => self.begin_named(gather, number, load),
                Next::GoOn(gather) => self.begin_waiting(now, gather),
            }
            next = self.agenda.next.pop();
        }
        self.agenda.at_work = false;
    }

    fn come_to(&mut self, now: Time, request: RequestKey, cursor: Cursor, load: Load<P>) {
        match self.topology.path(cursor.path).get(cursor.step as usize) {
            Some(Step::Stage(stage)) => self.enter(now, request, cursor, *stage, load),
            Some(Step::Scatter(scatter)) => match scatter.over {
                Over::Each { split, .. } => self.enter(now, request, cursor, split, load),
                Over::Branches(_) => self.scatter(now, request, cursor, load),
            },
            None => self.end_path(now, request, cursor, load.payload),
        }
    }
}
