//! The node: one lock around the core, and whoever brings an input carries out the actions.
//!
//! The lock is held for about a microsecond at a time. Under it, actions only append to the outbox of a worker, or hand an
//! answer to the task that waits for it; the writing and sending happens elsewhere, in the order in which it was decided.

mod door;
mod events;
mod locals;
mod log;
mod replan;
mod waiter;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use evener_core::state::{Bounds, State as Kept};
use evener_core::{
    Action, Answer, Budget, Dispatcher, Problem, RequestId, RequestKey, StageId, Stop, Time, Topology, WorkerKey,
};
use evener_doors::stream::{ChunkSender, Chunks, stream};
use evener_doors::{Arrival, Node as _, Parcel, PoolView};
use evener_protocol::{JobHead, Task, Value};
use evener_supervisor::slot::Line;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};

pub(crate) use self::replan::Plans;
use self::waiter::Call;
pub(crate) use self::waiter::Waiter;
use crate::clock::Clock;
use crate::errand::{Assess, Errands, Question};
use crate::extension;
use crate::functions::Functions;
use crate::gather::PAYLOADS;
use crate::local::{LocalJob, LocalSeat};
use crate::metrics::Metrics;
use crate::recovery;
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
    pid: u32,
    /// The numbers of the functions that it was sent.
    known: HashSet<u32>,
    /// The code that it has loaded, as far as it is the service's own.
    code: Vec<Stamp>,
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
    pub(crate) memory: u64,
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
    debug: bool,
    state: Mutex<State>,
    timer: Notify,
    warmup: watch::Sender<Vec<Warmup>>,
    idle: Notify,
}

impl Node {
    /// A node as `setup` describes it.
    pub(crate) fn new(setup: Setup) -> Arc<Node> {
        let Setup { topology, memory, debug, wanted, pools, output, assess, orders } = setup;
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
            budget: Budget::new(memory),
            metrics,
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

    /// Tells the task that owns the worker processes. If it is gone, so is the node.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The core does not panic half-way through a change; if it ever does, going on beats losing every other request.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the core when time has passed that matters to it. Never returns.
    pub(crate) async fn keep_time(&self) {
        loop {
            let next = {
                let mut state = self.state();
                let now = self.clock.now();
                state.dispatcher.timeout(now);
                self.carry_out(&mut state, now);
                let errands = std::mem::take(&mut state.errands);
                state.armed = state.dispatcher.next_timeout().unwrap_or(Time::NEVER);
                let armed = state.armed;
                drop(state);
                self.run_errands(errands);
                armed
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.clock.instant(next)) => {}
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

    fn carry_out(&self, state: &mut State, now: Time) {
        let State { dispatcher, seats, actions, ran, armed, locals, assess, errands, .. } = state;
        dispatcher.take_actions(actions);
        for action in actions.drain(..) {
            match action {
                Action::Run {
                    worker,
                    job,
                    attempt,
                    tries,
                    id,
                    request,
                    request_id,
                    from_client,
                    function: _,
                    stream,
                    batch,
                    deadline,
                    payload,
                    problem,
                } => {
                    let waiter = dispatcher.reply(request);
                    let (payload, from_client) = match problem {
                        Some(problem) => {
                            let value = self.recovery(&problem, request_id, &payload.value, waiter);
                            (Parcel { value, held: payload.held }, false)
                        }
                        None => (payload, from_client),
                    };
                    if let Some(seat) = locals.get_mut(&worker) {
                        let (origin, is_request) = match dispatcher.reply(request) {
                            Some(Waiter::Request { origin, as_request, .. }) => {
                                (origin.clone(), *as_request && from_client)
                            }
                            Some(Waiter::Call(_)) | None => (None, false),
                        };
                        let (cancelled, asked) = seat.begin();
                        let local = seat.local.clone();
                        let timeout = dispatcher.topology().stage(seat.stage).timeout;
                        errands.jobs.push(LocalJob {
                            worker,
                            job,
                            attempt,
                            local,
                            payload,
                            origin,
                            is_request,
                            timeout,
                            cancelled,
                            asked,
                        });
                        continue;
                    }
                    let Some(seat) = seats.get_mut(&worker) else {
                        tracing::error!(job = %id, "a job was handed to a worker that is not there");
                        continue;
                    };
                    let waiter = dispatcher.reply(request);
                    if let Some(Waiter::Call(call)) = waiter {
                        call.handed(seat.pid, tries);
                        let (task, left_nanos) = (seat.task_of(call), call.left_nanos);
                        let head = JobHead {
                            job,
                            attempt,
                            tries,
                            left_nanos,
                            task,
                            stream: false,
                            batch: false,
                            extension: &[],
                        };
                        seat.line.job(&head, &payload.value);
                        continue;
                    }
                    let left_nanos = deadline.since(now).as_nanos().min(u128::from(u64::MAX - 1)) as u64;
                    let is_request = from_client && matches!(waiter, Some(Waiter::Request { as_request: true, .. }));
                    let told = extension::Told { id, request_id, context: seat.context, is_request, waiter };
                    let extension = extension::of_job(&told, &payload.value);
                    let task = if is_request { Task::Request } else { Task::Value };
                    let stream = stream && seat.streams;
                    let head = JobHead { job, attempt, tries, left_nanos, task, stream, batch, extension: &extension };
                    seat.line.job(&head, &payload.value);
                }
                Action::Assess { job, stage, request, from_client, payload } => {
                    let Some(assess) = assess.get(&stage).cloned() else {
                        tracing::error!("a job was to be assessed where nothing is asked");
                        continue;
                    };
                    let origin = match dispatcher.reply(request) {
                        Some(Waiter::Request { as_request: true, origin, .. }) if from_client => origin.clone(),
                        Some(Waiter::Request { .. } | Waiter::Call(_)) | None => None,
                    };
                    errands.questions.push(Question { job, assess, payload, origin });
                }
                Action::Grow { stage } => self.order(Order::Grow(stage)),
                Action::Shrink { worker } => {
                    if let Some(seat) = seats.get(&worker) {
                        seat.line.leave();
                    } else if locals.remove(&worker).is_some() {
                        errands.gone.push(worker);
                    }
                }
                Action::Outdated => self.order(Order::Outdated),
                Action::Chunk { request, payload } => {
                    if let Some(waiter) = dispatcher.reply_mut(request) {
                        waiter.chunk(payload, || self.stream(request));
                    }
                }
                Action::Credit { worker, job, attempt, bytes } => {
                    if let Some(seat) = seats.get(&worker) {
                        seat.line.credit_chunks(job, attempt, u32::try_from(bytes).unwrap_or(u32::MAX));
                    }
                }
                Action::AskCredit { worker } => {
                    if let Some(seat) = seats.get(&worker) {
                        seat.line.ask_credit();
                    }
                }
                Action::Recall { worker, job, attempt } => {
                    if let Some(seat) = seats.get(&worker) {
                        seat.line.recall(job, attempt);
                    }
                }
                Action::Cancel { worker, job, attempt } => {
                    if let Some(seat) = seats.get(&worker) {
                        seat.line.cancel(job, attempt);
                    } else if let Some(seat) = locals.get(&worker) {
                        seat.cancel();
                    }
                }
                Action::Stop { worker, signal: order } => {
                    if let Some(seat) = seats.get(&worker) {
                        let stage = &dispatcher.topology().stage(seat.stage).name;
                        let job = dispatcher.worker_job(worker).map(tracing::field::display);
                        let signal = match order {
                            Stop::Terminate => "SIGTERM",
                            Stop::Kill => "SIGKILL",
                        };
                        tracing::warn!(stage, worker = seat.index, job, signal, "worker keeps a job that was given up");
                        seat.line.stop(order);
                    } else if let Some(seat) = locals.get(&worker) {
                        seat.stop(order);
                    }
                }
                Action::Retire { worker } => {
                    if let Some(seat) = seats.get(&worker) {
                        seat.line.retire();
                    }
                }
                Action::Retried { request_id, problem } => self.log(request_id, &problem, true),
                Action::GoingOn { request } => {
                    if let Some(Waiter::Call(call)) = dispatcher.reply(request) {
                        call.goes_on();
                    }
                }
                Action::Answer { reply: Waiter::Request { answer: to, chunks, .. }, request_id, answer } => {
                    self.report(request_id, &answer);
                    match (to, chunks, answer) {
                        (_, Some(chunks), Answer::Problem(problem)) => chunks.end(Err(problem)),
                        (_, Some(chunks), _) => chunks.end(Ok(())),
                        // If nobody receives it, the client has just gone away.
                        (Some(to), None, answer) => _ = to.send(Arrival::Answer(answer)),
                        (None, None, _) => {}
                    }
                }
                Action::Answer { reply: Waiter::Call(call), request_id, answer } => {
                    self.report_call(request_id, &answer);
                    call.answered(request_id, answer, *ran);
                }
            }
        }
        if let Some(next) = dispatcher.next_timeout().filter(|next| *next < *armed) {
            *armed = next;
            self.timer.notify_one();
        }
        if dispatcher.is_draining() && dispatcher.pending() == 0 {
            self.idle.notify_waiters();
        }
    }

    /// What the first stage of an `on_error` gets.
    fn recovery(&self, problem: &Problem, id: RequestId, original: &Value, waiter: Option<&Waiter>) -> Value {
        let origin = match waiter {
            Some(Waiter::Request { as_request: true, origin, .. }) => origin.as_deref(),
            Some(Waiter::Request { .. } | Waiter::Call(_)) | None => None,
        };
        recovery::value(&self.topology(), problem, id, original, origin)
    }

    /// The two ends of a stream to the client of that request.
    fn stream(&self, request: RequestKey) -> (ChunkSender, Chunks) {
        let (taker, leaver) = (self.this.clone(), self.this.clone());
        let took = move |bytes| {
            let Some(node) = taker.upgrade() else { return };
            let mut state = node.state();
            let now = node.clock.now();
            state.dispatcher.consumed(request, bytes);
            node.act(state, now);
        };
        let gone = move || {
            if let Some(node) = leaver.upgrade() {
                node.abandon(request);
            }
        };
        stream(Box::new(took), Box::new(gone))
    }

    fn settle(&self, stage: StageId) {
        self.warmup.send_modify(|stages| {
            if let Some(stage) = stages.get_mut(stage.0 as usize) {
                stage.settled = (stage.settled + 1).min(stage.wanted);
            }
        });
    }
}
