//! Jobs of stages that give equal keys to the same worker, or hand out batches by weight: which key a job has, and how much it weighs,
//! is known only to who can look into its value.

use super::{Action, Dispatcher};
use crate::job::{JobKey, Place};
use crate::outcome::Failure;
use crate::time::Time;

/// What is to be known of a job before it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The hash of its key, of which 0 stands for none. Of no account where equal keys need not go to the same worker.
    pub affinity: u64,
    /// Its weight. Of no account where batches are not weighed.
    pub weight: u32,
}

impl Assessment {
    /// The hash of its key in half the bits: enough to spread keys over workers, and a job that waits costs less.
    fn short_affinity(self) -> u32 {
        let folded = (self.affinity ^ self.affinity >> 32) as u32;
        folded.max(u32::from(self.affinity != 0))
    }

    fn short_weight(self) -> u16 {
        u16::try_from(self.weight).unwrap_or(u16::MAX)
    }
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// Asks for the key and the weight of a job that has come into its stage.
    pub(super) fn assess(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.place = Place::Assessed;
        let (stage, request, from_client, payload) = (job.stage, job.request, job.from_client, job.payload.clone());
        self.stages[stage.index()].assessed += 1;
        self.actions.push(Action::Assess { job: key, stage, request, from_client, payload });
    }

    /// Whether the key or the weight of a job is still wanted.
    pub fn is_assessed(&self, key: JobKey) -> bool {
        self.jobs.get(key).is_some_and(|job| job.place == Place::Assessed)
    }

    /// The key and the weight of a job are known, or it is known why there are none. Does nothing if nobody waits for the job any
    /// more.
    pub fn assessed(&mut self, now: Time, key: JobKey, assessment: Result<Assessment, Failure>) {
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.place == Place::Assessed) else { return };
        let stage = job.stage;
        self.stages[stage.index()].assessed -= 1;
        match assessment {
            Ok(assessment) => (job.affinity, job.weight) = (assessment.short_affinity(), assessment.short_weight()),
            Err(failure) => return self.failed(now, key, failure),
        }
        if self.stages[stage.index()].broken.is_some() {
            let problem = self.broken_problem(stage);
            return self.give_up(now, key, problem);
        }
        self.stages[stage.index()].queue.push_back(&mut self.jobs, key);
        self.hand_out(now, stage, false);
    }
}
