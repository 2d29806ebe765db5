//! The node as the slots of its workers see it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evener_core::state::StateAsk;
use evener_core::{JobKey, Landed, Loss, Outcome, WorkerKey};
use evener_doors::Parcel;
use evener_protocol::{Ready, Value};
use evener_supervisor::output::{Stream, printable};
use evener_supervisor::slot::{Events, Gone, Line, Place};

use super::log::priority;
use super::waiter::Waiter;
use super::{Node, Seat, State};
use crate::roster::Order;
use crate::stamp::Stamp;

impl Events for Node {
    fn ready(&self, place: &Place, pid: u32, ready: Ready, age: Duration, line: Arc<Line>) -> WorkerKey {
        let Place { stage, name, index } = place;
        let runtime = printable(&ready.runtime);
        tracing::info!(stage = &**name, worker = index, pid, runtime = &*runtime, "worker ready");
        // Looked at before the lock is taken.
        let began = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut stamps: Vec<Stamp> = ready.files.iter().map(Stamp::of).collect();
        let worker = {
            let mut state = self.state();
            let now = self.clock.now();
            // What was written while the worker started may not be what it has loaded. A file that is written at each start shall not
            // have workers made anew for ever: so each is doubted once.
            for stamp in stamps.iter_mut().filter(|stamp| stamp.was_written_since(began)) {
                if state.doubted.insert(stamp.file().to_path_buf()) {
                    stamp.doubt();
                }
            }
            let worker = state.dispatcher.worker_ready(now, *stage);
            let (stage, index, known, streams) = (*stage, *index, HashSet::new(), ready.stream);
            let code = stamps;
            state.seats.insert(worker, Seat { line, context: ready.context, streams, code, stage, index, pid, known });
            self.act(state, now);
            worker
        };
        self.settle(*stage);
        self.order(Order::Ready(*stage, *index));
        worker
    }

    fn outcome(&self, worker: WorkerKey, landed: Landed<Value>) -> bool {
        let Landed { job, attempt, ran, outcome } = landed;
        let begun = !matches!(outcome, Outcome::Returned);
        let outcome = outcome.map(|value: Value| {
            let held = (!value.bytes.is_empty()).then(|| Arc::new(self.budget.charge(value.bytes.len() as u64)));
            Parcel { value, held }
        });
        let mut state = self.state();
        let now = self.clock.now();
        if let Some(seat) = state.seats.get(&worker).filter(|_| begun) {
            self.metrics.ran(seat.stage, ran);
        }
        let fresh = state.dispatcher.outcome(now, worker, Landed { job, attempt, ran, outcome });
        state.ran = ran;
        self.carry_out(&mut state, now);
        state.ran = Duration::ZERO;
        let errands = std::mem::take(&mut state.errands);
        drop(state);
        self.run_errands(errands);
        fresh
    }

    fn chunk(&self, worker: WorkerKey, job: JobKey, attempt: u32, value: Value) -> bool {
        let held = (!value.bytes.is_empty()).then(|| Arc::new(self.budget.charge(value.bytes.len() as u64)));
        let mut state = self.state();
        let now = self.clock.now();
        let fresh = state.dispatcher.chunk(now, worker, job, attempt, Parcel { value, held });
        self.act(state, now);
        fresh
    }

    fn state(&self, worker: WorkerKey, number: u32, ask: &StateAsk) {
        let mut state = self.state();
        let now = self.clock.now();
        let State { kept, seats, .. } = &mut *state;
        let answer = kept.ask(now, ask);
        if let Some(seat) = seats.get(&worker) {
            seat.line.state(number, &answer);
        }
        if let Some(next) = state.kept.next_end().filter(|next| *next < state.armed) {
            state.armed = next;
            self.timer.notify_one();
        }
    }

    fn credit(&self, worker: WorkerKey, credit: u32) {
        let mut state = self.state();
        let now = self.clock.now();
        state.dispatcher.credit(now, worker, credit);
        self.act(state, now);
    }

    fn lost(&self, place: &Place, worker: WorkerKey, gone: Gone<'_>) {
        let Gone { cause, asked, certificate } = gone;
        let mut state = self.state();
        let job = state.dispatcher.worker_job(worker).map(tracing::field::display);
        let (stage, index, pid) = (&*place.name, place.index, certificate.pid);
        let short = certificate.to_string();
        let mut whole = short.clone();
        if !certificate.stderr_tail.is_empty() {
            whole.push_str("; its last words: ");
            whole.push_str(&printable(&certificate.stderr_tail.join(" | ")));
        }
        // What a call writes is for its caller alone.
        let died = if self.topology().stage(place.stage).functions { short } else { whole.clone() };
        if asked {
            tracing::debug!(stage, worker = index, pid, died, "worker left");
        } else {
            tracing::warn!(stage, worker = index, pid, job, died, "worker died: it {cause}");
        }
        let now = self.clock.now();
        state.seats.remove(&worker);
        state.dispatcher.worker_lost(now, worker, Loss { cause, certificate: whole });
        self.act(state, now);
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
            self.act(state, now);
        }
        self.settle(place.stage);
        self.order(Order::Failed(place.stage, place.index));
    }

    fn printed(&self, worker: WorkerKey, stream: Stream, bytes: &[u8]) -> bool {
        let mut state = self.state();
        state.dispatcher.printed(worker);
        let Some(request) = state.dispatcher.worker_request(worker) else {
            // What a call writes after it was cancelled is nobody's; what comes between two calls goes to the log.
            return state.dispatcher.worker_is_busy(worker);
        };
        match state.dispatcher.reply(request) {
            Some(Waiter::Call(call)) => call.printed(stream, bytes),
            Some(Waiter::Request { .. }) | None => return false,
        }
        true
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
