//! When a step is over, and when all is.

use super::*;
use crate::checker::{Check, ensure};
use crate::machine::Core;

impl Checker {
    /// A step is over: all that was due has come.
    pub(in super::super) fn settle(&mut self, now: Time, core: &Core) -> Check {
        core.verify()?;
        self.note_births();
        if let Some((number, record)) = self.requests.iter().find(|(_, record)| record.due.is_some()) {
            return Err(format!("request {number} should have been answered with {:?}", record.due));
        }
        let untold =
            |record: &Request| record.recovery.is_some_and(|recovery| recovery.taken.is_some() && !recovery.told);
        let taken = self.requests.iter().find(|(_, record)| untold(record)).map(|(number, _)| number);
        ensure(taken.is_none(), || format!("request {taken:?} takes its other way, and that was not told"))?;
        let (told, due) = (std::mem::take(&mut self.told_outdated), std::mem::take(&mut self.outdated));
        ensure(told <= due, || "an old plan is said to be done, and requests of it are left".to_owned())?;
        ensure(told == due, || "no request of an old plan is left, and that was not told".to_owned())?;
        ensure(self.chunk.is_none(), || "a piece did not go on to its client".to_owned())?;
        ensure(self.credit.is_none(), || "a worker was not told that its client took something".to_owned())?;
        let to_be_asked = self.book.all().find(|(_, job)| job.place == Place::ToBeAsked);
        ensure(to_be_asked.is_none(), || format!("{:?} was not asked for its key", to_be_asked.map(|(name, _)| name)))?;
        for (worker, member) in &self.crew {
            let untold = member.holds.iter().find(|hold| !hold.awaited && !hold.told);
            ensure(untold.is_none(), || {
                format!("worker {worker:?} was not told at once that nobody waits for {:?}", untold.map(|hold| hold.of))
            })?;
            ensure(!member.more, || format!("worker {worker:?} waits for more of its batch"))?;
            let leaves = member.retiring && !member.doomed && member.holds.is_empty();
            ensure(!leaves || member.let_go, || format!("worker {worker:?} should have been let go"))?;
            if self.time_passed {
                member.overdue(*worker, now)?;
            }
        }
        self.nobody_waits_in_vain(now)?;
        self.settle_sizes(now)?;
        let urgency = |request: u32| self.urgency.get(&request).copied().unwrap_or_default();
        self.turns.settle(&self.book, urgency);
        self.crew.values_mut().for_each(|member| member.doomed_now = false);
        self.counts_alike(core)
    }

    /// Nobody waits for a worker while one is free, but for others of a batch.
    fn nobody_waits_in_vain(&self, now: Time) -> Check {
        for (worker, member) in self.crew.iter().filter(|(_, member)| member.is_free()) {
            let waiting = self.book.line_len(member.stage);
            if waiting == 0 {
                continue;
            }
            let Some(batch) = self.rules(member.stage).batch else {
                return Err(format!("{waiting} jobs wait in stage {} though {worker:?} is free", member.stage.0));
            };
            let (weight, most) = (self.weight_in_line(member.stage), member.slots);
            ensure(weight < most as u64, || {
                format!("{waiting} jobs of {weight} wait for the {most} slots of {worker:?}, which is free")
            })?;
            let late = |job: &Job| self.time_passed && fired(job.entered + batch.idle, now);
            ensure(!batch.idle.is_zero(), || {
                format!("{waiting} jobs wait though {worker:?} is free, which waits for no more")
            })?;
            let waits = self.book.line(member.stage).find(|(_, job)| late(job));
            ensure(waits.is_none(), || {
                format!("{:?} has waited too long for others of its batch", waits.map(|(name, _)| name))
            })?;
        }
        Ok(())
    }

    fn counts_alike(&self, core: &Core) -> Check {
        let totals = core.totals();
        let own = (self.accepted, self.answered, self.cancelled);
        ensure((totals.accepted, totals.answered, totals.cancelled) == own, || {
            format!("the dispatcher counts other requests: {totals:?}, not {own:?}")
        })?;
        for stage in (0..self.topology.stages().len() as u32).map(StageId) {
            let (counts, waiting) = (core.counts(stage), self.book.line_len(stage));
            ensure(counts.queued == waiting, || {
                format!("{} jobs are said to wait in stage {}, and {waiting} do", counts.queued, stage.0)
            })?;
            let (said, wanted) = (core.wanted(stage), self.wanted(stage));
            ensure(said == wanted, || format!("stage {} is to have {said:?} workers, not {wanted:?}", stage.0))?;
        }
        Ok(())
    }

    /// Nothing is left to happen.
    pub(in super::super) fn at_rest(&self, core: &Core) -> Check {
        ensure(self.requests.is_empty(), || format!("{} requests wait at the end", self.requests.len()))?;
        ensure(core.pending() == 0, || format!("the dispatcher has {} requests at the end", core.pending()))?;
        ensure(self.book.all().next().is_none(), || "there are jobs at the end".to_owned())
    }

    /// Whether a worker has that job under that attempt.
    pub(in super::super) fn may_come(&self, worker: WorkerKey, job: JobKey, attempt: u32) -> bool {
        self.crew.get(&worker).is_some_and(|member| member.find(job, attempt).is_some())
    }
}
