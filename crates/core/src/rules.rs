//! The rules of a stage: how often a job is tried and how long a try may take, and how its workers are handed jobs.

use std::time::Duration;

/// What loses a try may be given another one, if the stage says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// The worker died.
    pub lost: bool,
    /// The try ran into the stage's timeout.
    pub timeout: bool,
    /// The function raised.
    pub error: bool,
}

/// What happens to a worker whose job nobody waits for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCancel {
    /// It is told, and may go on until the stage's timeout.
    Tell,
    /// It is told, and killed if it has not come back after the stage's grace.
    Kill,
}

/// When a worker that takes several jobs as one is handed them: at once when it is idle, with as many of those that wait as fill it. Jobs
/// gather while all workers are busy. It is full with a job for each of its slots, or, where jobs have weights, with jobs that weigh as
/// much together as it has slots, or so much that the next does not fit. A job that has lost a try fills it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How long jobs may gather while all workers are busy, before a pool that sizes itself takes that for waiting.
    pub wait: Duration,
    /// How long a job may wait for others beside an idle worker that it does not fill.
    pub idle: Duration,
    /// Whether jobs have weights. Which weight a job has, its owner is asked as it comes in. Each weighs 1 at least, and at most what a
    /// batch may weigh: so one that is heavier goes alone.
    pub weighed: bool,
}

/// How a pool sizes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// It has no fewer workers, and begins with so many.
    pub min: u32,
    /// It has no more.
    pub max: u32,
    /// It grows when the first of the jobs that wait has waited so long.
    pub wait: Duration,
    /// It shrinks by the workers that nobody has needed for so long.
    pub idle: Duration,
}

/// The rules of one stage.
#[derive(Clone, Debug)]
pub struct StageRules {
    /// The stage's name in the service file.
    pub name: String,
    /// How long one try may take, from its start.
    pub timeout: Duration,
    /// How many tries may follow the first.
    pub retries: u32,
    /// What is worth another try.
    pub retry_on: RetryOn,
    /// The wait before the first retry; it doubles with each further one, up to 30 s. `None`: no wait before the first retry
    /// after a loss, and 100 ms, doubling, before all others.
    pub backoff: Option<Duration>,
    /// How many jobs may wait before new requests are refused.
    pub queue: usize,
    /// How long a worker that was told to stop has before SIGTERM.
    pub grace: Duration,
    /// What happens to a worker whose job is cancelled.
    pub on_cancel: OnCancel,
    /// After this many jobs a worker is replaced.
    pub max_jobs_per_worker: Option<u64>,
    /// How many jobs one worker does at the same time.
    pub slots: u32,
    /// Whether a worker takes several jobs at once, as one: as many as it has slots.
    pub batch: Option<Batch>,
    /// Whether the pool sizes itself.
    pub scale: Option<Scale>,
    /// Whether equal keys go to the same worker while it is free. Which key a job has, its owner is asked as it comes in.
    pub affinity: bool,
    /// The names of stages and pipelines to which its code may send values. `None`: all that there are.
    pub goto: Option<Vec<String>>,
    /// Whether its workers call functions that clients send. No goto leads to such a stage.
    pub functions: bool,
    /// Whether it is a part of a step rather than a stage of the service file. No goto leads there either.
    pub hidden: bool,
}

impl StageRules {
    /// Rules with the defaults of the service file.
    pub fn named(name: impl Into<String>) -> StageRules {
        StageRules {
            name: name.into(),
            timeout: Duration::from_secs(60),
            retries: 2,
            retry_on: RetryOn { lost: true, timeout: false, error: false },
            backoff: None,
            queue: 10_000,
            grace: Duration::from_secs(5),
            on_cancel: OnCancel::Tell,
            max_jobs_per_worker: None,
            slots: 1,
            batch: None,
            scale: None,
            affinity: false,
            goto: None,
            functions: false,
            hidden: false,
        }
    }

    /// What it is called in a sentence: "stage `parse`", or "pool `default`" if it calls functions, "step `p.each`" if it is hidden.
    pub(crate) fn title(&self) -> String {
        let kind = match self {
            StageRules { hidden: true, .. } => "step",
            StageRules { functions: true, .. } => "pool",
            _ => "stage",
        };
        format!("{kind} `{}`", self.name)
    }

    /// Whether there is something to be known of each job before it waits.
    pub(crate) fn assesses(&self) -> bool {
        self.affinity || self.batch.is_some_and(|batch| batch.weighed)
    }

    /// How much of a batch a job of that weight takes up. The highest weight stands for all that is more, and so takes up all. So does a
    /// job that has lost a try: whatever took that from it and from its neighbours meets one of them alone the next time, so that what
    /// one does costs no other more than a single try.
    pub(crate) fn share(&self, weight: u16, tries: u32) -> u32 {
        match self.batch {
            Some(_) if tries > 0 => self.slots,
            Some(Batch { weighed: true, .. }) if weight == u16::MAX => self.slots,
            Some(Batch { weighed: true, .. }) => u32::from(weight).clamp(1, self.slots.max(1)),
            Some(_) | None => 1,
        }
    }

    /// How long jobs may wait before a pool that sizes itself grows for them.
    pub(crate) fn grow_wait(&self, scale: Scale) -> Duration {
        self.batch.map_or(scale.wait, |batch| scale.wait.max(batch.wait))
    }

    /// How long to wait before retry number `retry` (the first is 1).
    pub(crate) fn wait_before(&self, retry: u32, after_loss: bool) -> Duration {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(30);
        let (base, doublings) = match self.backoff {
            Some(base) => (base, retry.saturating_sub(1)),
            None if after_loss && retry <= 1 => return Duration::ZERO,
            None => (FIRST, retry.saturating_sub(if after_loss { 2 } else { 1 })),
        };
        base.saturating_mul(2u32.saturating_pow(doublings.min(30))).min(LONGEST.max(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_after_a_loss_does_not_wait() {
        let rules = StageRules::named("s");
        let millis = |retry, lost| rules.wait_before(retry, lost).as_millis();
        assert_eq!([millis(1, true), millis(2, true), millis(3, true)], [0, 100, 200]);
        assert_eq!([millis(1, false), millis(2, false), millis(60, false)], [100, 200, 30_000]);
        let patient = StageRules { backoff: Some(Duration::from_secs(40)), ..StageRules::named("s") };
        assert_eq!(patient.wait_before(1, true).as_secs(), 40);
        assert_eq!(
            patient.wait_before(2, true).as_secs(),
            40,
            "a wait never grows past 30 s, nor shrinks below its base"
        );
    }
}
