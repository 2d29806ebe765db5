//! Jobs that a worker holds behind the one it is at.
//!
//! They are handed out, but have not begun: a worker does its jobs in the order in which they came, and sends the outcome of
//! one before it begins the next. So of the jobs that a worker holds only the oldest can have begun, and only that one costs
//! a try when the worker dies. A job that waits too long behind another is called back; the worker gives it back if it has
//! not begun it.

use std::collections::VecDeque;
use std::time::Duration;

use super::pace::Pace;
use super::{Action, Dispatcher};
use crate::job::{Due, FunctionId, JobId, JobKey, Place};
use crate::outcome::Loss;
use crate::pool::{AHEAD_WAIT, Ahead, Flight, Patience, State, Worker, WorkerKey};
use crate::request::Waiting;
use crate::rules::OnCancel;
use crate::time::Time;
use crate::topology::StageId;

/// How long a job may wait behind another that takes longer than thought.
const OVERDUE: Duration = Duration::from_millis(2);
/// How long a worker may take to give a job back, before it is taken for stuck.
const STUCK: Duration = Duration::from_secs(1);

impl<P: Clone, R> Dispatcher<P, R> {
    /// A worker says how many jobs it takes ahead. Of no account if it does several at the same time: those that it has would all
    /// begin at once.
    pub fn credit(&mut self, now: Time, worker: WorkerKey, credit: u32) {
        if self.pools.is_shared(worker) {
            return;
        }
        let Some(worker) = self.pools.get_mut(worker) else { return };
        worker.credit = credit;
        let stage = worker.stage;
        self.dispatch(now, stage);
    }

    /// A worker printed something. It is handed nothing ahead while it is at the same job, and its function is handed
    /// nothing ahead for a while.
    pub fn printed(&mut self, worker: WorkerKey) {
        let Some(worker) = self.pools.get_mut(worker) else { return };
        worker.printed = true;
        let (stage, function) = (worker.stage, worker.function);
        if let Some(pace) = self.pace_mut(stage, function) {
            pace.printed();
        }
    }

    /// A function will not be called any more: what is known of it is forgotten.
    pub fn forget_function(&mut self, function: FunctionId) {
        self.functions.remove(&function);
    }

    /// How quick the jobs of a stage are, or those that are calls of a function. `None` if the function was forgotten.
    pub(super) fn pace_mut(&mut self, stage: StageId, function: Option<FunctionId>) -> Option<&mut Pace> {
        match function {
            Some(function) => self.functions.get_mut(&function),
            None => Some(&mut self.stages[stage.index()].pace),
        }
    }

    /// Hands out jobs to workers that are busy with quick ones.
    pub(super) fn hand_out_ahead(&mut self, now: Time, stage: StageId) {
        let rules = self.topology.stage(stage);
        if rules.max_jobs_per_worker.is_some() || rules.affinity {
            return;
        }
        while let Some(first) = self.stages[stage.index()].queue.first() {
            let Some(terms) = self.jobs.get(first).map(|job| job.terms) else { return };
            let depth = |function: Option<FunctionId>| match function {
                Some(function) => self.functions.get(&function).map_or(0, Pace::depth),
                None => self.stages[stage.index()].pace.depth(),
            };
            let most = depth(terms.function);
            if most == 0 {
                return;
            }
            let Some(worker) = self.pools.with_room(stage, now, |oldest| depth(oldest).min(most)) else {
                return self.ask_for_credit(stage);
            };
            let Some(key) = self.stages[stage.index()].queue.pop(&mut self.jobs, now, true) else { return };
            let Some(job) = self.jobs.get_mut(key) else { return };
            job.attempt += 1;
            job.place = Place::Ahead(worker);
            let flight = Flight { job: key, attempt: job.attempt };
            let Some(id) = self.push_run(worker, key, false) else { return };
            let Some(holder) = self.pools.get_mut(worker) else { return };
            holder.ahead.push_back(Ahead { flight, id, wanted: true, recalled: false, terms, kill: false });
            let due = holder.since + OVERDUE;
            // One may be set for later, if a stuck worker has come on.
            if holder.overdue.is_none_or(|(set_for, _)| set_for > due) {
                holder.overdue.map(|(_, timer)| self.timers.clear(timer));
                holder.overdue = Some((due, self.timers.set(due, Due::Overdue(worker))));
            }
        }
    }

    fn ask_for_credit(&mut self, stage: StageId) {
        let unasked = self.pools.take_unasked(stage);
        self.actions.extend(unasked.into_iter().map(|worker| Action::AskCredit { worker }));
    }

    /// Writes down that a job goes to a slot of a worker, and gives its public id. Its try is the next one. `batch`: the next
    /// job that goes there belongs to the same batch.
    pub(super) fn push_run(&mut self, slot: WorkerKey, key: JobKey, batch: bool) -> Option<JobId> {
        let job = self.jobs.get(key)?;
        let Waiting { request, .. } = self.requests.get(job.request)?;
        let id = request.id.job(job.ordinal);
        self.actions.push(Action::Run {
            worker: self.pools.of_slot(slot),
            job: key,
            attempt: job.attempt,
            tries: job.tries + 1,
            id,
            request: job.request,
            request_id: request.id,
            from_client: job.from_client,
            stream: self.may_stream(job),
            batch,
            function: job.terms.function,
            deadline: request.until,
            payload: job.payload.clone(),
            problem: self.problem_of(job),
        });
        Some(id)
    }

    /// A worker whose hands are empty begins the next of its jobs, if it has one.
    pub(super) fn begin_next(&mut self, now: Time, key: WorkerKey) {
        let Some(worker) = self.pools.get_mut(key) else { return };
        if worker.state != State::Idle {
            return;
        }
        let stage = worker.stage;
        if let Some(next) = worker.ahead.pop_front() {
            self.begin(now, key, stage, next);
        }
    }

    /// From now on the job counts as begun.
    pub(super) fn begin(&mut self, now: Time, key: WorkerKey, stage: StageId, next: Ahead) {
        let Ahead { flight, id, wanted, recalled, terms, kill } = next;
        let rules = self.topology.stage(stage);
        let kill = !wanted && (kill || rules.on_cancel == OnCancel::Kill);
        let timer = match kill {
            true => self.timers.set(now + rules.grace, Due::Patience(key)),
            false => self.timers.set(now + terms.timeout(rules), Due::Try(key)),
        };
        self.pools.occupy(key);
        if let Some(worker) = self.pools.get_mut(key) {
            worker.since = now;
            worker.oldest = id;
            worker.oldest_recalled = recalled;
            (worker.function, worker.printed) = (terms.function, false);
            worker.state = match (wanted, kill) {
                (true, _) => State::Busy(flight, timer),
                (false, false) => State::Told(flight, Patience::UntilTimeout(timer)),
                (false, true) => State::Told(flight, Patience::Grace(timer)),
            };
        }
        if let Some(job) = self.jobs.get_mut(flight.job).filter(|_| wanted) {
            job.tries += 1;
            job.place = Place::Running(key);
            let request = job.request;
            self.stages[stage.index()].started += 1;
            self.goes_on(request);
        }
    }

    /// A worker gives a job back that it had not begun. False if it was not called back from it.
    pub(super) fn returned(&mut self, now: Time, key: WorkerKey, flight: Flight) -> bool {
        let Some(worker) = self.pools.get_mut(key) else { return false };
        let stage = worker.stage;
        if let Some(at) = worker.ahead.iter().position(|ahead| ahead.flight == flight && ahead.recalled) {
            let wanted = worker.ahead.remove(at).is_some_and(|ahead| ahead.wanted);
            if wanted {
                self.put_in_front(now, flight.job, stage);
            }
            self.dispatch(now, stage);
            return true;
        }
        let (wanted, timer) = match worker.state {
            State::Busy(held, timer) if held == flight && worker.oldest_recalled => (true, timer),
            State::Told(held, Patience::UntilTimeout(timer) | Patience::Grace(timer))
                if held == flight && worker.oldest_recalled =>
            {
                (false, timer)
            }
            State::Told(held, Patience::Neighbours(_) | Patience::Terminated(_) | Patience::Killed)
                if held == flight =>
            {
                self.go_down(now, key);
                return true;
            }
            _ => return false,
        };
        // It had become the oldest in the meantime, and so was thought to have begun.
        self.timers.clear(timer);
        self.pools.set_idle(key);
        self.begin_next(now, key);
        if self.pools.has_left(key) {
            self.let_go(key);
        }
        if let Some(job) = self.jobs.get_mut(flight.job).filter(|_| wanted) {
            job.tries -= 1;
            self.put_in_front(now, flight.job, stage);
        }
        self.dispatch(now, stage);
        true
    }

    /// A worker that was sent a signal is done with a job. It may begin the next one before the signal takes it, so that
    /// one is lost with it.
    pub(super) fn go_down(&mut self, now: Time, key: WorkerKey) {
        let Some(worker) = self.pools.get_mut(key) else { return };
        let State::Told(_, patience) = worker.state else { return };
        let (stage, Some(next)) = (worker.stage, worker.ahead.pop_front()) else { return };
        worker.state = State::Told(next.flight, patience);
        worker.oldest = next.id;
        worker.oldest_recalled = next.recalled;
        (worker.function, worker.printed) = (next.terms.function, false);
        let Some(job) = self.jobs.get_mut(next.flight.job).filter(|_| next.wanted) else { return };
        job.tries += 1;
        let request = job.request;
        self.stages[stage.index()].started += 1;
        let withdrawn = self.take_withdrawn(request);
        let cause = "was stopped, since it did not come back from another job".to_owned();
        self.lost(now, next.flight.job, Loss { certificate: cause.clone(), cause });
        // Unless that was its last try, it goes on.
        if withdrawn && self.requests.get(request).is_some() {
            self.actions.push(Action::GoingOn { request });
        }
    }

    /// Whether that was a cancelled job which the worker had not begun, and dropped.
    pub(super) fn dropped_ahead(&mut self, now: Time, key: WorkerKey, flight: Flight) -> bool {
        let Some(worker) = self.pools.get_mut(key) else { return false };
        let stage = worker.stage;
        let at = worker.ahead.iter().position(|ahead| ahead.flight == flight && !ahead.wanted);
        let dropped = at.and_then(|at| worker.ahead.remove(at)).is_some();
        if dropped {
            self.dispatch(now, stage);
        }
        dropped
    }

    /// A job is cancelled that a worker holds and has not begun. If it begins nevertheless, the worker may be killed for it.
    pub(super) fn disown_ahead(&mut self, key: WorkerKey, job: JobKey, kill: bool) {
        let Some(worker) = self.pools.get_mut(key) else { return };
        let Some(ahead) = worker.ahead.iter_mut().find(|ahead| ahead.wanted && ahead.flight.job == job) else { return };
        ahead.wanted = false;
        ahead.kill = kill;
        let attempt = ahead.flight.attempt;
        self.actions.push(Action::Cancel { worker: key, job, attempt });
    }

    /// A worker has had jobs ahead for a while. If it has been at the oldest for too long, the others are called back; if it
    /// does not give them back either, it is stuck, and they are tried elsewhere as if it were lost.
    pub(super) fn overdue(&mut self, now: Time, key: WorkerKey) {
        let Some(worker) = self.pools.get_mut(key) else { return };
        worker.overdue = None;
        if worker.ahead.is_empty() {
            return;
        }
        if now.since(worker.since) < OVERDUE {
            let due = worker.since + OVERDUE;
            worker.overdue = Some((due, self.timers.set(due, Due::Overdue(key))));
            return;
        }
        let due = now + STUCK;
        worker.overdue = Some((due, self.timers.set(due, Due::Overdue(key))));
        let stuck = worker.ahead.iter().all(|ahead| ahead.recalled);
        // The youngest first: each goes back in front of the queue, and so they end up in their order.
        for ahead in worker.ahead.iter_mut().rev().filter(|ahead| !ahead.recalled) {
            ahead.recalled = true;
            let Flight { job, attempt } = ahead.flight;
            self.actions.push(Action::Recall { worker: key, job, attempt });
        }
        if stuck {
            self.give_to_others(now, key);
        }
    }

    /// A worker is stuck. A job that it holds may begin there after all, so going elsewhere costs it a try; one that has no
    /// try to spare waits, and so does one that is to be withdrawn, until it is known whether it has begun.
    fn give_to_others(&mut self, now: Time, key: WorkerKey) {
        let Some(Worker { stage, ahead, .. }) = self.pools.get(key) else { return };
        let (stage, rules) = (*stage, self.topology.stage(*stage));
        let can_go = |ahead: &&Ahead| {
            let spare = self.jobs.get(ahead.flight.job).is_some_and(|job| job.tries < job.terms.retries(rules));
            ahead.wanted && rules.retry_on.lost && spare && !self.is_withdrawn(ahead.flight.job)
        };
        let going: Vec<JobKey> = ahead.iter().rev().filter(can_go).map(|ahead| ahead.flight.job).collect();
        for job in going {
            self.disown_ahead(key, job, false);
            if let Some(job) = self.jobs.get_mut(job) {
                job.tries += 1;
            }
            self.stages[stage.index()].retried += 1;
            self.put_in_front(now, job, stage);
        }
        self.dispatch(now, stage);
    }

    /// The jobs that a worker will not come to any more go back, in their order and at no cost.
    pub(super) fn take_back(&mut self, now: Time, ahead: VecDeque<Ahead>, stage: StageId) {
        for ahead in ahead.into_iter().rev().filter(|ahead| ahead.wanted) {
            self.put_in_front(now, ahead.flight.job, stage);
        }
    }
}

/// A function as quick as this is handed jobs ahead; see [`AHEAD_WAIT`].
const _: () = assert!(AHEAD_WAIT.as_nanos() < OVERDUE.as_nanos());
