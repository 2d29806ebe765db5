//! The worker processes of a node: which places there are in each pool, and who keeps one alive there.
//!
//! One task owns all slots. Core says when a pool is to have one more or one fewer; a new service file says what pools there are, and how
//! their workers are made. Workers that are made anew are so one at a time: the new one is up before the old one goes, and if it does
//! not come up, the old ones stay; or, where two have no room beside each other, the old one is gone before the new one starts.
//!
//! A number belongs to a place of the pool: one of 0 to N-1 in a pool of at most N. Whoever takes over a place has its number at once,
//! and whoever is on the way out of it keeps it.

mod rollout;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use evener_core::StageId;
use evener_doors::Node as _;
use evener_supervisor::slot::Slot;
use evener_supervisor::warden::Wardens;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::rollout::{Change, Rollout};
use crate::kit::{Kit, Made, PlaceId};
use crate::node::Node;

/// What the node asks for, or tells.
pub(crate) enum Order {
    /// One more worker for a stage.
    Grow(StageId),
    /// A worker is up in that place.
    Ready(PlaceId),
    /// A worker did not come up in that place, and why.
    Failed(PlaceId, String),
    /// The worker in that place was told to leave for good.
    Left(PlaceId),
    /// These are the pools from now on, and the code of the workers in these places has changed.
    Pools(Vec<Pool>, HashSet<PlaceId>),
    /// No request is left of an older plan.
    Outdated,
    /// No request is coming any more by the routes of the plan before.
    Unused,
}

/// A pool of worker processes.
pub(crate) struct Pool {
    pub(crate) stage: StageId,
    /// How many workers it has, or begins with.
    pub(crate) wanted: u32,
    /// How many it has at most.
    pub(crate) most: u32,
    /// Whether it sizes itself within that.
    pub(crate) scales: bool,
    pub(crate) kit: Arc<Kit>,
}

/// A pool as it is to be at present.
struct Team {
    most: u32,
    /// What further workers are made of.
    kit: Arc<Kit>,
    /// How many workers are still to be started, once there is room for them.
    owed: u32,
}

/// A place in a pool, from its first worker until its last has ended.
struct Place {
    stage: StageId,
    /// Its number in the pool.
    index: u32,
    kit: Arc<Kit>,
    /// What the last worker with this number was made of that had come up.
    before: Option<Arc<Kit>>,
    /// Whether a worker has come up here.
    up: bool,
    /// Ends it at once.
    stop: watch::Sender<bool>,
    /// It has been given up, and its worker is only finishing what it does.
    leaving: bool,
}

/// All worker processes.
pub(crate) struct Roster {
    node: Arc<Node>,
    wardens: Arc<Wardens>,
    made: Made,
    teams: HashMap<StageId, Team>,
    /// The places that are taken, the oldest first.
    places: BTreeMap<PlaceId, Place>,
    /// How many places there ever were.
    ever: PlaceId,
    slots: JoinSet<PlaceId>,
    rollouts: VecDeque<Rollout>,
    /// The stages that no request will come to once the older plans are done.
    leaving: Vec<StageId>,
    /// Whether core has no request of an older plan.
    outdated: bool,
    /// How many tables of routes of older plans are in use.
    tables: u32,
}

impl Roster {
    /// A roster without workers, that writes into `made` what it makes.
    pub(crate) fn new(node: Arc<Node>, wardens: Arc<Wardens>, made: Made) -> Roster {
        Roster {
            node,
            wardens,
            made,
            teams: HashMap::new(),
            places: BTreeMap::new(),
            ever: 0,
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
        self.pools(pools, &HashSet::new());
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
        for place in self.places.values() {
            place.stop.send_replace(true);
        }
        while self.slots.join_next().await.is_some() {}
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Grow(stage) => self.grow(stage),
            Order::Pools(pools, stale) => {
                (self.outdated, self.tables) = (false, self.tables + 1);
                self.pools(pools, &stale);
            }
            Order::Ready(place) => self.came_up(place),
            Order::Failed(place, why) => self.did_not_come_up(place, &why),
            Order::Left(place) => self.left(place),
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
            self.teams.remove(&stage);
            self.rollouts.retain(|rollout| rollout.stage != stage);
            for place in self.staying(stage) {
                self.give_up(place);
            }
        }
        self.go_on();
    }

    /// From now on these are the pools. Stages that are not among them keep their workers until the older plans are done.
    fn pools(&mut self, pools: Vec<Pool>, stale: &HashSet<PlaceId>) {
        let known = self.teams.keys().copied();
        self.leaving = known.filter(|stage| pools.iter().all(|pool| pool.stage != *stage)).collect();
        for stage in &self.leaving {
            // Nobody asks for its change any more.
            _ = self.node.change_is_made(*stage);
        }
        for pool in pools {
            self.take_on(pool, stale);
        }
        self.go_on();
    }

    fn take_on(&mut self, pool: Pool, stale: &HashSet<PlaceId>) {
        let Pool { stage, wanted, most, scales, kit } = pool;
        let owed = self.teams.remove(&stage).map_or(0, |before| before.owed);
        self.teams.insert(stage, Team { most, kit: kit.clone(), owed: 0 });
        let at = self.rollouts.iter().position(|rollout| rollout.stage == stage);
        let change = at.map_or(Change::None, |at| std::mem::replace(&mut self.rollouts[at].change, Change::None));
        let change = self.carry_on(change, &kit);
        // One that is to take over from another is no further one; one that is still to be started is.
        let mut staying = self.staying(stage);
        staying.retain(|place| !change.is_beside(*place));
        // Those stay first that have come up: others may never do.
        staying.sort_by_key(|place| self.places.get(place).map(|place| (!place.up, place.index)));
        if let Some(at) = at {
            self.rollouts[at] = Rollout { stage, moves: VecDeque::new(), change };
        }
        let coming = usize::from(at.is_some_and(|at| self.rollouts[at].change.is_between()));
        let missing = wanted.saturating_sub((staying.len() + coming) as u32);
        (0..missing.max(if scales { owed } else { 0 })).for_each(|_| self.start_further(stage));
        // A pool that sizes itself shrinks by itself, as it grew.
        if !scales {
            let stay = (wanted as usize).saturating_sub(coming).min(staying.len());
            staying.split_off(stay).into_iter().for_each(|place| self.give_up(place));
        }
        self.settle_index(stage);
        self.plan_moves(stage, &staying, |place, old| old.is_outdated_by(&kit, stale.contains(&place)));
        if !self.is_changing(stage) && self.node.change_is_made(stage) {
            let name = self.node.stage_name(stage);
            tracing::info!(
                stage = name,
                "the change that had failed is not asked for any more: the workers are as the file says"
            );
        }
    }

    /// The places of a stage that are taken and not given up.
    fn staying(&self, stage: StageId) -> Vec<PlaceId> {
        let here = self.places.iter().filter(|(_, place)| place.stage == stage && !place.leaving);
        here.map(|(id, _)| *id).collect()
    }

    /// The first number in the pool of a stage that nobody has who stays, or is to get.
    fn free_index(&self, stage: StageId) -> u32 {
        let staying = self.places.values().filter(|place| place.stage == stage && !place.leaving);
        let taken: HashSet<u32> = staying.map(|place| place.index).chain(self.reserved(stage)).collect();
        (0..).find(|index| !taken.contains(index)).unwrap_or(u32::MAX)
    }

    /// Core wants one more worker.
    fn grow(&mut self, stage: StageId) {
        // To core a worker that was ended to make room for another is one that is missing. That other is on its way.
        if !self.one_is_coming(stage) {
            self.start_further(stage);
        }
    }

    /// Keeps one more worker alive, in the first place that is free. It waits where there is none, and where it has no room beside those
    /// of the same name.
    fn start_further(&mut self, stage: StageId) {
        let index = self.free_index(stage);
        let Some(team) = self.teams.get_mut(&stage) else { return };
        let kit = team.kit.clone();
        let same_name = |place: &Place| place.stage != stage && place.kit.name == kit.name;
        if index >= team.most || (kit.stop_first && self.places.values().any(same_name)) {
            team.owed += 1;
            return;
        }
        self.start(stage, index, kit, None);
    }

    /// A place is free: those may start that had no room.
    fn start_owed(&mut self) {
        let owed: Vec<StageId> = self.teams.iter().filter(|(_, team)| team.owed > 0).map(|(stage, _)| *stage).collect();
        for stage in owed {
            let owed = self.teams.get_mut(&stage).map_or(0, |team| std::mem::take(&mut team.owed));
            (0..owed).for_each(|_| self.start_further(stage));
        }
    }

    /// Keeps a worker alive in a place of that number.
    fn start(&mut self, stage: StageId, index: u32, kit: Arc<Kit>, before: Option<Arc<Kit>>) -> PlaceId {
        self.ever += 1;
        let id = self.ever;
        let stop = watch::Sender::new(false);
        let stopped = stop.subscribe();
        let slot = Slot::new((kit.recipe)(index, id), self.wardens.clone(), self.node.clone());
        self.made.insert(id, stage, kit.clone());
        self.places.insert(id, Place { stage, index, kit, before, up: false, stop, leaving: false });
        self.slots.spawn(async move {
            slot.run(stopped).await;
            id
        });
        id
    }

    /// Gives up a place: its worker ends what it does, and nobody takes over.
    fn give_up(&mut self, id: PlaceId) {
        let Some(place) = self.places.get_mut(&id) else { return };
        place.leaving = true;
        self.made.remove(id);
        if !self.node.retire(id) {
            // No worker is up there.
            place.stop.send_replace(true);
        }
    }

    /// A worker was told to leave for good, for whatever reason.
    fn left(&mut self, id: PlaceId) {
        let Some(place) = self.places.get_mut(&id) else { return };
        place.leaving = true;
        self.made.remove(id);
        let stage = place.stage;
        let staying = self.staying(stage);
        // There may be room now for one whose number is too high for a smaller pool.
        self.plan_moves(stage, &staying, |_, _| false);
        self.go_on();
        self.start_owed();
    }

    fn ended(&mut self, id: PlaceId) {
        self.places.remove(&id);
        self.made.remove(id);
        self.start_owed();
        self.change_goes_on(id);
    }

    fn came_up(&mut self, id: PlaceId) {
        let Some(place) = self.places.get_mut(&id) else { return };
        if place.leaving {
            // The worker that was to go has died, and this one came in its place.
            return self.give_up(id);
        }
        place.up = true;
        self.change_came_up(id);
    }

    fn did_not_come_up(&mut self, id: PlaceId, why: &str) {
        if self.places.get(&id).is_some_and(|place| place.leaving) {
            // The worker that was to go has died, and none takes its place.
            return self.give_up(id);
        }
        self.change_failed(id, why);
    }
}
