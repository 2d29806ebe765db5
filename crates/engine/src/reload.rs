//! Another service file takes over, while requests go on.
//!
//! All that can fail, and all that may take long, is made before anything changes. Stages keep their numbers. Workers stay that are made as the new file wants them:
//! what counts is what they were made of, not what was asked for last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use evener_core::{StageId, Topology};
use evener_doors::Table;
use evener_doors::triggers::{Trigger, When};
use evener_supervisor::runtime_dir::RuntimeDir;
use evener_supervisor::warden::Wardens;

use crate::config::{FunctionPool, Service, Stage};
use crate::errand::Assess;
use crate::kit::PlaceId;
use crate::ledger::{Ledger, Numbers};
use crate::node::{Node, Plans};
use crate::registry::Registry;
use crate::roster::{Order, Pool};
use crate::wiring::{self, Locals};
use crate::{Running, StartError};

/// What came of a reload.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Stages whose workers are made anew, one at a time.
    pub renewed: Vec<String>,
    /// What the new file says and only the next start of the node heeds.
    pub later: Vec<&'static str>,
    /// Whether the file says what the one before did, and no code has changed.
    pub same: bool,
}

/// Makes a plan of another version of a service, for a node that runs. That takes long where the file is large: it is for a thread
/// on which nothing else waits.
pub struct Planner {
    node: Arc<Node>,
    registry: Registry,
    wardens: Arc<Wardens>,
    folder: Arc<RuntimeDir>,
    ledger: Ledger,
    /// The functions of the node, which cannot change while it runs.
    functions: Vec<FunctionPool>,
    follows: Arc<Service>,
}

/// Another version of a service, as a node can take it over.
pub struct Planned {
    service: Arc<Service>,
    /// The version that it follows on.
    follows: Arc<Service>,
    /// Whether it says the same.
    same: bool,
    ledger: Ledger,
    topology: Arc<Topology>,
    assess: HashMap<StageId, Assess>,
    wanted: HashMap<StageId, u32>,
    locals: Vec<Locals>,
    /// The stages without workers that are done as before.
    unchanged: HashSet<StageId>,
    table: Table,
    triggers: Vec<Trigger>,
    pools: Vec<Pool>,
    /// The places whose code has changed.
    stale: HashSet<PlaceId>,
}

impl Planner {
    /// Plans a version of the service. The error says why the node cannot take it over. Must be called within a Tokio runtime.
    pub fn plan(self, service: Service) -> Result<Planned, StartError> {
        let Planner { node, registry, wardens, folder, mut ledger, functions, follows } = self;
        let service = Arc::new(Service { functions, ..service });
        let interpreters = wiring::interpreters(&service)?;
        let numbers = ledger.number(&service);
        let topology = Arc::new(wiring::topology(&service, &numbers, Some(&node.topology())));
        let locals = wiring::locals(&service, &numbers, &registry, &wardens)?;
        let assess = wiring::assess(&service, &numbers)?;
        let table = Table::new(wiring::routes(&service, &numbers, node.jq())?)?;
        let mut triggers = wiring::triggers(&service, &numbers)?;
        triggers.retain(|trigger| !matches!(trigger.when, When::Startup));
        let pools = wiring::recipes(&service, &numbers, &interpreters, &folder, node.memory());
        let crews = wiring::crews(&service);
        let wanted = numbers.crews.iter().copied().zip(crews.iter().map(wiring::Crew::wanted)).collect();
        let unchanged = unchanged(&follows, &service, &numbers);
        let same = *follows == *service;
        // It looks at many files.
        let stale = node.take_stale();
        Ok(Planned {
            service,
            follows,
            same,
            ledger,
            topology,
            assess,
            wanted,
            locals,
            unchanged,
            table,
            triggers,
            pools,
            stale,
        })
    }
}

/// The stages that are in both versions and the same.
fn unchanged(old: &Service, new: &Service, numbers: &Numbers) -> HashSet<StageId> {
    if old.folder != new.folder {
        return HashSet::new();
    }
    let before: HashMap<&str, &Stage> = old.stages.iter().map(|stage| (stage.name.as_str(), stage)).collect();
    let is_same = |stage: &Stage| before.get(stage.name.as_str()).is_some_and(|before| *before == stage);
    let stages = new.stages.iter().zip(&numbers.crews);
    stages.filter(|(stage, _)| is_same(stage)).map(|(_, number)| *number).collect()
}

impl Running {
    /// Whoever plans another version of the service that runs now.
    pub fn planner(&self) -> Planner {
        Planner {
            node: self.node.clone(),
            registry: self.registry.clone(),
            wardens: self.wardens.clone(),
            folder: self.folder.clone(),
            ledger: self.ledger.clone(),
            functions: self.started.functions.clone(),
            follows: self.service.clone(),
        }
    }

    /// Lets another version of the service take over. What is on its way goes on by the old one; what comes goes by the new one. Where
    /// yet another has taken over since it was planned, it is planned again, which may fail; then the old one goes on.
    pub fn take_over(&mut self, planned: Planned) -> Result<Reloaded, StartError> {
        let planned = match Arc::ptr_eq(&planned.follows, &self.service) {
            true => planned,
            false => self.planner().plan((*planned.service).clone())?,
        };
        let Planned { service, follows: _, same, ledger, topology, assess, wanted, .. } = planned;
        let Planned { locals, unchanged, table, triggers, pools, stale, .. } = planned;
        let later = later(&self.started, &service);
        // Only now: the numbers of a version that is refused are given to nobody.
        self.ledger = ledger;
        let renewed = self.renewed(&pools, &stale);
        let staying = locals.iter().map(|local| local.stage).collect();
        self.node.replan(Plans { topology, assess, wanted, pools, stale, locals: staying });
        self.replace_locals(locals, &unchanged);
        // After the plan that they lead into.
        let unused = self.http.as_ref().map(|door| door.replace_routes(table));
        let node = self.node.clone();
        tokio::spawn(async move {
            if let Some(unused) = unused {
                unused.await;
            }
            node.order(Order::Unused);
        });
        self.replace_triggers(triggers);
        self.drain = service.drain;
        let same = renewed.is_empty() && same;
        self.service = service;
        Ok(Reloaded { renewed, later, same })
    }

    /// The stages whose workers are not made as these pools want them, or of code that has changed since.
    fn renewed(&self, pools: &[Pool], stale: &HashSet<PlaceId>) -> Vec<String> {
        let is_outdated = |pool: &&Pool| self.made.is_outdated_by(pool.stage, &pool.kit, stale);
        pools.iter().filter(is_outdated).map(|pool| pool.kit.name.to_string()).collect()
    }

    /// Stages without workers that stay: those that are new or different are done by others from now on.
    fn replace_locals(&self, mut locals: Vec<Locals>, unchanged: &HashSet<StageId>) {
        let topology = self.node.topology();
        let there = self.node.local_stages();
        // A hidden stage has the number of its program.
        locals.retain(|Locals { stage, .. }| match topology.stage(*stage).hidden {
            true => !there.contains(stage),
            false => !unchanged.contains(stage),
        });
        self.node.replace_locals(&locals);
    }

    fn replace_triggers(&mut self, triggers: Vec<Trigger>) {
        self.stop_triggers.send_replace(true);
        self.stop_triggers = tokio::sync::watch::Sender::new(false);
        self.triggers = Arc::new(self.triggers.followed_by(triggers));
        tokio::spawn(self.triggers.clone().run(self.stop_triggers.subscribe()));
    }
}

/// What only the next start of the node heeds.
fn later(old: &Service, new: &Service) -> Vec<&'static str> {
    let limits = |service: &Service| {
        let limits = &service.limits;
        let times = (limits.header_timeout, limits.body_timeout, limits.idle_timeout);
        (limits.memory, limits.connections, limits.headers, times)
    };
    let parts = [
        ("service", old.name != new.name),
        ("listen", old.listen != new.listen),
        ("functions", old.functions != new.functions),
        ("limits", limits(old) != limits(new)),
        ("debug", old.debug != new.debug),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
