//! What a world drives: the dispatcher, or something that stands before it and spoils its work.

use std::sync::Arc;

use evener_core::{
    Action, Assessment, Dispatcher, Failure, FunctionId, JobKey, Landed, Loss, Payloads, Refused, RequestKey, StageId,
    Submission, Time, Topology, Withdrawal, WorkerKey,
};

/// The real dispatcher, with numbers for payloads and the requests' numbers for reply addresses.
pub type Core = Dispatcher<u64, u32>;

/// No service of these worlds has branches to gather.
pub const PAYLOADS: Payloads<u64> =
    Payloads { gather: |_, _, _| Err("nothing is gathered here".to_owned()), constant: |_| 0 };

/// The inputs and outputs of the dispatcher. What the methods mean is said at [`Dispatcher`].
#[allow(missing_docs)]
pub trait Machine {
    fn submit(&mut self, now: Time, submission: Submission<u64, u32>) -> Result<RequestKey, Box<Refused<u64, u32>>>;
    fn cancel(&mut self, now: Time, request: RequestKey);
    fn withdraw(&mut self, now: Time, request: RequestKey, kill: bool) -> Withdrawal;
    fn worker_ready(&mut self, now: Time, stage: StageId) -> WorkerKey;
    fn worker_lost(&mut self, now: Time, worker: WorkerKey, loss: Loss);
    fn retire(&mut self, now: Time, worker: WorkerKey);
    fn outcome(&mut self, now: Time, worker: WorkerKey, landed: Landed<u64>) -> bool;
    fn credit(&mut self, now: Time, worker: WorkerKey, credit: u32);
    fn printed(&mut self, worker: WorkerKey);
    fn forget_function(&mut self, function: FunctionId);
    fn stage_broken(&mut self, now: Time, stage: StageId, why: &str);
    fn timeout(&mut self, now: Time);
    fn drain(&mut self, now: Time, until: Time);
    fn chunk(&mut self, now: Time, worker: WorkerKey, job: JobKey, attempt: u32, payload: u64) -> bool;
    fn consumed(&mut self, request: RequestKey, bytes: u64);
    fn assessed(&mut self, now: Time, job: JobKey, assessment: Result<Assessment, Failure>);
    fn reload(&mut self, now: Time, topology: Arc<Topology>);
    fn next_timeout(&self) -> Option<Time>;
    fn take_actions(&mut self, into: &mut Vec<Action<u64, u32>>);
    /// The dispatcher, to ask it whether it contradicts itself and what it counted.
    fn core(&self) -> &Core;
}

impl Machine for Core {
    fn submit(&mut self, now: Time, submission: Submission<u64, u32>) -> Result<RequestKey, Box<Refused<u64, u32>>> {
        Dispatcher::submit(self, now, submission).map_err(Box::new)
    }

    fn cancel(&mut self, now: Time, request: RequestKey) {
        Dispatcher::cancel(self, now, request);
    }

    fn withdraw(&mut self, now: Time, request: RequestKey, kill: bool) -> Withdrawal {
        Dispatcher::withdraw(self, now, request, kill)
    }

    fn worker_ready(&mut self, now: Time, stage: StageId) -> WorkerKey {
        Dispatcher::worker_ready(self, now, stage)
    }

    fn worker_lost(&mut self, now: Time, worker: WorkerKey, loss: Loss) {
        Dispatcher::worker_lost(self, now, worker, loss);
    }

    fn retire(&mut self, now: Time, worker: WorkerKey) {
        Dispatcher::retire(self, now, worker);
    }

    fn outcome(&mut self, now: Time, worker: WorkerKey, landed: Landed<u64>) -> bool {
        Dispatcher::outcome(self, now, worker, landed)
    }

    fn credit(&mut self, now: Time, worker: WorkerKey, credit: u32) {
        Dispatcher::credit(self, now, worker, credit);
    }

    fn printed(&mut self, worker: WorkerKey) {
        Dispatcher::printed(self, worker);
    }

    fn forget_function(&mut self, function: FunctionId) {
        Dispatcher::forget_function(self, function);
    }

    fn stage_broken(&mut self, now: Time, stage: StageId, why: &str) {
        Dispatcher::stage_broken(self, now, stage, why);
    }

    fn timeout(&mut self, now: Time) {
        Dispatcher::timeout(self, now);
    }

    fn drain(&mut self, now: Time, until: Time) {
        Dispatcher::drain(self, now, until);
    }

    fn chunk(&mut self, now: Time, worker: WorkerKey, job: JobKey, attempt: u32, payload: u64) -> bool {
        Dispatcher::chunk(self, now, worker, job, attempt, payload)
    }

    fn consumed(&mut self, request: RequestKey, bytes: u64) {
        Dispatcher::consumed(self, request, bytes);
    }

    fn assessed(&mut self, now: Time, job: JobKey, assessment: Result<Assessment, Failure>) {
        Dispatcher::assessed(self, now, job, assessment);
    }

    fn reload(&mut self, now: Time, topology: Arc<Topology>) {
        Dispatcher::reload(self, now, topology);
    }

    fn next_timeout(&self) -> Option<Time> {
        Dispatcher::next_timeout(self)
    }

    fn take_actions(&mut self, into: &mut Vec<Action<u64, u32>>) {
        Dispatcher::take_actions(self, into);
    }

    fn core(&self) -> &Core {
        self
    }
}
