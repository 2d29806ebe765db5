//! Jobs of stages that give equal keys to the same worker, or weigh what goes into a batch: a job's key and weight are known only to
//! who can look into its value.

use super::{Action, Dispatcher};
use crate::job::{JobKey, Place};
use crate::outcome::Failure;
use crate::time::Time;

/// What a job's owner finds in its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The hash of its key; 0 stands for none.
    pub affinity: u32,
    /// How much of a batch it takes up, from 1 on.
    pub weight: u32,
}

impl Default for Assessment {
    /// No key, and the least weight.
    fn default() -> Assessment {
        Assessment { affinity: 0, weight: 1 }
    }
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// Asks for the key or the weight of a job that has come into its stage.
    pub(super) fn assess(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.place = Place::Assessed;
        let (stage, request, from_client, payload) = (job.stage, job.request, job.from_client, job.payload.clone());
        self.actions.push(Action::Assess { job: key, stage, request, from_client, payload });
    }

    /// The key and the weight of a job are known, or why they are not. Does nothing if nobody waits for the job any more.
    pub fn assessed(&mut self, now: Time, key: JobKey, assessment: Result<Assessment, Failure>) {
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.place == Place::Assessed) else { return };
        let stage = job.stage;
        match assessment {
            // More than a batch has room for makes no difference.
            Ok(Assessment { affinity, weight }) => {
                job.affinity = affinity;
                job.weight = u16::try_from(weight).unwrap_or(u16::MAX).max(1);
            }
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
