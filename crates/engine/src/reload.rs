//! Another service file takes over, while requests go on.
//!
//! All that can fail is made before anything changes. Stages keep their numbers. Workers stay that are made as the new file wants them:
//! what counts is what they were made of, not what was asked for last.

use std::collections::HashSet;
use std::sync::Arc;

use evener_doors::Table;
use evener_doors::triggers::When;

use crate::config::Service;
use crate::kit::PlaceId;
use crate::node::Plans;
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

impl Running {
    /// Lets another version of the service take over. What is on its way goes on by the old one; what comes goes by the new one. If
    /// that cannot be, the old one goes on, and the error says why.
    pub fn reload(&mut self, service: Service) -> Result<Reloaded, StartError> {
        let later = later(&self.started, &service);
        // These cannot change under a running node.
        let functions = self.started.functions.clone();
        let service = Arc::new(Service { functions, ..service });
        let interpreters = wiring::interpreters(&service)?;
        // Kept once nothing can fail any more: the numbers of a file that is refused are given to nobody.
        let mut ledger = self.ledger.clone();
        let numbers = ledger.number(&service);
        let topology = Arc::new(wiring::topology(&service, &numbers, Some(&self.node.topology())));
        let locals = wiring::locals(&service, &numbers, &self.registry, &self.wardens)?;
        let assess = wiring::assess(&service, &numbers)?;
        let table = Table::new(wiring::routes(&service, &numbers, self.node.jq())?)?;
        let mut triggers = wiring::triggers(&service, &numbers)?;
        triggers.retain(|trigger| !matches!(trigger.when, When::Startup));
        let pools = wiring::recipes(&service, &numbers, &interpreters, &self.folder, self.node.memory());
        // From here on nothing fails.
        self.ledger = ledger;
        let stale = self.node.take_stale();
        let renewed = self.renewed(&pools, &stale);
        let crews = wiring::crews(&service);
        let staying = locals.iter().map(|local| local.stage).collect();
        let wanted = numbers.crews.iter().copied().zip(crews.iter().map(wiring::Crew::wanted)).collect();
        self.node.replan(Plans { topology, assess, wanted, pools, stale, locals: staying });
        self.replace_locals(&service, locals);
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
        let same = renewed.is_empty() && *self.service == *service;
        self.service = service;
        Ok(Reloaded { renewed, later, same })
    }

    /// The stages whose workers are not made as these pools want them, or of code that has changed since.
    fn renewed(&self, pools: &[Pool], stale: &HashSet<PlaceId>) -> Vec<String> {
        let is_outdated = |pool: &&Pool| self.made.is_outdated_by(pool.stage, &pool.kit, stale);
        pools.iter().filter(is_outdated).map(|pool| pool.kit.name.to_string()).collect()
    }

    /// Stages without workers that stay: those that are new or different are done by others from now on.
    fn replace_locals(&self, service: &Service, locals: Vec<Locals>) {
        let stay = |name: &str| {
            let stage = |service: &Service| service.stages.iter().find(|stage| stage.name == name).cloned();
            match (stage(&self.service), stage(service)) {
                (Some(old), Some(new)) => old == new && self.service.folder == service.folder,
                _ => false,
            }
        };
        let topology = self.node.topology();
        for Locals { stage, who } in locals {
            let rules = topology.stage(stage);
            // A hidden stage has the number of its program.
            let same = if rules.hidden { self.node.has_locals(stage) } else { stay(&rules.name) };
            if !same {
                self.node.replace_locals(stage, &who);
            }
        }
    }

    fn replace_triggers(&mut self, triggers: Vec<evener_doors::triggers::Trigger>) {
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
