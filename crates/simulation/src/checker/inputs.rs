//! What each input means to the history, before the dispatcher has its say.

use std::collections::VecDeque;

use evener_core::{
    Answer, Code, Failure, FunctionId, JobKey, Landed, Outcome, Refused, RequestKey, StageId, Submission, Time,
    WorkerKey,
};

use super::{Check, Checker, ensure};
use crate::crew::{Hold, Member};
use crate::habits::Task;
use crate::machine::Core;
use crate::record::{Due, Mishap, Record, State, covers};
use crate::tally::Happening;
use crate::trail::{self, Position};

/// What the checker keeps of a submission.
pub(crate) type Brought = Submission<(), u32>;

impl Checker {
    /// A request was let in.
    pub(crate) fn accepted(&mut self, key: RequestKey, brought: Brought, core: &Core) -> Check {
        self.tally.count(Happening::Accepted);
        let Submission { id, path, deadline, fallback_on, terms, reply: number, .. } = brought;
        let stages = &trail::stages(&self.topology, path);
        ensure(!self.draining, || format!("request {number} was let in during a drain"))?;
        let broken = stages.iter().any(|stage| self.broken[stage.0 as usize]);
        ensure(!broken, || format!("request {number} was let in, though a stage of its path is broken"))?;
        for stage in stages {
            // It may be the last that found room.
            let room = core.counts(*stage).queued <= self.rules(*stage).queue;
            ensure(room, || format!("request {number} was let in, though stage {} was full", stage.0))?;
        }
        let record = Record {
            id,
            key,
            deadline,
            fallback_on,
            terms,
            at: Position { path, cursor: 0 },
            hops: 0,
            value: trail::start(number),
            ordinal: 1,
            job: None,
            attempt: 0,
            runs: 0,
            holder: None,
            place: None,
            not_before: Time::ZERO,
            due: None,
            to_report: None,
            asked: false,
            goes_on: false,
            killed: false,
            withdrawn: None,
            state: State::Waiting,
        };
        self.records.insert(number, record);
        self.waiting.insert(number);
        self.deadlines.insert((deadline, number));
        if let Some(function) = terms.function {
            self.pace.called(function);
        }
        let first = trail::stages(&self.topology, path)[0];
        self.line_up(number, first);
        Ok(())
    }

    /// A request was refused.
    pub(crate) fn refused(&mut self, refused: &Refused<u64, u32>, brought: Brought, core: &Core) -> Check {
        let number = brought.reply;
        ensure(refused.reply == number, || format!("the refusal of request {number} went to {}", refused.reply))?;
        let (problem, fallback) = match &refused.answer {
            Answer::Problem(problem) => (problem, false),
            Answer::Fallback(problem) => (problem, true),
            other => return Err(format!("request {number} was refused with {other:?}")),
        };
        let stages = trail::stages(&self.topology, brought.path);
        let allowed = match problem.code {
            Code::Draining => self.draining,
            Code::StageBroken => stages.iter().any(|stage| self.broken[stage.0 as usize]),
            Code::QueueFull => {
                stages.iter().any(|stage| core.counts(*stage).queued >= self.rules(*stage).queue)
                    && problem.retry_after.is_some_and(|wait| (1..=60).contains(&wait.as_secs()))
            }
            _ => false,
        };
        ensure(allowed, || format!("request {number} was refused with {problem:?} for no reason"))?;
        let covered = covers(brought.fallback_on, problem.code);
        ensure(fallback == covered, || format!("request {number}: is {:?} covered by its fallback?", problem.code))?;
        self.tally.count(match problem.code {
            Code::Draining => Happening::RefusedByDrain,
            Code::StageBroken => Happening::RefusedByBroken,
            _ => Happening::RefusedByFull,
        });
        Ok(())
    }

    /// The client of a request goes away; the key to cancel it by.
    pub(crate) fn cancels(&mut self, number: u32) -> Option<RequestKey> {
        let record = self.records.get(number)?;
        let key = record.key;
        self.tally.count(match (record.state, record.holder) {
            (State::Waiting, None) => Happening::CancelledWaiting,
            (State::Waiting, Some(_)) => Happening::CancelledRunning,
            _ => Happening::CancelledTooLate,
        });
        if record.state == State::Waiting {
            self.end(number, State::Cancelled);
        }
        Some(key)
    }

    /// A function will not be called any more.
    pub(crate) fn forgets(&mut self, function: FunctionId) {
        if self.pace.forget(function) {
            self.tally.count(Happening::Forgotten);
        }
    }

    /// How long the try of a request's job may take.
    pub(crate) fn timeout_of(&self, number: u32) -> Option<std::time::Duration> {
        let record = self.records.get(number)?;
        Some(record.timeout(self.rules(record.at.stage(&self.topology)?)))
    }

    /// A worker is up.
    pub(crate) fn arrived(&mut self, worker: WorkerKey, stage: StageId) -> Check {
        if std::mem::take(&mut self.broken[stage.0 as usize]) {
            self.tally.count(Happening::Mended);
        }
        let before = self.crew.insert(worker, Member::new(stage));
        ensure(before.is_none(), || format!("two workers are called {worker:?}"))
    }

    /// A worker dies. Only the oldest of its jobs can have begun.
    pub(crate) fn dies(&mut self, now: Time, worker: WorkerKey) {
        let Some(mut member) = self.crew.remove(&worker) else { return };
        let oldest = member.held.pop_front();
        self.take_back(member.held);
        let Some(hold) = oldest else { return self.tally.count(Happening::DiedIdle) };
        if hold.told {
            self.tally.count(Happening::DiedTold);
        } else {
            self.tally.count(Happening::DiedAtWork);
            self.mishap(now, hold.request, member.stage, Mishap::Lost);
        }
    }

    /// Jobs that did not begin go back, in their order and at no cost.
    fn take_back(&mut self, ahead: VecDeque<Hold>) {
        for hold in ahead.into_iter().rev().filter(|hold| !hold.told) {
            self.tally.count(Happening::TakenBack);
            self.come_back(hold.request);
        }
    }

    pub(super) fn mishap(&mut self, now: Time, request: u32, stage: StageId, mishap: Mishap) {
        let rules = self.topology.stage(stage);
        self.expected.insert(request);
        if let Some(record) = self.records.get_mut(request)
            && record.mishap(now, rules, mishap)
        {
            self.tally.count(Happening::Retry);
            if record.not_before == Time::ZERO {
                self.step_in_front(request);
            } else {
                self.delayed.insert(request);
            }
        }
    }

    /// A worker says how many jobs it takes ahead.
    pub(crate) fn credits(&mut self, worker: WorkerKey, credit: u32) {
        self.tally.count(Happening::Credit);
        if let Some(member) = self.crew.get_mut(&worker) {
            member.credit = credit;
        }
    }

    /// A worker prints something.
    pub(crate) fn prints(&mut self, worker: WorkerKey) {
        self.tally.count(Happening::Printed);
        if let Some(member) = self.crew.get_mut(&worker) {
            member.printed = true;
            if let Some(pace) = self.pace.of(member.stage, member.function) {
                pace.printed();
            }
        }
    }

    /// A worker really begins a job, whatever the dispatcher thinks.
    pub(crate) fn begins(&mut self, worker: WorkerKey, task: &Task) -> Check {
        let &Task { request, ordinal, job, attempt, tries, .. } = task;
        let (begun, most) = self.begun.entry((request, ordinal)).or_default();
        (*begun, *most) = (*begun + 1, tries.max(*most));
        ensure(*begun <= *most, || format!("request {request} is at execution {begun}, and at try {most}"))?;
        let withdrawn = self.records.get(request).and_then(|record| record.withdrawn) == Some(ordinal);
        ensure(!withdrawn, || format!("request {request} was cancelled before it began, and begins"))?;
        let member = self.crew.get(&worker).ok_or("a worker that is gone goes to work")?;
        let hold =
            member.find(job, attempt).map(|at| member.held[at]).ok_or("a worker begins what it does not hold")?;
        if self.records.get(request).is_some_and(|record| hold.told && record.state == State::Waiting) {
            self.tally.count(Happening::BegunAfterGiven);
        }
        Ok(())
    }

    /// A stage's workers do not start.
    pub(crate) fn breaks(&mut self, stage: StageId) {
        if !self.crew.values().any(|member| member.stage == stage) {
            self.tally.count(Happening::Broken);
            self.broken[stage.0 as usize] = true;
        }
    }

    /// The node drains.
    pub(crate) fn drains(&mut self, until: Time) {
        self.draining = true;
        self.drain_ends = Some(until);
    }

    /// Some job that a worker has not begun, as far as the dispatcher knows.
    pub(crate) fn any_ahead(&self, worker: WorkerKey) -> Option<(JobKey, u32)> {
        self.crew.get(&worker)?.held.back().map(|hold| (hold.job, hold.attempt))
    }

    /// Whether such an outcome has to be taken from a worker just now.
    pub(crate) fn may_come(&self, worker: WorkerKey, landed: &Landed<u64>) -> bool {
        let Some(member) = self.crew.get(&worker) else { return false };
        let Some(at) = member.find(landed.job, landed.attempt) else { return false };
        let hold = &member.held[at];
        match landed.outcome {
            Outcome::Returned => hold.recalled.is_some() || hold.is_doomed(),
            Outcome::Fail(Failure::Cancelled) => at == 0 || hold.told,
            _ => at == 0,
        }
    }

    /// A worker brings an outcome. True if it has to be taken.
    pub(crate) fn brings(&mut self, now: Time, worker: WorkerKey, landed: &Landed<u64>) -> bool {
        let fresh = self.may_come(worker, landed);
        let (returned, cancelled) = match landed.outcome {
            Outcome::Returned => (true, false),
            Outcome::Fail(Failure::Cancelled) => (false, true),
            _ => (false, false),
        };
        let Some(member) = self.crew.get_mut(&worker).filter(|_| fresh) else {
            self.tally.count(Happening::StaleOutcome);
            return false;
        };
        let Some(at) = member.find(landed.job, landed.attempt) else { return false };
        let Some(hold) = member.held.remove(at) else { return false };
        let stage = member.stage;
        if at > 0 {
            match (hold.told, returned) {
                (false, _) => {
                    self.tally.count(Happening::Returned);
                    self.come_back(hold.request);
                }
                (true, true) => self.tally.count(Happening::ReturnedUnwanted),
                (true, false) => self.tally.count(Happening::DroppedAhead),
            }
            return true;
        }
        if hold.is_doomed() {
            self.tally.count(Happening::OutcomeAfterSignal);
            self.goes_down(now, worker, hold);
            return true;
        }
        if returned {
            self.begins_next(now, worker);
            self.tally.count(Happening::ReturnedAsOldest);
            if !hold.told {
                if let Some(record) = self.records.get_mut(hold.request) {
                    record.runs -= 1;
                }
                self.step_in_front(hold.request);
            }
            return true;
        }
        member.done += 1;
        if !cancelled {
            let function = member.function;
            if let Some(pace) = self.pace.of(stage, function) {
                pace.ran(landed.ran);
            }
        }
        let share_done = self.topology.stage(stage).max_jobs_per_worker.is_some_and(|most| member.done >= most);
        let out_of_memory = matches!(landed.outcome, Outcome::Fail(Failure::OutOfMemory { .. }));
        member.leaving = share_done || out_of_memory;
        member.retires = share_done && !out_of_memory;
        if out_of_memory {
            self.tally.count(Happening::OutOfMemory);
            let ahead = std::mem::take(&mut member.held);
            self.take_back(ahead);
        } else {
            self.begins_next(now, worker);
        }
        if hold.told {
            self.tally.count(Happening::LateOutcome);
            if self.records.get(hold.request).is_some_and(|record| record.holder.is_some()) {
                self.tally.count(Happening::LateOutcomeWhileRetried);
            }
        } else {
            self.decides(now, hold.request, stage, &landed.outcome);
        }
        true
    }

    /// The oldest of a worker's jobs counts as begun from now on.
    fn begins_next(&mut self, now: Time, worker: WorkerKey) {
        let Some(member) = self.crew.get_mut(&worker) else { return };
        member.begin(now, self.topology.stage(member.stage));
        let Some(next) = member.held.front() else { return };
        if let Some(record) = self.records.get_mut(next.request).filter(|_| !next.told) {
            record.runs += 1;
            record.goes_on = std::mem::take(&mut record.asked);
            self.expected.insert(next.request);
        }
    }

    /// A worker that was sent a signal is done with a job: it may begin the next before the signal takes it, so that one
    /// is lost with it.
    fn goes_down(&mut self, now: Time, worker: WorkerKey, before: Hold) {
        let Some(member) = self.crew.get_mut(&worker) else { return };
        let stage = member.stage;
        let Some(next) = member.held.front_mut() else {
            member.held.push_front(before);
            return;
        };
        let (wanted, request) = (!next.told, next.request);
        next.go_down_with(&before);
        (member.function, member.printed) = (next.function, false);
        if wanted {
            self.tally.count(Happening::WentDown);
            if let Some(record) = self.records.get_mut(request) {
                record.runs += 1;
                record.goes_on = std::mem::take(&mut record.asked);
                if record.goes_on {
                    self.tally.count(Happening::WentDownWhileAsked);
                }
            }
            self.mishap(now, request, stage, Mishap::Lost);
        }
    }

    /// What an outcome that counts makes of its request. The value is worked out here again, from what the job had to have.
    fn decides(&mut self, now: Time, number: u32, stage: StageId, outcome: &Outcome<u64>) {
        let topology = self.topology.clone();
        self.expected.insert(number);
        let Some(record) = self.records.get_mut(number) else { return };
        record.holder = None;
        let value = record.value;
        let moved = match outcome {
            Outcome::Next(_) => {
                let next = Position { cursor: record.at.cursor + 1, ..record.at };
                match next.stage(&topology) {
                    Some(_) => Ok((next, trail::next(value, stage))),
                    None => Err(Due::Value(trail::next(value, stage))),
                }
            }
            Outcome::Respond(_) => Err(Due::Reply(trail::reply(value, stage))),
            Outcome::Goto { target, .. } => match record.at.after_goto(&topology, target) {
                None => Err(Due::Problem(Code::UnknownTarget)),
                Some(_) if record.hops == topology.max_hops() => Err(Due::Problem(Code::TooManyHops)),
                Some(there) => {
                    self.tally.count(Happening::Goto);
                    record.hops += 1;
                    Ok((there, trail::goto(value, stage)))
                }
            },
            // No step of these services is an `each`.
            Outcome::Split(_) | Outcome::Ended | Outcome::Returned => return,
            Outcome::Raised { .. } => Err(Due::Raised(trail::raised(value, stage))),
            Outcome::Fail(failure) => match failure {
                Failure::Error { .. } | Failure::Command { .. } => {
                    return self.mishap(now, number, stage, Mishap::Error);
                }
                Failure::OutOfMemory { .. } => return self.mishap(now, number, stage, Mishap::Lost),
                Failure::Abort { .. } => Err(Due::Problem(Code::Aborted)),
                Failure::Decode { .. } if record.ordinal == 1 => Err(Due::Problem(Code::BadBody)),
                Failure::Decode { .. } => Err(Due::Problem(Code::ValueNotDecodable)),
                Failure::Encode { .. } => Err(Due::Problem(Code::ResultNotEncodable)),
                Failure::Filter { .. } => Err(Due::Problem(Code::FilterFailed)),
                Failure::TooLarge { .. } => Err(Due::Problem(Code::ResultTooLarge)),
                Failure::NoRoom { .. } => Err(Due::Problem(Code::MemoryFull)),
                Failure::Cancelled => Err(Due::Problem(Code::FunctionFailed)),
            },
        };
        match moved {
            Ok((there, value)) => {
                record.enter(there, value);
                let Some(stage) = there.stage(&topology) else { return };
                if self.broken[stage.0 as usize] {
                    record.due = Some(Due::Problem(Code::StageBroken));
                } else {
                    self.line_up(number, stage);
                }
            }
            Err(due) => record.due = Some(due),
        }
    }
}
