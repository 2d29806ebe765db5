//! Another plan for a running node.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use evener_core::{StageId, Topology};

use super::{Node, Warmup};
use crate::errand::Assess;
use crate::local::{Local, LocalSeat};
use crate::roster::{Order, Pool};
use crate::stamp::Stamp;

/// What changes with a plan.
pub(crate) struct Plans {
    pub(crate) topology: Arc<Topology>,
    /// What is asked of the jobs of which stages before they wait.
    pub(crate) assess: HashMap<StageId, Assess>,
    /// How many workers each stage shall have; those that are not named have none.
    pub(crate) wanted: HashMap<StageId, u32>,
    /// The pools of worker processes.
    pub(crate) pools: Vec<Pool>,
    /// The stages without worker processes.
    pub(crate) locals: HashSet<StageId>,
}

impl Node {
    /// From now on that is the plan.
    pub(crate) fn replan(&self, plans: Plans) {
        let Plans { topology, assess, wanted, pools, locals } = plans;
        self.metrics.extend(&topology);
        self.warmup.send_modify(|stages| {
            stages.resize_with(topology.stages().len(), Warmup::default);
            for (stage, number) in stages.iter_mut().zip(0..) {
                stage.wanted = wanted.get(&StageId(number)).copied().unwrap_or(0);
                stage.settled = stage.settled.min(stage.wanted);
            }
        });
        let mut state = self.state();
        let now = self.clock.now();
        *self.topology.write().unwrap_or_else(PoisonError::into_inner) = topology.clone();
        state.assess = assess;
        state.staying = locals;
        // Before it is told that no request of an older plan is left, which may be right now.
        self.order(Order::Pools(pools));
        state.dispatcher.reload(now, topology);
        self.act(state, now);
    }

    /// The worker in that place is to go once it is done, and nobody takes its place. False if none is up there.
    pub(crate) fn retire(&self, stage: StageId, index: u32) -> bool {
        let mut state = self.state();
        let now = self.clock.now();
        let here = state.seats.iter().find(|(_, seat)| seat.stage == stage && seat.index == index);
        let Some(worker) = here.map(|(worker, _)| *worker) else { return false };
        state.dispatcher.retire(now, worker);
        self.act(state, now);
        true
    }

    /// No request is left of an older plan: whoever does the jobs of stages without worker processes that are gone leaves.
    pub(crate) fn retire_locals(&self) {
        let mut state = self.state();
        let now = self.clock.now();
        let leaves = |seat: &LocalSeat| !state.staying.contains(&seat.stage);
        let leaving: Vec<_> = state.locals.iter().filter(|(_, seat)| leaves(seat)).map(|(worker, _)| *worker).collect();
        for worker in leaving {
            state.dispatcher.retire(now, worker);
        }
        self.act(state, now);
    }

    /// Whether anybody does the jobs of a stage without worker processes.
    pub(crate) fn has_locals(&self, stage: StageId) -> bool {
        self.state().locals.values().any(|seat| seat.stage == stage)
    }

    /// Lets others do the jobs of a stage without worker processes: so many at a time each. Those before them end what they do.
    pub(crate) fn replace_locals(&self, stage: StageId, who: &[(Local, usize)]) {
        let mut state = self.state();
        let now = self.clock.now();
        let before: Vec<_> =
            state.locals.iter().filter(|(_, seat)| seat.stage == stage).map(|(worker, _)| *worker).collect();
        for (local, at_a_time) in who {
            for _ in 0..*at_a_time {
                super::locals::add(&mut state, now, stage, local.clone());
            }
        }
        for worker in before {
            state.dispatcher.retire(now, worker);
        }
        self.act(state, now);
    }

    /// A worker with new code did not come up, perhaps for want of a file: from now on a new file beside those that are loaded counts
    /// as a change.
    pub(crate) fn misses_code(&self, stage: StageId) {
        let mut state = self.state();
        let code = state.seats.values().filter(|seat| seat.stage == stage).flat_map(|seat| &seat.code);
        let folders: HashSet<_> = code.filter_map(Stamp::folder).collect();
        let stamps = folders.into_iter().map(Stamp::of).collect();
        state.missed.insert(stage, stamps);
    }

    /// The stages of whose code something has changed since a worker of theirs has loaded it.
    pub(crate) fn changed_code(&self) -> HashSet<StageId> {
        let state = self.state();
        let loaded = state.seats.values().map(|seat| (seat.stage, seat.code.clone()));
        let missed = state.missed.iter().map(|(stage, folders)| (*stage, folders.clone()));
        let stamps: Vec<(StageId, Vec<Stamp>)> = loaded.chain(missed).collect();
        drop(state);
        let changed = |(_, stamps): &&(StageId, Vec<Stamp>)| stamps.iter().any(Stamp::has_changed);
        stamps.iter().filter(changed).map(|(stage, _)| *stage).collect()
    }

    /// The workers of those stages are about to be replaced: what has changed of their code until now says nothing more.
    pub(crate) fn overlook(&self, stages: &HashSet<StageId>) {
        let before: Vec<_> = {
            let mut state = self.state();
            state.missed.retain(|stage, _| !stages.contains(stage));
            let seats = state.seats.iter().filter(|(_, seat)| stages.contains(&seat.stage));
            seats.map(|(worker, seat)| (*worker, seat.code.clone())).collect()
        };
        let now: Vec<_> =
            before.into_iter().map(|(worker, code)| (worker, code.iter().map(Stamp::again).collect())).collect();
        let mut state = self.state();
        for (worker, code) in now {
            if let Some(seat) = state.seats.get_mut(&worker) {
                seat.code = code;
            }
        }
    }

    /// Whether code of a worker has changed since it was loaded.
    pub fn has_changed_code(&self) -> bool {
        !self.changed_code().is_empty()
    }
}
