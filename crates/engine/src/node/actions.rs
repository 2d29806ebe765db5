//! Carrying out what core has decided.
//!
//! All of this is under the node's lock: it appends to the outbox of a worker, hands an answer to the task that waits for it, or notes an
//! errand for when the lock is free.

use evener_core::{Action, Answer, Cover, Problem, RequestId, RequestKey, Stop, Time};
use evener_doors::stream::{ChunkSender, Chunks, stream};
use evener_doors::{Arrival, Node as _, Parcel};
use evener_protocol::{JobHead, Task};

use super::{Node, State, Waiter};
use crate::errand::Question;
use crate::extension;
use crate::local::LocalJob;
use crate::recovery;
use crate::roster::Order;

type Decided = Action<Parcel, Waiter>;

impl Node {
    pub(super) fn carry_out(&self, state: &mut State, now: Time) {
        // Kept for next time: it seldom has to grow.
        let mut actions = std::mem::take(&mut state.actions);
        state.dispatcher.take_actions(&mut actions);
        for action in actions.drain(..) {
            self.carry_out_one(state, now, action);
        }
        state.actions = actions;
        if let Some(next) = state.dispatcher.next_timeout().filter(|next| *next < state.armed) {
            state.armed = next;
            self.timer.notify_one();
        }
        if state.dispatcher.is_draining() && state.dispatcher.pending() == 0 {
            self.idle.notify_waiters();
        }
    }

    fn carry_out_one(&self, state: &mut State, now: Time, action: Decided) {
        match action {
            Action::Run { worker, .. } if state.locals.contains_key(&worker) => self.give_locally(state, action),
            Action::Run { .. } => self.give(state, now, action),
            Action::Assess { job, stage, request, from_client, payload } => {
                let Some(assess) = state.assess.get(&stage).cloned() else {
                    return tracing::error!("a job was to be assessed where nothing is asked");
                };
                let origin = match state.dispatcher.reply(request) {
                    Some(Waiter::Request { as_request: true, origin, .. }) if from_client => origin.clone(),
                    Some(Waiter::Request { .. } | Waiter::Call(_)) | None => None,
                };
                state.errands.questions.push(Question { job, assess, payload, origin });
            }
            Action::Grow { stage } => self.order(Order::Grow(stage)),
            Action::Outdated => self.order(Order::Outdated),
            Action::Chunk { request, payload } => {
                if let Some(waiter) = state.dispatcher.reply_mut(request) {
                    waiter.chunk(payload, || self.stream(request));
                }
            }
            Action::Shrink { worker } => {
                if let Some(seat) = state.seats.get(&worker) {
                    self.order(Order::Left(seat.place));
                }
                tell_worker(state, &action);
            }
            Action::Credit { .. }
            | Action::AskCredit { .. }
            | Action::Recall { .. }
            | Action::Cancel { .. }
            | Action::Stop { .. }
            | Action::Retire { .. } => tell_worker(state, &action),
            Action::Retried { request_id, problem } => self.log(request_id, &problem, "; trying again"),
            Action::Covered { request_id, problem, by } => self.log(request_id, &problem, covered(by)),
            Action::GoingOn { request } => {
                if let Some(Waiter::Call(call)) = state.dispatcher.reply(request) {
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
                call.answered(request_id, answer, state.ran);
            }
        }
    }

    /// A job for a worker without a process: it is done once the lock is free.
    fn give_locally(&self, state: &mut State, action: Decided) {
        let Action::Run { worker, job, attempt, request, request_id, from_client, payload, problem, .. } = action
        else {
            return;
        };
        let waiter = state.dispatcher.reply(request);
        let (payload, from_client) = self.with_problem(payload, from_client, problem.as_deref(), request_id, waiter);
        let (origin, is_request) = match waiter {
            Some(Waiter::Request { origin, as_request, .. }) => (origin.clone(), *as_request && from_client),
            Some(Waiter::Call(_)) | None => (None, false),
        };
        let Some(seat) = state.locals.get_mut(&worker) else { return };
        let (cancelled, asked) = seat.begin();
        let local = seat.local.clone();
        let timeout = state.dispatcher.topology().stage(seat.stage).timeout;
        state.errands.jobs.push(LocalJob {
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
    }

    /// A job for a worker process.
    fn give(&self, state: &mut State, now: Time, action: Decided) {
        let Action::Run {
            worker,
            job,
            attempt,
            tries,
            id,
            request,
            request_id,
            from_client,
            stream,
            batch,
            deadline,
            payload,
            problem,
            ..
        } = action
        else {
            return;
        };
        let Some(seat) = state.seats.get_mut(&worker) else {
            return tracing::error!(job = %id, "a job was handed to a worker that is not there");
        };
        let waiter = state.dispatcher.reply(request);
        let (payload, from_client) = self.with_problem(payload, from_client, problem.as_deref(), request_id, waiter);
        if let Some(Waiter::Call(call)) = waiter {
            call.handed(seat.pid, tries);
            let (task, left_nanos) = (seat.task_of(call), call.left_nanos);
            let (stream, batch) = (false, false);
            let head = JobHead { job, attempt, tries, left_nanos, task, stream, batch, extension: &[] };
            return seat.line.job(&head, &payload.value);
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

    /// What a job gets, and whether that is what the client sent: the first stage of an `on_error` gets the problem with it.
    fn with_problem(
        &self,
        payload: Parcel,
        from_client: bool,
        problem: Option<&Problem>,
        id: RequestId,
        waiter: Option<&Waiter>,
    ) -> (Parcel, bool) {
        let Some(problem) = problem else { return (payload, from_client) };
        let origin = match waiter {
            Some(Waiter::Request { as_request: true, origin, .. }) => origin.as_deref(),
            Some(Waiter::Request { .. } | Waiter::Call(_)) | None => None,
        };
        let value = recovery::value(&self.topology(), problem, id, &payload.value, origin);
        (Parcel { value, held: payload.held }, false)
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
}

/// What becomes of a failure that the client does not see.
fn covered(by: Cover) -> &'static str {
    match by {
        Cover::OnError => "; the request goes the way of its `on_error`",
        Cover::Collected => "; it is gathered in place of the branch's value",
        Cover::Fallback => "; the fallback of the step stands in",
        Cover::AfterOnError => "; that was on the way of `on_error`, and the client is told the first problem",
    }
}

/// Tells a worker what concerns it and no other.
fn tell_worker(state: &mut State, action: &Decided) {
    let State { dispatcher, seats, locals, errands, .. } = state;
    match *action {
        Action::Shrink { worker } => {
            if let Some(seat) = seats.get(&worker) {
                seat.line.leave();
            } else if locals.remove(&worker).is_some() {
                errands.gone.push(worker);
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
        Action::Retire { worker } => {
            if let Some(seat) = seats.get(&worker) {
                seat.line.retire();
            }
        }
        _ => {}
    }
}
