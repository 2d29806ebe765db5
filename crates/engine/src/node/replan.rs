//! Another plan for a running node.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use evener_core::{StageId, Topology};

use super::{Node, State, Warmup};
use crate::errand::Assess;
use crate::kit::PlaceId;
use crate::local::LocalSeat;
use crate::roster::{Order, Pool};
use crate::stamp::Stamp;
use crate::wiring::Locals;

/// What changes with a plan.
pub(crate) struct Plans {
    pub(crate) topology: Arc<Topology>,
    /// What is asked of the jobs of which stages before they wait.
    pub(crate) assess: HashMap<StageId, Assess>,
    /// How many workers each stage shall have; those that are not named have none.
    pub(crate) wanted: HashMap<StageId, u32>,
    /// The pools of worker processes.
    pub(crate) pools: Vec<Pool>,
    /// The places whose code has changed.
    pub(crate) stale: HashSet<PlaceId>,
    /// The stages without worker processes.
    pub(crate) locals: HashSet<StageId>,
}

impl Node {
    /// From now on that is the plan.
    pub(crate) fn replan(&self, plans: Plans) {
        let Plans { topology, assess, wanted, pools, stale, locals } = plans;
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
        self.order(Order::Pools(pools, stale));
        state.dispatcher.reload(now, topology);
        self.act(state, now);
    }

    /// The worker in that place is to go once it is done, and nobody takes its place. False if none is up there.
    pub(crate) fn retire(&self, place: PlaceId) -> bool {
        let mut state = self.state();
        let now = self.clock.now();
        let State { seats, dispatcher, .. } = &mut *state;
        // One that has done its share may not have gone yet, though the next one is up.
        let here = seats.iter().filter(|(_, seat)| seat.place == place).map(|(worker, _)| *worker);
        let Some(worker) = here.max_by_key(|worker| dispatcher.worker_stays(*worker)) else { return false };
        dispatcher.retire(now, worker);
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

    /// Whether a worker is up in that place.
    pub(crate) fn is_up(&self, place: PlaceId) -> bool {
        self.state().seats.values().any(|seat| seat.place == place)
    }

    /// The stages without worker processes whose jobs somebody does.
    pub(crate) fn local_stages(&self) -> HashSet<StageId> {
        self.state().locals.values().map(|seat| seat.stage).collect()
    }

    /// Lets others do the jobs of stages without worker processes. Those before them end what they do.
    pub(crate) fn replace_locals(&self, all: &[Locals]) {
        let stages: HashSet<_> = all.iter().map(|locals| locals.stage).collect();
        let mut state = self.state();
        let now = self.clock.now();
        let replaced = state.locals.iter().filter(|(_, seat)| stages.contains(&seat.stage));
        let before: Vec<_> = replaced.map(|(worker, _)| *worker).collect();
        for Locals { stage, who } in all {
            for (local, at_a_time) in who {
                for _ in 0..*at_a_time {
                    super::locals::add(&mut state, now, *stage, local.clone());
                }
            }
        }
        for worker in before {
            state.dispatcher.retire(now, worker);
        }
        self.act(state, now);
    }

    /// The workers of a stage were to be made anew, and one did not come up; `why`. That is known of the stage until it is mended. A file
    /// may have been missing: from now on a new one beside those that are loaded counts as a change.
    pub(crate) fn change_has_failed(&self, stage: StageId, why: &str) {
        let mut state = self.state();
        let code = state.seats.values().filter(|seat| seat.stage == stage).flat_map(|seat| &seat.code);
        let folders: HashSet<_> = code.filter_map(Stamp::folder).collect();
        let stamps = folders.into_iter().map(Stamp::of).collect();
        state.missed.insert(stage, stamps);
        state.failed.insert(stage, why.to_owned());
    }

    /// The workers of a stage are as they are to be. Whether that had failed.
    pub(crate) fn change_is_made(&self, stage: StageId) -> bool {
        let mut state = self.state();
        state.missed.remove(&stage);
        state.failed.remove(&stage).is_some()
    }

    /// The places whose workers have loaded code that has changed since. Whoever watches for changes has seen these now: as long as
    /// nothing else changes, it is no use to try again by oneself what may have failed.
    pub(crate) fn take_stale(&self) -> HashSet<PlaceId> {
        let (loaded, missed) = {
            let state = self.state();
            let loaded: Vec<_> =
                state.seats.iter().map(|(worker, seat)| (*worker, seat.place, seat.code.clone())).collect();
            (loaded, state.missed.clone())
        };
        let has_changed = |code: &[Stamp]| code.iter().any(Stamp::has_changed);
        let changed: Vec<_> = loaded.into_iter().filter(|(.., code)| has_changed(code)).collect();
        let again = |stamps: Vec<Stamp>| stamps.iter().map(Stamp::again).collect::<Vec<_>>();
        let missed: Vec<_> = missed.into_iter().map(|(stage, stamps)| (stage, again(stamps))).collect();
        let seen = changed.into_iter().map(|(worker, place, code)| (worker, place, again(code)));
        let seen: Vec<_> = seen.collect();
        let mut state = self.state();
        for (stage, stamps) in missed {
            state.missed.entry(stage).and_modify(|before| *before = stamps);
        }
        let mut stale = HashSet::new();
        for (worker, place, code) in seen {
            stale.insert(place);
            if let Some(seat) = state.seats.get_mut(&worker) {
                seat.seen = code;
            }
        }
        stale
    }

    /// Whether code of a worker has changed since it was loaded, or since that was last noticed.
    pub fn has_changed_code(&self) -> bool {
        let (seen, missed) = {
            let state = self.state();
            let seen: Vec<Vec<Stamp>> = state.seats.values().map(|seat| seat.seen.clone()).collect();
            (seen, state.missed.values().cloned().collect::<Vec<_>>())
        };
        seen.iter().chain(&missed).flatten().any(Stamp::has_changed)
    }
}
