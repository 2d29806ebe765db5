//! What each input means to the history, before the dispatcher has its say.

use evener_core::{Answer, Code, Failure, JobKey, Outcome, Refused, RequestKey, StageId, Submission, Time, WorkerKey};

use super::{Check, Checker, ensure};
use crate::crew::{Duty, Member};
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
        let Submission { id, path, deadline, fallback_on, reply: number, .. } = brought;
        let stages = self.topology.path(path);
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
            at: Position { path, cursor: 0 },
            hops: 0,
            value: trail::start(number),
            ordinal: 1,
            job: None,
            attempt: 0,
            runs: 0,
            holder: None,
            not_before: Time::ZERO,
            due: None,
            state: State::Waiting,
        };
        self.records.insert(number, record);
        self.waiting.insert(number);
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
        let stages = self.topology.path(brought.path);
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
        let record = self.records.get(&number)?;
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

    /// A worker is up.
    pub(crate) fn arrived(&mut self, worker: WorkerKey, stage: StageId) -> Check {
        if std::mem::take(&mut self.broken[stage.0 as usize]) {
            self.tally.count(Happening::Mended);
        }
        let before = self.crew.insert(worker, Member::new(stage));
        ensure(before.is_none(), || format!("two workers are called {worker:?}"))
    }

    /// A worker dies. True if it was there.
    pub(crate) fn dies(&mut self, now: Time, worker: WorkerKey) -> bool {
        let Some(member) = self.crew.remove(&worker) else { return false };
        let Some(hold) = member.hold() else {
            self.tally.count(Happening::DiedIdle);
            return true;
        };
        if hold.told {
            self.tally.count(Happening::DiedTold);
            return true;
        }
        self.tally.count(Happening::DiedAtWork);
        self.mishap(now, hold.request, member.stage, Mishap::Lost);
        true
    }

    fn mishap(&mut self, now: Time, request: u32, stage: StageId, mishap: Mishap) {
        let rules = self.topology.stage(stage);
        if let Some(record) = self.records.get_mut(&request)
            && record.mishap(now, rules, mishap)
        {
            self.tally.count(Happening::Retry);
        }
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

    /// Whether a worker holds that job under that attempt.
    pub(crate) fn holds(&self, worker: WorkerKey, job: JobKey, attempt: u32) -> bool {
        self.crew.get(&worker).is_some_and(|member| member.holds(job, attempt).is_some())
    }

    /// A worker brings an outcome. True if it has to be taken.
    pub(crate) fn brings(
        &mut self,
        now: Time,
        worker: WorkerKey,
        job: JobKey,
        attempt: u32,
        outcome: &Outcome<u64>,
    ) -> bool {
        let Some(member) = self.crew.get_mut(&worker) else {
            self.tally.count(Happening::StaleOutcome);
            return false;
        };
        let Some(hold) = member.holds(job, attempt) else {
            self.tally.count(Happening::StaleOutcome);
            return false;
        };
        if hold.is_doomed() {
            self.tally.count(Happening::OutcomeAfterSignal);
            return true;
        }
        let stage = member.stage;
        member.done += 1;
        let share_done = self.topology.stage(stage).max_jobs_per_worker.is_some_and(|most| member.done >= most);
        let out_of_memory = matches!(outcome, Outcome::Fail(Failure::OutOfMemory { .. }));
        member.duty = if share_done || out_of_memory { Duty::Leaving } else { Duty::Idle };
        member.retires = share_done && !out_of_memory;
        if out_of_memory {
            self.tally.count(Happening::OutOfMemory);
        }
        if hold.told {
            self.tally.count(Happening::LateOutcome);
            if self.records.get(&hold.request).is_some_and(|record| record.holder.is_some()) {
                self.tally.count(Happening::LateOutcomeWhileRetried);
            }
        } else {
            self.decides(now, hold.request, stage, outcome);
        }
        true
    }

    /// What an outcome that counts makes of its request. The value is worked out here again, from what the job had to have.
    fn decides(&mut self, now: Time, number: u32, stage: StageId, outcome: &Outcome<u64>) {
        let topology = self.topology.clone();
        let Some(record) = self.records.get_mut(&number) else { return };
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
            Outcome::Fail(failure) => match failure {
                Failure::Error { .. } => return self.mishap(now, number, stage, Mishap::Error),
                Failure::OutOfMemory { .. } => return self.mishap(now, number, stage, Mishap::Lost),
                Failure::Abort { .. } => Err(Due::Problem(Code::Aborted)),
                Failure::Decode { .. } if record.ordinal == 1 => Err(Due::Problem(Code::BadBody)),
                Failure::Decode { .. } => Err(Due::Problem(Code::ValueNotDecodable)),
                Failure::Encode { .. } => Err(Due::Problem(Code::ResultNotEncodable)),
                Failure::TooLarge { .. } => Err(Due::Problem(Code::ResultTooLarge)),
                Failure::Cancelled => Err(Due::Problem(Code::FunctionFailed)),
            },
        };
        match moved {
            Ok((there, value)) => {
                record.enter(there, value);
                let stage = there.stage(&topology);
                if stage.is_some_and(|stage| self.broken[stage.0 as usize]) {
                    record.due = Some(Due::Problem(Code::StageBroken));
                }
            }
            Err(due) => record.due = Some(due),
        }
    }
}
