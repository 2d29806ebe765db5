//! Which number each stage and pipeline of a service has in core. A stage keeps its number for as long as the node runs, whatever
//! service file takes over, so that what is on its way goes on. Only one whose workers do another number of jobs at a time is a
//! new stage, as none of the old workers can do its jobs. Pipelines get new numbers each time.

use std::collections::HashMap;

use evener_core::{Path, StageId};

use crate::config::{self, Service, Step};
use crate::wiring::crews;

/// The numbers of one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    /// Those of its stages and, behind them, its function pools.
    pub(crate) crews: Vec<StageId>,
    /// Those of the hidden stages that take lists apart, in the order of the pipelines.
    pub(crate) splits: Vec<StageId>,
    /// That of its first pipeline.
    pub(crate) first_pipeline: u32,
}

impl Numbers {
    /// Where a name of the service file leads.
    pub(crate) fn path(&self, target: config::Target) -> Path {
        match target {
            config::Target::Stage(stage) => Path::Stage(self.crews[stage]),
            config::Target::Pipeline(pipeline) => Path::Pipeline(self.first_pipeline + pipeline as u32),
        }
    }
}

/// What all workers of a stage have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Whether there are processes that stay.
    pub(crate) stays: bool,
    /// How many jobs one does at the same time.
    pub(crate) slots: u32,
    /// Whether it does them as one.
    pub(crate) batched: bool,
}

/// All numbers that were ever given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    crews: HashMap<(String, Shape), StageId>,
    /// By pipeline and program; a pipeline may have the same program twice.
    splits: HashMap<(String, String), Vec<StageId>>,
    stages: u32,
    pipelines: u32,
}

impl Ledger {
    /// Numbers a service: a stage of a name and a shape that had one before has the same again.
    pub(crate) fn number(&mut self, service: &Service) -> Numbers {
        let mut numbers = Vec::new();
        for crew in crews(service) {
            let next = StageId(self.stages);
            let number = *self.crews.entry((crew.name().to_owned(), crew.shape())).or_insert(next);
            self.stages += u32::from(number == next);
            numbers.push(number);
        }
        let mut splits = Vec::new();
        let mut used: HashMap<(&str, &str), usize> = HashMap::new();
        for (pipeline, filter) in lists(service) {
            let nth = used.entry((pipeline, &filter.source)).or_default();
            let numbers = self.splits.entry((pipeline.to_owned(), filter.source.clone())).or_default();
            if numbers.len() <= *nth {
                numbers.push(StageId(self.stages));
                self.stages += 1;
            }
            splits.push(numbers[*nth]);
            *nth += 1;
        }
        let first_pipeline = self.pipelines;
        self.pipelines += service.pipelines.len() as u32;
        Numbers { crews: numbers, splits, first_pipeline }
    }
}

/// The lists that are taken apart: in which pipeline, and by which program.
pub(crate) fn lists(service: &Service) -> Vec<(&str, &config::Filter)> {
    let mut lists = Vec::new();
    for pipeline in &service.pipelines {
        for step in &pipeline.steps {
            if let Step::Scatter(scatter) = step
                && let config::Over::Each { items, .. } = &scatter.over
            {
                lists.push((pipeline.name.as_str(), items));
            }
        }
    }
    lists
}
