//! Requests that their clients take back while they wait for them: those that have not begun, or all the same.

use super::{Action, Dispatcher};
use crate::gather::Work;
use crate::job::{JobKey, Place};
use crate::pool::WorkerKey;
use crate::problem::{Code, Problem};
use crate::request::RequestKey;
use crate::time::Time;

/// What came of taking a request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It is cancelled, and answered with that.
    Done,
    /// Its job has begun, and it goes on.
    GoesOn,
    /// A worker has its job in hand, and may have begun it. Either an answer comes or [`Action::GoingOn`].
    Asked,
    /// It was answered before.
    Answered,
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// A client takes a request back. It is answered with [`Code::Cancelled`] if its job has not begun, on any try. With
    /// `kill` also if it has: then its worker is told, and killed if it does not come back within the stage's grace.
    pub fn withdraw(&mut self, now: Time, key: RequestKey, kill: bool) -> Withdrawal {
        let Some(waiting) = self.requests.get_mut(key) else { return Withdrawal::Answered };
        let job_key = match waiting.request.work {
            Work::Job(job) => job,
            Work::Gather(_) if kill => {
                let problem = Problem::new(Code::Cancelled, "the call was cancelled while it ran");
                self.finish_now(now, key, Err(problem));
                return Withdrawal::Done;
            }
            Work::Gather(_) | Work::Nothing => return Withdrawal::GoesOn,
        };
        let Some(job) = self.jobs.get(job_key) else { return Withdrawal::Answered };
        if job.tries > 0 && !kill {
            return Withdrawal::GoesOn;
        }
        match job.place {
            Place::Assessed | Place::Queued { .. } | Place::Delayed(_) => {
                let when = if job.tries == 0 { "before it began" } else { "before it was tried again" };
                self.cancelled(key, job_key, when);
                self.drop_job(now, job_key);
            }
            Place::Running(worker) => {
                self.cancelled(key, job_key, "while it ran");
                self.disown(now, worker, true);
                self.jobs.remove(job_key);
            }
            Place::Ahead(worker) if kill => {
                self.cancelled(key, job_key, "before it was known to have begun");
                self.disown_ahead(worker, job_key, true);
                self.jobs.remove(job_key);
            }
            Place::Ahead(worker) => {
                waiting.request.withdrawn = true;
                self.recall(worker, job_key);
                return Withdrawal::Asked;
            }
        }
        Withdrawal::Done
    }

    fn cancelled(&mut self, key: RequestKey, job: JobKey, when: &str) {
        let problem = self.placed(job, Problem::new(Code::Cancelled, format!("the call was cancelled {when}")));
        self.finish(key, Err(problem));
    }

    fn recall(&mut self, key: WorkerKey, job: JobKey) {
        let Some(worker) = self.pools.get_mut(key) else { return };
        let held = worker.ahead.iter_mut().find(|ahead| ahead.wanted && ahead.flight.job == job);
        if let Some(ahead) = held.filter(|ahead| !ahead.recalled) {
            ahead.recalled = true;
            let attempt = ahead.flight.attempt;
            self.actions.push(Action::Recall { worker: key, job, attempt });
        }
    }

    /// A job begins: if its request was to be withdrawn, it is too late for that.
    pub(super) fn goes_on(&mut self, request: RequestKey) {
        if self.take_withdrawn(request) {
            self.actions.push(Action::GoingOn { request });
        }
    }

    /// Whether a request was to be withdrawn; from now on it is not.
    pub(super) fn take_withdrawn(&mut self, request: RequestKey) -> bool {
        self.requests.get_mut(request).is_some_and(|waiting| std::mem::take(&mut waiting.request.withdrawn))
    }

    /// Whether the request of a job is to be withdrawn.
    pub(super) fn is_withdrawn(&self, job: JobKey) -> bool {
        let request = self.jobs.get(job).and_then(|job| self.requests.get(job.request));
        request.is_some_and(|waiting| waiting.request.withdrawn)
    }

    /// A job has come back that was to be withdrawn, and has not begun.
    pub(super) fn came_back_withdrawn(&mut self, job: JobKey) {
        let Some(request) = self.jobs.get(job).map(|job| job.request) else { return };
        self.cancelled(request, job, "before it began");
        self.jobs.remove(job);
    }
}
