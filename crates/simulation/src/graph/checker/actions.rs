//! What comes out, and whether it may.

use std::time::Duration;

use evener_core::{Action, Answer, Batch, Cover, JobId, OnCancel, Problem, Stop};

use super::super::crew::Hold;
use super::*;
use crate::checker::{Check, ensure};

impl Checker {
    /// An action goes out.
    pub(in super::super) fn saw(&mut self, now: Time, action: &Action<u64, u32>) -> Check {
        self.note_births();
        match action {
            Action::Run { .. } => self.runs(now, action),
            Action::Assess { job, stage, request, from_client, payload } => {
                let is_it = |job: &Job| {
                    let asked = job.place == Place::ToBeAsked && job.stage == *stage && job.payload == *payload;
                    asked && job.from_client == *from_client
                };
                let number = self.requests.iter().find(|(_, record)| record.key == *request).map(|(number, _)| *number);
                let is_one = |(name, job): &(JobName, &Job)| Some(name.0) == number && is_it(job);
                let found: Vec<JobName> = self.book.all().filter(is_one).map(|(name, _)| name).collect();
                let fell = !self.strict && self.fallen.iter().any(|(name, job)| is_one(&(*name, job)));
                if let Some(name) = found.first().copied() {
                    // Of two that look alike, either may be the one.
                    self.blurred |= !self.strict && (fell || found.len() > 1);
                    self.names.insert(*job, name);
                    self.book.put(name, Place::Asked);
                    return Ok(());
                }
                self.blurred |= !fell && self.may_have_been(number);
                ensure(fell || self.blurred, || "it is asked for the key of a job that needs none".to_owned())
            }
            Action::Cancel { worker, job, attempt } => {
                let member = self.crew.get_mut(worker).ok_or("a worker is told that is gone")?;
                let at = member.find(*job, *attempt).ok_or("a worker is told of what it does not hold")?;
                let hold = &mut member.holds[at];
                if hold.awaited && !self.strict && self.fallen.keys().any(|fallen| fallen.0 == hold.of.0) {
                    // Others of its request have ended in this step: had it met them in another order, it would have ended with them.
                    self.blurred = true;
                    return Ok(());
                }
                ensure(!hold.awaited, || format!("worker {worker:?} is told, and somebody waits for {:?}", hold.of))?;
                ensure(!std::mem::replace(&mut hold.told, true), || format!("worker {worker:?} is told twice"))
            }
            Action::Stop { worker, signal } => {
                let member = self.crew.get_mut(worker).ok_or("a worker is stopped that is gone")?;
                self.tally.count(if *signal == Stop::Kill { Happening::Killed } else { Happening::Terminated });
                member.stop(now, *signal)
            }
            Action::Retire { worker } => {
                let member = self.crew.get_mut(worker).ok_or("a worker is let go that is gone")?;
                ensure(member.retiring || member.doomed, || format!("worker {worker:?} is let go for no reason"))?;
                ensure(member.holds.is_empty() && !member.let_go, || format!("worker {worker:?} is let go with jobs"))?;
                ensure(!member.for_good, || format!("worker {worker:?} was to leave for good"))?;
                member.let_go = true;
                self.tally.count(Happening::Retired);
                Ok(())
            }
            Action::Outdated => {
                self.told_outdated += 1;
                self.tally.count(Happening::Outdated);
                Ok(())
            }
            Action::Chunk { request, payload } => {
                let piece = self.chunk.take().ok_or("a piece that nobody brought")?;
                ensure(piece == (*request, *payload), || "a piece goes to another client, or is another".to_owned())
            }
            Action::Credit { worker, job, bytes, .. } => {
                let credit = self.credit.take().ok_or("a worker may send more, and nobody took anything")?;
                ensure(credit == (*worker, *job, *bytes), || "another worker may send more".to_owned())
            }
            Action::Grow { stage } => self.grows(now, *stage),
            Action::Shrink { worker } => self.shrinks(now, *worker),
            Action::Retried { .. } | Action::AskCredit { .. } => Ok(()),
            Action::Answer { reply, request_id, answer } => self.answers(*reply, *request_id, answer),
            Action::Covered { request_id, problem, by } => self.is_covered(*request_id, problem.code, *by),
            Action::Recall { .. } | Action::GoingOn { .. } => Err("an action that there is no reason for".to_owned()),
        }
    }

    /// What comes to be in a step with several causes may be numbered otherwise than it is here, and so what comes after it.
    pub(super) fn note_births(&mut self) {
        if !self.strict {
            self.adrift.extend(&self.book.born_now);
        }
    }

    /// The job that goes by this name. Of a request whose jobs may be numbered otherwise it is the one that fits.
    fn called(&mut self, name: JobName, action: &Action<u64, u32>) -> JobName {
        let supposed = self.called.get(&name).copied().unwrap_or(name);
        let Action::Run { worker, job: key, payload, .. } = action else { return supposed };
        let stage = self.crew.get(worker).map(|member| member.stage);
        let is_it = |(other, it): &(JobName, &Job)| {
            let asked = self.names.get(key).is_none_or(|asked| asked == other);
            other.0 == name.0 && it.key.is_none() && it.payload == *payload && Some(it.stage) == stage && asked
        };
        let thought = self.job_or_fallen(supposed);
        let has_run = thought.is_some_and(|job| job.key.is_some());
        if has_run || !self.adrift.contains(&name.0) {
            self.blurred |= thought.is_none() && self.may_have_been(Some(name.0));
            return supposed;
        }
        let fallen = self.fallen.iter().map(|(name, job)| (*name, job));
        let found: Vec<JobName> = self.book.all().chain(fallen).filter(is_it).map(|(found, _)| found).collect();
        // Of two that look alike, either may be the one; what comes after them may differ.
        self.blurred |= found.len() > 1 || (found.is_empty() && self.may_have_been(Some(name.0)));
        let Some(found) = found.first().copied().filter(|_| !found.contains(&supposed)) else { return supposed };
        let found_is_called = self.called.iter().find(|(_, is)| **is == found).map_or(found, |(called, _)| *called);
        self.called.insert(name, found);
        self.called.insert(found_is_called, supposed);
        self.tally.count(Happening::Renamed);
        found
    }

    /// Whether there may have been a job that was never thought of: others of its request have ended in this step, of several causes,
    /// and had it met them in another order it would have got one first.
    fn may_have_been(&self, request: Option<u32>) -> bool {
        !self.strict && self.fallen.keys().any(|fallen| Some(fallen.0) == request)
    }

    fn job_or_fallen(&self, name: JobName) -> Option<&Job> {
        self.book.get(name).or_else(|| self.fallen.get(&name))
    }

    fn runs(&mut self, now: Time, action: &Action<u64, u32>) -> Check {
        let Action::Run { worker, job: key, attempt, id, request_id, batch, deadline, .. } = action else {
            return Ok(());
        };
        let JobId(id) = id;
        let name = JobName((id >> RequestId::JOB_BITS) as u32, (id & ((1 << RequestId::JOB_BITS) - 1)) as u32);
        let name = self.called(name, action);
        if self.blurred {
            return Ok(());
        }
        if let Some(job) = self.fallen.remove(&name).filter(|_| !self.strict) {
            return self.ran_and_fell(now, name, &job, action);
        }
        let record = self.requests.get(&name.0).filter(|record| record.due.is_none());
        let record = record.ok_or_else(|| format!("{name:?} runs, and nobody waits for it"))?;
        ensure(record.id == *request_id, || format!("{name:?} runs for another request"))?;
        let job = self.book.get(name).ok_or_else(|| format!("{name:?} runs, which is no job now"))?.clone();
        ensure(*deadline == record.deadline, || format!("{name:?} has another deadline"))?;
        self.is_as_made(name, &job, action)?;
        ensure(job.place == Place::InLine, || format!("{name:?} runs while it is {:?}", job.place))?;
        let member = self.crew.get(worker).ok_or("a job goes to a worker that is gone")?;
        ensure(member.stage == job.stage, || format!("{name:?} goes to a worker of another stage"))?;
        let continues = member.batched && member.more;
        ensure(member.may_take() || (continues && member.holds.len() < member.slots), || {
            format!("{name:?} goes to worker {worker:?}, which takes no job now")
        })?;
        let urgency = |request: u32| self.urgency.get(&request).copied().unwrap_or_default();
        self.turns.goes(&self.book, name, &job, urgency, self.strict)?;
        let rules = self.topology.stage(job.stage).clone();
        if let Some(rules) = rules.batch {
            self.fits_batch(now, *worker, name, rules, *batch)?;
        }
        ensure(rules.batch.is_some() || !*batch, || format!("{name:?} is of a batch where there are none"))?;
        if rules.affinity && rules.batch.is_none() && job.affinity != 0 {
            self.prefers(job.stage, job.affinity, *worker)?;
        }
        self.holds(now, name, rules.timeout, true, action);
        self.names.insert(*key, name);
        self.book.put(name, Place::With(*worker));
        let job = self.book.job_mut(name);
        (job.tries, job.attempt, job.key) = (job.tries + 1, *attempt, Some(*key));
        self.tally.count(Happening::Run);
        Ok(())
    }

    /// From now on a worker has a job.
    fn holds(&mut self, now: Time, name: JobName, timeout: Duration, awaited: bool, action: &Action<u64, u32>) {
        let Action::Run { worker, job, attempt, batch, .. } = *action else { return };
        let Some(member) = self.crew.get_mut(&worker) else { return };
        member.more = batch;
        let try_ends = now + timeout;
        let rules = self.topology.stage(member.stage);
        let kills = rules.on_cancel == OnCancel::Kill && !member.batched;
        let grace = (!awaited && kills).then_some(now + rules.grace);
        member.holds.push(Hold { of: name, job, attempt, try_ends, awaited, told: false, grace, over: None });
        self.set_timer(try_ends, Timer::Try(worker, job, attempt));
    }

    /// A job went to a worker, and then ended, all in one step.
    fn ran_and_fell(&mut self, now: Time, name: JobName, job: &Job, action: &Action<u64, u32>) -> Check {
        self.is_as_made(name, job, action)?;
        let Action::Run { worker, .. } = action else { return Ok(()) };
        let member = self.crew.get(worker).ok_or("a job goes to a worker that is gone")?;
        ensure(member.stage == job.stage, || format!("{name:?} goes to a worker of another stage"))?;
        let (timeout, share) = (self.rules(job.stage).timeout, self.share(job));
        if let Some(member) = self.crew.get_mut(worker) {
            member.weight = share + if member.more { member.weight } else { 0 };
        }
        self.holds(now, name, timeout, false, action);
        self.tally.count(Happening::RanAndFell);
        Ok(())
    }

    /// Whether a job goes out as it has to be.
    fn is_as_made(&self, name: JobName, made: &Job, action: &Action<u64, u32>) -> Check {
        let Action::Run { job, attempt, tries, from_client, stream, function, payload, problem, .. } = action else {
            return Ok(());
        };
        let streamed = self.requests.get(&name.0).is_some_and(|record| record.streamed);
        ensure(!streamed, || format!("{name:?} runs, and its client has got pieces of an answer already"))?;
        ensure(*payload == made.payload, || format!("the payload of {name:?} is not what its way makes of it"))?;
        ensure(made.key.is_none_or(|key| key == *job), || format!("{name:?} has another key than before"))?;
        ensure(*attempt == made.attempt + 1, || format!("{name:?} has attempt {attempt} after {}", made.attempt))?;
        ensure(*tries == made.tries + 1, || format!("{name:?} has try {tries} after {}", made.tries))?;
        let most = self.rules(made.stage).retries + 1;
        // Rules may have become stricter while it waited for another try.
        ensure(*tries <= most || made.tries > 0, || format!("{name:?} has try {tries} of {most}"))?;
        ensure(*from_client == made.from_client, || format!("{name:?} is of the client: {from_client}"))?;
        ensure(*stream == made.stream, || format!("{name:?} may come in chunks: {stream}"))?;
        ensure(function.is_none(), || format!("{name:?} is no call"))?;
        let told = problem.as_ref().map(|problem| problem.code);
        ensure(told == made.problem, || format!("{name:?} is told of {told:?}, not of {:?}", made.problem))
    }

    /// How much of a batch a job takes up: one of the places, or its weight, but no more than all. All of it, if it has lost a try: it
    /// may be the one that cost its neighbours theirs.
    fn share(&self, job: &Job) -> u32 {
        let rules = self.rules(job.stage);
        if job.tries > 0 {
            return rules.slots;
        }
        let weight = if rules.batch.is_some_and(|batch| batch.weighed) { job.weight.max(1) } else { 1 };
        weight.min(rules.slots)
    }

    /// What the jobs in line weigh together.
    pub(super) fn weight_in_line(&self, stage: StageId) -> u64 {
        self.book.line(stage).map(|(_, job)| u64::from(self.share(job))).sum()
    }

    /// A batch is what fills it, or all that wait; where idle workers wait for more, one of them has waited long enough. `name`: the job
    /// that goes into it.
    fn fits_batch(&mut self, now: Time, worker: WorkerKey, name: JobName, rules: Batch, more: bool) -> Check {
        let Some((member, job)) = self.crew.get(&worker).zip(self.book.get(name)) else { return Ok(()) };
        let (stage, most, begins) = (job.stage, self.rules(job.stage).slots, !member.more);
        let weight = self.share(job) + if begins { 0 } else { member.weight };
        ensure(weight <= most, || format!("{weight} of a batch is too much: {most} is the most"))?;
        let waiting = self.weight_in_line(stage);
        let waited = self.book.line(stage).any(|(_, job)| job.entered + rules.idle <= now);
        ensure(!begins || !self.strict || waiting >= u64::from(most) || waited, || {
            format!("a batch of {waiting} of {most} goes out before its time")
        })?;
        let room = most - weight;
        let others = || self.book.line(stage).filter(|(other, _)| *other != name);
        let none_fits = !others().any(|(_, job)| self.share(job) <= room);
        // Whatever came in this very step came before the batch went out.
        let all_fit = others().next().is_some() && others().all(|(_, job)| self.share(job) <= room);
        ensure(!(self.strict && more && none_fits), || {
            format!("nothing fits into {room}, and more of the batch: true")
        })?;
        ensure(!self.strict || more || !all_fit, || format!("all fits into {room}, and more of the batch: false"))?;
        if begins {
            let full = waiting >= u64::from(most);
            self.tally.count(match full {
                true => Happening::FullBatch,
                false if rules.idle.is_zero() => Happening::BatchAtOnce,
                false => Happening::SmallBatch,
            });
            if self.book.get(name).is_some_and(|job| job.tries > 0) {
                self.tally.count(Happening::Alone);
            }
            if rules.weighed && full && !more && weight < most {
                self.tally.count(Happening::LightBatch);
            }
        }
        if let Some(member) = self.crew.get_mut(&worker) {
            member.weight = weight;
        }
        Ok(())
    }

    /// A worker gets a job of that key: whoever could have got it as well comes behind it for this key from now on.
    fn prefers(&mut self, stage: StageId, affinity: u64, worker: WorkerKey) -> Check {
        let others =
            self.crew.iter().filter(|(other, member)| **other != worker && member.stage == stage && member.is_free());
        let others: Vec<WorkerKey> = others.map(|(other, _)| *other).collect();
        for other in others {
            ensure(!self.strict || !self.preferred.contains(&(stage, affinity, other, worker)), || {
                format!("key {affinity} went to {worker:?}, though {other:?} was free, which had had it before")
            })?;
            if self.strict {
                self.preferred.insert((stage, affinity, worker, other));
            }
            self.tally.count(Happening::Preferred);
        }
        Ok(())
    }

    /// A client is not told of a failure. If its request has another way, that is taken once.
    fn is_covered(&mut self, id: RequestId, code: Code, by: Cover) -> Check {
        let number = (id.0 >> RequestId::JOB_BITS) as u32;
        let record = self.requests.get_mut(&number).filter(|record| record.id == id);
        let record = record.ok_or_else(|| format!("{code:?} is kept from nobody"))?;
        let recovery = record.recovery.as_mut().filter(|recovery| recovery.taken.is_some());
        match by {
            Cover::Collected | Cover::Fallback => Ok(()),
            Cover::OnError => {
                let recovery = recovery.filter(|recovery| recovery.taken == Some(code) && !recovery.told);
                recovery.ok_or_else(|| format!("request {number} takes its other way for {code:?}"))?.told = true;
                Ok(())
            }
            Cover::AfterOnError => {
                let first = recovery.filter(|recovery| recovery.told).and_then(|recovery| recovery.taken);
                ensure(first.is_some() && record.due == first.map(Due::Problem), || {
                    format!("request {number} fails with {code:?} on a way that it is not on")
                })
            }
        }
    }

    fn answers(&mut self, number: u32, id: RequestId, answer: &Answer<u64>) -> Check {
        let record = self.requests.get(&number).ok_or_else(|| format!("request {number} is answered again"))?;
        ensure(record.id == id, || format!("the answer of request {number} has the id of another"))?;
        let due =
            record.due.ok_or_else(|| format!("request {number} is answered with {answer:?}, and nothing is due"))?;
        let covered = |problem: &Problem| !record.streamed && covers(record.fallback_on, problem.code);
        let fits = match (due, answer) {
            (Due::Value(due), Answer::Value(value)) => due == *value,
            (Due::Reply(due), Answer::Reply(reply)) => due == reply.body,
            (Due::Ended, Answer::Ended) => true,
            (Due::Problem(due), Answer::Problem(problem)) => due == problem.code && !covered(problem),
            (Due::Problem(due), Answer::Fallback(problem)) => due == problem.code && covered(problem),
            _ => false,
        };
        ensure(fits, || format!("request {number} is answered with {answer:?}, and {due:?} was due"))?;
        self.tally.count(match due {
            Due::Value(_) => Happening::Value,
            Due::Reply(_) => Happening::Reply,
            Due::Ended => Happening::Ended,
            Due::Problem(Code::DeadlineExceeded) => Happening::DeadlinePassed,
            Due::Problem(Code::ScatterTimeout) => Happening::ScatterTimedOut,
            Due::Problem(_) => Happening::Problem,
        });
        self.answered += 1;
        self.forget(number);
        Ok(())
    }
}
