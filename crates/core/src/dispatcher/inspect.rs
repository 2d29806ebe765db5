//! Looking into a dispatcher without changing it: counts for metrics, and the check that simulations run after every step.

use super::{Dispatcher, Stage, Totals};
use crate::gather::{GatherKey, Work};
use crate::job::{JobKey, Place};
use crate::pool::{StageCounts, State, WorkerKey};
use crate::queue::after;
use crate::request::RequestKey;
use crate::topology::{Over, StageId, Step, Topology};

impl<P, R> Dispatcher<P, R> {
    /// The plan that it works by.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What the owner keeps with a request that waits.
    pub fn reply(&self, request: RequestKey) -> Option<&R> {
        self.requests.get(request).map(|waiting| &waiting.reply)
    }

    /// The same, to change it.
    pub fn reply_mut(&mut self, request: RequestKey) -> Option<&mut R> {
        self.requests.get_mut(request).map(|waiting| &mut waiting.reply)
    }

    /// Requests that wait for an answer.
    pub fn pending(&self) -> usize {
        self.requests.len()
    }

    /// Whether a worker that is up gets more jobs when it is free. False for one that is to leave.
    pub fn worker_stays(&self, worker: WorkerKey) -> bool {
        self.pools.get(worker).is_some_and(|worker| !worker.retiring)
    }

    /// Whether new requests are refused because the node shuts down.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// How many requests came to what.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How a stage stands.
    pub fn counts(&self, id: StageId) -> StageCounts {
        let stage = &self.stages[id.index()];
        let (workers, idle) = self.pools.size(id);
        StageCounts {
            queued: stage.queue.len(),
            idle,
            workers,
            started: stage.started,
            done: stage.done,
            failed: stage.failed,
            retried: stage.retried,
            lost: stage.lost,
            broken: stage.broken.clone(),
        }
    }

    /// Jobs that a worker has brought an outcome for.
    pub fn worker_done(&self, worker: WorkerKey) -> Option<u64> {
        self.pools.get(worker).map(|worker| worker.done)
    }

    /// The public id of the job in a worker's hands. None if it holds more than one: then nobody can say which of two it is
    /// at just now.
    pub fn worker_job(&self, worker: WorkerKey) -> Option<crate::JobId> {
        let worker = self.pools.get(worker).filter(|worker| worker.ahead.is_empty() && worker.others.is_empty())?;
        matches!(worker.state, State::Busy(..) | State::Told(..)).then_some(worker.oldest)
    }

    /// The request that a worker's job serves, while somebody waits for it. Of the jobs that a worker holds, only the
    /// oldest can have begun.
    pub fn worker_request(&self, worker: WorkerKey) -> Option<RequestKey> {
        match self.pools.get(worker).filter(|worker| worker.others.is_empty())?.state {
            State::Busy(flight, _) => self.jobs.get(flight.job).map(|job| job.request),
            State::Told(..) | State::Idle | State::Leaving => None,
        }
    }

    /// Whether a worker is at a job.
    pub fn worker_is_busy(&self, worker: WorkerKey) -> bool {
        let busy = |slot| {
            let state = self.pools.get(slot).map(|slot| slot.state);
            matches!(state, Some(State::Busy(..) | State::Told(..)))
        };
        self.pools.slots(worker).any(busy)
    }

    /// Checks that nothing is lost or held twice; the error says what is wrong. Takes time in the number of jobs: for tests, once the
    /// actions of an input are taken.
    pub fn verify(&self) -> Result<(), String> {
        let Totals { accepted, answered, cancelled } = self.totals;
        let pending = self.requests.len() as u64;
        ensure(accepted == answered + cancelled + pending, || {
            format!("accepted {accepted} is not answered {answered} + cancelled {cancelled} + pending {pending}")
        })?;
        let (mut jobs, mut gathers) = (0, 0);
        for (key, waiting) in self.requests.iter() {
            let request = &waiting.request;
            self.verify_work(key, request.work, (&mut jobs, &mut gathers))?;
            let in_doubt = match request.work {
                Work::Job(job) => {
                    self.jobs.get(job).is_some_and(|job| matches!(job.place, Place::Ahead(_)) && job.tries == 0)
                }
                Work::Nothing | Work::Gather(_) => false,
            };
            ensure(in_doubt || !request.withdrawn, || {
                format!("request {key:?} is to be withdrawn, and nobody is asked whether it has begun")
            })?;
        }
        ensure(self.jobs.len() == jobs, || format!("{} jobs, of which {jobs} serve a request", self.jobs.len()))?;
        ensure(self.gathers.len() == gathers, || {
            format!("{} gathers, of which {gathers} serve a request", self.gathers.len())
        })?;
        let old = self.requests.iter().filter(|(_, waiting)| waiting.request.generation < self.generation).count();
        ensure(old == self.old, || format!("{old} requests of older plans, not {}", self.old))?;
        self.verify_timers()?;
        let queued = self.verify_queues()?;
        let running = self.verify_workers()?;
        let delayed = self.jobs.iter().filter(|(_, job)| matches!(job.place, Place::Delayed(_))).count();
        let ahead = self.verify_ahead()?;
        let assessed = self.jobs.iter().filter(|(_, job)| job.place == Place::Assessed).count();
        let counted = self.stages.iter().map(|stage| stage.assessed).sum();
        ensure(assessed == counted, || format!("{assessed} jobs wait for their key or weight, not {counted}"))?;
        ensure(queued + running + ahead + delayed + assessed == self.jobs.len(), || {
            let all = self.jobs.len();
            format!("{queued} queued + {running} running + {ahead} ahead + {delayed} delayed is not {all} jobs")
        })
    }

    /// Checks what serves a request and each of its branches, and counts jobs and gathers.
    fn verify_work(&self, request: RequestKey, work: Work, counts: (&mut usize, &mut usize)) -> Result<(), String> {
        let (jobs, gathers) = counts;
        let mut all = vec![(work, None)];
        while let Some((work, within)) = all.pop() {
            match work {
                Work::Nothing => return Err(format!("nothing serves request {request:?}, or a branch of it")),
                Work::Job(key) => {
                    *jobs += 1;
                    self.verify_job(request, key, within)?;
                }
                Work::Gather(key) => {
                    *gathers += 1;
                    let gather = self.gathers.get(key).ok_or_else(|| format!("request {request:?} has no gather"))?;
                    ensure(gather.request == request, || {
                        format!("a gather of {request:?} serves {:?}", gather.request)
                    })?;
                    ensure(gather.cursor.within == within, || format!("a gather of {request:?} is in another branch"))?;
                    ensure(!gather.is_beginning, || format!("a gather of {request:?} did not end its beginning"))?;
                    let open = gather.branches.iter().filter(|branch| !branch.has_ended()).count();
                    ensure(open == gather.open && open > 0, || {
                        format!("a gather of {request:?} counts {} open branches and has {open}", gather.open)
                    })?;
                    let begun = gather.branches.iter().zip(0..);
                    all.extend(begun.filter_map(|(branch, number)| Some((branch.work()?, Some((key, number))))));
                }
            }
        }
        Ok(())
    }

    fn verify_job(&self, request: RequestKey, key: JobKey, within: Option<(GatherKey, u32)>) -> Result<(), String> {
        let job = self.jobs.get(key).ok_or_else(|| format!("request {request:?} has no job"))?;
        ensure(job.request == request, || format!("a job of {request:?} serves {:?}", job.request))?;
        ensure(job.cursor.within == within, || format!("a job of {request:?} is in another branch"))?;
        let stage = match self.topology.path(job.cursor.path).get(job.cursor.step as usize) {
            Some(Step::Stage(stage)) => Some(*stage),
            Some(Step::Scatter(scatter)) => match scatter.over {
                Over::Each { split, .. } => Some(split),
                Over::Branches(_) => None,
            },
            None => None,
        };
        ensure(stage == Some(job.stage), || format!("request {request:?} is not where its job is"))
    }

    /// Each timer that is set is somebody's.
    fn verify_timers(&self) -> Result<(), String> {
        let delayed = self.jobs.iter().filter(|(_, job)| matches!(job.place, Place::Delayed(_))).count();
        let gathers = self.gathers.iter().filter(|(_, gather)| gather.timer.is_some()).count();
        let slots = self.pools.iter().map(|(_, slot)| {
            let patience = match slot.state {
                State::Busy(..) => true,
                State::Told(_, patience) => patience.timer().is_some(),
                State::Idle | State::Leaving => false,
            };
            usize::from(patience) + usize::from(slot.overdue.is_some())
        });
        let stages = self.stages.iter().map(|Stage { batch, size, .. }| {
            usize::from(batch.is_some()) + usize::from(size.grow.is_some()) + usize::from(size.shrink.is_some())
        });
        let workers: usize = slots.sum();
        let wanted = self.requests.len() + delayed + gathers + workers + stages.sum::<usize>() + self.drain_ends;
        ensure(self.timers.len() == wanted, || format!("{} timers are set, not {wanted}", self.timers.len()))
    }

    fn verify_queues(&self) -> Result<usize, String> {
        let mut all = 0;
        for (number, stage) in self.stages.iter().enumerate() {
            let mut here = 0;
            let mut above = None;
            for head in stage.queue.heads() {
                let mut next = Some(head);
                let flow = self.jobs.get(head).map(|job| (job.terms.priority, job.terms.flow));
                let priority = flow.map(|(priority, _)| priority);
                ensure(above.is_none() || priority <= above, || {
                    format!("the lanes of queue {number} are out of order")
                })?;
                above = priority;
                while let Some(key) = next {
                    let job =
                        self.jobs.get(key).ok_or_else(|| format!("queue {number} holds {key:?}, which is no job"))?;
                    ensure(job.stage.index() == number, || format!("job {key:?} waits at the wrong stage"))?;
                    let own = Some((job.terms.priority, job.terms.flow));
                    ensure(own == flow, || format!("job {key:?} waits in the wrong flow"))?;
                    here += 1;
                    next = after(&self.jobs, key);
                }
            }
            ensure(here == stage.queue.len(), || {
                format!("queue {number} counts {} but holds {here}", stage.queue.len())
            })?;
            let id = StageId(number as u32);
            let (_, idle) = self.pools.size(id);
            let may_wait = self.topology.stage(id).batch.is_some_and(|batch| !batch.idle.is_zero());
            ensure(here == 0 || idle == 0 || (may_wait && stage.batch.is_some()), || {
                format!("stage {number} has {here} jobs waiting and {idle} idle workers")
            })?;
            ensure(here == 0 || stage.broken.is_none(), || format!("stage {number} is broken, yet {here} jobs wait"))?;
            all += here;
        }
        Ok(all)
    }

    fn verify_ahead(&self) -> Result<usize, String> {
        let mut wanted = 0;
        for (key, worker) in self.pools.iter() {
            ensure(worker.ahead.is_empty() || worker.state != State::Idle, || {
                format!("worker {key:?} is idle with jobs ahead")
            })?;
            ensure(worker.ahead.is_empty() || worker.overdue.is_some(), || {
                format!("worker {key:?} has jobs ahead that will not be called back")
            })?;
            for ahead in worker.ahead.iter().filter(|ahead| ahead.wanted) {
                let job = self.jobs.get(ahead.flight.job).ok_or_else(|| format!("worker {key:?} has no job ahead"))?;
                ensure(job.place == Place::Ahead(key), || format!("worker {key:?} has a job ahead that is elsewhere"))?;
                ensure(job.attempt == ahead.flight.attempt, || format!("worker {key:?} has an old attempt ahead"))?;
                ensure(job.stage == worker.stage, || format!("worker {key:?} has a job of another stage ahead"))?;
                wanted += 1;
            }
        }
        Ok(wanted)
    }

    fn verify_workers(&self) -> Result<usize, String> {
        let mut running = 0;
        for (key, worker) in self.pools.iter() {
            let State::Busy(flight, _) = worker.state else { continue };
            let job = self.jobs.get(flight.job).ok_or_else(|| format!("worker {key:?} holds no job"))?;
            ensure(job.place == Place::Running(key), || format!("worker {key:?} holds a job that is elsewhere"))?;
            ensure(job.attempt == flight.attempt, || format!("worker {key:?} holds an old attempt"))?;
            ensure(job.stage == worker.stage, || format!("worker {key:?} holds a job of another stage"))?;
            let most = job.terms.retries(self.topology.stage(job.stage)).saturating_add(1);
            // A new plan may allow fewer.
            ensure(job.tries <= most || self.generation > 0, || format!("try {} of at most {most}", job.tries))?;
            running += 1;
        }
        Ok(running)
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
