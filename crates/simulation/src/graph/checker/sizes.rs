//! How large pools are that size themselves.

use std::time::Duration;

use evener_core::Scale;

use super::*;
use crate::checker::{Check, ensure};

/// A pool that sizes itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// How many workers were asked for beyond the least.
    more: u32,
    /// When none of its slots was idle for the last time.
    all_busy: Time,
}

impl Checker {
    /// Workers that are up and stay, and those of whom that cannot be known.
    fn up(&self, stage: StageId) -> (u32, u32) {
        let of_it = |member: &&Member| member.stage == stage && !member.retiring && !member.let_go;
        let staying: Vec<&Member> = self.crew.values().filter(of_it).collect();
        let doomed = staying.iter().filter(|member| member.doomed).count();
        ((staying.len() - doomed) as u32, doomed as u32)
    }

    /// Workers that have a place in their pool: they stay, or another comes for them.
    fn in_place(&self, stage: StageId) -> impl Iterator<Item = (WorkerKey, &Member)> {
        let members = self.crew.iter().filter(move |(_, member)| member.stage == stage);
        let goes = |member: &Member| member.retiring || member.let_go || (member.doomed && member.slots > 1);
        members.filter(move |(_, member)| !goes(member)).map(|(worker, member)| (*worker, member))
    }

    /// A worker came, whether it was asked for or not.
    pub(super) fn one_more(&mut self, stage: StageId) {
        let Some(scale) = self.rules(stage).scale else { return };
        let up = self.in_place(stage).count() as u32;
        let size = self.sizes.entry(stage).or_default();
        if scale.min + size.more < up {
            self.tally.count(Happening::Unasked);
            size.more = up - scale.min;
        }
    }

    /// A worker goes for good that nobody here wanted to go.
    pub(super) fn one_less(&mut self, stage: StageId) {
        if let Some(size) = self.sizes.get_mut(&stage) {
            size.more = size.more.saturating_sub(1);
        }
    }

    /// A pool has other bounds than before, or none. Those that are too many go, and first those that have nothing to do.
    pub(super) fn rescale(&mut self, stage: StageId, wanted: Option<u32>) {
        self.sizes.remove(&stage);
        let Some(scale) = self.rules(stage).scale else { return };
        self.tally.count(Happening::Rescaled);
        let mut up: Vec<(bool, WorkerKey)> =
            self.in_place(stage).map(|(worker, member)| (!member.holds.is_empty(), worker)).collect();
        up.sort_unstable();
        let wanted = wanted.unwrap_or(0).max(up.len() as u32).clamp(scale.min, scale.max);
        self.sizes.entry(stage).or_default().more = wanted - scale.min;
        let too_many = up.len().saturating_sub(scale.max as usize);
        for (_, worker) in up.into_iter().take(too_many) {
            if let Some(member) = self.crew.get_mut(&worker) {
                (member.retiring, member.for_good) = (true, true);
            }
        }
    }

    /// How many workers a stage is to have.
    pub(in super::super) fn wanted(&self, stage: StageId) -> Option<u32> {
        let least = self.rules(stage).scale?.min;
        Some(least + self.sizes.get(&stage).map_or(0, |size| size.more))
    }

    /// How long a job waits before its pool grows: where it may gather with others for a batch, at least as long as that.
    fn patience(&self, stage: StageId, scale: Scale) -> Duration {
        let gathers = self.rules(stage).batch.map(|batch| batch.wait).unwrap_or_default();
        gathers.max(scale.wait)
    }

    /// One more worker is asked for.
    pub(super) fn grows(&mut self, now: Time, stage: StageId) -> Check {
        let scale = self.rules(stage).scale.ok_or("a pool grows that has its size")?;
        let wanted = self.wanted(stage).unwrap_or_default();
        ensure(wanted < scale.max, || format!("a pool grows beyond its {} workers", scale.max))?;
        let (up, doomed) = self.up(stage);
        ensure(up + doomed >= wanted, || "a pool grows before the last worker is up".to_owned())?;
        let waited = |job: &Job| job.entered + self.patience(stage, scale) <= now;
        let mut members = self.crew.values().filter(|member| member.stage == stage);
        ensure(!self.strict || !members.any(Member::is_free), || "a pool grows, and a worker is free".to_owned())?;
        // Who waited may have been handed to a worker, or dropped, in the same step.
        let waits = self.book.line(stage).any(|(_, job)| waited(job));
        ensure(waits || !self.strict, || "a pool grows, and no job has waited too long".to_owned())?;
        self.sizes.entry(stage).or_default().more += 1;
        self.tally.count(Happening::Grew);
        Ok(())
    }

    /// A worker is let go that nobody needs.
    pub(super) fn shrinks(&mut self, now: Time, worker: WorkerKey) -> Check {
        let member = self.crew.get_mut(&worker).ok_or("a worker is let go that is gone")?;
        if member.for_good {
            ensure(member.holds.is_empty() && !member.let_go, || format!("worker {worker:?} is let go with jobs"))?;
            member.let_go = true;
            self.tally.count(Happening::LeftForGood);
            return Ok(());
        }
        let (stage, idle) = (member.stage, member.holds.is_empty() && member.is_free());
        let scale = self.rules(stage).scale.ok_or("a pool shrinks that has its size")?;
        ensure(idle, || format!("worker {worker:?} is let go though it is not idle"))?;
        let size = self.sizes.entry(stage).or_default();
        ensure(size.more > 0, || format!("a pool shrinks below its {} workers", scale.min))?;
        ensure(now.since(size.all_busy) >= scale.idle, || "a pool shrinks, and all of it was needed".to_owned())?;
        size.more -= 1;
        if let Some(member) = self.crew.get_mut(&worker) {
            member.let_go = true;
        }
        self.tally.count(Happening::Shrank);
        Ok(())
    }

    /// A step is over: is there a pool that should have grown?
    pub(super) fn settle_sizes(&mut self, now: Time) -> Check {
        let stages: Vec<StageId> = (0..self.topology.stages().len() as u32).map(StageId).collect();
        for stage in stages {
            let Some(scale) = self.rules(stage).scale else { continue };
            let mut members = self.crew.values().filter(|member| member.stage == stage);
            if members.any(Member::is_free) {
                continue;
            }
            self.sizes.entry(stage).or_default().all_busy = now;
            let wanted = self.wanted(stage).unwrap_or_default();
            let waits = self.book.line(stage).filter(|_| self.time_passed).map(|(_, job)| job.entered);
            // Of which flow the first is cannot be known; but all have waited.
            let all_waited = waits.max().is_some_and(|youngest| fired(youngest + self.patience(stage, scale), now));
            ensure(!all_waited || wanted >= scale.max || self.up(stage).0 < wanted, || {
                format!("the pool of stage {} should have grown to more than {wanted}", stage.0)
            })?;
        }
        Ok(())
    }
}
