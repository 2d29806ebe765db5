//! The history from outside, and what has to come out of each input.

mod inputs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Code, JobId, JobKey, OnCancel, RequestId, RequestKey, StageId, StageRules, Stop, Time, Topology,
    WorkerKey,
};

use crate::crew::{Duty, Hold, Member};
use crate::machine::Core;
use crate::record::{Due, Mishap, Record, State};
use crate::tally::{Happening, Tally};

/// What is wrong, if something is.
pub(crate) type Check = Result<(), String>;

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(otherwise()) }
}

const TICK: u64 = 1_000_000;

/// Whether what was to happen at `due` has to have happened once the clock's owner has said that it is `now`. Timers
/// fire at the first tick at or after their time; one more tick is granted to those that were set for a time that had
/// passed.
pub(crate) fn surely(due: Time, now: Time) -> bool {
    now.as_nanos() / TICK > due.as_nanos().div_ceil(TICK)
}

/// Keeps the history, and holds every action against it.
#[derive(Debug)]
pub(crate) struct Checker {
    topology: Arc<Topology>,
    /// All requests that were let in, by number.
    records: BTreeMap<u32, Record>,
    /// Those that wait for an answer.
    waiting: BTreeSet<u32>,
    crew: BTreeMap<WorkerKey, Member>,
    broken: Vec<bool>,
    draining: bool,
    /// When all that waits is answered.
    drain_ends: Option<Time>,
    /// When the dispatcher was last told the time.
    told_time: Time,
    pub(crate) tally: Tally,
}

/// What a worker was handed, as the action says.
struct Handed {
    worker: WorkerKey,
    job: JobKey,
    attempt: u32,
    tries: u32,
    id: JobId,
    request: RequestKey,
    request_id: RequestId,
    from_client: bool,
    deadline: Time,
    payload: u64,
}

impl Checker {
    pub(crate) fn new(topology: Arc<Topology>) -> Checker {
        let stages = topology.stages().len();
        Checker {
            topology,
            records: BTreeMap::new(),
            waiting: BTreeSet::new(),
            crew: BTreeMap::new(),
            broken: vec![false; stages],
            draining: false,
            drain_ends: None,
            told_time: Time::ZERO,
            tally: Tally::default(),
        }
    }

    fn rules(&self, stage: StageId) -> &StageRules {
        self.topology.stage(stage)
    }

    fn stage_of(&self, record: &Record) -> Result<StageId, String> {
        record.at.stage(&self.topology).ok_or_else(|| format!("request {} is nowhere", record.id))
    }

    /// An action went out.
    pub(crate) fn saw(&mut self, now: Time, action: &Action<u64, u32>) -> Check {
        match *action {
            Action::Run { worker, job, attempt, tries, id, request, request_id, from_client, deadline, payload } => {
                let handed =
                    Handed { worker, job, attempt, tries, id, request, request_id, from_client, deadline, payload };
                self.saw_run(now, handed)
            }
            Action::Cancel { worker, job, attempt } => self.saw_cancel(now, worker, job, attempt),
            Action::Stop { worker, signal } => self.saw_stop(now, worker, signal),
            Action::Retire { worker } => {
                self.tally.count(Happening::Retired);
                let member = self.crew.get_mut(&worker).ok_or("a worker that is gone was retired")?;
                ensure(member.retires, || format!("worker {worker:?} was retired for no reason"))?;
                member.retires = false;
                Ok(())
            }
            Action::Answer { reply, request_id, ref answer } => self.saw_answer(now, reply, request_id, answer),
        }
    }

    fn saw_run(&mut self, now: Time, handed: Handed) -> Check {
        let Handed { worker, job, attempt, tries, payload, .. } = handed;
        let number = (handed.request_id.0 >> RequestId::JOB_BITS) as u32;
        let record = self.records.get(&number).ok_or_else(|| format!("a job of request {number}, which is none"))?;
        let stage = self.stage_of(record)?;
        let rules = self.topology.stage(stage);
        let member =
            self.crew.get(&worker).ok_or_else(|| format!("job {} for worker {worker:?}, which is gone", handed.id))?;
        let request = format_args!("request {number}");
        ensure(matches!(member.duty, Duty::Idle), || format!("{request}: worker {worker:?} was not idle"))?;
        ensure(member.stage == stage, || format!("{request}: the worker is of the wrong stage"))?;
        ensure(record.state == State::Waiting, || format!("{request}: a job runs, yet nobody waits"))?;
        ensure(record.due.is_none(), || format!("{request}: a job runs, yet an answer is due"))?;
        ensure(record.holder.is_none(), || format!("{request}: two workers have the same job"))?;
        ensure(payload == record.value, || format!("{request}: the payload is not what its path makes of it"))?;
        ensure(handed.request == record.key, || format!("{request}: under the key of another"))?;
        ensure(handed.id == record.id.job(record.ordinal), || format!("{request}: job {} is not its next", handed.id))?;
        ensure(handed.from_client == (record.ordinal == 1), || format!("{request}: whose payload is it?"))?;
        ensure(handed.deadline == record.deadline, || format!("{request}: with the deadline of another"))?;
        ensure(record.job.is_none_or(|known| known == job), || format!("{request}: its job has changed its key"))?;
        ensure(attempt > record.attempt, || format!("{request}: attempt {attempt} after {}", record.attempt))?;
        ensure(tries == record.runs + 1, || format!("{request}: try {tries} after {} runs", record.runs))?;
        ensure(tries <= 1 + rules.retries, || format!("{request}: try {tries} with {} retries", rules.retries))?;
        ensure(now >= record.not_before, || format!("{request}: tried again too early"))?;
        let try_ends = now + rules.timeout;
        if let Some(record) = self.records.get_mut(&number) {
            (record.job, record.attempt, record.runs, record.holder) = (Some(job), attempt, tries, Some(worker));
        }
        if let Some(member) = self.crew.get_mut(&worker) {
            member.duty = Duty::Holding(Hold::new(number, job, attempt, try_ends));
        }
        Ok(())
    }

    fn saw_cancel(&mut self, now: Time, worker: WorkerKey, job: JobKey, attempt: u32) -> Check {
        let member = self.crew.get_mut(&worker).ok_or("a worker that is gone was told")?;
        let rules = self.topology.stage(member.stage);
        let Duty::Holding(hold) = &mut member.duty else { return Err("an idle worker was told".to_owned()) };
        ensure(hold.job == job && hold.attempt == attempt, || {
            "a worker was told of a job that it does not hold".to_owned()
        })?;
        let record = self.records.get_mut(&hold.request).ok_or("a worker holds a job of nobody")?;
        let counts = record.state == State::Waiting && record.holder == Some(worker);
        hold.tell(now, counts || rules.on_cancel == OnCancel::Kill)?;
        if counts {
            // Somebody waits for this very outcome, so it can only be the stage's timeout.
            let try_ends = hold.try_ends;
            ensure(now >= try_ends, || format!("worker {worker:?} was told before its time was over"))?;
            self.tally.count(Happening::TryTimedOut);
            if record.mishap(now, rules, Mishap::Timeout) {
                self.tally.count(Happening::Retry);
            }
        }
        Ok(())
    }

    fn saw_stop(&mut self, now: Time, worker: WorkerKey, signal: Stop) -> Check {
        let member = self.crew.get_mut(&worker).ok_or("a signal for a worker that is gone")?;
        let grace = self.topology.stage(member.stage).grace;
        let Duty::Holding(hold) = &mut member.duty else { return Err("a signal for an idle worker".to_owned()) };
        match signal {
            Stop::Terminate => {
                self.tally.count(Happening::Terminated);
                hold.terminate(now, grace)
            }
            Stop::Kill => {
                self.tally.count(Happening::Killed);
                hold.kill(now)
            }
        }
    }

    fn saw_answer(&mut self, now: Time, number: u32, id: RequestId, answer: &Answer<u64>) -> Check {
        let record =
            self.records.get(&number).ok_or_else(|| format!("an answer for request {number}, which is none"))?;
        ensure(record.id == id, || format!("the answer for request {number} has the id of another"))?;
        ensure(record.state == State::Waiting, || {
            format!("request {number} was {:?}, and answered again", record.state)
        })?;
        let due = match record.due {
            Some(due) => due,
            None => self.may_end(now, record, answer)?,
        };
        ensure(record.matches(due, answer), || format!("request {number} should get {due:?}, not {answer:?}"))?;
        self.tally.count(match answer {
            Answer::Value(_) => Happening::AnsweredWithValue,
            Answer::Reply(_) => Happening::AnsweredEarly,
            Answer::Fallback(_) => Happening::AnsweredWithFallback,
            Answer::Problem(_) => Happening::AnsweredWithProblem,
        });
        match due {
            Due::Problem(Code::DeadlineExceeded) => self.tally.count(Happening::DeadlinePassed),
            Due::Problem(Code::Draining) => self.tally.count(Happening::DrainedAway),
            Due::Problem(Code::StageBroken) => self.tally.count(Happening::EndedByBroken),
            Due::Problem(Code::WorkerDied) => self.tally.count(Happening::TriesSpent),
            Due::Problem(Code::TooManyHops) => self.tally.count(Happening::TooManyHops),
            _ => {}
        }
        self.end(number, State::Answered);
        Ok(())
    }

    /// What may end a request without an outcome: its deadline, the end of a drain, and a broken stage.
    fn may_end(&self, now: Time, record: &Record, answer: &Answer<u64>) -> Result<Due, String> {
        let (Answer::Problem(problem) | Answer::Fallback(problem)) = answer else {
            return Err(format!("request {} got {answer:?}, which no worker sent", record.id));
        };
        let stage = self.stage_of(record)?;
        let allowed = match problem.code {
            Code::DeadlineExceeded => now >= record.deadline,
            Code::Draining => self.drain_ends.is_some_and(|ends| ends <= now),
            Code::StageBroken => self.broken[stage.0 as usize] && record.holder.is_none(),
            _ => false,
        };
        ensure(allowed, || format!("request {} ended with {:?} for no reason", record.id, problem.code))?;
        Ok(Due::Problem(problem.code))
    }

    fn end(&mut self, number: u32, state: State) {
        self.waiting.remove(&number);
        if let Some(record) = self.records.get_mut(&number) {
            (record.state, record.holder, record.due) = (state, None, None);
        }
    }

    /// All actions of an input have gone out: is anything missing?
    pub(crate) fn settle(&mut self, core: &Core) -> Check {
        core.verify()?;
        for number in &self.waiting {
            let record = &self.records[number];
            ensure(record.due.is_none(), || {
                format!("request {number} should have been answered with {:?}", record.due)
            })?;
            let stage = self.stage_of(record)?;
            if record.holder.is_some() || (record.not_before > Time::ZERO && !surely(record.not_before, self.told_time))
            {
                continue;
            }
            ensure(!self.broken[stage.0 as usize], || format!("request {number} waits at a broken stage"))?;
            let idle = |member: &Member| member.stage == stage && matches!(member.duty, Duty::Idle);
            ensure(!self.crew.values().any(idle), || format!("request {number} waits, though a worker is idle"))?;
        }
        for (worker, member) in &self.crew {
            ensure(!member.retires, || format!("worker {worker:?} should have been retired"))?;
            let Some(hold) = member.hold().filter(|hold| !hold.told) else { continue };
            ensure(self.records[&hold.request].holder == Some(*worker), || {
                format!("worker {worker:?} was not told that nobody waits for request {} any more", hold.request)
            })?;
        }
        let totals = core.totals();
        let count = |state| self.records.values().filter(|record| record.state == state).count() as u64;
        ensure(core.pending() == self.waiting.len(), || {
            "the dispatcher counts other requests than there are".to_owned()
        })?;
        ensure(totals.answered == count(State::Answered), || "answers are miscounted".to_owned())?;
        ensure(totals.cancelled == count(State::Cancelled), || "cancellations are miscounted".to_owned())
    }

    /// The dispatcher has been told the time: is anything overdue?
    pub(crate) fn overdue(&mut self, now: Time, next: Option<Time>) -> Check {
        self.told_time = now;
        ensure(next.is_none_or(|next| next > now), || "the dispatcher wants to be woken in the past".to_owned())?;
        for number in &self.waiting {
            let record = &self.records[number];
            ensure(!surely(record.deadline, now), || format!("request {number} has no answer, past its deadline"))?;
            let drained = self.drain_ends.is_some_and(|ends| surely(ends, now));
            ensure(!drained, || format!("request {number} has no answer at the end of the drain"))?;
            let lag = record.not_before.since(now);
            ensure(record.runs != 1 || lag <= Duration::from_secs(1), || {
                format!("request {number} is not retried within 1 s")
            })?;
        }
        for (worker, member) in &mut self.crew {
            let grace = self.topology.stage(member.stage).grace;
            if let Duty::Holding(hold) = &mut member.duty {
                hold.overdue(*worker, now, grace)?;
            }
        }
        Ok(())
    }

    /// Everything has come to rest.
    pub(crate) fn at_rest(&self, core: &Core) -> Check {
        ensure(self.waiting.is_empty(), || format!("{} requests never got an answer", self.waiting.len()))?;
        ensure(core.pending() == 0, || "requests are pending at the end".to_owned())?;
        ensure(core.next_timeout().is_none(), || "a timer is left over at the end".to_owned())?;
        for number in 0..self.broken.len() {
            let counts = core.counts(StageId(number as u32));
            let here = self.crew.values().filter(|member| member.stage.0 as usize == number);
            let (mut workers, mut idle) = (0, 0);
            for member in here {
                workers += 1;
                idle += usize::from(matches!(member.duty, Duty::Idle));
            }
            ensure(idle == workers, || format!("stage {number} has workers that are not idle at the end"))?;
            ensure((counts.queued, counts.workers, counts.idle) == (0, workers, idle), || {
                format!("stage {number} counts {counts:?}, but there are {workers} workers and {idle} idle")
            })?;
            ensure(counts.broken.is_some() == self.broken[number], || format!("is stage {number} broken?"))?;
        }
        Ok(())
    }
}
