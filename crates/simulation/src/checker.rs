//! The history from outside, and what has to come out of each input.

mod inputs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Code, JobId, JobKey, OnCancel, Problem, RequestId, RequestKey, StageId, StageRules, Stop, Time,
    Topology, WorkerKey,
};

use crate::crew::{Hold, Member};
use crate::machine::Core;
use crate::pace::Pace;
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
    /// Who waits for a worker of each stage, in order. Those who have waited for a retry may come at any time.
    lines: Vec<VecDeque<u32>>,
    pace: Vec<Pace>,
    crew: BTreeMap<WorkerKey, Member>,
    /// How often each job of each request was really begun, and the highest try that was handed out.
    begun: BTreeMap<(u32, u32), (u32, u32)>,
    answered: u64,
    cancelled: u64,
    broken: Vec<bool>,
    draining: bool,
    /// When all that waits is answered.
    drain_ends: Option<Time>,
    /// When the dispatcher was last told the time.
    told_time: Time,
    pub(crate) tally: Tally,
}

/// Who of a stage's workers could be handed something.
struct Free {
    idle: bool,
    room: bool,
    unasked: bool,
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
            lines: vec![VecDeque::new(); stages],
            pace: vec![Pace::default(); stages],
            crew: BTreeMap::new(),
            begun: BTreeMap::new(),
            answered: 0,
            cancelled: 0,
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
            Action::Run {
                worker,
                job,
                attempt,
                tries,
                id,
                request,
                request_id,
                from_client,
                deadline,
                payload,
                ..
            } => {
                let handed =
                    Handed { worker, job, attempt, tries, id, request, request_id, from_client, deadline, payload };
                self.saw_run(now, handed)
            }
            Action::AskCredit { worker } => {
                self.tally.count(Happening::AskedForCredit);
                let member = self.crew.get_mut(&worker).ok_or("a worker that is gone was asked for credit")?;
                ensure(!member.leaving, || format!("worker {worker:?} was asked for credit on its way out"))?;
                ensure(!std::mem::replace(&mut member.asked, true), || {
                    format!("worker {worker:?} was asked for credit twice")
                })?;
                let (_, most) = self.pace[member.stage.0 as usize].depth();
                ensure(most > 0, || format!("worker {worker:?} was asked for credit for no reason"))
            }
            Action::Recall { worker, job, attempt } => {
                self.tally.count(Happening::Recalled);
                let member = self.crew.get_mut(&worker).ok_or("a worker that is gone is to give a job back")?;
                member.recall(now, job, attempt)
            }
            Action::Retried { request_id, ref problem } => self.saw_retried(request_id, problem),
            Action::Cancel { worker, job, attempt } => self.saw_cancel(now, worker, job, attempt),
            Action::Stop { worker, signal } => self.saw_stop(now, worker, signal),
            Action::Retire { worker } => {
                self.tally.count(Happening::Retired);
                let member = self.crew.get_mut(&worker).ok_or("a worker that is gone was retired")?;
                ensure(member.retires, || format!("worker {worker:?} was retired for no reason"))?;
                member.retires = false;
                Ok(())
            }
            Action::GoingOn { request } => Err(format!("request {request:?} goes on, though nobody withdrew it")),
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
        let ahead = !member.held.is_empty();
        ensure(!member.leaving, || format!("{request}: worker {worker:?} was on its way out"))?;
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
        if ahead {
            self.may_go_ahead(now, number, member, worker)?;
            self.tally.count(Happening::HandedAhead);
            if self.pace[stage.0 as usize].was_hushed() {
                self.tally.count(Happening::AheadAfterPrint);
            }
        }
        let line = &mut self.lines[stage.0 as usize];
        match line.iter().position(|waiting| *waiting == number) {
            Some(0) => _ = line.pop_front(),
            Some(place) => return Err(format!("{request}: {place} jobs stood before it")),
            None => {}
        }
        let mut hold = Hold::new(number, job, attempt);
        if !ahead {
            hold.begin(now, rules);
        }
        if let Some(record) = self.records.get_mut(&number) {
            let (_, most) = self.begun.entry((number, record.ordinal)).or_default();
            *most = tries.max(*most);
            (record.job, record.attempt, record.holder) = (Some(job), attempt, Some(worker));
            record.runs += u32::from(!ahead);
        }
        if let Some(member) = self.crew.get_mut(&worker) {
            if !ahead {
                member.since = now;
            }
            member.held.push_back(hold);
        }
        Ok(())
    }

    /// A job was handed to a worker that has others.
    fn may_go_ahead(&self, now: Time, number: u32, member: &Member, worker: WorkerKey) -> Check {
        let stage = member.stage;
        let request = format_args!("request {number}");
        let rules = self.topology.stage(stage);
        ensure(rules.max_jobs_per_worker.is_none(), || format!("{request}: ahead, and worker {worker:?} is to leave"))?;
        let pace = &self.pace[stage.0 as usize];
        let (least, most) = pace.depth();
        ensure(most > 0, || format!("{request}: worker {worker:?} was not idle, and its stage is not known as quick"))?;
        ensure(member.ahead() < member.credit as usize, || {
            format!("{request}: ahead of worker {worker:?} on no credit")
        })?;
        ensure(member.has_room(now, most), || format!("{request}: worker {worker:?} takes no job ahead just now"))?;
        for (other, there) in self.crew.iter().filter(|(_, there)| there.stage == stage) {
            ensure(!there.is_idle(), || format!("{request}: ahead, though worker {other:?} is idle"))?;
            ensure(there.ahead() >= member.ahead() || !there.has_room(now, least), || {
                format!("{request}: ahead of worker {worker:?}, though {other:?} holds fewer")
            })?;
        }
        Ok(())
    }

    fn saw_retried(&mut self, id: RequestId, problem: &Problem) -> Check {
        let number = (id.0 >> RequestId::JOB_BITS) as u32;
        let record = self.records.get_mut(&number).ok_or("a retry of nobody's")?;
        let due = record.to_report.take();
        ensure(due == Some(problem.code), || {
            format!("request {number} is tried again after {:?}, not {due:?}", problem.code)
        })?;
        ensure(problem.job == Some(record.id.job(record.ordinal)) && problem.tries == record.runs, || {
            format!("request {number}: a retry of another job: {problem:?}")
        })?;
        let stage = record.at.stage(&self.topology);
        ensure(problem.stage == stage, || format!("request {number}: a retry in another stage: {problem:?}"))
    }

    fn saw_cancel(&mut self, now: Time, worker: WorkerKey, job: JobKey, attempt: u32) -> Check {
        let member = self.crew.get_mut(&worker).ok_or("a worker that is gone was told")?;
        let rules = self.topology.stage(member.stage);
        let at = member.find(job, attempt).ok_or("a worker was told of a job that it does not hold")?;
        let hold = member.held[at];
        let record = self.records.get_mut(&hold.request).ok_or("a worker holds a job of nobody")?;
        let counts = record.state == State::Waiting && record.holder == Some(worker) && !hold.told;
        let (stage, stuck) = (member.stage, member.is_stuck(now, &hold));
        let grace_begins = at == 0 && (counts || rules.on_cancel == OnCancel::Kill);
        member.held[at].tell(now, grace_begins)?;
        match (counts, at) {
            (false, 0) => {}
            (false, _) => self.tally.count(Happening::CancelledAhead),
            (true, 0) => {
                // Somebody waits for this very outcome, so it can only be the stage's timeout.
                ensure(now >= hold.try_ends, || format!("worker {worker:?} was told before its time was over"))?;
                self.tally.count(Happening::TryTimedOut);
                self.mishap(now, hold.request, stage, Mishap::Timeout);
            }
            (true, _) => {
                // It may run there after all, so that is a try.
                ensure(stuck, || format!("worker {worker:?} lost a job ahead, and was not stuck"))?;
                ensure(rules.retry_on.lost && record.runs < rules.retries, || {
                    format!("request {} has no try to spare, and left a stuck worker", hold.request)
                })?;
                record.runs += 1;
                self.tally.count(Happening::GivenToOthers);
                self.step_in_front(hold.request);
            }
        }
        Ok(())
    }

    /// A job goes back in front of those that wait.
    fn step_in_front(&mut self, number: u32) {
        let stage = self.records.get(&number).and_then(|record| record.at.stage(&self.topology));
        if let Some(stage) = stage {
            self.lines[stage.0 as usize].push_front(number);
        }
        if let Some(record) = self.records.get_mut(&number) {
            (record.holder, record.not_before) = (None, Time::ZERO);
        }
    }

    /// A job waits behind all others of its stage.
    fn line_up(&mut self, number: u32, stage: StageId) {
        self.lines[stage.0 as usize].push_back(number);
    }

    fn saw_stop(&mut self, now: Time, worker: WorkerKey, signal: Stop) -> Check {
        let member = self.crew.get_mut(&worker).ok_or("a signal for a worker that is gone")?;
        let grace = self.topology.stage(member.stage).grace;
        let hold = member.held.front_mut().ok_or("a signal for an idle worker")?;
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
            Answer::Raised(..) => Happening::AnsweredWithProblem,
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
            (record.state, record.holder, record.due, record.to_report) = (state, None, None, None);
            if let Some(stage) = record.at.stage(&self.topology) {
                self.lines[stage.0 as usize].retain(|waiting| *waiting != number);
            }
        }
        match state {
            State::Answered => self.answered += 1,
            State::Cancelled => self.cancelled += 1,
            State::Waiting => {}
        }
    }

    /// All actions of an input have gone out: is anything missing?
    pub(crate) fn settle(&mut self, now: Time, core: &Core) -> Check {
        core.verify()?;
        let stages = 0..self.broken.len();
        let free: Vec<Free> = stages.map(|stage| self.who_is_free(now, StageId(stage as u32))).collect();
        for number in &self.waiting {
            let record = &self.records[number];
            ensure(record.due.is_none(), || {
                format!("request {number} should have been answered with {:?}", record.due)
            })?;
            ensure(record.to_report.is_none(), || format!("the failed try of request {number} was not reported"))?;
            let stage = self.stage_of(record)?;
            if record.holder.is_some() || (record.not_before > Time::ZERO && !surely(record.not_before, self.told_time))
            {
                continue;
            }
            ensure(!self.broken[stage.0 as usize], || format!("request {number} waits at a broken stage"))?;
            let free = &free[stage.0 as usize];
            ensure(!free.idle, || format!("request {number} waits, though a worker is idle"))?;
            ensure(!free.room, || format!("request {number} waits, though a worker takes jobs ahead"))?;
            ensure(!free.unasked, || format!("request {number} waits, though a worker was not asked for credit"))?;
        }
        for (worker, member) in &self.crew {
            ensure(!member.retires, || format!("worker {worker:?} should have been retired"))?;
            for hold in member.held.iter().filter(|hold| !hold.told) {
                ensure(self.records[&hold.request].holder == Some(*worker), || {
                    format!("worker {worker:?} was not told that nobody waits for request {} any more", hold.request)
                })?;
            }
        }
        let totals = core.totals();
        ensure(core.pending() == self.waiting.len(), || {
            "the dispatcher counts other requests than there are".to_owned()
        })?;
        ensure(totals.answered == self.answered, || "answers are miscounted".to_owned())?;
        ensure(totals.cancelled == self.cancelled, || "cancellations are miscounted".to_owned())
    }

    fn who_is_free(&self, now: Time, stage: StageId) -> Free {
        let here = || self.crew.values().filter(|member| member.stage == stage);
        let (mut depth, _) = self.pace[stage.0 as usize].depth();
        if self.rules(stage).max_jobs_per_worker.is_some() {
            depth = 0;
        }
        Free {
            idle: here().any(Member::is_idle),
            room: here().any(|member| member.has_room(now, depth)),
            unasked: depth > 0 && here().any(|member| !member.asked && !member.leaving),
        }
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
            let rules = self.topology.stage(member.stage);
            member.overdue(*worker, now, rules.grace)?;
            for hold in member.held.iter().skip(1).filter(|hold| !hold.told) {
                let spare = rules.retry_on.lost && self.records[&hold.request].runs < rules.retries;
                let late = member.stuck_by(hold).is_some_and(|by| surely(by, now));
                ensure(!spare || !late, || {
                    format!("request {} should have left worker {worker:?}, which is stuck", hold.request)
                })?;
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
                idle += usize::from(member.is_idle());
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
