//! The node as the slots of its workers see it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evener_core::state::StateAsk;
use evener_core::{Failure, JobKey, Landed, Loss, Outcome, WorkerKey};
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
        let Place { stage, name, index, id } = place;
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
            let (stage, index, place, known, streams) = (*stage, *index, *id, HashSet::new(), ready.stream);
            let (code, seen, context) = (stamps.clone(), stamps, ready.context);
            let seat = Seat { line, context, streams, code, seen, stage, index, place, pid, known };
            state.seats.insert(worker, seat);
            self.act(state, now);
            worker
        };
        self.settle(*stage);
        self.order(Order::Ready(*id));
        worker
    }

    fn outcome(&self, worker: WorkerKey, landed: Landed<Value>) -> bool {
        let Landed { job, attempt, ran, outcome } = landed;
        let begun = !matches!(outcome, Outcome::Returned);
        let mut state = self.state();
        let outcome = self.hold(outcome, is_bounded(&state, worker));
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
        let mut state = self.state();
        let now = self.clock.now();
        let fresh = match self.take_in(value, is_bounded(&state, worker)) {
            Ok(parcel) => state.dispatcher.chunk(now, worker, job, attempt, parcel),
            Err(detail) => state.dispatcher.chunk_without_room(now, worker, job, attempt, detail),
        };
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
        self.order(Order::Failed(place.id, why.into_owned()));
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

/// Whether what a worker brings must find room. What calls of functions bring is bounded by the sessions that take it.
fn is_bounded(state: &State, worker: WorkerKey) -> bool {
    let stage = state.seats.get(&worker).map(|seat| seat.stage);
    !stage.is_some_and(|stage| state.dispatcher.topology().stage(stage).functions)
}

impl Node {
    /// An outcome with the memory set aside that its value takes. If it `must_fit` and there is no room, that is the outcome.
    pub(super) fn hold(&self, outcome: Outcome<Value>, must_fit: bool) -> Outcome<Parcel> {
        let mut full = None;
        let outcome = outcome.map(|value| {
            self.take_in(value, must_fit).unwrap_or_else(|detail| {
                full = Some(detail);
                Parcel::default()
            })
        });
        match full {
            Some(detail) => Outcome::Fail(Failure::NoRoom { detail }),
            None => outcome,
        }
    }

    /// A value with the memory set aside that it takes. If it `must_fit` and there is no room, the error says so.
    fn take_in(&self, value: Value, must_fit: bool) -> Result<Parcel, String> {
        let bytes = value.bytes.len() as u64;
        if bytes == 0 {
            return Ok(Parcel { value, held: None });
        }
        let held = match must_fit {
            true => self.budget.reserve(bytes),
            false => Some(self.budget.charge(bytes)),
        };
        match held {
            Some(held) => Ok(Parcel { value, held: Some(Arc::new(held)) }),
            None => {
                let (used, limit) = (self.budget.used(), self.budget.limit());
                Err(format!("it has {bytes} bytes, the node holds {used}, and limits.memory allows {limit}"))
            }
        }
    }
}
