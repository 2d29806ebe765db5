//! Handing out: one job at a time, or several at once to a worker that takes them as one.

use super::Dispatcher;
use crate::job::{Due, Job};
use crate::pool::{Ahead, Flight, WorkerKey};
use crate::queue::after;
use crate::rules::Batch;
use crate::time::Time;
use crate::topology::StageId;

/// A stage whose batches are to be looked at once an input is over.
#[derive(Debug)]
pub(super) struct Gathered {
    now: Time,
    stage: StageId,
    /// Whether what is handed out then may have waited.
    waited: bool,
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// Gives the next job to an idle slot. None if there is none. `room`: how much its batch still takes, 0 where there are no
    /// batches. How much it takes with that job in it, if the next fits in as well, and otherwise 0.
    pub(super) fn hand_to(
        &mut self,
        now: Time,
        slot: WorkerKey,
        stage: StageId,
        waited: bool,
        room: u32,
    ) -> Option<u32> {
        let key = self.stages[stage.index()].queue.pop(&mut self.jobs, now, waited)?;
        let job = self.jobs.get_mut(key)?;
        job.attempt += 1;
        let flight = Flight { job: key, attempt: job.attempt };
        let (terms, share) = (job.terms, self.topology.stage(stage).share(job.weight, job.tries));
        let left = if room == 0 { 0 } else { self.room_behind(stage, room, share) };
        let id = self.push_run(slot, key, left > 0)?;
        let begun = Ahead { flight, id, wanted: true, recalled: false, terms, kill: false };
        self.begin(now, slot, stage, begun);
        Some(left)
    }

    /// How much a batch takes beside a job that takes up that share, if the next job fits in, and otherwise 0.
    fn room_behind(&self, stage: StageId, room: u32, share: u32) -> u32 {
        let rules = self.topology.stage(stage);
        let left = room.saturating_sub(share);
        let next = self.stages[stage.index()].queue.first().and_then(|next| self.jobs.get(next));
        if next.is_some_and(|next| rules.share(next.weight, next.tries) <= left) { left } else { 0 }
    }

    /// There may be jobs for a batch, and a worker for them. They are handed out with all that comes of the same input: the elements of
    /// a list come together.
    pub(super) fn hand_out_together(&mut self, now: Time, stage: StageId, waited: bool) {
        match self.gathered.iter_mut().find(|gathered| gathered.stage == stage) {
            Some(gathered) => gathered.waited |= waited,
            None => self.gathered.push(Gathered { now, stage, waited }),
        }
    }

    /// An input is over: what came of it goes out in batches.
    pub(super) fn hand_out_gathered(&mut self) {
        for Gathered { now, stage, waited } in std::mem::take(&mut self.gathered) {
            self.hand_out_what_waits(now, stage, waited);
            self.look_at_wait(now, stage);
        }
    }

    /// Hands out batches for as long as there are idle workers and jobs for them: all that wait, as far as one takes them. Where idle
    /// workers wait for more, what does not fill one goes when a job has waited long enough.
    pub(super) fn hand_out_batches(&mut self, now: Time, stage: StageId, batch: Batch, waited: bool) {
        let most = self.topology.stage(stage).slots;
        while self.pools.has_idle(stage) && self.stages[stage.index()].queue.len() > 0 {
            if !batch.idle.is_zero() && !self.fills_batch(stage) {
                let Some(due) = self.longest_waiting(stage).map(|entered| entered + batch.idle) else { break };
                if due > now {
                    return self.wait_for_more(stage, due);
                }
            }
            let Some(worker) = self.pools.take_idle(stage) else { break };
            let waiting = self.stages[stage.index()].queue.len();
            let slots: Vec<WorkerKey> = self.pools.slots(worker).take(waiting).collect();
            let mut room = most;
            for slot in slots {
                room = self.hand_to(now, slot, stage, waited, room).unwrap_or(0);
                if room == 0 {
                    break;
                }
            }
        }
        self.stages[stage.index()].batch.take().map(|(_, timer)| self.timers.clear(timer));
    }

    /// Whether what waits is as much as a batch takes, or more: then it is full, or the next job does not fit in.
    fn fills_batch(&self, stage: StageId) -> bool {
        let rules = self.topology.stage(stage);
        let most = rules.slots as usize;
        // Each weighs 1 at least.
        self.stages[stage.index()].queue.len() >= most
            || self.waiting(stage).map(|job| rules.share(job.weight, job.tries) as usize).sum::<usize>() >= most
    }

    /// When the job came that has waited longest. It need not be the first of those that wait: others may be more urgent. Takes
    /// time in the number of jobs, which are fewer here than a worker has slots.
    fn longest_waiting(&self, stage: StageId) -> Option<Time> {
        self.waiting(stage).map(|job| job.entered).min()
    }

    /// The jobs that wait, flow by flow.
    fn waiting(&self, stage: StageId) -> impl Iterator<Item = &Job<P>> {
        let heads = self.stages[stage.index()].queue.heads();
        let flows = heads.flat_map(|head| std::iter::successors(Some(head), |key| after(&self.jobs, *key)));
        flows.filter_map(|key| self.jobs.get(key))
    }

    fn wait_for_more(&mut self, stage: StageId, due: Time) {
        let timer = &mut self.stages[stage.index()].batch;
        if timer.is_some_and(|(set_for, _)| set_for <= due) {
            return;
        }
        timer.take().map(|(_, timer)| self.timers.clear(timer));
        self.stages[stage.index()].batch = Some((due, self.timers.set(due, Due::Batch(stage))));
    }
}
