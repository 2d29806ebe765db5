//! The workers as the checker sees them: what each may be handed, and when it may and must be told and sent signals.

use std::time::Duration;

use evener_core::{JobKey, StageId, Time, WorkerKey};

use crate::checker::{Check, ensure, surely};

/// Between SIGTERM and SIGKILL.
const TERM_TO_KILL: Duration = Duration::from_secs(1);

/// A job in a worker's hands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) request: u32,
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
    /// When its try is over.
    pub(crate) try_ends: Time,
    pub(crate) told: bool,
    /// Grace begins at the earliest and at the latest then, if that is known yet.
    grace: Option<(Time, Time)>,
    terminated: Option<Time>,
    killed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Duty {
    Idle,
    Holding(Hold),
    Leaving,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) stage: StageId,
    pub(crate) duty: Duty,
    pub(crate) done: u64,
    /// It has to be let go in this very step.
    pub(crate) retires: bool,
}

impl Member {
    pub(crate) fn new(stage: StageId) -> Member {
        Member { stage, duty: Duty::Idle, done: 0, retires: false }
    }

    pub(crate) fn hold(&self) -> Option<&Hold> {
        match &self.duty {
            Duty::Holding(hold) => Some(hold),
            Duty::Idle | Duty::Leaving => None,
        }
    }

    /// What it holds, if it is this job under this attempt.
    pub(crate) fn holds(&self, job: JobKey, attempt: u32) -> Option<Hold> {
        self.hold().filter(|hold| hold.job == job && hold.attempt == attempt).copied()
    }
}

impl Hold {
    pub(crate) fn new(request: u32, job: JobKey, attempt: u32, try_ends: Time) -> Hold {
        Hold { request, job, attempt, try_ends, told: false, grace: None, terminated: None, killed: false }
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

    /// Time passed: what is overdue?
    pub(crate) fn overdue(&mut self, worker: WorkerKey, now: Time, grace: Duration) -> Check {
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
