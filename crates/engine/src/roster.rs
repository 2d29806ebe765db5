//! The worker processes of a node: which places there are in each pool, and who keeps one alive there.
//!
//! One task owns all slots. Core says when a pool is to have one more or one fewer; what a pool begins with is said by the service
//! file.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use evener_core::StageId;
use evener_supervisor::slot::{Plan, Slot};
use evener_supervisor::warden::Wardens;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::node::Node;

/// What the node asks for.
#[derive(Debug)]
pub(crate) enum Order {
    /// One more worker for a stage.
    Grow(StageId),
    /// No request is left of an older plan.
    Outdated,
}

/// How the worker in each place of a pool is made.
pub(crate) type Recipe = Arc<dyn Fn(u32) -> Plan + Send + Sync>;

/// A pool: its stage, how many workers it begins with, and how one is made.
pub(crate) struct Pool {
    pub(crate) stage: StageId,
    pub(crate) wanted: u32,
    pub(crate) recipe: Recipe,
}

/// All worker processes.
pub(crate) struct Roster {
    node: Arc<Node>,
    wardens: Arc<Wardens>,
    recipes: HashMap<StageId, Recipe>,
    /// The places that are taken.
    places: HashMap<StageId, BTreeSet<u32>>,
    slots: JoinSet<(StageId, u32)>,
    stop: watch::Receiver<bool>,
}

impl Roster {
    /// A roster without workers. All of them go when `stop` turns true.
    pub(crate) fn new(node: Arc<Node>, wardens: Arc<Wardens>, stop: watch::Receiver<bool>) -> Roster {
        let (recipes, places, slots) = (HashMap::new(), HashMap::new(), JoinSet::new());
        Roster { node, wardens, recipes, places, slots, stop }
    }

    /// Starts the workers that the pools begin with, and obeys until all are gone.
    pub(crate) async fn run(mut self, pools: Vec<Pool>, mut orders: mpsc::UnboundedReceiver<Order>) {
        for Pool { stage, wanted, recipe } in pools {
            self.recipes.insert(stage, recipe);
            (0..wanted).for_each(|_| self.start(stage));
        }
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                Some(order) = orders.recv() => match order {
                    Order::Grow(stage) => self.start(stage),
                    Order::Outdated => {}
                },
                Some(ended) = self.slots.join_next() => self.ended(ended.ok()),
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        while self.slots.join_next().await.is_some() {}
    }

    /// Keeps a worker alive in the first place that is free.
    fn start(&mut self, stage: StageId) {
        let Some(recipe) = self.recipes.get(&stage) else { return };
        let taken = self.places.entry(stage).or_default();
        let index = (0..).find(|index| !taken.contains(index)).unwrap_or(u32::MAX);
        taken.insert(index);
        let slot = Slot::new(recipe(index), self.wardens.clone(), self.node.clone());
        let stop = self.stop.clone();
        self.slots.spawn(async move {
            slot.run(stop).await;
            (stage, index)
        });
    }

    fn ended(&mut self, place: Option<(StageId, u32)>) {
        let taken = place.and_then(|(stage, index)| Some((self.places.get_mut(&stage)?, index)));
        if let Some((taken, index)) = taken {
            taken.remove(&index);
        }
    }
}
