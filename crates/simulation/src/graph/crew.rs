//! The workers as the checker sees them: which jobs each has, and when it may and must be sent signals.

use std::time::Duration;

use evener_core::{JobKey, StageId, StageRules, Stop, Time, WorkerKey};

use super::book::JobName;
use super::fired;
use crate::checker::{Check, ensure};

/// Between SIGTERM and SIGKILL.
const TERM_TO_KILL: Duration = Duration::from_secs(1);

/// A job in a worker's hands.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) of: JobName,
    pub(super) job: JobKey,
    pub(super) attempt: u32,
    pub(super) try_ends: Time,
    /// Whether its job waits for it.
    pub(super) awaited: bool,
    /// Whether the worker was told that it does not.
    pub(super) told: bool,
    /// When the grace of its worker ends, once it has begun.
    pub(super) grace: Option<Time>,
    /// When the grace of its neighbours ends, once its own is over.
    pub(super) over: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) stage: StageId,
    pub(super) slots: usize,
    /// Whether it takes all its jobs as one.
    pub(super) batched: bool,
    pub(super) holds: Vec<Hold>,
    /// Outcomes that it brought.
    pub(super) done: u64,
    /// It gets no more jobs, and is let go when it has none left.
    pub(super) retiring: bool,
    /// No other is to come in its place then.
    pub(super) for_good: bool,
    /// It did not come back in time from a job, or cannot go on: it gets no more jobs, and goes one way or the other.
    pub(super) doomed: bool,
    /// It has come to that in this very step.
    pub(super) doomed_now: bool,
    pub(super) let_go: bool,
    pub(super) terminated: Option<Time>,
    pub(super) killed: bool,
    /// What the batch that it was handed weighs so far.
    pub(super) weight: u32,
    /// The batch that it was handed is not all there yet.
    pub(super) more: bool,
}

impl Member {
    pub(super) fn new(stage: StageId, rules: &StageRules) -> Member {
        Member {
            stage,
            slots: rules.slots as usize,
            batched: rules.batch.is_some(),
            holds: Vec::new(),
            done: 0,
            retiring: false,
            for_good: false,
            doomed: false,
            doomed_now: false,
            let_go: false,
            terminated: None,
            killed: false,
            weight: 0,
            more: false,
        }
    }

    /// Whether it is to be handed jobs, if there are any.
    pub(super) fn is_free(&self) -> bool {
        self.may_take() && !self.doomed
    }

    /// Whether it may be handed jobs: what else happens in this step may come before the end of its grace.
    pub(super) fn may_take(&self) -> bool {
        let room = if self.batched { self.holds.is_empty() } else { self.holds.len() < self.slots };
        let doomed = self.doomed && !self.doomed_now;
        room && !self.retiring && !doomed && !self.let_go && self.terminated.is_none()
    }

    pub(super) fn find(&self, job: JobKey, attempt: u32) -> Option<usize> {
        self.holds.iter().position(|hold| hold.job == job && hold.attempt == attempt)
    }

    pub(super) fn of(&mut self, name: JobName) -> Option<&mut Hold> {
        self.holds.iter_mut().find(|hold| hold.of == name && hold.awaited)
    }

    fn has_neighbours(&self) -> bool {
        self.holds.iter().any(|hold| hold.awaited)
    }

    pub(super) fn stop(&mut self, now: Time, signal: Stop) -> Check {
        match signal {
            Stop::Terminate => {
                ensure(self.terminated.is_none(), || "SIGTERM twice".to_owned())?;
                let mut over = self.holds.iter().filter(|hold| hold.told).filter_map(|hold| hold.over);
                let first = over.next().ok_or("SIGTERM before the grace was over")?;
                let first = over.fold(first, Time::min);
                ensure(!self.has_neighbours() || first <= now, || {
                    "SIGTERM before the neighbours had their grace".to_owned()
                })?;
                self.terminated = Some(now);
            }
            Stop::Kill => {
                ensure(!self.killed, || "SIGKILL twice".to_owned())?;
                let at = self.terminated.ok_or("SIGKILL without SIGTERM")?;
                ensure(now >= at + TERM_TO_KILL, || "SIGKILL less than a second after SIGTERM".to_owned())?;
                self.killed = true;
            }
        }
        Ok(())
    }

    /// Time passed: one that did not come back in its grace gets no more jobs.
    pub(super) fn time_passed(&mut self, now: Time, grace: Duration) {
        for hold in &mut self.holds {
            if hold.over.is_none() && hold.grace.is_some_and(|end| fired(end, now)) {
                hold.over = Some(now + grace);
                self.doomed_now |= !self.doomed;
                self.doomed = true;
            }
        }
    }

    /// Whether all that was overdue has been done.
    pub(super) fn overdue(&self, worker: WorkerKey, now: Time) -> Check {
        for hold in &self.holds {
            let late = hold.over.is_some_and(|over| self.slots == 1 || fired(over, now));
            ensure(!late || self.terminated.is_some(), || format!("worker {worker:?} should have got SIGTERM by now"))?;
        }
        let late = self.terminated.is_some_and(|at| fired(at + TERM_TO_KILL, now));
        ensure(!late || self.killed, || format!("worker {worker:?} should have got SIGKILL by now"))
    }
}
