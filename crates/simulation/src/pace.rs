//! How far ahead jobs may be handed out, worked out a second time and in floating point.

use std::collections::BTreeMap;
use std::time::Duration;

use evener_core::{FunctionId, StageId};

/// So many jobs go one at a time before anything is known.
const KNOWN_AFTER: u32 = 16;
/// And so many after something was printed.
const QUIET_AFTER: u32 = 1_000;
/// What lies ahead of a job takes about so long at most.
const MOST_WAIT: f64 = 1e6;
const DEEPEST: usize = 16;
/// The dispatcher works in whole nanoseconds, and each step may cut one off.
const ROUNDING: f64 = 40.0;

/// What is known of everything that runs: of each function that is called, and of each stage for all other jobs.
#[derive(Debug)]
pub(crate) struct Paces {
    stages: Vec<Pace>,
    functions: BTreeMap<FunctionId, Pace>,
}

impl Paces {
    pub(crate) fn new(stages: usize) -> Paces {
        Paces { stages: vec![Pace::default(); stages], functions: BTreeMap::new() }
    }

    /// A function is called. From the first call on it is watched, until it is forgotten.
    pub(crate) fn called(&mut self, function: FunctionId) {
        self.functions.entry(function).or_default();
    }

    /// Nothing is known of a function from now on. True if something was.
    pub(crate) fn forget(&mut self, function: FunctionId) -> bool {
        self.functions.remove(&function).is_some()
    }

    pub(crate) fn of(&mut self, stage: StageId, function: Option<FunctionId>) -> Option<&mut Pace> {
        match function {
            Some(function) => self.functions.get_mut(&function),
            None => self.stages.get_mut(stage.0 as usize),
        }
    }

    /// How many jobs of this kind may lie ahead at least and at most.
    pub(crate) fn depth(&self, stage: StageId, function: Option<FunctionId>) -> (usize, usize) {
        let pace = match function {
            Some(function) => self.functions.get(&function),
            None => self.stages.get(stage.0 as usize),
        };
        pace.map_or((0, 0), Pace::depth)
    }

    /// Whether a job of this kind printed something at some time.
    pub(crate) fn was_hushed(&self, stage: StageId, function: Option<FunctionId>) -> bool {
        match function {
            Some(function) => self.functions.get(&function).is_some_and(|pace| pace.printed),
            None => self.stages[stage.0 as usize].printed,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    mean: f64,
    seen: u32,
    hush: u32,
    printed: bool,
}

impl Pace {
    pub(crate) fn ran(&mut self, span: Duration) {
        let nanos = span.as_nanos().min(100_000_000) as f64;
        self.mean = if self.seen == 0 { nanos } else { self.mean * 15.0 / 16.0 + nanos / 16.0 };
        self.seen = self.seen.saturating_add(1);
        self.hush = self.hush.saturating_sub(1);
    }

    pub(crate) fn printed(&mut self) {
        (self.hush, self.printed) = (QUIET_AFTER, true);
    }

    /// How many jobs may lie ahead at least and at most: where the mean is close to where a number turns into the next,
    /// both are right.
    fn depth(&self) -> (usize, usize) {
        if self.seen < KNOWN_AFTER || self.hush > 0 {
            return (0, 0);
        }
        let fits = |mean: f64| ((MOST_WAIT / mean.max(1.0)) as usize).min(DEEPEST);
        (fits(self.mean + ROUNDING), fits(self.mean - ROUNDING))
    }
}
