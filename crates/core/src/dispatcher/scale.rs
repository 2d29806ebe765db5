//! Pools that size themselves: they grow while jobs wait too long, and shrink by what nobody has needed for a while.
//!
//! Growing goes by one worker at a time, and the next is looked at only when the last is up; shrinking looks at the fewest that were
//! idle at any moment of a whole span. So a pool does not swing.

use super::{Action, Dispatcher};
use crate::job::Due;
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
    /// Whether the next look at what is idle is set.
    shrinks: bool,
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
        let due = first.entered + scale.wait;
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

    /// A worker has come up: jobs may still wait too long; and one that is more than the least may be too many.
    pub(super) fn watch_size(&mut self, now: Time, stage: StageId) {
        let Some(scale) = self.topology.stage(stage).scale else { return };
        self.look_at_wait(now, stage);
        let size = &mut self.stages[stage.index()].size;
        if size.more > 0 && !size.shrinks {
            size.shrinks = true;
            self.begin_span(now, stage, scale);
        }
    }

    fn begin_span(&mut self, now: Time, stage: StageId, scale: Scale) {
        self.pools.begin_span(stage);
        self.timers.set(now + scale.idle, Due::Shrink(stage));
    }

    /// A span has passed: the workers that were idle all along leave, down to the least. Not while jobs wait, for others of their
    /// batch: one of those workers is to have it.
    pub(super) fn shrink(&mut self, now: Time, stage: StageId) {
        let Some(scale) = self.topology.stage(stage).scale else { return };
        let state = &self.stages[stage.index()];
        let most = if state.queue.len() == 0 { state.size.more as usize } else { 0 };
        for worker in self.pools.spare(stage, most) {
            self.pools.retire_for_good(worker);
            self.stages[stage.index()].size.more -= 1;
            self.let_go(worker);
        }
        let size = &mut self.stages[stage.index()].size;
        size.shrinks = size.more > 0;
        if size.shrinks {
            self.begin_span(now, stage, scale);
        }
    }
}
