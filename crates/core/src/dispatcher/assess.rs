//! Jobs of stages that give equal keys to the same worker: which key a job has is known only to who can look into its value.

use super::{Action, Dispatcher};
use crate::job::{JobKey, Place};
use crate::outcome::Failure;
use crate::time::Time;

impl<P: Clone, R> Dispatcher<P, R> {
    /// Asks for the key of a job that has come into its stage.
    pub(super) fn assess(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.place = Place::Assessed;
        let (stage, request, from_client, payload) = (job.stage, job.request, job.from_client, job.payload.clone());
        self.actions.push(Action::Assess { job: key, stage, request, from_client, payload });
    }

    /// The key of a job is known: its hash, of which 0 stands for none; or it is known why there is none. Does nothing if
    /// nobody waits for the job any more.
    pub fn assessed(&mut self, now: Time, key: JobKey, affinity: Result<u32, Failure>) {
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.place == Place::Assessed) else { return };
        let stage = job.stage;
        match affinity {
            Ok(affinity) => job.affinity = affinity,
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
