//! The node: one lock around the core, and whoever brings an input carries out the actions.
//!
//! The lock is held for about a microsecond at a time, and longer where large values are put together (`gather`, `recovery`). Under it,
//! actions only append to the outbox of a worker, or hand an answer to the task that waits for it; the writing and sending happens
//! elsewhere, in the order in which it was decided.

mod actions;
mod door;
mod events;
mod locals;
mod log;
mod replan;
mod waiter;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use evener_core::state::{Bounds, State as Kept};
use evener_core::{Action, Budget, Dispatcher, StageId, Time, Topology, WorkerKey};
use evener_doors::{Node as _, Parcel, PoolView};
use evener_protocol::Task;
use evener_supervisor::slot::Line;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};

pub(crate) use self::replan::Plans;
use self::waiter::Call;
pub(crate) use self::waiter::Waiter;
use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::errand::{Assess, Errands};
use crate::functions::Functions;
use crate::gather::PAYLOADS;
use crate::jq::workers::JqWorkers;
use crate::kit::PlaceId;
use crate::local::LocalSeat;
use crate::metrics::Metrics;
use crate::roster::Order;
use crate::stamp::Stamp;

/// The most bytes of what jobs keep for each other.
const KEPT_BYTES: u64 = 64 << 20;
/// The most entries of it.
const KEPT: usize = 1_000_000;

/// A worker that is up, as the node reaches it.
struct Seat {
    line: Arc<Line>,
    context: bool,
    /// Whether it knows what to do where an answer may come in chunks.
    streams: bool,
    stage: StageId,
    index: u32,
    place: PlaceId,
    pid: u32,
    /// The numbers of the functions that it was sent.
    known: HashSet<u32>,
    /// The code that it has loaded, as far as it is the service's own, as it was then.
    code: Vec<Stamp>,
    /// The same as it was when somebody last tried to replace the worker.
    seen: Vec<Stamp>,
}

impl Seat {
    /// What a call is to this worker, which is sent the function first if it does not have it.
    fn task_of(&mut self, call: &Call) -> Task {
        let number = call.function.number.get();
        if self.known.insert(number) {
            self.line.define(number, &call.function.body);
        }
        if call.group { Task::Group(number) } else { Task::Call(number) }
    }
}

struct State {
    dispatcher: Dispatcher<Parcel, Waiter>,
    seats: HashMap<WorkerKey, Seat>,
    actions: Vec<Action<Parcel, Waiter>>,
    functions: Functions,
    /// How long the function ran whose outcome is being acted on.
    ran: Duration,
    /// When the timer task will wake by itself.
    armed: Time,
    /// The workers without a process that stays.
    locals: HashMap<WorkerKey, LocalSeat>,
    /// What jobs keep for each other.
    kept: Kept,
    /// What is asked of the jobs of which stages before they wait.
    assess: HashMap<StageId, Assess>,
    /// What is to be done when the lock is free.
    errands: Errands,
    /// The stages without worker processes of the newest plan.
    staying: HashSet<StageId>,
    /// Folders in which a file may be missing that a stage's new code wants.
    missed: HashMap<StageId, Vec<Stamp>>,
    /// Files of which a worker may have loaded another version than there was when it got ready.
    doubted: HashSet<PathBuf>,
    /// The stages whose workers are not as the service file wants them, since the new ones did not come up, and why.
    failed: BTreeMap<StageId, String>,
}

/// How many workers of a stage are wanted, and how many of those have come to something.
#[derive(Debug, Default)]
struct Warmup {
    wanted: u32,
    settled: u32,
}

/// What a node is made of.
pub(crate) struct Setup {
    pub(crate) topology: Arc<Topology>,
    /// Room for so many bytes of payload.
    pub(crate) memory: Budget,
    pub(crate) debug: bool,
    /// How many workers each stage shall have.
    pub(crate) wanted: Vec<u32>,
    /// The pools that take functions.
    pub(crate) pools: Vec<PoolView>,
    /// How many bytes of output each stage passes on of a call.
    pub(crate) output: HashMap<StageId, u64>,
    /// What is asked of the jobs of which stages before they wait.
    pub(crate) assess: HashMap<StageId, Assess>,
    /// What the task hears that owns the worker processes.
    pub(crate) orders: UnboundedSender<Order>,
    /// Where jq programs run that may not run in the node.
    pub(crate) jq: Arc<JqWorkers>,
}

/// A running node.
pub struct Node {
    /// Itself, for the threads of jobs.
    this: Weak<Node>,
    name: String,
    pools: Vec<PoolView>,
    /// How many bytes of output each function pool passes on of a call.
    output: HashMap<StageId, u64>,
    clock: Clock,
    budget: Budget,
    /// The plan in force.
    topology: RwLock<Arc<Topology>>,
    /// What the task hears that owns the worker processes.
    orders: UnboundedSender<Order>,
    metrics: Metrics,
    jq: Arc<JqWorkers>,
    debug: bool,
    state: Mutex<State>,
    timer: Notify,
    warmup: watch::Sender<Vec<Warmup>>,
    idle: Notify,
}

impl Node {
    /// A node as `setup` describes it.
    pub(crate) fn new(setup: Setup) -> Arc<Node> {
        let Setup { topology, memory, debug, wanted, pools, output, assess, orders, jq } = setup;
        let state = State {
            dispatcher: Dispatcher::new(topology.clone(), PAYLOADS),
            seats: HashMap::new(),
            actions: Vec::new(),
            functions: Functions::default(),
            ran: Duration::ZERO,
            armed: Time::NEVER,
            locals: HashMap::new(),
            kept: Kept::new(Bounds { bytes: KEPT_BYTES, entries: KEPT }),
            assess,
            errands: Errands::default(),
            staying: HashSet::new(),
            missed: HashMap::new(),
            doubted: HashSet::new(),
            failed: BTreeMap::new(),
        };
        let names: Vec<&str> = topology.stages().iter().map(|stage| stage.name.as_str()).collect();
        let metrics = Metrics::new(&names);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Arc::new_cyclic(|this| Node {
            this: this.clone(),
            name: format!("{host}-{}", std::process::id()),
            pools,
            output,
            clock: Clock::start(),
            budget: memory,
            metrics,
            jq,
            debug,
            state: Mutex::new(state),
            timer: Notify::new(),
            warmup: watch::Sender::new(wanted.iter().map(|&wanted| Warmup { wanted, settled: 0 }).collect()),
            idle: Notify::new(),
            topology: RwLock::new(topology),
            orders,
        })
    }

    /// The plan in force.
    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What counts the payloads that it holds.
    pub(crate) fn memory(&self) -> &Budget {
        &self.budget
    }

    /// Where jq programs run that may not run in the node.
    pub(crate) fn jq(&self) -> &Arc<JqWorkers> {
        &self.jq
    }

    /// Tells the task that owns the worker processes. If it is gone, so is the node.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The core does not panic half-way through a change; if it ever does, going on beats losing every other request.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the core when time has passed that matters to it. Returns only if the alarm fails.
    pub(crate) async fn keep_time(&self, alarm: &Alarm) -> io::Result<()> {
        loop {
            let next = {
                let mut state = self.state();
                let now = self.clock.now();
                state.dispatcher.timeout(now);
                state.kept.expire(now);
                self.carry_out(&mut state, now);
                let errands = std::mem::take(&mut state.errands);
                let next = [state.dispatcher.next_timeout(), state.kept.next_end()];
                state.armed = next.into_iter().flatten().min().unwrap_or(Time::NEVER);
                let armed = state.armed;
                drop(state);
                self.run_errands(errands);
                armed
            };
            tokio::select! {
                woken = alarm.sleep(next.since(self.clock.now())) => woken?,
                () = self.timer.notified() => {}
            }
        }
    }

    /// Refuses new requests from now on, and waits until all others are answered, for at most `patience`.
    pub(crate) async fn drain(&self, patience: Duration) {
        {
            let mut state = self.state();
            let now = self.clock.now();
            state.dispatcher.drain(now, now + patience);
            self.act(state, now);
        }
        loop {
            let idle = self.idle.notified();
            if self.state().dispatcher.pending() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Waits until every worker has got ready or failed to, and every stage takes jobs.
    pub async fn ready(&self) {
        let mut warmup = self.warmup.subscribe();
        loop {
            let settled = warmup.borrow_and_update().iter().all(|stage| stage.settled >= stage.wanted);
            if settled && self.health().ready {
                return;
            }
            if warmup.changed().await.is_err() {
                return;
            }
        }
    }

    fn settle(&self, stage: StageId) {
        self.warmup.send_modify(|stages| {
            if let Some(stage) = stages.get_mut(stage.0 as usize) {
                stage.settled = (stage.settled + 1).min(stage.wanted);
            }
        });
    }
}
