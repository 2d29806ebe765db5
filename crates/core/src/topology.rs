//! The immutable plan of a service: its stages, their rules, and the pipelines through them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::request::FallbackOn;
use crate::rules::StageRules;

/// Which stage: its place in [`Topology::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub u32);

impl StageId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
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
        let reach = reach(&paths, stages.len());
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
        let reach = reach(&steps, stages.len());
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

/// The stages to which each pipeline leads, in the order in which they are met. Each pipeline is gone through once, after those that it
/// leads to; a pipeline that contains itself is a mistake, and ends in a panic.
fn reach(pipelines: &[Vec<Step>], stages: usize) -> Vec<Vec<StageId>> {
    let mut found: Vec<Option<Vec<StageId>>> = vec![None; pipelines.len()];
    let mut begun = vec![false; pipelines.len()];
    for number in 0..pipelines.len() {
        // The way down to the pipeline at hand; beside it those that are next.
        let mut way = vec![number];
        while let Some(number) = way.last().copied() {
            if found[number].is_some() {
                way.pop();
            } else if std::mem::replace(&mut begun[number], true) {
                found[number] = Some(reach_of(&pipelines[number], &found, stages));
            } else {
                let before = way.len();
                let within = pipelines[number].iter().flat_map(branches).filter_map(number_of);
                way.extend(within.filter(|within| found[*within].is_none()));
                assert!(way[before..].iter().all(|within| !begun[*within]), "no pipeline contains itself");
            }
        }
    }
    found.into_iter().map(Option::unwrap_or_default).collect()
}

/// The same for one of them, where that is known of those that it leads to.
fn reach_of(steps: &[Step], known: &[Option<Vec<StageId>>], stages: usize) -> Vec<StageId> {
    let (mut found, mut seen) = (Vec::new(), vec![false; stages]);
    let mut meet = |stage: StageId| {
        if !std::mem::replace(&mut seen[stage.index()], true) {
            found.push(stage);
        }
    };
    for step in steps {
        match step {
            Step::Stage(stage) => meet(*stage),
            Step::Scatter(scatter) => {
                if let Over::Each { split, .. } = scatter.over {
                    meet(split);
                }
            }
        }
        for path in branches(step) {
            match path {
                Path::Stage(stage) => meet(stage),
                Path::Pipeline(number) => known[number as usize].iter().flatten().for_each(|stage| meet(*stage)),
            }
        }
    }
    found
}

/// The ways that begin at a step.
fn branches(step: &Step) -> impl Iterator<Item = Path> {
    let (named, each) = match step {
        Step::Stage(_) => (&[][..], None),
        Step::Scatter(scatter) => match &scatter.over {
            Over::Branches(named) => (&named[..], None),
            Over::Each { branch, .. } => (&[][..], Some(*branch)),
        },
    };
    named.iter().map(|(_, path)| *path).chain(each)
}

fn number_of(path: Path) -> Option<usize> {
    match path {
        Path::Stage(_) => None,
        Path::Pipeline(number) => Some(number as usize),
    }
}
