//! The jobs of stages without processes, which the node does itself.

use std::sync::Arc;
use std::sync::MutexGuard;

use evener_core::{Landed, Loss, Outcome, StageId, Time};
use evener_doors::Parcel;
use evener_protocol::Value;

use super::{Node, State};
use crate::local::{Local, LocalJob};

impl Node {
    /// Lets a stage do so many jobs at a time without processes.
    pub(crate) fn add_locals(&self, stage: StageId, local: &Local, count: usize) {
        let mut state = self.state();
        let now = self.clock.now();
        for _ in 0..count {
            add(&mut state, now, stage, local.clone());
        }
        self.act(state, now);
    }

    /// Carries out what is due, lets go of the lock, and does the jobs that were handed to nobody else.
    pub(super) fn act(&self, mut state: MutexGuard<'_, State>, now: Time) {
        self.carry_out(&mut state, now);
        let jobs = std::mem::take(&mut state.local_jobs);
        drop(state);
        self.do_jobs(jobs);
    }

    /// Does jobs, and those that follow from them. The lock must be free.
    pub(super) fn do_jobs(&self, mut jobs: Vec<LocalJob>) {
        while !jobs.is_empty() {
            let mut following = Vec::new();
            for job in jobs {
                let began = self.clock.now();
                match job.run_at_once() {
                    Some(outcome) => following.append(&mut self.land(&job, began, outcome)),
                    None => self.give_a_thread(job, began),
                }
            }
            jobs = following;
        }
    }

    fn give_a_thread(&self, job: LocalJob, began: Time) {
        let Some(node) = self.this.upgrade() else { return };
        tokio::task::spawn_blocking(move || {
            let outcome = job.run();
            let following = node.land(&job, began, outcome);
            node.do_jobs(following);
        });
    }

    /// A job has come to something. Returns the jobs that are to be done next.
    fn land(&self, job: &LocalJob, began: Time, outcome: Outcome<Value>) -> Vec<LocalJob> {
        let outcome = outcome.map(|value| {
            let held = (!value.bytes.is_empty()).then(|| Arc::new(self.budget.charge(value.bytes.len() as u64)));
            Parcel { value, held }
        });
        let mut state = self.state();
        let now = self.clock.now();
        let ran = now.since(began);
        let LocalJob { worker, job, attempt, .. } = *job;
        if let Some((stage, ..)) = state.locals.get(&worker) {
            self.metrics.ran(*stage, ran);
        }
        state.dispatcher.outcome(now, worker, Landed { job, attempt, ran, outcome });
        // One that was given up for stuck has come back after all: core has done with it, and another takes its place.
        if state.dispatcher.worker_is_busy(worker) && state.dispatcher.worker_request(worker).is_none() {
            self.replace(&mut state, now, worker);
        }
        self.carry_out(&mut state, now);
        std::mem::take(&mut state.local_jobs)
    }

    fn replace(&self, state: &mut State, now: Time, worker: evener_core::WorkerKey) {
        let Some((stage, local, _)) = state.locals.remove(&worker) else { return };
        let cause = "did not come back in time".to_owned();
        state.dispatcher.worker_lost(now, worker, Loss { certificate: cause.clone(), cause });
        add(state, now, stage, local);
    }
}

fn add(state: &mut State, now: Time, stage: StageId, local: Local) {
    let worker = state.dispatcher.worker_ready(now, stage);
    state.locals.insert(worker, (stage, local, Arc::default()));
}
