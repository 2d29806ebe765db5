//! Who may be handed what, and who must be.

use evener_core::{Action, RequestId, StageId, Time, WorkerKey};

use super::{Check, Checker, ensure, surely};
use crate::crew::{Hold, Member};
use crate::record::State;
use crate::tally::Happening;

impl Checker {
    /// A worker was handed a job.
    pub(super) fn saw_run(&mut self, now: Time, action: &Action<u64, u32>) -> Check {
        let &Action::Run {
            worker,
            job,
            attempt,
            tries,
            id,
            request: key,
            request_id,
            from_client,
            stream,
            batch,
            function,
            deadline,
            payload,
            problem: None,
        } = action
        else {
            return Ok(());
        };
        ensure(!stream && !batch, || {
            "a client that takes no chunks is to get some, or a lone job is in a batch".to_owned()
        })?;
        let number = (request_id.0 >> RequestId::JOB_BITS) as u32;
        let record = self.records.get(number).ok_or_else(|| format!("a job of request {number}, which is none"))?;
        let stage = self.stage_of(record)?;
        let rules = self.topology.stage(stage);
        let member =
            self.crew.get(&worker).ok_or_else(|| format!("job {} for worker {worker:?}, which is gone", id))?;
        let request = format_args!("request {number}");
        let ahead = !member.held.is_empty();
        ensure(!member.leaving, || format!("{request}: worker {worker:?} was on its way out"))?;
        ensure(member.stage == stage, || format!("{request}: the worker is of the wrong stage"))?;
        ensure(record.state == State::Waiting, || format!("{request}: a job runs, yet nobody waits"))?;
        ensure(record.due.is_none(), || format!("{request}: a job runs, yet an answer is due"))?;
        ensure(record.holder.is_none(), || format!("{request}: two workers have the same job"))?;
        ensure(payload == record.value, || format!("{request}: the payload is not what its path makes of it"))?;
        ensure(key == record.key, || format!("{request}: under the key of another"))?;
        ensure(id == record.id.job(record.ordinal), || format!("{request}: job {} is not its next", id))?;
        ensure(from_client == (record.ordinal == 1), || format!("{request}: whose payload is it?"))?;
        ensure(deadline == record.deadline, || format!("{request}: with the deadline of another"))?;
        ensure(record.job.is_none_or(|known| known == job), || format!("{request}: its job has changed its key"))?;
        ensure(attempt > record.attempt, || format!("{request}: attempt {attempt} after {}", record.attempt))?;
        ensure(tries == record.runs + 1, || format!("{request}: try {tries} after {} runs", record.runs))?;
        let retries = record.retries(rules);
        ensure(tries - 1 <= retries, || format!("{request}: try {tries} with {retries} retries"))?;
        ensure(!record.asked, || format!("{request}: handed out, though it is to be withdrawn"))?;
        ensure(function == record.terms.function, || format!("{request}: a call of {:?}", function))?;
        ensure(now >= record.not_before, || format!("{request}: tried again too early"))?;
        let hold = Hold::new(number, job, attempt, function, record.timeout(rules));
        if ahead {
            self.may_go_ahead(now, number, member, worker)?;
            let other_before = member.held.iter().any(|before| before.function != function);
            self.tally.count(Happening::HandedAhead);
            if self.pace.was_hushed(stage, function) {
                self.tally.count(Happening::AheadAfterPrint);
            }
            if other_before {
                self.tally.count(Happening::AheadOfAnother);
            }
        }
        self.has_its_turn(number, stage)?;
        self.delayed.remove(&number);
        if let Some(record) = self.records.get_mut(number) {
            let (_, most) = self.begun.entry((number, record.ordinal)).or_default();
            *most = tries.max(*most);
            (record.job, record.attempt, record.holder) = (Some(job), attempt, Some(worker));
            record.runs += u32::from(!ahead);
        }
        if let Some(member) = self.crew.get_mut(&worker) {
            member.held.push_back(hold);
            if !ahead {
                member.begin(now, self.topology.stage(stage));
            }
        }
        Ok(())
    }

    fn urgency(&self, number: u32) -> i8 {
        self.records.get(number).map_or(0, |record| record.terms.priority)
    }

    /// Nobody waits that is more urgent than a job which is handed out, and nobody as urgent has waited longer.
    fn has_its_turn(&mut self, number: u32, stage: StageId) -> Check {
        let urgency = self.urgency(number);
        let line = &self.lines[stage.0 as usize];
        let place = self.records[number].place;
        if let Some((first, most)) = line.first().filter(|(first, _)| *first != number) {
            ensure(most <= urgency, || {
                format!("request {number} is handed out, though request {first} is more urgent")
            })?;
            ensure(most < urgency || place.is_none(), || format!("request {number}: request {first} stood before it"))?;
        }
        for other in &self.delayed {
            let waits = self.is_at(*other, stage) && surely(self.records[*other].not_before, self.told_time);
            ensure(!waits || self.urgency(*other) <= urgency, || {
                format!("request {number} is handed out, though request {other} is more urgent, and its wait is over")
            })?;
        }
        if place.is_some_and(|place| line.overtakes(place)) {
            self.tally.count(Happening::Overtook);
        }
        self.leave_line(number);
        Ok(())
    }

    pub(super) fn leave_line(&mut self, number: u32) {
        let Some(record) = self.records.get_mut(number) else { return };
        if let (Some(stage), Some(place)) = (record.at.stage(&self.topology), record.place.take()) {
            self.lines[stage.0 as usize].leave(place);
        }
    }

    fn is_at(&self, number: u32, stage: StageId) -> bool {
        self.records.get(number).and_then(|record| record.at.stage(&self.topology)) == Some(stage)
    }

    /// Those of whom one is the first that waits for a stage. Those who wait for a retry may have come, or not.
    fn may_be_first(&self, now: Time, stage: StageId) -> Vec<u32> {
        let first = self.lines[stage.0 as usize].first();
        let least = first.map_or(i8::MIN, |(_, urgency)| urgency);
        let may_be = |number: &u32| {
            let record = &self.records[*number];
            self.is_at(*number, stage) && now >= record.not_before && self.urgency(*number) >= least
        };
        self.delayed.iter().copied().filter(may_be).chain(first.map(|(number, _)| number)).collect()
    }

    /// How many jobs may lie before the job of a request at least and at most, wherever it goes.
    fn depth_of(&self, stage: StageId, number: u32) -> (usize, usize) {
        self.pace.depth(stage, self.records.get(number).and_then(|record| record.terms.function))
    }

    /// A job was handed to a worker that has others.
    fn may_go_ahead(&self, now: Time, number: u32, member: &Member, worker: WorkerKey) -> Check {
        let stage = member.stage;
        let request = format_args!("request {number}");
        let rules = self.topology.stage(stage);
        ensure(rules.max_jobs_per_worker.is_none(), || format!("{request}: ahead, and worker {worker:?} is to leave"))?;
        let (least, most) = self.depth_of(stage, number);
        ensure(most > 0, || format!("{request}: worker {worker:?} was not idle, and the job is not known as quick"))?;
        let (_, before) = self.pace.depth(stage, member.function);
        ensure(before > 0, || format!("{request}: behind a job of worker {worker:?} that is not known as quick"))?;
        ensure(member.ahead() < member.credit as usize, || {
            format!("{request}: ahead of worker {worker:?} on no credit")
        })?;
        ensure(member.has_room(now, most.min(before)), || {
            format!("{request}: worker {worker:?} takes no job ahead just now")
        })?;
        for (other, there) in self.crew.iter().filter(|(_, there)| there.stage == stage) {
            ensure(!there.is_idle(), || format!("{request}: ahead, though worker {other:?} is idle"))?;
            let (before, _) = self.pace.depth(stage, there.function);
            ensure(there.ahead() >= member.ahead() || !there.has_room(now, least.min(before)), || {
                format!("{request}: ahead of worker {worker:?}, though {other:?} holds fewer")
            })?;
        }
        Ok(())
    }

    /// A worker was asked how many jobs it takes ahead.
    pub(super) fn saw_ask(&mut self, now: Time, worker: WorkerKey) -> Check {
        self.tally.count(Happening::AskedForCredit);
        let member = self.crew.get_mut(&worker).ok_or("a worker that is gone was asked for credit")?;
        ensure(!member.leaving, || format!("worker {worker:?} was asked for credit on its way out"))?;
        ensure(!std::mem::replace(&mut member.asked, true), || {
            format!("worker {worker:?} was asked for credit twice")
        })?;
        let stage = member.stage;
        let quick = |number: &u32| self.depth_of(stage, *number).1 > 0;
        ensure(self.may_be_first(now, stage).iter().any(quick), || {
            format!("worker {worker:?} was asked for credit for no reason")
        })
    }

    /// Nobody waits for a stage who could be handed to one of its workers.
    pub(super) fn settle_stage(&self, now: Time, stage: StageId) -> Check {
        let surely_here =
            |number: &u32| self.is_at(*number, stage) && surely(self.records[*number].not_before, self.told_time);
        let first = self.lines[stage.0 as usize]
            .first()
            .map(|(number, _)| number)
            .or_else(|| self.delayed.iter().copied().find(surely_here));
        let Some(number) = first else { return Ok(()) };
        ensure(!self.broken[stage.0 as usize], || format!("request {number} waits at a broken stage"))?;
        let here = || self.crew.values().filter(|member| member.stage == stage);
        ensure(!here().any(Member::is_idle), || format!("request {number} waits, though a worker is idle"))?;
        if self.rules(stage).max_jobs_per_worker.is_some() || (self.shared && self.rules(stage).functions) {
            return Ok(());
        }
        // One of these is the first; if each of them could go, so could that one.
        let candidates = self.may_be_first(now, stage);
        let depth = |number: u32| self.depth_of(stage, number).0;
        let finds_room = |number: u32| {
            let has_room = |member: &Member| {
                let (before, _) = self.pace.depth(stage, member.function);
                member.has_room(now, before.min(depth(number)))
            };
            here().any(has_room)
        };
        ensure(!candidates.iter().all(|number| finds_room(*number)), || {
            format!("request {number} waits, though a worker takes jobs ahead")
        })?;
        let unasked = here().any(|member| !member.asked && !member.leaving);
        ensure(!unasked || !candidates.iter().all(|number| depth(*number) > 0), || {
            format!("request {number} waits, though a worker was not asked for credit")
        })
    }

    /// A job goes back in front of those that wait.
    pub(super) fn step_in_front(&mut self, number: u32) {
        let Some(record) = self.records.get_mut(number) else { return };
        (record.holder, record.not_before) = (None, Time::ZERO);
        if let Some(stage) = record.at.stage(&self.topology) {
            let line = &mut self.lines[stage.0 as usize];
            record.place = Some(line.step_in_front(number, record.terms.priority));
        }
    }

    /// A job waits behind all others of its stage.
    pub(super) fn line_up(&mut self, number: u32, stage: StageId) {
        let Some(record) = self.records.get_mut(number) else { return };
        record.place = Some(self.lines[stage.0 as usize].join(number, record.terms.priority));
    }
}
