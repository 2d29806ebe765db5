//! The immutable plan of a service: its stages, their rules, and the pipelines through them.

use std::collections::BTreeMap;
use std::time::Duration;

/// Which stage: its place in [`Topology::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub u32);

impl StageId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

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
    /// Whether its workers call functions that clients send. No goto leads to such a stage.
    pub functions: bool,
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
            functions: false,
        }
    }

    /// What it is called in a sentence: "stage `parse`", or "pool `default`" if it calls functions.
    pub(crate) fn title(&self) -> String {
        let kind = if self.functions { "pool" } else { "stage" };
        format!("{kind} `{}`", self.name)
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

/// A way through the stages: where a request goes in, and where a goto leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One stage alone.
    Stage(StageId),
    /// The pipeline at this place in the topology.
    Pipeline(u32),
}

/// The stages and pipelines of a service.
#[derive(Debug)]
pub struct Topology {
    stages: Vec<StageRules>,
    /// Each stage's own id, so that a lone stage is a path of one.
    alone: Vec<StageId>,
    pipelines: Vec<Vec<StageId>>,
    names: BTreeMap<String, Path>,
    max_hops: u32,
}

impl Topology {
    /// A plan of `stages` and of named `pipelines` over them, with at most `max_hops` gotos for one request.
    ///
    /// # Panics
    ///
    /// If a pipeline is empty or names a stage that does not exist, or if a name is given twice: the service file's reader
    /// has refused that.
    pub fn new(stages: Vec<StageRules>, pipelines: Vec<(String, Vec<StageId>)>, max_hops: u32) -> Topology {
        let alone: Vec<StageId> = (0..stages.len() as u32).map(StageId).collect();
        let mut names = BTreeMap::new();
        for (stage, id) in stages.iter().zip(&alone).filter(|(stage, _)| !stage.functions) {
            assert!(names.insert(stage.name.clone(), Path::Stage(*id)).is_none(), "two stages named {}", stage.name);
        }
        let mut paths = Vec::new();
        for (name, path) in pipelines {
            assert!(
                !path.is_empty() && path.iter().all(|stage| stage.index() < stages.len()),
                "pipeline {name} is sound"
            );
            let number = Path::Pipeline(paths.len() as u32);
            assert!(names.insert(name.clone(), number).is_none(), "two things named {name}");
            paths.push(path);
        }
        Topology { stages, alone, pipelines: paths, names, max_hops }
    }

    /// All stages, in the order of their ids.
    pub fn stages(&self) -> &[StageRules] {
        &self.stages
    }

    /// One stage's rules.
    pub fn stage(&self, stage: StageId) -> &StageRules {
        &self.stages[stage.index()]
    }

    /// The stages along a path.
    pub fn path(&self, path: Path) -> &[StageId] {
        match path {
            Path::Stage(stage) => std::slice::from_ref(&self.alone[stage.index()]),
            Path::Pipeline(number) => &self.pipelines[number as usize],
        }
    }

    /// The stage or pipeline of that name, as a goto finds it.
    pub fn find(&self, name: &str) -> Option<Path> {
        self.names.get(name).copied()
    }

    /// How many gotos one request may take.
    pub fn max_hops(&self) -> u32 {
        self.max_hops
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
