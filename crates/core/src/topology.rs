//! The immutable plan of a service: its stages, their rules, and the pipelines through them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::request::FallbackOn;

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

/// When a worker that takes several jobs as one is handed them: when what waits fills it, or one of those that wait has waited long
/// enough. It is full with a job for each of its slots, or, where jobs have weights, with jobs that weigh as much together as it has
/// slots, or so much that the next does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How long a job may wait for others.
    pub wait: Duration,
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
    /// The names of the stages and pipelines that its code may send values to. `None`: all of them.
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

    /// Whether there is something to be known of each job before it waits.
    pub(crate) fn assesses(&self) -> bool {
        self.affinity || self.batch.is_some_and(|batch| batch.weighed)
    }

    /// How much of a batch a job of that weight takes up. The highest weight stands for all that is more, and so takes up all.
    pub(crate) fn share(&self, weight: u16) -> u32 {
        match self.batch {
            Some(Batch { weighed: true, .. }) if weight == u16::MAX => self.slots,
            Some(Batch { weighed: true, .. }) => u32::from(weight).clamp(1, self.slots.max(1)),
            Some(_) | None => 1,
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

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A job in this stage.
    Stage(StageId),
    /// Several branches, and what they come to, gathered.
    Scatter(Box<Scatter>),
}

impl From<StageId> for Step {
    fn from(stage: StageId) -> Step {
        Step::Stage(stage)
    }
}

/// A step with branches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scatter {
    /// What the branches are.
    pub over: Over,
    /// How long they have together. `None`: as long as the request has.
    pub timeout: Option<Duration>,
    /// What becomes of the others when one fails.
    pub on_failure: OnFailure,
    /// What stands in for the gathered value if the step fails: JSON.
    pub fallback: Option<Box<str>>,
    /// Which problems it stands in for.
    pub fallback_on: FallbackOn,
}

/// What the branches of a scatter are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Each of these gets the value; theirs are gathered by name.
    Branches(Vec<(String, Path)>),
    /// One branch for each element of a list; the values are gathered in the order of the list.
    Each {
        /// The stage that takes the value apart; its outcome is [`Split`](crate::Outcome::Split).
        split: StageId,
        /// The way that each element takes.
        branch: Path,
        /// How many are on their way at a time.
        max_in_flight: u32,
    },
}

/// What becomes of the other branches when one fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They are cancelled, and the step fails.
    #[default]
    Fail,
    /// They go on, and the problem is gathered in place of a value.
    Collect,
}

/// A named path, and the stages to which it leads.
#[derive(Debug)]
struct Pipeline {
    steps: Vec<Step>,
    reach: Vec<StageId>,
}

/// The stages and pipelines of a service.
#[derive(Debug)]
pub struct Topology {
    stages: Vec<StageRules>,
    /// Each stage by itself: a path of one step.
    alone: Vec<(Step, StageId)>,
    pipelines: Vec<Pipeline>,
    pipeline_names: Vec<String>,
    names: BTreeMap<String, Path>,
    max_hops: u32,
}

impl Topology {
    /// A plan of `stages` and of named `pipelines` over them, with at most `max_hops` gotos one after another.
    ///
    /// # Panics
    ///
    /// If a pipeline is empty, names a stage or pipeline that does not exist or itself, or if a name is given twice: the
    /// service file's reader has refused that.
    pub fn new<S: Into<Step>>(stages: Vec<StageRules>, pipelines: Vec<(String, Vec<S>)>, max_hops: u32) -> Topology {
        let ids = (0..stages.len() as u32).map(StageId);
        let alone: Vec<(Step, StageId)> = ids.map(|id| (Step::Stage(id), id)).collect();
        let mut names = BTreeMap::new();
        for (stage, (_, id)) in stages.iter().zip(&alone).filter(|(stage, _)| !stage.functions && !stage.hidden) {
            assert!(names.insert(stage.name.clone(), Path::Stage(*id)).is_none(), "two stages named {}", stage.name);
        }
        let mut paths = Vec::new();
        let mut pipeline_names = Vec::new();
        for (name, steps) in pipelines {
            assert!(!steps.is_empty(), "pipeline {name} has steps");
            let number = Path::Pipeline(paths.len() as u32);
            assert!(names.insert(name.clone(), number).is_none(), "two things named {name}");
            pipeline_names.push(name);
            paths.push(steps.into_iter().map(S::into).collect());
        }
        let reach: Vec<Vec<StageId>> = (0..paths.len()).map(|number| reach(&paths, number, stages.len())).collect();
        let pipelines = paths.into_iter().zip(reach).map(|(steps, reach)| Pipeline { steps, reach }).collect();
        Topology { stages, alone, pipelines, pipeline_names, names, max_hops }
    }

    /// The plan that follows on this one: what is on its way by this plan goes on by it, under the same numbers. `stages` are all stages
    /// of this plan, in their order, with their rules as they are from now on, and behind them the new ones. The `pipelines` are numbered
    /// from [`pipelines`](Topology::pipelines) on, and take over their names.
    ///
    /// # Panics
    ///
    /// As [`new`](Topology::new), and if there are fewer stages than before.
    pub fn followed_by(&self, stages: Vec<StageRules>, pipelines: Vec<(String, Vec<Step>)>, max_hops: u32) -> Topology {
        assert!(stages.len() >= self.stages.len(), "stages keep their numbers");
        let mut steps: Vec<Vec<Step>> = self.pipelines.iter().map(|pipeline| pipeline.steps.clone()).collect();
        let mut names = self.pipeline_names.clone();
        let mut now = BTreeMap::new();
        for (name, new) in pipelines {
            assert!(!new.is_empty(), "pipeline {name} has steps");
            let number = names.len();
            names.push(name.clone());
            steps.push(new);
            assert!(now.insert(name.clone(), Path::Pipeline(number as u32)).is_none(), "two things named {name}");
        }
        let ids = (0..stages.len() as u32).map(StageId);
        let alone: Vec<(Step, StageId)> = ids.map(|id| (Step::Stage(id), id)).collect();
        for (stage, (_, id)) in stages.iter().zip(&alone).filter(|(stage, _)| !stage.functions && !stage.hidden) {
            // A stage that is gone gives way to a pipeline of its name.
            now.entry(stage.name.clone()).or_insert(Path::Stage(*id));
        }
        let reach: Vec<Vec<StageId>> = (0..steps.len()).map(|number| reach(&steps, number, stages.len())).collect();
        let pipelines = steps.into_iter().zip(reach).map(|(steps, reach)| Pipeline { steps, reach }).collect();
        Topology { stages, alone, pipelines, pipeline_names: names, names: now, max_hops }
    }

    /// How many pipelines there are, those of earlier plans among them.
    pub fn pipelines(&self) -> u32 {
        self.pipelines.len() as u32
    }

    /// All stages, in the order of their ids.
    pub fn stages(&self) -> &[StageRules] {
        &self.stages
    }

    /// One stage's rules.
    pub fn stage(&self, stage: StageId) -> &StageRules {
        &self.stages[stage.index()]
    }

    /// The steps along a path.
    pub fn path(&self, path: Path) -> &[Step] {
        match path {
            Path::Stage(stage) => std::slice::from_ref(&self.alone[stage.index()].0),
            Path::Pipeline(number) => &self.pipelines[number as usize].steps,
        }
    }

    /// All stages to which a path leads without a goto, those of its branches among them, each once.
    pub fn reach(&self, path: Path) -> &[StageId] {
        match path {
            Path::Stage(stage) => std::slice::from_ref(&self.alone[stage.index()].1),
            Path::Pipeline(number) => &self.pipelines[number as usize].reach,
        }
    }

    /// What a path is called.
    pub fn path_name(&self, path: Path) -> &str {
        match path {
            Path::Stage(stage) => &self.stages[stage.index()].name,
            Path::Pipeline(number) => &self.pipeline_names[number as usize],
        }
    }

    /// The scatter at that step of a path.
    pub(crate) fn scatter(&self, path: Path, step: u32) -> Option<&Scatter> {
        match self.path(path).get(step as usize) {
            Some(Step::Scatter(scatter)) => Some(scatter),
            Some(Step::Stage(_)) | None => None,
        }
    }

    /// The stage or pipeline of that name, as a goto finds it.
    pub fn find(&self, name: &str) -> Option<Path> {
        self.names.get(name).copied()
    }

    /// How many gotos may follow one another in a request.
    pub fn max_hops(&self) -> u32 {
        self.max_hops
    }
}

/// The stages to which pipeline `number` leads, in the order in which they are met. A pipeline that contains itself is a
/// mistake, and ends in a panic.
fn reach(pipelines: &[Vec<Step>], number: usize, stages: usize) -> Vec<StageId> {
    fn visit(pipelines: &[Vec<Step>], path: Path, depth: usize, found: &mut Vec<StageId>, seen: &mut [bool]) {
        let number = match path {
            Path::Stage(stage) => return meet(stage, found, seen),
            Path::Pipeline(number) => number as usize,
        };
        assert!(depth <= pipelines.len(), "no pipeline contains itself");
        for step in &pipelines[number] {
            match step {
                Step::Stage(stage) => meet(*stage, found, seen),
                Step::Scatter(scatter) => match &scatter.over {
                    Over::Branches(branches) => {
                        for (_, branch) in branches {
                            visit(pipelines, *branch, depth + 1, found, seen);
                        }
                    }
                    Over::Each { split, branch, .. } => {
                        meet(*split, found, seen);
                        visit(pipelines, *branch, depth + 1, found, seen);
                    }
                },
            }
        }
    }
    fn meet(stage: StageId, found: &mut Vec<StageId>, seen: &mut [bool]) {
        if !std::mem::replace(&mut seen[stage.index()], true) {
            found.push(stage);
        }
    }
    let (mut found, mut seen) = (Vec::new(), vec![false; stages]);
    visit(pipelines, Path::Pipeline(number as u32), 0, &mut found, &mut seen);
    found
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
