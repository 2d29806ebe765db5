//! Answers that come in chunks: from the last stage of a request's way straight to its client.
//!
//! Once the client has got a chunk, no other answer can take its place: the job is not tried again, and no fallback stands in.

use super::{Action, Dispatcher};
use crate::gather::Work;
use crate::job::{Job, JobKey, Place};
use crate::outcome::Outcome;
use crate::pool::{Flight, State};
use crate::request::RequestKey;
use crate::time::Time;
use crate::topology::Step;

impl<P: Clone, R> Dispatcher<P, R> {
    /// A worker brings a piece of the answer. False if it may not: it does not hold that job under that attempt, or the job is
    /// not the last of its request's way, or the client takes no chunks.
    pub fn chunk(&mut self, _now: Time, worker: crate::WorkerKey, job: JobKey, attempt: u32, payload: P) -> bool {
        let flight = Flight { job, attempt };
        let Some(slot) = self.pools.holder(worker, flight) else { return false };
        let Some(holder) = self.pools.get(slot) else { return false };
        match holder.state {
            // Nobody waits for it any more.
            State::Told(held, _) => return held == flight,
            State::Busy(held, _) if held == flight => {}
            State::Busy(..) | State::Idle | State::Leaving => return false,
        }
        let Some(request) = self.jobs.get(job).filter(|job| self.may_stream(job)).map(|job| job.request) else {
            return false;
        };
        if let Some(waiting) = self.requests.get_mut(request) {
            waiting.request.streamed = true;
        }
        self.actions.push(Action::Chunk { request, payload });
        true
    }

    /// A worker brings a piece of the answer that the node has no room for: the stream ends there. False if it may not bring one.
    pub fn chunk_without_room(
        &mut self,
        now: Time,
        worker: crate::WorkerKey,
        job: JobKey,
        attempt: u32,
        detail: String,
    ) -> bool {
        let flight = Flight { job, attempt };
        let holder = self.pools.holder(worker, flight).and_then(|slot| self.pools.get(slot));
        let request = match holder.map(|holder| holder.state) {
            Some(State::Told(held, _)) => return held == flight,
            Some(State::Busy(held, _)) if held == flight => {
                self.jobs.get(job).filter(|job| self.may_stream(job)).map(|job| job.request)
            }
            _ => None,
        };
        let Some(request) = request else { return false };
        let problem = self.placed(job, super::fate::no_room(detail));
        self.finish_now(now, request, Err(problem));
        true
    }

    /// The client took so many bytes of the chunks of its answer.
    pub fn consumed(&mut self, request: RequestKey, bytes: u64) {
        let Some(Work::Job(key)) = self.requests.get(request).map(|waiting| waiting.request.work) else { return };
        let Some(job) = self.jobs.get(key) else { return };
        if let Place::Running(worker) = job.place {
            let (worker, attempt) = (self.pools.of_slot(worker), job.attempt);
            self.actions.push(Action::Credit { worker, job: key, attempt, bytes });
        }
    }

    /// Whether what becomes of a job may go to the client in chunks: it is the last of the way that the client waits for the
    /// end of, and does not take a list apart for branches there.
    pub(super) fn may_stream(&self, job: &Job<P>) -> bool {
        let takes_chunks = self.requests.get(job.request).is_some_and(|waiting| waiting.request.streams);
        let last = self.topology.path(job.cursor.path).get(job.cursor.step as usize..);
        takes_chunks && matches!(last, Some([Step::Stage(_)])) && job.cursor.within.is_none()
    }

    /// Whether an outcome can come of a job: behind chunks only their end or a failure, and no end where there can be none. Nor can
    /// a job be given back as one that has not begun. Of a try that nobody waits for any more, anything can: the chunks are those of
    /// another try.
    pub(super) fn is_in_order(&self, key: JobKey, holder: State, outcome: &Outcome<P>) -> bool {
        let State::Busy(..) = holder else { return true };
        let Some(job) = self.jobs.get(key) else { return true };
        match outcome {
            Outcome::Ended => self.may_stream(job),
            Outcome::Fail(_) => true,
            _ => !self.has_streamed(job.request),
        }
    }

    /// Whether the client of a request has got a chunk.
    pub(super) fn has_streamed(&self, request: RequestKey) -> bool {
        self.requests.get(request).is_some_and(|waiting| waiting.request.streamed)
    }
}
