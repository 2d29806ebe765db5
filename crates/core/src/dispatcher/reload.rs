//! A new plan takes over, while requests of the old one go on.

use std::sync::Arc;

use super::{Action, Dispatcher, Stage};
use crate::pool::WorkerKey;
use crate::request::RequestKey;
use crate::time::Time;
use crate::topology::{StageId, Topology};

impl<P: Clone, R> Dispatcher<P, R> {
    /// From now on `topology` is the plan. It must follow on the present one
    /// ([`followed_by`](Topology::followed_by)): what is on its way goes on by the numbers that it has. Once no request is left that
    /// was let in before, that is told by [`Action::Outdated`]. Workers of a stage that now does another number of jobs at a time,
    /// or in another way, are replaced: each goes by the rules that it began with. A pool that sizes itself by other rules from now
    /// on keeps the workers that it has, up to its most.
    ///
    /// # Panics
    ///
    /// If the plan has fewer stages than before.
    pub fn reload(&mut self, now: Time, topology: Arc<Topology>) {
        let (before, after) = (self.stages.len(), topology.stages().len());
        assert!(after >= before, "stages keep their numbers");
        let old = std::mem::replace(&mut self.topology, topology);
        self.stages.resize_with(after, Stage::default);
        self.pools.extend(after);
        self.generation += 1;
        self.old = self.requests.len();
        if self.old == 0 {
            self.actions.push(Action::Outdated);
        }
        for stage in (0..before as u32).map(StageId) {
            let scale = old.stage(stage).scale;
            if scale != self.topology.stage(stage).scale {
                self.resize(stage, scale);
            }
            let shape = |topology: &Topology| {
                let rules = topology.stage(stage);
                (rules.slots, rules.batch.is_some())
            };
            if shape(&old) != shape(&self.topology) {
                self.replace_workers(stage);
            }
            // Rules may have changed by which jobs wait.
            self.dispatch(now, stage);
            self.watch_size(now, stage);
        }
    }

    /// The workers of a stage leave, each when its jobs are done.
    fn replace_workers(&mut self, stage: StageId) {
        let staying: Vec<WorkerKey> = self.pools.staying(stage).collect();
        for worker in staying {
            self.pools.retire(worker);
            if self.pools.has_left(worker) {
                self.let_go(worker);
            }
        }
    }

    /// A request has ended that was let in under that plan.
    pub(super) fn ended(&mut self, key: RequestKey, generation: u32) {
        self.recoveries.remove(&key);
        if generation < self.generation {
            self.old -= 1;
            if self.old == 0 {
                self.actions.push(Action::Outdated);
            }
        }
    }
}
