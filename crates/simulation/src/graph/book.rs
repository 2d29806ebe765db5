//! All jobs that requests have at the moment, and where each of them is.

use std::collections::{BTreeMap, BTreeSet};

use evener_core::{Code, JobKey, StageId, Time, WorkerKey};

/// Which of its request's jobs a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobName(pub(super) u32, pub(super) u32);

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has to be asked in this very step which key it has, or which weight.
    ToBeAsked,
    /// That was asked.
    Asked,
    /// It waits for a worker.
    InLine,
    /// It waits for another try.
    Delayed,
    /// With a worker.
    With(WorkerKey),
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) stage: StageId,
    pub(super) payload: u64,
    pub(super) from_client: bool,
    pub(super) stream: bool,
    pub(super) problem: Option<Code>,
    pub(super) place: Place,
    /// Executions that count.
    pub(super) tries: u32,
    pub(super) attempt: u32,
    pub(super) key: Option<JobKey>,
    /// When it began to be.
    pub(super) entered: Time,
    /// In which step it came into its line.
    pub(super) joined: u64,
    pub(super) affinity: u64,
    /// How much it weighs where batches are weighed.
    pub(super) weight: u32,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    jobs: BTreeMap<JobName, Job>,
    /// The jobs in line, stage by stage.
    lines: BTreeMap<StageId, BTreeSet<JobName>>,
    /// How many jobs each request has had.
    made: BTreeMap<u32, u32>,
    gathers: u32,
    /// Gathers whose time is measured, since this was last looked at.
    pub(super) expiries: Vec<(Time, u32, u32)>,
    /// Jobs that have ended, since this was last looked at, and who had them.
    pub(super) ended: Vec<(JobName, Job)>,
    /// A job has failed as it began, since this was last looked at: what began before it may have gone to a worker.
    pub(super) failed_at_once: bool,
    /// The requests that got jobs in the present step.
    pub(super) born_now: BTreeSet<u32>,
    /// The number of the present step.
    pub(super) step: u64,
}

impl Book {
    pub(super) fn begin(&mut self, now: Time, request: u32, stage: StageId, payload: u64) -> JobName {
        let made = self.made.entry(request).or_default();
        *made += 1;
        self.born_now.insert(request);
        let name = JobName(request, *made);
        let job = Job {
            stage,
            payload,
            from_client: false,
            stream: false,
            problem: None,
            place: Place::Asked,
            tries: 0,
            attempt: 0,
            key: None,
            entered: now,
            joined: self.step,
            affinity: 0,
            weight: 1,
        };
        self.jobs.insert(name, job);
        name
    }

    pub(super) fn next_gather(&mut self) -> u32 {
        self.gathers += 1;
        self.gathers
    }

    pub(super) fn get(&self, name: JobName) -> Option<&Job> {
        self.jobs.get(&name)
    }

    pub(super) fn job_mut(&mut self, name: JobName) -> &mut Job {
        self.jobs.get_mut(&name).expect("it has not ended")
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (JobName, &Job)> {
        self.jobs.iter().map(|(name, job)| (*name, job))
    }

    /// Those in line in a stage, in no order of their own.
    pub(super) fn line(&self, stage: StageId) -> impl Iterator<Item = (JobName, &Job)> {
        let names = self.lines.get(&stage).into_iter().flatten();
        names.filter_map(|name| Some((*name, self.jobs.get(name)?)))
    }

    pub(super) fn line_len(&self, stage: StageId) -> usize {
        self.lines.get(&stage).map_or(0, BTreeSet::len)
    }

    /// A new job waits for a worker, or else for its key.
    pub(super) fn stand_in_line(&mut self, name: JobName, asks: bool) {
        self.put(name, if asks { Place::ToBeAsked } else { Place::InLine });
    }

    pub(super) fn put(&mut self, name: JobName, place: Place) {
        let step = self.step;
        let Some(job) = self.jobs.get_mut(&name) else { return };
        let line = self.lines.entry(job.stage).or_default();
        if place == Place::InLine {
            line.insert(name);
            job.joined = step;
        } else {
            line.remove(&name);
        }
        job.place = place;
    }

    pub(super) fn end(&mut self, name: JobName) {
        if let Some(job) = self.jobs.remove(&name) {
            self.lines.entry(job.stage).or_default().remove(&name);
            self.ended.push((name, job));
        }
    }
}
