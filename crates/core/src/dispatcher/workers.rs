//! Workers that come, are stopped, and go: what becomes of the jobs in their hands.

use std::time::Duration;

use super::{Action, Dispatcher, Stop};
use crate::job::{Due, JobKey};
use crate::outcome::Loss;
use crate::pool::{Patience, State, WorkerKey};
use crate::problem::{Cause, Code, Problem};
use crate::time::Time;
use crate::topology::StageId;

/// Between SIGTERM and SIGKILL.
const TERM_TO_KILL: Duration = Duration::from_secs(1);

impl<P: Clone, R> Dispatcher<P, R> {
    /// A worker is up and has warmed up; it gets jobs from now on. Its stage is not broken any more.
    pub fn worker_ready(&mut self, now: Time, stage: StageId) -> WorkerKey {
        self.stages[stage.index()].broken = None;
        let rules = self.topology.stage(stage);
        let worker = self.pools.arrive(stage, rules.slots, rules.batch.is_some());
        self.count_up(stage);
        self.dispatch(now, stage);
        self.watch_size(now, stage);
        worker
    }

    /// A worker is to go, and none takes its place. It gets no more jobs, and goes when it is done with those that it has.
    pub fn retire(&mut self, now: Time, worker: WorkerKey) {
        let Some((stage, for_good)) = self.pools.get(worker).map(|worker| (worker.stage, worker.for_good)) else {
            return;
        };
        if !for_good {
            self.count_down(stage);
        }
        let had_left = self.pools.has_left(worker);
        self.pools.retire_for_good(worker);
        if had_left {
            return;
        }
        if self.pools.has_left(worker) {
            self.let_go(worker);
        }
        self.dispatch(now, stage);
    }

    /// A worker goes now: it has done what it had.
    pub(super) fn let_go(&mut self, worker: WorkerKey) {
        let for_good = self.pools.get(worker).is_some_and(|worker| worker.for_good);
        self.actions.push(if for_good { Action::Shrink { worker } } else { Action::Retire { worker } });
    }

    /// A worker is gone. The job in its hands is tried again, or given up; those that it had not begun go back.
    pub fn worker_lost(&mut self, now: Time, worker: WorkerKey, loss: Loss) {
        let slots = self.pools.remove(worker);
        let Some(first) = slots.first() else { return };
        let (stage, shared, stopped) = (first.stage, slots.len() > 1, first.stopped.is_some());
        if !first.lost && slots.iter().any(|slot| slot.state != State::Leaving) {
            self.stages[stage.index()].lost += 1;
        }
        for gone in slots {
            gone.overdue.map(|(_, timer)| self.timers.clear(timer));
            self.take_back(now, gone.ahead, stage);
            match gone.state {
                State::Busy(flight, timer) => {
                    self.timers.clear(timer);
                    // It was stopped for the sake of a neighbour.
                    match shared && stopped && self.may_begin_again(flight.job) {
                        true => self.begin_again(now, flight.job, stage),
                        false => self.lost(now, flight.job, loss.clone()),
                    }
                }
                State::Told(_, patience) => {
                    patience.timer().map(|timer| self.timers.clear(timer));
                }
                State::Idle | State::Leaving => {}
            }
        }
        self.dispatch(now, stage);
    }

    /// Whether a job that has begun may begin once more at no cost. Not if that is to happen to none of its stage, nor if its client
    /// has got something of it already.
    fn may_begin_again(&self, key: JobKey) -> bool {
        let Some(job) = self.jobs.get(key) else { return false };
        self.topology.stage(job.stage).retry_on.lost && !self.has_streamed(job.request)
    }

    /// A job's worker was stopped, and not for its sake: it goes back, and this costs it no try.
    fn begin_again(&mut self, now: Time, key: JobKey, stage: StageId) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.tries -= 1;
            self.put_in_front(now, key, stage);
        }
    }

    /// The workers of a stage do not start, and `why`. If none is up, what waits there is answered, and new requests through
    /// it are refused until one is.
    pub fn stage_broken(&mut self, now: Time, stage: StageId, why: &str) {
        if self.pools.size(stage).0 > 0 {
            return;
        }
        self.stages[stage.index()].broken = Some(why.to_owned());
        while let Some(job) = self.stages[stage.index()].queue.first() {
            self.stages[stage.index()].queue.remove(&mut self.jobs, job);
            let problem = self.broken_problem(stage);
            self.give_up(now, job, problem);
        }
    }

    pub(super) fn broken_problem(&self, stage: StageId) -> Problem {
        let name = self.topology.stage(stage).title();
        let problem = Problem::new(Code::StageBroken, format!("the workers of {name} do not start"));
        let why = self.stages[stage.index()].broken.clone();
        Problem { cause: why.map(Cause::Died), ..problem.in_stage(stage) }
    }

    /// The job in a worker's hands is cancelled. It is told, and if it is to be killed, that happens after the stage's grace.
    pub(super) fn disown(&mut self, now: Time, worker: WorkerKey, kill: bool) {
        let Some(&crate::pool::Worker { stage, first, batched, state: State::Busy(flight, timer), .. }) =
            self.pools.get(worker)
        else {
            return;
        };
        // A cancelled item only leaves its batch.
        let patience = if kill && !batched {
            self.timers.clear(timer);
            Patience::Grace(self.timers.set(now + self.topology.stage(stage).grace, Due::Patience(worker)))
        } else {
            Patience::UntilTimeout(timer)
        };
        self.pools.set(worker, State::Told(flight, patience));
        self.actions.push(Action::Cancel { worker: first, job: flight.job, attempt: flight.attempt });
    }

    /// A slot has not come back from a job that was given up. Its worker is stopped, unless others do their jobs in it: those get
    /// their grace first.
    pub(super) fn patience_ended(&mut self, now: Time, slot: WorkerKey) {
        let Some(&crate::pool::Worker { stage, first, state: State::Told(flight, patience), .. }) =
            self.pools.get(slot)
        else {
            return;
        };
        let early = matches!(patience, Patience::UntilTimeout(_) | Patience::Grace(_));
        if early && self.has_neighbours(first) {
            self.pools.retire(first);
            let timer = self.timers.set(now + self.topology.stage(stage).grace, Due::Patience(slot));
            return self.pools.set(slot, State::Told(flight, Patience::Neighbours(timer)));
        }
        let (signal, patience) = match patience {
            Patience::UntilTimeout(_) | Patience::Grace(_) | Patience::Neighbours(_) => {
                let timer = self.timers.set(now + TERM_TO_KILL, Due::Patience(slot));
                (Stop::Terminate, Patience::Terminated(timer))
            }
            Patience::Terminated(_) | Patience::Killed => (Stop::Kill, Patience::Killed),
        };
        self.pools.set(slot, State::Told(flight, patience));
        if self.pools.is_shared(first) {
            // Its other slots may be idle.
            self.pools.retire(first);
        }
        let Some(worker) = self.pools.get_mut(first) else { return };
        // Several of its jobs may be given up at once.
        if worker.stopped < Some(signal) {
            worker.stopped = Some(signal);
            self.actions.push(Action::Stop { worker: first, signal });
        }
    }

    /// Whether a worker is at jobs that somebody waits for.
    pub(super) fn has_neighbours(&self, worker: WorkerKey) -> bool {
        let busy = |slot| self.pools.get(slot).is_some_and(|slot| matches!(slot.state, State::Busy(..)));
        self.pools.is_shared(worker) && self.pools.slots(worker).any(busy)
    }
}
