//! The node as its doors see it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use evener_core::{
    Answer, Budget, Code, FallbackOn, Path, Problem, RequestId, RequestKey, Reservation, StageId, Submission, Terms,
    Time, Withdrawal, fallback_or,
};
use evener_doors::{
    Answered, Arrival, CallTicket, Function, Health, Node as Door, PoolView, StageHealth, Ticket, WorkerView,
};
use tokio::sync::oneshot;

use super::Node;
use super::waiter::{Call, Waiter};
use crate::functions;
use crate::metrics::{Seen, WorkerCount};

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
        self.node.act(state, now);
    }
}

impl Door for Node {
    fn new_id(&self) -> RequestId {
        self.clock.request_id()
    }

    async fn submit(&self, ticket: Ticket) -> Arrival {
        let Ticket { id, path, parcel, timeout, fallback_on, priority, flow, as_request, streams, on_error, origin } =
            ticket;
        let (answer, answered) = oneshot::channel();
        let began = self.clock.now();
        let reply = Waiter::Request { answer: Some(answer), chunks: None, origin: origin.map(Arc::new), as_request };
        let (deadline, terms) = (began + timeout, Terms { priority, flow, ..Terms::default() });
        let submission =
            Submission { id, path, payload: parcel, deadline, fallback_on, terms, streams, on_error, reply };
        let request = {
            let mut state = self.state();
            match state.dispatcher.submit(began, submission) {
                Ok(request) => {
                    self.act(state, began);
                    request
                }
                Err(refused) => {
                    drop(state);
                    self.report(id, &refused.answer);
                    return Arrival::Answer(refused.answer);
                }
            }
        };
        let mut gone = CancelOnDrop { node: self, request: Some(request) };
        let answered = answered.await;
        gone.request = None;
        self.metrics.took(self.clock.now().since(began));
        answered.unwrap_or_else(|_| {
            let stopped = Problem::new(Code::Draining, "the node stopped");
            Arrival::Answer(Answer::Problem(stopped))
        })
    }

    fn refused(&self, id: RequestId, problem: Problem, fallback_on: FallbackOn) -> Answered {
        let answer = fallback_or(fallback_on, problem);
        self.report(id, &answer);
        answer
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn stage_name(&self, stage: StageId) -> String {
        self.topology().stage(stage).name.clone()
    }

    fn debug(&self) -> bool {
        self.debug
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn pools(&self) -> &[PoolView] {
        &self.pools
    }

    fn pool(&self, name: &str) -> Option<StageId> {
        let number = self.topology().stages().iter().position(|stage| stage.functions && stage.name == name)?;
        Some(StageId(number as u32))
    }

    fn define(&self, hash: [u8; 32], name: String, python: String, body: Bytes, held: Reservation) -> Arc<Function> {
        let mut state = self.state();
        let function = state.functions.define(hash, name, python, body, held);
        for gone in state.functions.evict() {
            functions::ids_of(&gone).into_iter().for_each(|id| state.dispatcher.forget_function(id));
            let number = gone.number.get();
            for seat in state.seats.values_mut().filter(|seat| seat.known.contains(&number)) {
                seat.known.remove(&number);
                seat.line.forget(number);
            }
        }
        function
    }

    fn call(&self, call: CallTicket) -> Result<RequestKey, Problem> {
        let CallTicket { id, pool, function, group, terms, discard_output, input, caller, number } = call;
        let terms = Terms { function: Some(functions::id_of(&function, group)), ..terms };
        let output = (!discard_output).then(|| self.output.get(&pool).copied().unwrap_or(0));
        let submission = Submission {
            id,
            path: Path::Stage(pool),
            payload: input,
            deadline: Time::NEVER,
            fallback_on: FallbackOn::default(),
            terms,
            streams: false,
            on_error: None,
            reply: Waiter::Call(Call::new(caller, number, function, group, terms.timeout, output)),
        };
        let mut state = self.state();
        let now = self.clock.now();
        let result = state.dispatcher.submit(now, submission);
        self.act(state, now);
        result.map_err(|refused| {
            self.report_call(id, &refused.answer);
            match refused.answer {
                Answer::Problem(problem) | Answer::Fallback(problem) | Answer::Raised(problem, _) => problem,
                // Nobody is refused with one of these.
                Answer::Value(_) | Answer::Reply(_) | Answer::Ended => {
                    Problem::new(Code::Draining, "the node takes no calls")
                }
            }
        })
    }

    fn withdraw(&self, call: RequestKey, kill: bool) -> Withdrawal {
        let mut state = self.state();
        let now = self.clock.now();
        let withdrawal = state.dispatcher.withdraw(now, call, kill);
        self.act(state, now);
        withdrawal
    }

    fn abandon(&self, call: RequestKey) {
        let mut state = self.state();
        let now = self.clock.now();
        if state.dispatcher.cancel(now, call) {
            self.metrics.cancelled();
        }
        self.act(state, now);
    }

    fn workers(&self) -> Vec<WorkerView> {
        let topology = self.topology();
        let state = self.state();
        let mut workers: Vec<WorkerView> = (state.seats.iter())
            .map(|(worker, seat)| WorkerView {
                pid: seat.pid,
                pool: topology.stage(seat.stage).name.clone(),
                index: seat.index,
                done: state.dispatcher.worker_done(*worker).unwrap_or(0),
                busy: state.dispatcher.worker_is_busy(*worker),
            })
            .collect();
        drop(state);
        workers.sort_by(|one, other| (&one.pool, one.index).cmp(&(&other.pool, other.index)));
        workers
    }

    fn health(&self) -> Health {
        let (warmup, topology) = (self.warmup.borrow(), self.topology());
        let state = self.state();
        let failed = &state.failed;
        let stages: Vec<StageHealth> = (topology.stages().iter().zip(0..))
            .zip(warmup.iter())
            .filter(|((rules, _), _)| !rules.hidden)
            .map(|((rules, number), warmup)| {
                let counts = state.dispatcher.counts(StageId(number));
                let state = match counts {
                    counts if warmup.wanted == 0 && counts.workers == 0 => "idle",
                    counts if counts.broken.is_some() => "broken",
                    counts if counts.workers == 0 => "starting",
                    _ => "ready",
                };
                let reload_failed = failed.get(&StageId(number)).cloned();
                StageHealth { name: rules.name.clone(), state, reload_failed }
            })
            .collect();
        let draining = state.dispatcher.is_draining();
        let ready = !draining && stages.iter().all(|stage| matches!(stage.state, "ready" | "idle"));
        Health { ready, draining, stages }
    }

    fn metrics(&self) -> String {
        let topology = self.topology();
        let state = self.state();
        let stages = (0..topology.stages().len() as u32).map(|stage| state.dispatcher.counts(StageId(stage)));
        let workers = state.seats.iter().map(|(worker, seat)| WorkerCount {
            stage: seat.stage,
            index: seat.index,
            done: state.dispatcher.worker_done(*worker).unwrap_or(0),
        });
        let (stages, workers) = (stages.collect::<Vec<_>>(), workers.collect::<Vec<_>>());
        let failed: HashSet<StageId> = state.failed.keys().copied().collect();
        drop(state);
        self.metrics
            .render(&topology, &Seen { stages: &stages, workers: &workers, failed: &failed, budget: &self.budget })
    }
}
