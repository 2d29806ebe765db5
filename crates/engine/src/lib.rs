//! The node: configuration, clock, wiring, drain.
//!
//! [`start`] makes a running node of a [`Service`](config::Service); [`Running`] is the handle to it. The engine wires the
//! core to doors and workers and carries out what the core decides. What this crate will never do: decide a job's fate
//! itself, or print to a terminal.

mod alarm;
mod clock;
mod command;
pub mod config;
mod errand;
mod extension;
mod functions;
mod gather;
pub mod jq;
mod kit;
mod ledger;
mod listen;
mod local;
mod metrics;
mod node;
mod program;
mod recovery;
mod registry;
mod reload;
mod roster;
mod stamp;
mod trim;
mod wiring;

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use evener_core::Budget;
use evener_doors::triggers::{BadSchedule, TriggerDoor};
use evener_doors::{ApiDoor, HttpDoor, Listening, Timeouts};
use evener_supervisor::interpreter::{Interpreter, NotFound};
use evener_supervisor::runtime_dir::{RuntimeDir, RuntimeDirError};
use evener_supervisor::warden::Wardens;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::alarm::Alarm;
use crate::config::Service;
use crate::jq::workers::JqWorkers;
use crate::kit::Made;
use crate::ledger::{Ledger, Numbers};
pub use crate::listen::ListenError;
pub use crate::node::Node;
use crate::node::Setup;
pub use crate::program::{serve_if_warden, this_program};
pub use crate::registry::{Done, Job, Registry};
pub use crate::reload::{Planned, Planner, Reloaded};
use crate::roster::Roster;
pub use crate::stamp::Stamp;
use crate::wiring::Crew;

/// How long the last answers may take to reach their clients once the node is drained.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener's address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is no Python for the workers.
    #[error(transparent)]
    Interpreter(#[from] NotFound),
    /// The private runtime folder cannot be used.
    #[error(transparent)]
    Folder(#[from] RuntimeDirError),
    /// A trigger's times that were good when the service file was read are not any more.
    #[error("a trigger cannot be set: {0}")]
    Trigger(#[from] BadSchedule),
    /// Two routes cannot stand side by side.
    #[error(transparent)]
    Route(#[from] evener_doors::RouteError),
    /// A jq program that was good when the service file was read does not compile any more.
    #[error("a jq program cannot be compiled: {0}")]
    Filter(#[from] jq::JqError),
    /// A stage names a Rust function that this program does not have.
    #[error(
        "stage `{stage}` is the Rust function `{function}`, which this program does not have{}",
        if known.is_empty() { "; only a program that embeds the node has some".to_owned() }
        else { format!("; it has {}", known.join(", ")) }
    )]
    NoFunction {
        /// The stage.
        stage: String,
        /// What it names.
        function: String,
        /// The functions that there are.
        known: Vec<String>,
    },
    /// There is no timer to be had.
    #[error("the node has no clock: the system gives it no timer ({0}); it may have too many open files (`ulimit -n`)")]
    Clock(io::Error),
    /// A listener that is open cannot say where.
    #[error("a listener has no address: {0}")]
    Address(#[from] io::Error),
}

/// A door that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `http` or `api`.
    pub name: &'static str,
    /// Where clients find it.
    pub url: String,
}

/// A running node.
pub struct Running {
    node: Arc<Node>,
    addresses: Vec<Address>,
    interpreters: Vec<(String, Interpreter)>,
    doors: Vec<Listening>,
    roster: JoinHandle<()>,
    stop: watch::Sender<bool>,
    stop_triggers: watch::Sender<bool>,
    wardens: Arc<Wardens>,
    timekeeper: JoinHandle<()>,
    drain: Duration,
    triggers: Arc<TriggerDoor<Node>>,
    /// The door to the service's own routes.
    http: Option<Arc<HttpDoor<Node>>>,
    folder: Arc<RuntimeDir>,
    registry: Registry,
    /// The service that it was started with: what only a start heeds is as it says.
    started: Arc<Service>,
    service: Arc<Service>,
    ledger: Ledger,
    /// What the workers are made of.
    made: Made,
}

/// Starts a node. `warden` is the command that serves as its warden: [`this_program`], if `main` begins with
/// [`serve_if_warden`]. Must be called within a Tokio runtime.
///
/// Returns once the doors are open; workers warm up after that, and requests wait for them.
pub async fn start(service: Service, warden: fn() -> Command) -> Result<Running, StartError> {
    start_with(service, &Registry::new(), warden).await
}

/// The same for a program with Rust functions of its own, which stages of kind `rust` name.
pub async fn start_with(service: Service, registry: &Registry, warden: fn() -> Command) -> Result<Running, StartError> {
    let folder = Arc::new(RuntimeDir::open()?);
    let service = Arc::new(service);
    let interpreters = wiring::interpreters(&service)?;
    let crews = wiring::crews(&service);
    let mut ledger = Ledger::default();
    let numbers = ledger.number(&service);
    let topology = Arc::new(wiring::topology(&service, &numbers, None));
    let mut wanted: Vec<u32> = crews.iter().map(Crew::wanted).collect();
    // Hidden stages have no processes.
    wanted.resize(topology.stages().len(), 0);
    let (orders, obeyed) = mpsc::unbounded_channel();
    let wardens = Arc::new(Wardens::new(warden));
    let memory = Budget::new(service.limits.memory);
    let node = Node::new(Setup {
        jq: JqWorkers::new(wardens.clone(), &warden(), memory.clone()),
        topology,
        memory,
        debug: service.debug,
        wanted: wanted.clone(),
        pools: wiring::pools(&service, &interpreters),
        output: numbers.crews.iter().copied().zip(crews.iter().map(Crew::output)).collect(),
        assess: wiring::assess(&service, &numbers)?,
        orders,
    });
    let alarm = Alarm::new().map_err(StartError::Clock)?;
    node.replace_locals(&wiring::locals(&service, &numbers, registry, &wardens)?);
    let stop = watch::Sender::new(false);
    let pools = wiring::recipes(&service, &numbers, &interpreters, &folder, node.memory());
    let made = Made::default();
    let roster = Roster::new(node.clone(), wardens.clone(), made.clone()).run(pools, obeyed, stop.subscribe());
    let mut running = Running {
        node: node.clone(),
        addresses: Vec::new(),
        interpreters: Vec::new(),
        doors: Vec::new(),
        roster: tokio::spawn(roster),
        stop,
        stop_triggers: watch::Sender::new(false),
        wardens,
        timekeeper: tokio::spawn({
            let node = node.clone();
            async move {
                if let Err(error) = node.keep_time(&alarm).await {
                    tracing::error!(%error, "the node's timer has failed");
                }
            }
        }),
        drain: service.drain,
        triggers: Arc::new(TriggerDoor::new(node.clone(), wiring::triggers(&service, &numbers)?)),
        http: None,
        folder: folder.clone(),
        registry: registry.clone(),
        started: service.clone(),
        service: service.clone(),
        ledger,
        made,
    };
    raise_descriptor_limit();
    running.open_doors(&service, &numbers, &folder, crews.iter().map(Crew::processes).sum()).await?;
    tokio::spawn(trim::watch(Arc::downgrade(&node)));
    tokio::spawn(running.triggers.clone().run(running.stop_triggers.subscribe()));
    let names = crews.iter().map(|crew| crew.name().to_owned());
    running.interpreters =
        names.zip(interpreters).filter_map(|(name, interpreter)| Some((name, interpreter?))).collect();
    Ok(running)
}

impl Running {
    async fn open_doors(
        &mut self,
        service: &Service,
        numbers: &Numbers,
        folder: &RuntimeDir,
        workers: u32,
    ) -> Result<(), StartError> {
        let limits = &service.limits;
        let timeouts =
            Timeouts { idle: limits.idle_timeout, header: limits.header_timeout, stalled: limits.body_timeout };
        // Each door has descriptors of its own, so that a crowd at the one does not shut the other.
        let spare = spare_descriptors(workers);
        let of_api = (spare / 4).max(1).min(spare.saturating_sub(1).max(1));
        if let Some(http) = &service.listen.http {
            let headers = usize::try_from(limits.headers).unwrap_or(usize::MAX);
            let door = HttpDoor::new(
                self.node.clone(),
                wiring::routes(service, numbers, self.node.jq())?,
                limits.body_timeout,
                headers,
            )?;
            let bound = listen::tcp(http, "http").await?;
            self.addresses.push(Address { name: "http", url: bound.url()? });
            let connections = limits.connections.min((spare - of_api.min(spare)).max(1));
            let door = Arc::new(door);
            self.http = Some(door.clone());
            self.doors.push(door.serve(bound, timeouts, connections));
        }
        let token = folder.token()?.as_str().to_owned();
        let (bound, hosts) = match &service.listen.api {
            Some(api) => (listen::tcp(api, "api").await?, listen::hosts(api)),
            None => (listen::unix(folder, &service.name)?, Vec::new()),
        };
        self.addresses.push(Address { name: "api", url: bound.url()? });
        self.doors.push(Arc::new(ApiDoor::new(self.node.clone(), token, hosts)).serve(bound, timeouts, of_api));
        Ok(())
    }

    /// The doors that are open.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The Python of each stage, and where it was found.
    pub fn interpreters(&self) -> &[(String, Interpreter)] {
        &self.interpreters
    }

    /// The node itself.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Ends if the node cannot go on: a part of it that everything else rests on has ended, which is a fault of the node itself. Its
    /// owner should end then, rather than look alive.
    pub async fn failed(&mut self) {
        tokio::select! {
            _ = &mut self.timekeeper => tracing::error!("the node's clock has stopped"),
            _ = &mut self.roster => tracing::error!("nobody looks after the workers any more"),
        }
    }

    /// Gives up all that is left, and ends all workers.
    pub async fn end(mut self) {
        self.doors.iter().for_each(Listening::drain);
        self.stop_triggers.send_replace(true);
        self.node.drain(Duration::ZERO).await;
        self.stop_workers().await;
    }

    async fn stop_workers(&mut self) {
        self.stop.send_replace(true);
        self.wardens.shutdown().await;
        self.timekeeper.abort();
    }

    /// Stops accepting, lets what runs finish within the service's `drain`, answers the rest, and ends all workers. If `hurry`
    /// comes first, all that is left is given up at once.
    pub async fn drain(mut self, hurry: impl Future<Output = ()>) {
        // The API answers until the end, so that a drain can be watched.
        let (last, doors) = match self.doors.split_last() {
            Some((api, doors)) => (Some(api), doors),
            None => (None, &[][..]),
        };
        doors.iter().for_each(Listening::drain);
        self.stop_triggers.send_replace(true);
        let answered = async {
            // The requests of triggers that fire now are let in before the drain refuses all others.
            tokio::join!(self.triggers.fire_shutdown(), self.node.drain(self.drain));
            for door in doors {
                let _ = tokio::time::timeout(LAST_WORDS, door.closed()).await;
            }
            self.stop.send_replace(true);
            let _ = (&mut self.roster).await;
        };
        tokio::select! {
            () = answered => {}
            () = hurry => {
                tracing::warn!("asked again to stop: giving up what is left");
                self.node.drain(Duration::ZERO).await;
                for door in doors {
                    let _ = tokio::time::timeout(LAST_WORDS, door.closed()).await;
                }
            }
        }
        last.into_iter().for_each(Listening::drain);
        self.stop_workers().await;
    }
}

/// How many connections there are descriptors for, when each worker has its three and some are left for the API and the rest.
fn spare_descriptors(workers: u32) -> usize {
    const KEPT: u64 = 32;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let spare = limit.saturating_sub(KEPT + 3 * u64::from(workers)).max(1);
    usize::try_from(spare).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS)
}

/// A node has a descriptor for each connection and three for each worker.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
    }
}
