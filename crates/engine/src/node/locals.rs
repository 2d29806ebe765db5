//! The jobs of stages without workers that stay, which the node does itself or starts a process for.

use std::sync::Arc;
use std::sync::MutexGuard;
use std::time::Instant;

use evener_core::{Assessment, Failure, Landed, Loss, Outcome, Reservation, StageId, Time, WorkerKey};
use evener_protocol::Value;
use evener_supervisor::command::Follow;
use evener_supervisor::output::Stream;
use evener_supervisor::slot::Events as _;

use super::{Node, State};
use crate::command::{self, Command};
use crate::errand::{Errands, Question};
use crate::jq::AT_ONCE;
use crate::jq::workers::Lost;
use crate::local::{Local, LocalJob, LocalSeat};

impl Node {
    /// Carries out what is due, lets go of the lock, and does the jobs that were handed to nobody else.
    pub(super) fn act(&self, mut state: MutexGuard<'_, State>, now: Time) {
        self.carry_out(&mut state, now);
        let errands = std::mem::take(&mut state.errands);
        drop(state);
        self.run_errands(errands);
    }

    /// Does what is to be done, and what follows from it; what takes long, on a thread of its own. The lock must be free.
    pub(super) fn run_errands(&self, errands: Errands) {
        if errands.is_empty() {
            return;
        }
        let until = Instant::now() + AT_ONCE;
        let left = self.run_some(errands, || Instant::now() < until);
        if let Some(node) = self.this.upgrade().filter(|_| !left.is_empty()) {
            tokio::task::spawn_blocking(move || node.run_all(left));
        }
    }

    /// The same, where it may take long.
    fn run_all(&self, errands: Errands) {
        self.run_some(errands, || true);
    }

    /// Does what is to be done while that may go on. Returns what is left.
    fn run_some(&self, mut errands: Errands, may_go_on: impl Fn() -> bool) -> Errands {
        while !errands.is_empty() && may_go_on() {
            let Errands { jobs, questions, gone } = std::mem::take(&mut errands);
            if !gone.is_empty() {
                errands.append(self.left(gone));
            }
            let mut questions = questions.into_iter();
            for question in questions.by_ref() {
                if !may_go_on() {
                    errands.questions.push(question);
                    break;
                }
                match question.answer_at_once() {
                    Some(answer) => errands.append(self.assessed(&question, answer)),
                    None => self.assess(question),
                }
            }
            errands.questions.extend(questions);
            let mut jobs = jobs.into_iter();
            for job in jobs.by_ref() {
                if !may_go_on() {
                    errands.jobs.push(job);
                    break;
                }
                let began = self.clock.now();
                match job.run_at_once() {
                    Some(outcome) => errands.append(self.land(&job, began, outcome)),
                    None => self.give_elsewhere(job, began),
                }
            }
            errands.jobs.extend(jobs);
        }
        errands
    }

    /// Workers without a process have left for good. Returns what is to be done next.
    fn left(&self, gone: Vec<WorkerKey>) -> Errands {
        let mut state = self.state();
        let now = self.clock.now();
        for worker in gone {
            let cause = "left".to_owned();
            state.dispatcher.worker_lost(now, worker, Loss { certificate: cause.clone(), cause });
        }
        self.carry_out(&mut state, now);
        std::mem::take(&mut state.errands)
    }

    /// Asks a worker process for the key or the weight of a job.
    fn assess(&self, question: Question) {
        let Some(node) = self.this.upgrade() else { return };
        self.jq.runtime().spawn(async move {
            let is_wanted = || node.state().dispatcher.is_assessed(question.job);
            if let Some(answer) = question.answer(&node.jq, is_wanted).await {
                let following = node.assessed(&question, answer);
                node.run_errands(following);
            }
        });
    }

    /// What was asked of a job is known, or why it is not. Returns what is to be done next.
    fn assessed(&self, question: &Question, answer: Result<Assessment, Failure>) -> Errands {
        let mut state = self.state();
        let now = self.clock.now();
        state.dispatcher.assessed(now, question.job, answer);
        self.carry_out(&mut state, now);
        std::mem::take(&mut state.errands)
    }

    /// A job that is not done at once: a thread, a worker process for jq programs or a process of its own does it.
    fn give_elsewhere(&self, job: LocalJob, began: Time) {
        let Some(node) = self.this.upgrade() else { return };
        match job.local.clone() {
            Local::Function(function) => {
                tokio::task::spawn_blocking(move || {
                    let outcome = job.call(&function);
                    let following = node.land(&job, began, outcome);
                    node.run_all(following);
                });
            }
            Local::Filter(program) | Local::Split(program) => {
                self.jq.runtime().spawn(async move {
                    let result = job.run_in_worker(&program, &node.jq).await;
                    node.follow(&job, began, result.map_err(|Lost(cause)| cause));
                });
            }
            Local::Command(command) => self.start(command, job, began),
        }
    }

    /// Starts a process for a job.
    fn start(&self, command: Arc<Command>, mut job: LocalJob, began: Time) {
        let (Some(node), Some(mut asked)) = (self.this.upgrade(), job.asked.take()) else { return };
        let runtime = command.runtime.clone();
        runtime.spawn(async move {
            let mut follower = Follower { node: &node, command: &command, worker: job.worker, held: None };
            let result = command::perform(&command, &job, &node.jq, &mut asked, &mut follower).await;
            // What it printed is a value now, and counted as one.
            drop(follower);
            node.follow(&job, began, result.map_err(|command::Lost(cause)| cause.to_owned()));
        });
    }

    /// A job that was done elsewhere has come to something, or whoever did it is lost.
    fn follow(&self, job: &LocalJob, began: Time, result: Result<Outcome<Value>, String>) {
        let following = match result {
            Ok(outcome) => self.land(job, began, outcome),
            Err(cause) => {
                let mut state = self.state();
                let now = self.clock.now();
                self.replace(&mut state, now, job.worker, &cause);
                self.carry_out(&mut state, now);
                std::mem::take(&mut state.errands)
            }
        };
        self.run_errands(following);
    }

    /// A job has come to something. Returns the jobs that are to be done next.
    fn land(&self, job: &LocalJob, began: Time, outcome: Outcome<Value>) -> Errands {
        let outcome = self.hold(outcome, true);
        let mut state = self.state();
        let now = self.clock.now();
        let ran = now.since(began);
        let LocalJob { worker, job, attempt, .. } = *job;
        if let Some(seat) = state.locals.get(&worker) {
            self.metrics.ran(seat.stage, ran);
        }
        state.dispatcher.outcome(now, worker, Landed { job, attempt, ran, outcome });
        // One that was given up for stuck has come back after all: core has done with it, and another takes its place.
        if state.dispatcher.worker_is_busy(worker) && state.dispatcher.worker_request(worker).is_none() {
            self.replace(&mut state, now, worker, "did not come back in time");
        }
        self.carry_out(&mut state, now);
        std::mem::take(&mut state.errands)
    }

    fn replace(&self, state: &mut State, now: Time, worker: WorkerKey, cause: &str) {
        let Some(LocalSeat { stage, local, .. }) = state.locals.remove(&worker) else { return };
        let (cause, stays) = (cause.to_owned(), state.dispatcher.worker_stays(worker));
        state.dispatcher.worker_lost(now, worker, Loss { certificate: cause.clone(), cause });
        if stays {
            add(state, now, stage, local);
        }
    }
}

/// Follows the process of a job.
struct Follower<'a> {
    node: &'a Node,
    command: &'a Command,
    worker: WorkerKey,
    /// What it has printed counts as a value that the node holds, before it is one.
    held: Option<Reservation>,
}

impl Follow for Follower<'_> {
    fn said(&mut self, pid: u32, line: &str) {
        self.node.output(&self.command.place, pid, Some(self.worker), Stream::Stderr, line);
    }

    fn holds(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        match &mut self.held {
            Some(held) if bytes >= held.bytes() => held.grow(bytes - held.bytes()),
            held => {
                *held = None;
                *held = self.node.budget.reserve(bytes);
                held.is_some()
            }
        }
    }
}

/// One more who does jobs of a stage without worker processes.
pub(super) fn add(state: &mut State, now: Time, stage: StageId, local: Local) {
    let worker = state.dispatcher.worker_ready(now, stage);
    state.locals.insert(worker, LocalSeat::new(stage, local));
}
