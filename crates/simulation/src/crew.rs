//! The workers as the checker sees them: what each may be handed, and when it may and must be told and sent signals.

use std::collections::VecDeque;
use std::time::Duration;

use evener_core::{FunctionId, JobKey, OnCancel, StageId, StageRules, Time, WorkerKey};

use crate::checker::{Check, ensure, surely};

/// Between SIGTERM and SIGKILL.
const TERM_TO_KILL: Duration = Duration::from_secs(1);
/// A worker that has been at its oldest job for longer than this is handed nothing more.
const FRESH: Duration = Duration::from_millis(1);
/// A job that waits behind one that takes longer than this is called back.
const OVERDUE: Duration = Duration::from_millis(2);
/// A worker that has not given a job back by then is stuck.
const STUCK: Duration = Duration::from_secs(1);

/// A job in a worker's hands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) request: u32,
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
    pub(crate) function: Option<FunctionId>,
    /// How long its try may take.
    timeout: Duration,
    /// When its try is over, once it counts as begun.
    pub(crate) try_ends: Time,
    pub(crate) told: bool,
    /// When it was called back.
    pub(crate) recalled: Option<Time>,
    /// Its client has insisted on its end.
    pub(crate) insisted: bool,
    /// Grace begins at the earliest and at the latest then, if that is known yet.
    grace: Option<(Time, Time)>,
    terminated: Option<Time>,
    killed: bool,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) stage: StageId,
    /// What it owes an outcome for, the oldest first. Only that one counts as begun.
    pub(crate) held: VecDeque<Hold>,
    /// Since when the oldest has been the oldest.
    pub(crate) since: Time,
    /// Which function the oldest is a call of, or the last one was.
    pub(crate) function: Option<FunctionId>,
    /// It has printed something while at the oldest.
    pub(crate) printed: bool,
    /// It gets no more jobs.
    pub(crate) leaving: bool,
    pub(crate) done: u64,
    /// It has to be let go in this very step.
    pub(crate) retires: bool,
    /// How many jobs it takes ahead.
    pub(crate) credit: u32,
    /// It was asked for that.
    pub(crate) asked: bool,
}

impl Member {
    pub(crate) fn new(stage: StageId) -> Member {
        Member {
            stage,
            held: VecDeque::new(),
            since: Time::ZERO,
            function: None,
            printed: false,
            leaving: false,
            done: 0,
            retires: false,
            credit: 0,
            asked: false,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty() && !self.leaving
    }

    /// Where among its jobs this one is, under this attempt.
    pub(crate) fn find(&self, job: JobKey, attempt: u32) -> Option<usize> {
        self.held.iter().position(|hold| hold.job == job && hold.attempt == attempt)
    }

    /// Jobs behind the oldest.
    pub(crate) fn ahead(&self) -> usize {
        self.held.len().saturating_sub(1)
    }

    /// Whether it may be handed another job behind those that it has, `depth` being the most.
    pub(crate) fn has_room(&self, now: Time, depth: usize) -> bool {
        let comes_on = self.held.front().is_some_and(|oldest| !oldest.told) && now.since(self.since) <= FRESH;
        let nothing_wanted_back = self.held.get(1).is_none_or(|next| next.recalled.is_none());
        comes_on
            && nothing_wanted_back
            && !self.printed
            && !self.leaving
            && self.ahead() < depth.min(self.credit as usize)
    }

    /// The oldest of its jobs counts as begun from now on.
    pub(crate) fn begin(&mut self, now: Time, rules: &StageRules) {
        let Some(oldest) = self.held.front_mut() else { return };
        oldest.begin(now, rules);
        (self.since, self.function, self.printed) = (now, oldest.function, false);
    }

    /// A job may be called back: since its worker is held up, or since its client has `taken` it back.
    pub(crate) fn recall(&mut self, now: Time, job: JobKey, attempt: u32, taken: bool) -> Check {
        let at = self.find(job, attempt).ok_or("a worker is to give back what it does not hold")?;
        ensure(at > 0, || "the oldest job was called back".to_owned())?;
        ensure(taken || now.since(self.since) >= OVERDUE, || "a job was called back too early".to_owned())?;
        ensure(taken || self.held.iter().skip(at + 1).all(|younger| younger.recalled.is_some()), || {
            "a job was called back before a younger one".to_owned()
        })?;
        let before = self.held[at].recalled.replace(now);
        ensure(before.is_none(), || "a job was called back twice".to_owned())
    }

    /// Whether the worker counts as stuck with a job that was called back.
    pub(crate) fn is_stuck(&self, now: Time, hold: &Hold) -> bool {
        now.since(self.since) >= OVERDUE && hold.recalled.is_some_and(|at| now.since(at) >= STUCK)
    }

    /// By when a job has to have been given to others.
    pub(crate) fn stuck_by(&self, hold: &Hold) -> Option<Time> {
        hold.recalled.map(|at| (at + STUCK).max(self.since + OVERDUE))
    }

    /// Time passed: what is overdue?
    pub(crate) fn overdue(&mut self, worker: WorkerKey, now: Time, grace: Duration) -> Check {
        for ahead in self.held.iter().skip(1) {
            ensure(ahead.recalled.is_some() || !surely(self.since + OVERDUE, now), || {
                format!("worker {worker:?} should have been asked for job {:?} back", ahead.job)
            })?;
        }
        self.held.front_mut().map_or(Ok(()), |oldest| oldest.overdue(worker, now, grace))
    }
}

impl Hold {
    pub(crate) fn new(
        request: u32,
        job: JobKey,
        attempt: u32,
        function: Option<FunctionId>,
        timeout: Duration,
    ) -> Hold {
        Hold {
            request,
            job,
            attempt,
            function,
            timeout,
            try_ends: Time::NEVER,
            told: false,
            recalled: None,
            insisted: false,
            grace: None,
            terminated: None,
            killed: false,
        }
    }

    /// From now on it counts as begun.
    fn begin(&mut self, now: Time, rules: &StageRules) {
        self.try_ends = now + self.timeout;
        self.grace = (self.told && self.may_be_killed(rules)).then_some((now, now));
    }

    /// Whether its worker is killed if it is told, and does not come back.
    pub(crate) fn may_be_killed(&self, rules: &StageRules) -> bool {
        self.insisted || rules.on_cancel == OnCancel::Kill
    }

    /// It is the next of a worker that was sent a signal while it was at `before`, and goes down with it.
    pub(crate) fn go_down_with(&mut self, before: &Hold) {
        (self.told, self.grace) = (true, before.grace);
        (self.try_ends, self.terminated, self.killed) = (before.try_ends, before.terminated, before.killed);
    }

    /// Whether it was sent a signal: it is not to come back.
    pub(crate) fn is_doomed(&self) -> bool {
        self.terminated.is_some()
    }

    /// It was told. Grace begins now, or else when its try would have ended.
    pub(crate) fn tell(&mut self, now: Time, grace_begins: bool) -> Check {
        ensure(!self.told, || "a worker was told twice".to_owned())?;
        self.told = true;
        self.grace = grace_begins.then_some((now, now));
        Ok(())
    }

    pub(crate) fn terminate(&mut self, now: Time, grace: Duration) -> Check {
        ensure(self.told, || "SIGTERM for a worker that was not told".to_owned())?;
        ensure(self.terminated.is_none(), || "SIGTERM twice".to_owned())?;
        let begins = self.grace.map_or(self.try_ends, |(earliest, _)| earliest);
        ensure(now >= begins + grace, || "SIGTERM before the grace was over".to_owned())?;
        self.terminated = Some(now);
        Ok(())
    }

    pub(crate) fn kill(&mut self, now: Time) -> Check {
        ensure(!self.killed, || "SIGKILL twice".to_owned())?;
        let terminated = self.terminated.ok_or("SIGKILL without SIGTERM")?;
        ensure(now >= terminated + TERM_TO_KILL, || "SIGKILL less than a second after SIGTERM".to_owned())?;
        self.killed = true;
        Ok(())
    }

    fn overdue(&mut self, worker: WorkerKey, now: Time, grace: Duration) -> Check {
        if !self.told {
            return ensure(!surely(self.try_ends, now), || {
                format!("worker {worker:?} is past its timeout and was not told")
            });
        }
        match (self.terminated, self.grace) {
            (Some(at), _) => ensure(self.killed || !surely(at + TERM_TO_KILL, now), || {
                format!("worker {worker:?} should have got SIGKILL by now")
            }),
            (None, Some((_, latest))) => {
                ensure(!surely(latest + grace, now), || format!("worker {worker:?} should have got SIGTERM by now"))
            }
            (None, None) => {
                self.grace = surely(self.try_ends, now).then_some((self.try_ends, now));
                Ok(())
            }
        }
    }
}
