//! What goes in, and what has to come of it.

use std::sync::Arc;

use evener_core::{
    Assessment, Code, Failure, JobKey, Landed, Outcome, Refused, RequestKey, StageId, Submission, Time, Topology,
    WorkerKey,
};

use super::*;
use crate::checker::{Check, ensure};
use crate::record::{Mishap, pause};

impl Checker {
    /// Why a request of that path is to be refused now, if it is.
    fn refusal(&self, path: Path) -> Option<Code> {
        let reach = self.topology.reach(path);
        let asked = |stage: StageId| {
            let is_asked = |job: &Job| job.stage == stage && job.place == Place::Asked;
            self.book.all().filter(|(_, job)| is_asked(job)).count()
        };
        let full = |stage: &&StageId| self.book.line_len(**stage) + asked(**stage) >= self.rules(**stage).queue;
        if self.draining {
            Some(Code::Draining)
        } else if reach.iter().any(|stage| self.broken[stage.0 as usize]) {
            Some(Code::StageBroken)
        } else {
            reach.iter().find(full).map(|_| Code::QueueFull)
        }
    }

    pub(in super::super) fn submits(
        &mut self,
        now: Time,
        brought: &Submission<u64, u32>,
        result: &Result<RequestKey, Box<Refused<u64, u32>>>,
    ) -> Check {
        self.begin_step();
        let number = brought.reply;
        let expected = self.refusal(brought.path);
        let key = match (expected, result) {
            (None, Ok(key)) => *key,
            (Some(_), Err(refused)) if expected == code_of(&refused.answer) => {
                self.tally.count(Happening::Refused);
                return Ok(());
            }
            _ => return Err(format!("request {number} should have met {expected:?}, and met {result:?}")),
        };
        self.tally.count(Happening::Accepted);
        self.accepted += 1;
        let recovery =
            brought.on_error.map(|path| Recovery { path, payload: brought.payload, taken: None, told: false });
        self.urgency.insert(number, (brought.terms.priority, brought.terms.flow));
        self.set_timer(brought.deadline, Timer::Deadline(number));
        let mut way = Way::new(brought.path);
        let topology = self.topology.clone();
        let mut desk = Desk {
            topology: &topology,
            book: &mut self.book,
            broken: &self.broken,
            now,
            request: number,
            streams: brought.streams,
            problem: None,
        };
        let end = way.enter(brought.payload, true, &mut desk);
        let record = Request {
            id: brought.id,
            key,
            deadline: brought.deadline,
            fallback_on: brought.fallback_on,
            streams: brought.streams,
            streamed: false,
            recovery,
            way,
            due: None,
            is_old: false,
        };
        self.requests.insert(number, record);
        self.end_way(now, number, end);
        Ok(())
    }

    /// A client goes away. The key of its request, if that waits for an answer.
    pub(in super::super) fn leaves(&mut self, now: Time, number: u32) -> Option<RequestKey> {
        let key = self.requests.get(&number)?.key;
        self.begin_step();
        self.ends(now, number, Due::Ended);
        self.forget(number);
        self.cancelled += 1;
        self.tally.count(Happening::Left);
        Some(key)
    }

    pub(in super::super) fn arrives(&mut self, worker: WorkerKey, stage: StageId) -> Check {
        self.begin_step();
        self.broken[stage.0 as usize] = false;
        let member = Member::new(stage, self.rules(stage));
        let before = self.crew.insert(worker, member);
        self.one_more(stage);
        ensure(before.is_none(), || format!("worker {worker:?} is there twice"))
    }

    /// A worker brings an outcome. Whether it is to be taken.
    pub(in super::super) fn brings(&mut self, now: Time, worker: WorkerKey, landed: &Landed<u64>) -> bool {
        self.begin_step();
        let Landed { job, attempt, outcome, .. } = landed;
        let Some(member) = self.crew.get_mut(&worker) else { return false };
        let Some(at) = member.find(*job, *attempt) else { return false };
        let hold = member.holds[at].clone();
        let (stage, most) = (member.stage, self.topology.stage(member.stage).max_jobs_per_worker);
        if hold.awaited && !self.is_in_order(hold.of, outcome) {
            return false;
        }
        let Some(member) = self.crew.get_mut(&worker) else { return false };
        if hold.over.is_some() && member.terminated.is_some() {
            // It was sent a signal for this, and stays as it is.
            return true;
        }
        member.holds.remove(at);
        member.done += 1;
        if most.is_some_and(|most| member.done >= most) {
            member.retiring = true;
        }
        if matches!(outcome, Outcome::Fail(Failure::OutOfMemory { .. })) {
            (member.doomed, member.retiring) = (true, true);
        }
        if !hold.awaited {
            self.tally.count(Happening::LateOutcome);
            return true;
        }
        self.decide(now, stage, hold.of, outcome);
        true
    }

    /// Behind chunks only their end or a failure comes; and no end where there can be no chunks.
    fn is_in_order(&self, JobName(request, number): JobName, outcome: &Outcome<u64>) -> bool {
        let streams = self.book.get(JobName(request, number)).is_some_and(|job| job.stream);
        let streamed = self.requests.get(&request).is_some_and(|record| record.streamed);
        match outcome {
            Outcome::Ended => streams,
            Outcome::Fail(_) => true,
            _ => !streamed,
        }
    }

    fn decide(&mut self, now: Time, stage: StageId, name: JobName, outcome: &Outcome<u64>) {
        let JobName(request, number) = name;
        let event = match outcome {
            Outcome::Next(value) => Event::Value(number, *value),
            Outcome::Split(values) => {
                self.tally.count(Happening::Split);
                Event::Split(number, values.clone())
            }
            Outcome::Goto { target, value } => {
                self.tally.count(Happening::Goto);
                Event::Goto(number, target.clone(), *value)
            }
            Outcome::Respond(reply) => return self.ends(now, request, Due::Reply(reply.body)),
            Outcome::Ended => return self.ends(now, request, Due::Ended),
            Outcome::Fail(failure) => {
                let from_client = self.book.get(name).is_some_and(|job| job.from_client);
                match failure {
                    Failure::Error { .. } | Failure::Command { .. } => {
                        return self.mishap(now, stage, name, Mishap::Error);
                    }
                    Failure::OutOfMemory { .. } => return self.mishap(now, stage, name, Mishap::Lost),
                    _ => Event::Failed(number, code_of_failure(failure, from_client)),
                }
            }
            Outcome::Raised { .. } | Outcome::Returned => return,
        };
        self.happens(now, request, &event);
    }

    /// A try is over without an outcome that counts: another follows, or the job is given up.
    pub(super) fn mishap(&mut self, now: Time, stage: StageId, name: JobName, mishap: Mishap) {
        let rules = self.topology.stage(stage).clone();
        let (worth_it, code) = match mishap {
            Mishap::Lost => (rules.retry_on.lost, Code::WorkerDied),
            Mishap::Timeout => (rules.retry_on.timeout, Code::StageTimeout),
            Mishap::Error => (rules.retry_on.error, Code::FunctionFailed),
        };
        let Some(tries) = self.book.get(name).map(|job| job.tries) else { return };
        let streamed = self.requests.get(&name.0).is_some_and(|record| record.streamed);
        if !worth_it || tries > rules.retries || streamed {
            self.book.put(name, Place::Asked);
            return self.happens(now, name.0, &Event::Failed(name.1, code));
        }
        self.tally.count(Happening::Retry);
        let wait = pause(&rules, tries, mishap);
        if wait.is_zero() {
            self.comes_back(now, stage, name);
        } else {
            self.book.put(name, Place::Delayed);
            let attempt = self.book.job_mut(name).attempt;
            self.set_timer(now + wait, Timer::Retry(name, attempt));
        }
    }

    /// A job waits for a worker again.
    pub(super) fn comes_back(&mut self, now: Time, stage: StageId, name: JobName) {
        if self.broken[stage.0 as usize] {
            self.book.put(name, Place::Asked);
            return self.happens(now, name.0, &Event::Failed(name.1, Code::StageBroken));
        }
        self.book.put(name, Place::InLine);
        let urgency = self.urgency_of()(name.0);
        self.turns.comes_back(stage, urgency);
    }

    pub(in super::super) fn dies(&mut self, now: Time, worker: WorkerKey) {
        self.begin_step();
        let Some(member) = self.crew.remove(&worker) else { return };
        let spares = member.slots > 1 && member.terminated.is_some();
        self.strict = member.holds.iter().filter(|hold| hold.awaited).count() < 2;
        if !self.strict {
            // Each may have come back, and its flow have become the first, before what became of another ended it.
            for hold in member.holds.iter().filter(|hold| hold.awaited) {
                let urgency = self.urgency_of()(hold.of.0);
                self.turns.comes_back(member.stage, urgency);
            }
        }
        for hold in member.holds {
            // What became of one may have ended others.
            if !hold.awaited || self.book.get(hold.of).is_none_or(|job| job.place != Place::With(worker)) {
                continue;
            }
            let streamed = self.requests.get(&hold.of.0).is_some_and(|record| record.streamed);
            if spares && self.rules(member.stage).retry_on.lost && !streamed {
                self.tally.count(Happening::Spared);
                self.book.job_mut(hold.of).tries -= 1;
                self.comes_back(now, member.stage, hold.of);
            } else {
                self.tally.count(Happening::DiedAtWork);
                self.mishap(now, member.stage, hold.of, Mishap::Lost);
            }
        }
    }

    /// A worker is to leave for good, once it has done what it has. Whether there is a point in that.
    pub(in super::super) fn retires(&mut self, worker: WorkerKey) -> bool {
        let member = self.crew.get_mut(&worker).filter(|member| !member.let_go && !member.doomed);
        let Some(member) = member else { return false };
        let (stage, known) = (member.stage, std::mem::replace(&mut member.for_good, true));
        member.retiring = true;
        if !known {
            self.one_less(stage);
        }
        self.begin_step();
        true
    }

    pub(in super::super) fn breaks(&mut self, now: Time, stage: StageId) {
        self.begin_step();
        if self.crew.values().any(|member| member.stage == stage) {
            return;
        }
        self.tally.count(Happening::Broken);
        self.strict = false;
        self.broken[stage.0 as usize] = true;
        let names: Vec<JobName> = self.book.line(stage).map(|(name, _)| name).collect();
        for JobName(request, number) in names {
            self.happens(now, request, &Event::Failed(number, Code::StageBroken));
        }
    }

    /// The key of a job is known, or why it has none.
    pub(in super::super) fn is_assessed(&mut self, now: Time, job: JobKey, assessment: &Result<Assessment, Failure>) {
        self.begin_step();
        let Some(name) = self.names.get(&job).copied() else { return };
        let Some(stage) = self.book.get(name).filter(|job| job.place == Place::Asked).map(|job| job.stage) else {
            self.tally.count(Happening::AssessedTooLate);
            return;
        };
        let code = match assessment {
            Err(failure) => {
                let from_client = self.book.get(name).is_some_and(|job| job.from_client);
                Some(code_of_failure(failure, from_client))
            }
            Ok(_) if self.broken[stage.0 as usize] => Some(Code::StageBroken),
            Ok(Assessment { affinity, weight }) => {
                let job = self.book.job_mut(name);
                (job.affinity, job.weight) = (*affinity, *weight);
                None
            }
        };
        match code {
            Some(code) => self.happens(now, name.0, &Event::Failed(name.1, code)),
            None => self.book.put(name, Place::InLine),
        }
    }

    /// A worker brings a piece of an answer. Whether it is to be taken.
    pub(in super::super) fn streams(&mut self, worker: WorkerKey, job: JobKey, attempt: u32, piece: u64) -> bool {
        self.begin_step();
        let Some(member) = self.crew.get(&worker) else { return false };
        let Some(at) = member.find(job, attempt) else { return false };
        let (name, awaited) = (member.holds[at].of, member.holds[at].awaited);
        if !awaited {
            return true;
        }
        let Some(record) = self.requests.get_mut(&name.0) else { return false };
        if !self.book.get(name).is_some_and(|job| job.stream) {
            return false;
        }
        record.streamed = true;
        self.chunk = Some((record.key, piece));
        self.tally.count(Happening::Chunk);
        true
    }

    /// A client takes pieces of its answer. The key of its request, if it waits for more.
    pub(in super::super) fn consumes(&mut self, number: u32, bytes: u64) -> Option<RequestKey> {
        self.begin_step();
        let record = self.requests.get(&number)?;
        let name = record.way.job().map(|job| JobName(number, job));
        let job = name.and_then(|name| self.book.get(name));
        if let Some(&Job { place: Place::With(worker), key: Some(key), .. }) = job {
            self.credit = Some((worker, key, bytes));
        }
        Some(record.key)
    }

    pub(in super::super) fn drains(&mut self, now: Time, until: Time) {
        self.begin_step();
        self.draining = true;
        if until <= now {
            self.drain_ends(now);
        } else {
            self.set_timer(until, Timer::DrainEnd);
        }
    }

    pub(super) fn drain_ends(&mut self, now: Time) {
        self.strict = false;
        let all: Vec<u32> = self.requests.keys().copied().collect();
        all.into_iter().for_each(|request| self.fails(now, request, Code::Draining));
    }

    /// A new plan takes over.
    pub(in super::super) fn reloads(&mut self, topology: Arc<Topology>) {
        self.begin_step();
        self.tally.count(Happening::Reload);
        self.broken.resize(topology.stages().len(), false);
        let before = (0..self.topology.stages().len() as u32).map(StageId);
        let before: Vec<_> = before.map(|stage| (stage, self.rules(stage).scale, self.wanted(stage))).collect();
        self.topology = topology;
        for (stage, scale, wanted) in before {
            if self.rules(stage).scale != scale {
                self.rescale(stage, wanted);
            }
        }
        for record in self.requests.values_mut() {
            record.is_old = true;
        }
        if self.requests.is_empty() {
            self.outdated += 1;
        }
        for member in self.crew.values_mut() {
            let rules = self.topology.stage(member.stage);
            // It does as many jobs at a time, and in the way, as it was started for.
            if (rules.slots as usize, rules.batch.is_some()) != (member.slots, member.batched) {
                self.tally.count(Happening::Reshaped);
                member.retiring = true;
            }
        }
    }
}

fn code_of(answer: &evener_core::Answer<u64>) -> Option<Code> {
    match answer {
        evener_core::Answer::Problem(problem) | evener_core::Answer::Fallback(problem) => Some(problem.code),
        _ => None,
    }
}

fn code_of_failure(failure: &Failure, from_client: bool) -> Code {
    match failure {
        Failure::Abort { .. } => Code::Aborted,
        Failure::Decode { .. } if from_client => Code::BadBody,
        Failure::Decode { .. } => Code::ValueNotDecodable,
        Failure::Encode { .. } => Code::ResultNotEncodable,
        Failure::Filter { .. } => Code::FilterFailed,
        Failure::TooLarge { .. } => Code::ResultTooLarge,
        Failure::NoRoom { .. } => Code::MemoryFull,
        Failure::Command { .. } => Code::CommandFailed,
        Failure::Error { .. } | Failure::Cancelled => Code::FunctionFailed,
        Failure::OutOfMemory { .. } => Code::WorkerDied,
    }
}
