//! The worker processes of a node: which places there are in each pool, and who keeps one alive there.
//!
//! One task owns all slots. Core says when a pool is to have one more or one fewer; a new service file says what pools there are, and how
//! their workers are made. Workers that are made anew are so one at a time: the new one is up before the old one goes, and if it does
//! not come up, the old ones stay.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use evener_core::StageId;
use evener_supervisor::slot::{Plan, Slot};
use evener_supervisor::warden::Wardens;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use evener_doors::Node as _;

use crate::node::Node;

/// What the node asks for, or tells.
pub(crate) enum Order {
    /// One more worker for a stage.
    Grow(StageId),
    /// A worker is up in that place.
    Ready(StageId, u32),
    /// A worker did not come up in that place.
    Failed(StageId, u32),
    /// These are the pools from now on.
    Pools(Vec<Pool>),
    /// No request is left of an older plan.
    Outdated,
    /// No request is coming any more by the routes of the plan before.
    Unused,
}

/// How the worker in each place of a pool is made.
pub(crate) type Recipe = Arc<dyn Fn(u32) -> Plan + Send + Sync>;

/// A pool of worker processes.
pub(crate) struct Pool {
    pub(crate) stage: StageId,
    /// How many workers it has, or begins with.
    pub(crate) wanted: u32,
    /// Whether it sizes itself from there on.
    pub(crate) scales: bool,
    /// Whether its present workers are to be made anew.
    pub(crate) renew: bool,
    pub(crate) recipe: Recipe,
}

/// Workers of one pool that are made anew.
struct Rollout {
    stage: StageId,
    /// The places that are still to be given up.
    old: VecDeque<u32>,
    change: Change,
}

/// Where a rollout is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// At nothing.
    None,
    /// `new` is to come up, and then takes over from `old`.
    Begun { old: u32, new: u32 },
    /// `old` is finishing what it does. Only then is the next one changed, so that there is one worker more at most.
    Ending { old: u32 },
}

/// A place in a pool, from its first worker until its last has ended.
struct Place {
    /// Ends it at once.
    stop: watch::Sender<bool>,
    /// It has been given up, and its worker is only finishing what it does.
    leaving: bool,
}

/// All worker processes.
pub(crate) struct Roster {
    node: Arc<Node>,
    wardens: Arc<Wardens>,
    recipes: HashMap<StageId, Recipe>,
    /// The places that are taken.
    places: HashMap<StageId, BTreeMap<u32, Place>>,
    slots: JoinSet<(StageId, u32)>,
    rollouts: VecDeque<Rollout>,
    /// The stages that no request will come to once the older plans are done.
    leaving: Vec<StageId>,
    /// Whether core has no request of an older plan.
    outdated: bool,
    /// How many tables of routes of older plans are in use.
    tables: u32,
}

impl Roster {
    /// A roster without workers.
    pub(crate) fn new(node: Arc<Node>, wardens: Arc<Wardens>) -> Roster {
        Roster {
            node,
            wardens,
            recipes: HashMap::new(),
            places: HashMap::new(),
            slots: JoinSet::new(),
            rollouts: VecDeque::new(),
            leaving: Vec::new(),
            outdated: true,
            tables: 0,
        }
    }

    /// Starts the workers that the pools begin with, and obeys until `stop` turns true and all are gone.
    pub(crate) async fn run(
        mut self,
        pools: Vec<Pool>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut stop: watch::Receiver<bool>,
    ) {
        self.pools(pools);
        loop {
            tokio::select! {
                Some(order) = orders.recv() => self.obey(order),
                Some(ended) = self.slots.join_next() => match ended {
                    Ok(place) => self.ended(place),
                    // Nobody knows in which place: better none goes on than that one is missing for good.
                    Err(error) => {
                        tracing::error!(%error, "whoever kept a worker alive has failed");
                        break;
                    }
                },
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        for place in self.places.values().flat_map(BTreeMap::values) {
            place.stop.send_replace(true);
        }
        while self.slots.join_next().await.is_some() {}
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Grow(stage) => _ = self.start(stage),
            Order::Pools(pools) => {
                (self.outdated, self.tables) = (false, self.tables + 1);
                self.pools(pools);
            }
            Order::Ready(stage, index) => self.came_up(stage, index),
            Order::Failed(stage, index) => self.did_not_come_up(stage, index),
            Order::Outdated => {
                self.outdated = true;
                self.end_older_plans();
            }
            Order::Unused => {
                self.tables -= 1;
                self.end_older_plans();
            }
        }
    }

    /// Once nobody comes to stages that are gone, their workers go as well.
    fn end_older_plans(&mut self) {
        if !self.outdated || self.tables > 0 {
            return;
        }
        self.node.retire_locals();
        for stage in std::mem::take(&mut self.leaving) {
            self.recipes.remove(&stage);
            for index in self.taken(stage) {
                self.give_up(stage, index);
            }
        }
    }

    /// From now on these are the pools. Stages that are not among them keep their workers until the older plans are done.
    fn pools(&mut self, pools: Vec<Pool>) {
        let known = self.recipes.keys().copied();
        self.leaving = known.filter(|stage| pools.iter().all(|pool| pool.stage != *stage)).collect();
        for Pool { stage, wanted, scales, renew, recipe } in pools {
            let known = self.recipes.insert(stage, recipe).is_some();
            let taken = if renew { self.taken(stage) } else { self.taken_but_for_rollout(stage) };
            let has = taken.len() as u32;
            (has..wanted).for_each(|_| _ = self.start(stage));
            // A pool that sizes itself shrinks by itself, as it grew.
            let most = if scales { has } else { wanted };
            let (stay, go) = taken.split_at(most.min(has) as usize);
            go.iter().for_each(|index| self.give_up(stage, *index));
            if known && renew {
                self.rollouts.retain(|rollout| rollout.stage != stage);
                self.rollouts.push_back(Rollout { stage, old: stay.iter().copied().collect(), change: Change::None });
            }
        }
        self.go_on();
    }

    /// The places that are taken and not given up.
    fn taken(&self, stage: StageId) -> Vec<u32> {
        let places = self.places.get(&stage).into_iter().flatten();
        places.filter(|(_, place)| !place.leaving).map(|(index, _)| *index).collect()
    }

    /// The same without the place that is to take over from another: a rollout that is under way goes on.
    fn taken_but_for_rollout(&self, stage: StageId) -> Vec<u32> {
        let new =
            self.rollouts.iter().find(|rollout| rollout.stage == stage).and_then(|rollout| match rollout.change {
                Change::Begun { new, .. } => Some(new),
                Change::None | Change::Ending { .. } => None,
            });
        self.taken(stage).into_iter().filter(|index| Some(*index) != new).collect()
    }

    /// Keeps a worker alive in the first place that is free, and says which that is.
    fn start(&mut self, stage: StageId) -> Option<u32> {
        let recipe = self.recipes.get(&stage)?.clone();
        let taken = self.places.entry(stage).or_default();
        let index = (0..).find(|index| !taken.contains_key(index))?;
        let stop = watch::Sender::new(false);
        let stopped = stop.subscribe();
        taken.insert(index, Place { stop, leaving: false });
        let slot = Slot::new(recipe(index), self.wardens.clone(), self.node.clone());
        self.slots.spawn(async move {
            slot.run(stopped).await;
            (stage, index)
        });
        Some(index)
    }

    /// Gives up a place: its worker ends what it does, and nobody takes over.
    fn give_up(&mut self, stage: StageId, index: u32) {
        let Some(place) = self.places.get_mut(&stage).and_then(|places| places.get_mut(&index)) else { return };
        place.leaving = true;
        if !self.node.retire(stage, index) {
            // No worker is up there.
            place.stop.send_replace(true);
        }
    }

    fn ended(&mut self, (stage, index): (StageId, u32)) {
        if let Some(places) = self.places.get_mut(&stage) {
            places.remove(&index);
        }
        let Some(rollout) = self.rollouts.front_mut().filter(|rollout| rollout.stage == stage) else { return };
        match rollout.change {
            Change::Ending { old } if old == index => rollout.change = Change::None,
            // It was given up before it came up.
            Change::Begun { new, .. } if new == index => _ = self.rollouts.pop_front(),
            Change::None | Change::Begun { .. } | Change::Ending { .. } => return,
        }
        self.go_on();
    }

    /// Whether a worker in that place is to stay.
    fn stays(&self, stage: StageId, index: u32) -> bool {
        self.places.get(&stage).and_then(|places| places.get(&index)).is_some_and(|place| !place.leaving)
    }

    /// Whether somebody keeps a worker alive in that place, if only until it has finished what it does.
    fn is_taken(&self, stage: StageId, index: u32) -> bool {
        self.places.get(&stage).is_some_and(|places| places.contains_key(&index))
    }

    /// The rollout at hand changes its next place, or makes way for the next one.
    fn go_on(&mut self) {
        while let Some(rollout) = self.rollouts.front() {
            if rollout.change != Change::None {
                return;
            }
            let stage = rollout.stage;
            let next = self.rollouts.front_mut().and_then(|rollout| rollout.old.pop_front());
            if next.is_some_and(|old| !self.stays(stage, old)) {
                continue;
            }
            match next.map(|old| (old, self.start(stage))) {
                Some((old, Some(new))) => {
                    if let Some(rollout) = self.rollouts.front_mut() {
                        rollout.change = Change::Begun { old, new };
                    }
                }
                Some((_, None)) => _ = self.rollouts.pop_front(),
                None => {
                    let name = self.node.stage_name(stage);
                    tracing::info!(stage = name, "all workers of the stage are new");
                    self.rollouts.pop_front();
                }
            }
        }
    }

    fn came_up(&mut self, stage: StageId, index: u32) {
        if self.places.get(&stage).and_then(|places| places.get(&index)).is_some_and(|place| place.leaving) {
            // The worker that was to go has died, and this one came in its place.
            return self.give_up(stage, index);
        }
        let Some(rollout) = self.rollouts.front_mut().filter(|rollout| rollout.stage == stage) else { return };
        if let Change::Begun { old, new } = rollout.change
            && new == index
        {
            rollout.change = Change::Ending { old };
            self.give_up(stage, old);
            if !self.is_taken(stage, old) {
                // It has left by itself meanwhile.
                self.ended((stage, old));
            }
        }
    }

    fn did_not_come_up(&mut self, stage: StageId, index: u32) {
        if self.is_taken(stage, index) && !self.stays(stage, index) {
            // The worker that was to go has died, and none takes its place.
            return self.give_up(stage, index);
        }
        let ours = |rollout: &&Rollout| {
            rollout.stage == stage && matches!(rollout.change, Change::Begun { new, .. } if new == index)
        };
        if self.rollouts.front().filter(ours).is_some() {
            let name = self.node.stage_name(stage);
            tracing::error!(stage = name, worker = index, "the old workers go on, since the new one did not come up");
            self.rollouts.pop_front();
            self.node.misses_code(stage);
            self.give_up(stage, index);
            self.go_on();
        }
    }
}
