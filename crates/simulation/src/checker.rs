//! The history from outside, and what has to come out of each input.

mod handing;
mod inputs;
mod withdrawals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Code, JobKey, Problem, RequestId, StageId, StageRules, Stop, Time, Topology, WorkerKey,
};

use crate::crew::Member;
use crate::line::Line;
use crate::machine::Core;
use crate::pace::Paces;
use crate::record::{Due, Mishap, Record, Records, State};
use crate::tally::{Happening, Tally};

/// What is wrong, if something is.
pub(crate) type Check = Result<(), String>;

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(otherwise()) }
}

const TICK: u64 = 50_000;

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
    records: Records,
    /// Those that wait for an answer.
    waiting: BTreeSet<u32>,
    /// Who waits for a worker of each stage. Those who have waited for a retry may come at any time.
    lines: Vec<Line>,
    /// Those who wait for a retry, and have not come.
    delayed: BTreeSet<u32>,
    /// Those who wait for an answer, the next deadline first.
    deadlines: BTreeSet<(Time, u32)>,
    /// Those for whom something has to come out in this very step.
    expected: BTreeSet<u32>,
    pace: Paces,
    /// Whether functions are called in several stages, so that what one stage learns makes room in another, unnoticed.
    shared: bool,
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

impl Checker {
    pub(crate) fn new(topology: Arc<Topology>, shared: bool) -> Checker {
        let stages = topology.stages().len();
        Checker {
            topology,
            records: Records::default(),
            waiting: BTreeSet::new(),
            lines: vec![Line::default(); stages],
            delayed: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            expected: BTreeSet::new(),
            pace: Paces::new(stages),
            shared,
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
            Action::Run { .. } => self.saw_run(now, action),
            Action::AskCredit { worker } => self.saw_ask(now, worker),
            Action::Recall { worker, job, attempt } => {
                self.tally.count(Happening::Recalled);
                let member = self.crew.get_mut(&worker).ok_or("a worker that is gone is to give a job back")?;
                let hold = member.find(job, attempt).map(|at| member.held[at]);
                let taken = hold.is_some_and(|hold| self.records[hold.request].asked);
                member.recall(now, job, attempt, taken)
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
            Action::Outdated
            | Action::Grow { .. }
            | Action::Shrink { .. }
            | Action::Assess { .. }
            | Action::Chunk { .. }
            | Action::Covered { .. }
            | Action::Credit { .. } => Err("nobody streams here".to_owned()),
            Action::GoingOn { request } => self.saw_going_on(request),
            Action::Answer { reply, request_id, ref answer } => self.saw_answer(now, reply, request_id, answer),
        }
    }

    fn saw_retried(&mut self, id: RequestId, problem: &Problem) -> Check {
        let number = (id.0 >> RequestId::JOB_BITS) as u32;
        let record = self.records.get_mut(number).ok_or("a retry of nobody's")?;
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
        let record = self.records.get_mut(hold.request).ok_or("a worker holds a job of nobody")?;
        let counts = record.state == State::Waiting && record.holder == Some(worker) && !hold.told;
        let (stage, stuck) = (member.stage, member.is_stuck(now, &hold));
        let grace_begins = at == 0 && (counts || hold.may_be_killed(rules));
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
                ensure(!record.asked, || format!("request {} was to be withdrawn, and left its worker", hold.request))?;
                ensure(rules.retry_on.lost && record.runs < record.retries(rules), || {
                    format!("request {} has no try to spare, and left a stuck worker", hold.request)
                })?;
                record.runs += 1;
                self.tally.count(Happening::GivenToOthers);
                self.step_in_front(hold.request);
            }
        }
        Ok(())
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
            self.records.get(number).ok_or_else(|| format!("an answer for request {number}, which is none"))?;
        ensure(record.id == id, || format!("the answer for request {number} has the id of another"))?;
        ensure(record.state == State::Waiting, || {
            format!("request {number} was {:?}, and answered again", record.state)
        })?;
        let due = match record.due {
            Some(due) => due,
            None => self.may_end(now, record, answer)?,
        };
        ensure(record.matches(due, answer), || format!("request {number} should get {due:?}, not {answer:?}"))?;
        if due == Due::Problem(Code::Cancelled) && !record.killed {
            let begun = self.begun.get(&(number, record.ordinal)).map_or(0, |(begun, _)| *begun);
            ensure(begun == 0, || format!("request {number} is cancelled, though its function has begun"))?;
        }
        self.tally.count(match answer {
            Answer::Value(_) => Happening::AnsweredWithValue,
            Answer::Reply(_) => Happening::AnsweredEarly,
            // Nobody streams here.
            Answer::Ended => Happening::AnsweredWithValue,
            Answer::Raised(..) => Happening::AnsweredWithException,
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
        self.delayed.remove(&number);
        if let Some(record) = self.records.get_mut(number) {
            self.deadlines.remove(&(record.deadline, number));
            let withdrawn = record.due == Some(Due::Problem(Code::Cancelled)) && !record.killed;
            record.withdrawn = withdrawn.then_some(record.ordinal);
            (record.state, record.holder, record.due, record.to_report) = (state, None, None, None);
            (record.asked, record.goes_on) = (false, false);
        }
        self.leave_line(number);
        match state {
            State::Answered => self.answered += 1,
            State::Cancelled => self.cancelled += 1,
            State::Waiting => {}
        }
    }

    /// All actions of an input have gone out: is anything missing?
    pub(crate) fn settle(&mut self, now: Time, core: &Core) -> Check {
        // It takes time in the number of jobs, and what contradicts itself goes on doing so.
        if core.pending() < 16 || self.tally.of(Happening::Step).is_multiple_of(8) {
            core.verify()?;
        }
        for number in std::mem::take(&mut self.expected) {
            let record = &self.records[number];
            ensure(record.due.is_none(), || {
                format!("request {number} should have been answered with {:?}", record.due)
            })?;
            ensure(record.to_report.is_none(), || format!("the failed try of request {number} was not reported"))?;
            ensure(!record.goes_on, || format!("the client of request {number} was not told that it goes on"))?;
        }
        for number in 0..self.broken.len() {
            self.settle_stage(now, StageId(number as u32))?;
        }
        for (worker, member) in &self.crew {
            ensure(!member.retires, || format!("worker {worker:?} should have been retired"))?;
            for (at, hold) in member.held.iter().enumerate().filter(|(_, hold)| !hold.told) {
                let record = &self.records[hold.request];
                ensure(record.holder == Some(*worker), || {
                    format!("worker {worker:?} was not told that nobody waits for request {} any more", hold.request)
                })?;
                ensure(at == 0 || !record.asked || hold.recalled.is_some(), || {
                    format!("worker {worker:?} was not asked for request {} back, which was taken back", hold.request)
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

    /// The dispatcher has been told the time: is anything overdue?
    pub(crate) fn overdue(&mut self, now: Time, next: Option<Time>) -> Check {
        self.told_time = now;
        ensure(next.is_none_or(|next| next > now), || "the dispatcher wants to be woken in the past".to_owned())?;
        if let Some((deadline, number)) = self.deadlines.first() {
            ensure(!surely(*deadline, now), || format!("request {number} has no answer, past its deadline"))?;
            let drained = self.drain_ends.is_some_and(|ends| surely(ends, now));
            ensure(!drained, || format!("request {number} has no answer at the end of the drain"))?;
        }
        for number in &self.delayed {
            let record = &self.records[*number];
            let lag = record.not_before.since(now);
            ensure(record.runs != 1 || lag <= Duration::from_secs(1), || {
                format!("request {number} is not retried within 1 s")
            })?;
        }
        for (worker, member) in &mut self.crew {
            let rules = self.topology.stage(member.stage);
            member.overdue(*worker, now, rules.grace)?;
            for hold in member.held.iter().skip(1).filter(|hold| !hold.told) {
                let record = &self.records[hold.request];
                let spare = rules.retry_on.lost && record.runs < record.retries(rules);
                let late = member.stuck_by(hold).is_some_and(|by| surely(by, now));
                if spare && late && record.asked {
                    // Nobody knows whether it has begun, so it cannot be cancelled, and is not to begin elsewhere.
                    self.tally.count(Happening::StuckWhileAsked);
                    continue;
                }
                ensure(!spare || !late, || {
                    format!("request {} should have left worker {worker:?}, which is stuck", hold.request)
                })?;
            }
        }
        Ok(())
    }

    /// Everything has come to rest.
    pub(crate) fn at_rest(&self, core: &Core) -> Check {
        core.verify()?;
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
