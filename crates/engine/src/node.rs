//! The node: one lock around the core, and whoever brings an input carries out the actions.
//!
//! The lock is held for about a microsecond at a time. Under it, actions only append to the outbox of a worker, or hand an
//! answer to the task that waits for it; the writing and sending happens elsewhere, in the order in which it was decided.

mod door;
mod events;
mod locals;
mod log;
mod waiter;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use evener_core::{Action, Budget, Dispatcher, StageId, Stop, Time, Topology, WorkerKey};
use evener_doors::{Node as _, Parcel, PoolView};
use evener_protocol::{JobHead, Task};
use evener_supervisor::slot::Line;
use tokio::sync::{Notify, watch};

use self::waiter::Call;
pub(crate) use self::waiter::Waiter;
use crate::clock::Clock;
use crate::extension;
use crate::functions::Functions;
use crate::gather::PAYLOADS;
use crate::local::{self, Local, LocalJob};
use crate::metrics::Metrics;

/// A worker that is up, as the node reaches it.
struct Seat {
    line: Arc<Line>,
    context: bool,
    stage: StageId,
    index: u32,
    pid: u32,
    /// The numbers of the functions that it was sent.
    known: HashSet<u32>,
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
    /// The workers without a process, what they do, and whether nobody waits for the job that they are at.
    locals: HashMap<WorkerKey, (StageId, Local, Arc<AtomicBool>)>,
    /// Jobs that were handed to them, to be done when the lock is free.
    local_jobs: Vec<LocalJob>,
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
    pub(crate) output: Vec<u64>,
}

/// A running node.
pub struct Node {
    /// Itself, for the threads of jobs.
    this: Weak<Node>,
    name: String,
    pools: Vec<PoolView>,
    /// How many bytes of output each stage passes on of a call.
    output: Vec<u64>,
    clock: Clock,
    budget: Budget,
    topology: Arc<Topology>,
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
        let Setup { topology, memory, debug, wanted, pools, output } = setup;
        let state = State {
            dispatcher: Dispatcher::new(topology.clone(), PAYLOADS),
            seats: HashMap::new(),
            actions: Vec::new(),
            functions: Functions::default(),
            ran: Duration::ZERO,
            armed: Time::NEVER,
            locals: HashMap::new(),
            local_jobs: Vec::new(),
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
            topology,
        })
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
                let jobs = std::mem::take(&mut state.local_jobs);
                state.armed = state.dispatcher.next_timeout().unwrap_or(Time::NEVER);
                let armed = state.armed;
                drop(state);
                self.do_jobs(jobs);
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
        let State { dispatcher, seats, actions, ran, armed, locals, local_jobs, .. } = state;
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
                    deadline,
                    payload,
                } => {
                    if let Some((stage, local, cancelled)) = locals.get(&worker) {
                        let waiter = dispatcher.reply(request).filter(|_| from_client);
                        let request = match waiter {
                            Some(Waiter::Request { as_request: true, origin, .. }) => {
                                Some(local::request(origin, &payload.value.bytes))
                            }
                            _ => None,
                        };
                        cancelled.store(false, Ordering::Relaxed);
                        let (local, cancelled) = (local.clone(), cancelled.clone());
                        let timeout = self.topology.stage(*stage).timeout;
                        local_jobs.push(LocalJob { worker, job, attempt, local, payload, request, timeout, cancelled });
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
                    let head = JobHead {
                        job,
                        attempt,
                        tries,
                        left_nanos,
                        task,
                        stream: false,
                        batch: false,
                        extension: &extension,
                    };
                    seat.line.job(&head, &payload.value);
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
                    } else if let Some((_, _, cancelled)) = locals.get(&worker) {
                        cancelled.store(true, Ordering::Relaxed);
                    }
                }
                Action::Stop { worker, signal: order } => {
                    if let Some(seat) = seats.get(&worker) {
                        let stage = &self.topology.stage(seat.stage).name;
                        let job = dispatcher.worker_job(worker).map(tracing::field::display);
                        let signal = match order {
                            Stop::Terminate => "SIGTERM",
                            Stop::Kill => "SIGKILL",
                        };
                        tracing::warn!(stage, worker = seat.index, job, signal, "worker keeps a job that was given up");
                        seat.line.stop(order);
                    } else if let Some((_, _, cancelled)) = locals.get(&worker) {
                        cancelled.store(true, Ordering::Relaxed);
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
                Action::Answer { reply: Waiter::Request { answer: to, .. }, request_id, answer } => {
                    self.report(request_id, &answer);
                    // If nobody receives it, the client has just gone away.
                    let _ = to.send(answer);
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

    fn settle(&self, stage: StageId) {
        self.warmup.send_modify(|stages| {
            if let Some(stage) = stages.get_mut(stage.0 as usize) {
                stage.settled = (stage.settled + 1).min(stage.wanted);
            }
        });
    }
}
