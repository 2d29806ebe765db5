//! Handing out: one job at a time, or several at once to a worker that takes them as one.

use super::Dispatcher;
use crate::job::{Due, JobKey};
use crate::pool::{Ahead, Flight, WorkerKey};
use crate::queue::after;
use crate::time::Time;
use crate::topology::{Batch, StageId};

impl<P: Clone, R> Dispatcher<P, R> {
    /// Gives the next job to an idle slot. False if there is none.
    pub(super) fn hand_to(&mut self, now: Time, slot: WorkerKey, stage: StageId, waited: bool) -> bool {
        let Some(key) = self.stages[stage.index()].queue.pop(&mut self.jobs, now, waited) else { return false };
        self.hand(now, slot, stage, key, false)
    }

    /// Gives a job to an idle slot. `more`: the next job belongs to the same batch.
    fn hand(&mut self, now: Time, slot: WorkerKey, stage: StageId, key: JobKey, more: bool) -> bool {
        let Some(job) = self.jobs.get_mut(key) else { return false };
        job.attempt += 1;
        let flight = Flight { job: key, attempt: job.attempt };
        let terms = job.terms;
        let Some(id) = self.push_run(slot, key, more) else { return false };
        let begun = Ahead { flight, id, wanted: true, recalled: false, terms, kill: false };
        self.begin(now, slot, stage, begun);
        true
    }

    /// Hands out batches for as long as there are idle workers and jobs for them: as many as there are slots, or as weigh so much,
    /// or fewer if one of them has waited long enough.
    pub(super) fn hand_out_batches(&mut self, now: Time, stage: StageId, batch: Batch, waited: bool) {
        let most = self.topology.stage(stage).slots as usize;
        while self.pools.has_idle(stage) {
            // Each weighs 1 at least, and where nothing is weighed just that.
            if self.stages[stage.index()].queue.weight() < most as u64 {
                let Some(due) = self.longest_waiting(stage).map(|entered| entered + batch.wait) else { break };
                if due > now {
                    return self.wait_for_more(stage, due);
                }
            }
            let Some(worker) = self.pools.take_idle(stage) else { break };
            let batch = self.next_batch(now, stage, most, waited);
            let slots: Vec<WorkerKey> = self.pools.slots(worker).take(batch.len()).collect();
            for ((slot, key), left) in slots.into_iter().zip(&batch).zip((0..batch.len()).rev()) {
                self.hand(now, slot, stage, *key, left > 0);
            }
        }
        self.stages[stage.index()].batch.take().map(|(_, timer)| self.timers.clear(timer));
    }

    /// Takes the jobs whose turn it is out of the queue, until `most` is reached: of their number, and of what they weigh together.
    fn next_batch(&mut self, now: Time, stage: StageId, most: usize, waited: bool) -> Vec<JobKey> {
        let (mut batch, mut weight) = (Vec::new(), 0);
        let queue = &mut self.stages[stage.index()].queue;
        while let Some(job) = queue.first().and_then(|first| self.jobs.get(first)).filter(|_| batch.len() < most) {
            weight += usize::from(job.weight);
            if weight > most && !batch.is_empty() {
                break;
            }
            batch.extend(queue.pop(&mut self.jobs, now, waited));
        }
        batch
    }

    /// When the job came that has waited longest. It need not be the first of those that wait: others may be more urgent. Takes
    /// time in the number of jobs, which are fewer here than a worker has slots.
    fn longest_waiting(&self, stage: StageId) -> Option<Time> {
        let heads = self.stages[stage.index()].queue.heads();
        let flows = heads.flat_map(|head| std::iter::successors(Some(head), |key| after(&self.jobs, *key)));
        flows.filter_map(|key| self.jobs.get(key)).map(|job| job.entered).min()
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
