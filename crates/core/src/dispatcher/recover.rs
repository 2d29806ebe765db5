//! Requests that take another way instead of failing: a pipeline that gets the problem, and what the client had sent.

use super::way::Load;
use super::{Action, Cover, Dispatcher};
use crate::gather::{Cursor, Work};
use crate::job::{Job, Terms};
use crate::problem::{Code, Problem};
use crate::request::{FallbackOn, RequestKey};
use crate::time::Time;
use crate::topology::Path;

/// The other way of a request.
#[derive(Debug)]
pub(super) struct Recovery<P> {
    path: Path,
    payload: P,
    terms: Terms,
    /// Once it is on that way: why.
    taken: Option<Problem>,
}

impl<P> Recovery<P> {
    pub(super) fn new(path: Path, payload: P, terms: Terms) -> Recovery<P> {
        Recovery { path, payload, terms: terms.of_next(), taken: None }
    }
}

/// Whether a problem is one of the service, with time and jobs left to do something about it: what the client did wrong is told as
/// it is.
fn is_recoverable(code: Code) -> bool {
    let all = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };
    all.covers(code) && !matches!(code, Code::DeadlineExceeded | Code::Draining | Code::TooManyJobs)
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// A request fails: it goes on by its other way, if it has one. Otherwise gives the problem back that is to be told: if it has
    /// failed there as well, the first.
    pub(super) fn recover(&mut self, now: Time, key: RequestKey, problem: Problem) -> Option<Problem> {
        if self.has_streamed(key) || self.recoveries.is_empty() {
            return Some(problem);
        }
        let Some(waiting) = self.requests.get_mut(key) else { return Some(problem) };
        let Some(recovery) = self.recoveries.get_mut(&key) else { return Some(problem) };
        if let Some(first) = recovery.taken.take() {
            self.covered(key, problem, Cover::AfterOnError);
            return Some(first);
        }
        if !is_recoverable(problem.code) || self.draining {
            return Some(problem);
        }
        let (path, payload, terms) = (recovery.path, recovery.payload.clone(), recovery.terms);
        recovery.taken = Some(problem.clone());
        let work = std::mem::replace(&mut waiting.request.work, Work::Nothing);
        self.covered(key, problem, Cover::OnError);
        self.drop_work(now, work);
        let cursor = Cursor { path, step: 0, hops: 0, within: None };
        self.go(now, key, cursor, Load { terms, payload, from_client: true });
        None
    }

    /// Writes down what a request, or a part of it, failed with, if its client will not see it.
    pub(super) fn covered(&mut self, key: RequestKey, problem: Problem, by: Cover) {
        if let Some(waiting) = self.requests.get(key) {
            self.actions.push(Action::Covered { request_id: waiting.request.id, problem, by });
        }
    }

    /// What a request failed with, if a job is the first of its way on an error.
    pub(super) fn problem_of(&self, job: &Job<P>) -> Option<Box<Problem>> {
        if self.recoveries.is_empty() {
            return None;
        }
        // Those that had come from the client before are gone.
        let problem = self.recoveries.get(&job.request)?.taken.as_ref().filter(|_| job.from_client)?;
        Some(Box::new(problem.clone()))
    }
}
