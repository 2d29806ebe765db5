//! The node: one lock around the core, and whoever brings an input carries out the actions.
//!
//! The lock is held for about a microsecond at a time. Under it, actions only append to the outbox of a worker, or hand an
//! answer to the task that waits for it; the writing and sending happens elsewhere, in the order in which it was decided.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evener_core::{
    Action, Answer, Budget, Cause, Code, Dispatcher, FallbackOn, Landed, Loss, Outcome, Problem, RequestId, RequestKey,
    StageId, Stop, Submission, Time, Topology, WorkerKey, fallback_or,
};
use evener_doors::{Answered, Health, Node as Door, Origin, Parcel, StageHealth, Ticket};
use evener_protocol::{JobHead, Ready, Value};
use evener_supervisor::output::{Stream, printable};
use evener_supervisor::slot::{Events, Gone, Line, Place};
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::Clock;
use crate::extension;
use crate::metrics::{Metrics, WorkerCount};

/// What the node keeps with each request.
#[derive(Debug)]
pub(crate) struct Waiter {
    answer: oneshot::Sender<Answered>,
    pub(crate) origin: Origin,
    as_request: bool,
}

/// A worker that is up, as the node reaches it.
struct Seat {
    line: Arc<Line>,
    context: bool,
    stage: StageId,
    index: u32,
}

struct State {
    dispatcher: Dispatcher<Parcel, Waiter>,
    seats: HashMap<WorkerKey, Seat>,
    actions: Vec<Action<Parcel, Waiter>>,
    /// When the timer task will wake by itself.
    armed: Time,
}

/// How many workers of a stage are wanted, and how many of those have come to something.
#[derive(Debug, Default)]
struct Warmup {
    wanted: u32,
    settled: u32,
}

/// A running node.
pub struct Node {
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
    /// A node of that topology with room for `memory` bytes of payload. `wanted` says how many workers each stage shall have.
    pub(crate) fn new(topology: Arc<Topology>, memory: u64, debug: bool, wanted: &[u32]) -> Node {
        let state = State {
            dispatcher: Dispatcher::new(topology.clone()),
            seats: HashMap::new(),
            actions: Vec::new(),
            armed: Time::NEVER,
        };
        let names: Vec<&str> = topology.stages().iter().map(|stage| stage.name.as_str()).collect();
        Node {
            clock: Clock::start(),
            budget: Budget::new(memory),
            metrics: Metrics::new(&names),
            debug,
            state: Mutex::new(state),
            timer: Notify::new(),
            warmup: watch::Sender::new(wanted.iter().map(|&wanted| Warmup { wanted, settled: 0 }).collect()),
            idle: Notify::new(),
            topology,
        }
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
                state.armed = state.dispatcher.next_timeout().unwrap_or(Time::NEVER);
                state.armed
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
            self.carry_out(&mut state, now);
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
        let State { dispatcher, seats, actions, armed } = state;
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
                    deadline,
                    payload,
                } => {
                    let Some(seat) = seats.get(&worker) else {
                        tracing::error!(job = %id, "a job was handed to a worker that is not there");
                        continue;
                    };
                    let waiter = dispatcher.reply(request);
                    let is_request = from_client && waiter.is_some_and(|waiter| waiter.as_request);
                    let told = extension::Told { id, request_id, context: seat.context, is_request, waiter };
                    let extension = extension::of_job(&told, &payload.value);
                    let left_nanos = deadline.since(now).as_nanos().min(u128::from(u64::MAX - 1)) as u64;
                    let head = JobHead { job, attempt, tries, left_nanos, is_request, extension: &extension };
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
                    }
                }
                Action::Retire { worker } => {
                    if let Some(seat) = seats.get(&worker) {
                        seat.line.retire();
                    }
                }
                Action::Retried { request_id, problem } => self.log(request_id, &problem, true),
                Action::Answer { reply, request_id, answer } => {
                    self.report(request_id, &answer);
                    // If nobody receives it, the client has just gone away.
                    let _ = reply.answer.send(answer);
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

    fn report(&self, request_id: RequestId, answer: &Answered) {
        self.metrics.answered(answer);
        if let Answer::Problem(problem) | Answer::Fallback(problem) = answer {
            self.log(request_id, problem, false);
        }
    }

    /// Writes a problem into the log, with what the client is not told.
    fn log(&self, request_id: RequestId, problem: &Problem, retried: bool) {
        let stage = problem.stage.map(|stage| self.topology.stage(stage).name.as_str());
        let job = problem.job.map(tracing::field::display);
        // Workers, and through them clients, have a say in what it says.
        let (code, detail) = (problem.code.name(), printable(&problem.detail));
        let (then, said, cause) = match (&problem.cause, retried) {
            (Some(Cause::Raised { message, traceback, .. }), _) => {
                (format!("\n{}", Lines(traceback)), Some(printable(message)), None)
            }
            (Some(Cause::Died(certificate)), _) => (String::new(), None, Some(certificate.as_str())),
            (None, _) => (String::new(), None, None),
        };
        let (said, again) = (said.as_deref(), if retried { "; trying again" } else { "" });
        match problem.status {
            _ if retried => tracing::warn!(%request_id, job, stage, code, said, cause, "{detail}{again}{then}"),
            500.. if problem.cause.is_some() => {
                tracing::error!(%request_id, job, stage, code, said, cause, "{detail}{then}");
            }
            500.. => tracing::warn!(%request_id, job, stage, code, "{detail}"),
            _ => tracing::debug!(%request_id, job, stage, code, "{detail}"),
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

/// The level of a line that a worker wrote, and the line without it: `<3>` to begin with is an error, `<4>` a warning, `<6>` or
/// nothing is for information, `<7>` for finding faults. That is how services tell systemd (sd-daemon(3)).
fn priority(line: &str) -> (u8, &str) {
    match line.as_bytes() {
        [b'<', level @ b'0'..=b'7', b'>', ..] => (level - b'0', line[3..].trim_start()),
        _ => (6, line),
    }
}

/// Text from a worker with its lines kept, and each made harmless for a terminal.
struct Lines<'a>(&'a str);

impl std::fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, line) in self.0.trim_end().lines().enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            write!(f, "{newline}    {}", printable(line))?;
        }
        Ok(())
    }
}

/// Tells the core that the client went away, unless its answer came first.
struct CancelOnDrop<'a> {
    node: &'a Node,
    request: Option<RequestKey>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(request) = self.request else { return };
        let mut state = self.node.state();
        let now = self.node.clock.now();
        if state.dispatcher.cancel(now, request) {
            self.node.metrics.cancelled();
        }
        self.node.carry_out(&mut state, now);
    }
}

impl Door for Node {
    fn new_id(&self) -> RequestId {
        self.clock.request_id()
    }

    async fn submit(&self, ticket: Ticket) -> Answered {
        let Ticket { id, path, parcel, timeout, fallback_on, as_request, origin } = ticket;
        let (answer, answered) = oneshot::channel();
        let began = self.clock.now();
        let reply = Waiter { answer, origin, as_request };
        let submission = Submission { id, path, payload: parcel, deadline: began + timeout, fallback_on, reply };
        let request = {
            let mut state = self.state();
            match state.dispatcher.submit(began, submission) {
                Ok(request) => {
                    self.carry_out(&mut state, began);
                    request
                }
                Err(refused) => {
                    drop(state);
                    self.report(id, &refused.answer);
                    return refused.answer;
                }
            }
        };
        let mut gone = CancelOnDrop { node: self, request: Some(request) };
        let answered = answered.await;
        gone.request = None;
        self.metrics.took(self.clock.now().since(began));
        answered.unwrap_or_else(|_| Answer::Problem(Problem::new(Code::Draining, "the node stopped")))
    }

    fn refused(&self, id: RequestId, problem: Problem, fallback_on: FallbackOn) -> Answered {
        let answer = fallback_or(fallback_on, problem);
        self.report(id, &answer);
        answer
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn stage_name(&self, stage: StageId) -> &str {
        &self.topology.stage(stage).name
    }

    fn debug(&self) -> bool {
        self.debug
    }

    fn health(&self) -> Health {
        let warmup = self.warmup.borrow();
        let state = self.state();
        let stages: Vec<StageHealth> = (self.topology.stages().iter().zip(0..))
            .zip(warmup.iter())
            .map(|((rules, number), warmup)| {
                let counts = state.dispatcher.counts(StageId(number));
                let state = match counts {
                    _ if warmup.wanted == 0 => "idle",
                    counts if counts.broken.is_some() => "broken",
                    counts if counts.workers == 0 => "starting",
                    _ => "ready",
                };
                StageHealth { name: rules.name.clone(), state }
            })
            .collect();
        let draining = state.dispatcher.is_draining();
        let ready = !draining && stages.iter().all(|stage| matches!(stage.state, "ready" | "idle"));
        Health { ready, draining, stages }
    }

    fn metrics(&self) -> String {
        let state = self.state();
        let stages = (0..self.topology.stages().len() as u32).map(|stage| state.dispatcher.counts(StageId(stage)));
        let workers = state.seats.iter().map(|(worker, seat)| WorkerCount {
            stage: seat.stage,
            index: seat.index,
            done: state.dispatcher.worker_done(*worker).unwrap_or(0),
        });
        let (stages, workers) = (stages.collect::<Vec<_>>(), workers.collect::<Vec<_>>());
        drop(state);
        self.metrics.render(&self.topology, &stages, &workers, &self.budget)
    }
}

impl Events for Node {
    fn ready(&self, place: &Place, pid: u32, ready: Ready, line: Arc<Line>) -> WorkerKey {
        let Place { stage, name, index } = place;
        let runtime = printable(&ready.runtime);
        tracing::info!(stage = &**name, worker = index, pid, runtime = &*runtime, "worker ready");
        let worker = {
            let mut state = self.state();
            let now = self.clock.now();
            let worker = state.dispatcher.worker_ready(now, *stage);
            state.seats.insert(worker, Seat { line, context: ready.context, stage: *stage, index: *index });
            self.carry_out(&mut state, now);
            worker
        };
        self.settle(*stage);
        worker
    }

    fn outcome(&self, worker: WorkerKey, landed: Landed<Value>) -> bool {
        let Landed { job, attempt, ran, outcome } = landed;
        let begun = !matches!(outcome, Outcome::Returned);
        let outcome = outcome.map(|value| {
            let held = (!value.bytes.is_empty()).then(|| Arc::new(self.budget.charge(value.bytes.len() as u64)));
            Parcel { value, held }
        });
        let mut state = self.state();
        let now = self.clock.now();
        if let Some(seat) = state.seats.get(&worker).filter(|_| begun) {
            self.metrics.ran(seat.stage, ran);
        }
        let fresh = state.dispatcher.outcome(now, worker, Landed { job, attempt, ran, outcome });
        self.carry_out(&mut state, now);
        fresh
    }

    fn credit(&self, worker: WorkerKey, credit: u32) {
        let mut state = self.state();
        let now = self.clock.now();
        state.dispatcher.credit(now, worker, credit);
        self.carry_out(&mut state, now);
    }

    fn lost(&self, place: &Place, worker: WorkerKey, gone: Gone<'_>) {
        let Gone { cause, asked, certificate } = gone;
        let mut state = self.state();
        let job = state.dispatcher.worker_job(worker).map(tracing::field::display);
        let (stage, index, pid) = (&*place.name, place.index, certificate.pid);
        let mut died = certificate.to_string();
        if !certificate.stderr_tail.is_empty() {
            died.push_str("; its last words: ");
            died.push_str(&printable(&certificate.stderr_tail.join(" | ")));
        }
        if asked {
            tracing::debug!(stage, worker = index, pid, died, "worker left");
        } else {
            tracing::warn!(stage, worker = index, pid, job, died, "worker died: it {cause}");
        }
        let now = self.clock.now();
        state.seats.remove(&worker);
        state.dispatcher.worker_lost(now, worker, Loss { cause, certificate: died });
        self.carry_out(&mut state, now);
    }

    fn start_failed(&self, place: &Place, why: &str, broken: bool, wait: Duration) {
        let why = printable(why);
        tracing::error!(
            stage = &*place.name,
            worker = place.index,
            again_in_ms = wait.as_millis() as u64,
            "worker did not start: {why}"
        );
        if broken {
            let mut state = self.state();
            let now = self.clock.now();
            if state.dispatcher.counts(place.stage).broken.is_none() {
                tracing::error!(stage = &*place.name, "the stage is broken: its workers do not start");
            }
            state.dispatcher.stage_broken(now, place.stage, &why);
            self.carry_out(&mut state, now);
        }
        self.settle(place.stage);
    }

    fn output(&self, place: &Place, pid: u32, worker: Option<WorkerKey>, stream: Stream, line: &str) {
        let job = worker.and_then(|worker| {
            let mut state = self.state();
            state.dispatcher.printed(worker);
            state.dispatcher.worker_job(worker)
        });
        let job = job.map(tracing::field::display);
        let (stage, index, stream) = (&*place.name, place.index, stream.as_str());
        let (level, line) = priority(line);
        let line = printable(line);
        match level {
            0..=3 => tracing::error!(target: "worker", stage, worker = index, pid, job, stream, "{line}"),
            4 => tracing::warn!(target: "worker", stage, worker = index, pid, job, stream, "{line}"),
            7 => tracing::debug!(target: "worker", stage, worker = index, pid, job, stream, "{line}"),
            _ => tracing::info!(target: "worker", stage, worker = index, pid, job, stream, "{line}"),
        }
    }
}
