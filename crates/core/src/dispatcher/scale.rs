//! Pools that size themselves: they grow while jobs wait too long, and shrink by what nobody has needed for a while.
//!
//! Growing goes by one worker at a time, and the next is looked at only when the last is up; shrinking looks at the fewest that were
//! idle at any moment of a whole span. So a pool does not swing.

use super::{Action, Dispatcher};
use crate::job::Due;
use crate::pool::WorkerKey;
use crate::rules::Scale;
use crate::time::Time;
use crate::timers::TimerKey;
use crate::topology::StageId;

/// How large a pool is to be.
#[derive(Debug, Default)]
pub(super) struct Size {
    /// Workers beyond the least.
    more: u32,
    /// The next look at whether jobs wait too long, and when.
    pub(super) grow: Option<(Time, TimerKey<Due>)>,
    /// The next look at what is idle.
    pub(super) shrink: Option<TimerKey<Due>>,
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// How many workers a stage that sizes itself is to have at present.
    pub fn wanted(&self, stage: StageId) -> Option<u32> {
        let scale = self.topology.stage(stage).scale?;
        Some(scale.min + self.stages[stage.index()].size.more)
    }

    /// Jobs may be waiting. If the first has waited too long and all workers that are wanted are up, one more is. While a worker
    /// is idle, jobs wait for others of their batch.
    pub(super) fn look_at_wait(&mut self, now: Time, stage: StageId) {
        let Some(scale) = self.topology.stage(stage).scale.filter(|_| !self.pools.has_idle(stage)) else { return };
        let state = &mut self.stages[stage.index()];
        let Some(first) = state.queue.first().and_then(|first| self.jobs.get(first)) else { return };
        let wanted = scale.min + state.size.more;
        if wanted >= scale.max {
            return;
        }
        let due = first.entered + self.topology.stage(stage).grow_wait(scale);
        if due > now {
            // The first need not have come first: it may have waited for its key, or for another try.
            if state.size.grow.is_none_or(|(set_for, _)| set_for > due) {
                state.size.grow.map(|(_, timer)| self.timers.clear(timer));
                state.size.grow = Some((due, self.timers.set(due, Due::Grow(stage))));
            }
        } else if self.pools.staying(stage).count() >= wanted as usize {
            state.size.more += 1;
            self.actions.push(Action::Grow { stage });
        }
    }

    /// A worker has come up. It may be one that nobody asked for: it was to leave for good, and died before it had heard of that, so
    /// that another was started in its place; or it is to take the place of one that still stays. It counts until it leaves.
    pub(super) fn count_up(&mut self, stage: StageId) {
        let Some(scale) = self.topology.stage(stage).scale else { return };
        let up = self.pools.staying(stage).count() as u32;
        let size = &mut self.stages[stage.index()].size;
        size.more = size.more.max(up.saturating_sub(scale.min));
    }

    /// A worker is taken away that would have stayed.
    pub(super) fn count_down(&mut self, stage: StageId) {
        let size = &mut self.stages[stage.index()].size;
        size.more = size.more.saturating_sub(1);
    }

    /// One worker that is more than the least may be too many.
    pub(super) fn watch_size(&mut self, now: Time, stage: StageId) {
        let Some(scale) = self.topology.stage(stage).scale else { return };
        let size = &self.stages[stage.index()].size;
        if size.more > 0 && size.shrink.is_none() {
            self.begin_span(now, stage, scale);
        }
    }

    fn begin_span(&mut self, now: Time, stage: StageId, scale: Scale) {
        self.pools.begin_span(stage);
        let timer = self.timers.set(now + scale.idle, Due::Shrink(stage));
        self.stages[stage.index()].size.shrink = Some(timer);
    }

    /// How a stage sizes itself has changed. It keeps the workers that it has or is to get, as far as it may, and those that are at
    /// work first.
    pub(super) fn resize(&mut self, stage: StageId, before: Option<Scale>) {
        let size = std::mem::take(&mut self.stages[stage.index()].size);
        size.grow.map(|(_, timer)| self.timers.clear(timer));
        size.shrink.map(|timer| self.timers.clear(timer));
        let Some(scale) = self.topology.stage(stage).scale else { return };
        let mut staying: Vec<WorkerKey> = self.pools.staying(stage).collect();
        let wanted = before.map_or(0, |before| before.min + size.more).max(staying.len() as u32);
        self.stages[stage.index()].size.more = wanted.clamp(scale.min, scale.max.max(scale.min)) - scale.min;
        staying.sort_by_key(|worker| (self.worker_is_busy(*worker), *worker));
        let too_many = staying.len().saturating_sub(scale.max as usize);
        for worker in staying.into_iter().take(too_many) {
            self.pools.retire_for_good(worker);
            if self.pools.has_left(worker) {
                self.let_go(worker);
            }
        }
    }

    /// A span has passed: the workers that were idle all along leave, down to the least. Not while jobs wait, for others of their
    /// batch: one of those workers is to have it.
    pub(super) fn shrink(&mut self, now: Time, stage: StageId) {
        self.stages[stage.index()].size.shrink = None;
        let Some(scale) = self.topology.stage(stage).scale else { return };
        let state = &self.stages[stage.index()];
        // Some may be on their way up.
        let beyond = self.pools.staying(stage).count().saturating_sub(scale.min as usize);
        let most = if state.queue.len() == 0 { beyond.min(state.size.more as usize) } else { 0 };
        for worker in self.pools.spare(stage, most) {
            self.pools.retire_for_good(worker);
            self.count_down(stage);
            self.let_go(worker);
        }
        self.watch_size(now, stage);
    }
}
