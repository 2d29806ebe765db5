//! Pipelines: steps looked up, pipelines among them replaced by their own steps.

use std::collections::HashMap;

use super::Walk;
use super::fields::not_available;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::LATER_STEPS;
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};
use crate::config::{Pipeline, Target};

/// The most steps of one pipeline once the pipelines in it are replaced.
const MOST_STEPS: usize = 1000;
/// How deep pipelines may be nested.
const DEPTH: usize = 32;

/// What the names of a service stand for, and which stages are in use.
#[derive(Default)]
pub(super) struct Names<'n> {
    targets: HashMap<&'n str, Target>,
    /// The function pools, which are no targets, and where they are named.
    pools: HashMap<&'n str, Span>,
    /// All names of targets in the order of the file, for "did you mean".
    all: Vec<&'n str>,
    used: Vec<bool>,
}

impl<'n> Names<'n> {
    /// Collects the names and reports those that stand for two things.
    pub(super) fn new(
        stages: &'n [Entry],
        pipelines: &'n [Entry],
        pools: &'n [Entry],
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut names = Self { used: vec![false; stages.len()], ..Self::default() };
        for (index, entry) in stages.iter().enumerate() {
            names.targets.insert(&entry.key, Target::Stage(index));
            names.all.push(&entry.key);
        }
        for (index, entry) in pipelines.iter().enumerate() {
            if let Some(Target::Stage(stage)) = names.targets.get(&*entry.key) {
                found.push(clash(entry, "pipeline", &stages[*stage], "stage"));
                continue;
            }
            names.targets.insert(&entry.key, Target::Pipeline(index));
            names.all.push(&entry.key);
        }
        for entry in pools {
            match names.targets.get(&*entry.key) {
                Some(Target::Stage(stage)) => found.push(clash(entry, "function pool", &stages[*stage], "stage")),
                Some(Target::Pipeline(pipeline)) => {
                    found.push(clash(entry, "function pool", &pipelines[*pipeline], "pipeline"));
                }
                None => _ = names.pools.insert(&entry.key, entry.key_span),
            }
        }
        names
    }

    /// Reports the stages that no pipeline and no route names.
    pub(super) fn unused(&self, stages: &[Entry], found: &mut Vec<Diagnostic>) {
        for (entry, _) in stages.iter().zip(&self.used).filter(|(_, used)| !**used) {
            let message = format!("no pipeline and no route leads to the stage {}", quote(&entry.key));
            found.push(Diagnostic::error("unreachable-stage", entry.key_span, message).hint(
                "name it in a pipeline, or remove it; a stage that is only reached by goto can stand \
                 in a pipeline without a route",
            ));
        }
    }
}

/// Says that a name stands for two things.
fn clash(second: &Entry, what: &str, first: &Entry, of: &str) -> Diagnostic {
    let message = format!("{} is the name of a {of} and of a {what}", quote(&second.key));
    Diagnostic::error("duplicate-name", second.key_span, message)
        .label(format!("the {what}"))
        .also(first.key_span, format!("the {of}"))
        .hint("stages, pipelines and function pools share their names: rename one of them")
}

/// A step before pipelines are replaced. `None` was reported.
type Step = Option<(Target, Span)>;

impl Walk<'_> {
    /// A name looked up.
    pub(super) fn reference(&mut self, node: &Node, names: &mut Names<'_>) -> Option<Target> {
        let text = match node.scalar().map(Scalar::resolve) {
            Some(Plain::Str(text)) if !text.is_empty() => text,
            Some(Plain::Bool(_) | Plain::Int(_) | Plain::Float(_)) => {
                let message = format!("expected the name of a stage or pipeline, found {}", node.describe());
                let wrong = Diagnostic::error("wrong-type", node.span, message);
                self.found.push(wrong.hint("put quotes around a name that reads like something else"));
                return None;
            }
            _ => {
                self.expected(node, "the name of a stage or pipeline");
                return None;
            }
        };
        if let Some(target) = names.targets.get(text) {
            if let Target::Stage(index) = target {
                names.used[*index] = true;
            }
            return Some(*target);
        }
        if let Some(pool) = names.pools.get(text) {
            let message = format!("{} is a function pool, which takes functions from clients only", quote(text));
            let wrong = Diagnostic::error("function-pool", node.span, message);
            self.found.push(wrong.also(*pool, "the function pool").hint(
                "name a stage or a pipeline; a stage runs a function of the service's own: \
                 `{python: \"module:function\"}`",
            ));
            return None;
        }
        let message = format!("there is no stage or pipeline {}", quote(text));
        let unknown = Diagnostic::error("unknown-name", node.span, message);
        self.found.push(match self.nearest(text, &names.all) {
            Some(near) => unknown.hint(format!("did you mean `{near}`?")),
            None => match &names.all[..] {
                [] => unknown,
                all => {
                    let some: Vec<_> = all.iter().take(10).map(|name| quote(name)).collect();
                    let more = if all.len() > 10 { ", …" } else { "" };
                    unknown.hint(format!("there are {}{more}", some.join(", ")))
                }
            },
        });
        None
    }

    pub(super) fn pipelines(&mut self, entries: &[Entry], names: &mut Names<'_>) -> Vec<Pipeline> {
        let steps: Vec<Vec<Step>> = entries.iter().map(|entry| self.steps(entry, names)).collect();
        let mut expansion = Expansion { entries, steps: &steps, state: vec![State::New; entries.len()], path: vec![] };
        for (index, entry) in entries.iter().enumerate() {
            expansion.pipeline(index, entry.key_span, &mut self.found);
        }
        entries
            .iter()
            .zip(expansion.state)
            .map(|(entry, state)| Pipeline {
                name: entry.key.to_string(),
                stages: match state {
                    State::Done { stages, .. } => stages,
                    _ => Vec::new(),
                },
            })
            .collect()
    }

    fn steps(&mut self, entry: &Entry, names: &mut Names<'_>) -> Vec<Step> {
        let items = match self.list(&entry.value, &["first_stage, second_stage"]) {
            Some(items) => items,
            None => return vec![None],
        };
        if items.is_empty() {
            let message = format!("the pipeline {} has no steps", quote(&entry.key));
            let empty = Diagnostic::error("empty-pipeline", entry.key_span, message);
            self.found.push(empty.hint("list at least one stage"));
        }
        let step = |node: &Node| {
            if let Value::Map(keys) = &node.value
                && let Some(later) = keys.iter().find(|key| LATER_STEPS.contains(&&*key.key))
            {
                // The stages it speaks of are in use, whatever the step will do with them.
                mark_names(node, names);
                self.found.push(not_available(later.key_span, &later.key));
                return None;
            }
            Some((self.reference(node, names)?, node.span))
        };
        items.iter().map(step).collect()
    }
}

fn mark_names(node: &Node, names: &mut Names<'_>) {
    match &node.value {
        Value::Scalar(scalar) => {
            if let Some(Target::Stage(index)) = names.targets.get(&*scalar.text) {
                names.used[*index] = true;
            }
        }
        Value::Seq(items) => items.iter().for_each(|item| mark_names(item, names)),
        Value::Map(entries) => entries.iter().for_each(|e| mark_names(&e.value, names)),
        Value::Broken => {}
    }
}

#[derive(Clone)]
enum State {
    New,
    Open,
    /// It, or something in it, was reported.
    Failed,
    Done {
        stages: Vec<usize>,
        depth: usize,
    },
}

/// Replaces pipelines by their steps, each pipeline once.
struct Expansion<'a> {
    entries: &'a [Entry],
    steps: &'a [Vec<Step>],
    state: Vec<State>,
    /// The pipelines that are open, from the outermost.
    path: Vec<usize>,
}

impl Expansion<'_> {
    /// Expands one pipeline, which is named at `span`.
    fn pipeline(&mut self, index: usize, span: Span, found: &mut Vec<Diagnostic>) {
        match self.state[index] {
            State::New => {}
            State::Open => return found.push(self.cycle(index, span)),
            State::Failed | State::Done { .. } => return,
        }
        if self.path.len() >= DEPTH {
            self.state[index] = State::Failed;
            return found.push(too_deep(span));
        }
        self.state[index] = State::Open;
        self.path.push(index);
        let expanded = self.expand(index, found);
        self.path.pop();
        self.state[index] = match expanded {
            Some((stages, depth)) => State::Done { stages, depth },
            None => State::Failed,
        };
    }

    fn expand(&mut self, index: usize, found: &mut Vec<Diagnostic>) -> Option<(Vec<usize>, usize)> {
        let steps = self.steps;
        let (mut stages, mut deepest, mut good) = (Vec::new(), 0, true);
        for step in &steps[index] {
            match step {
                None => good = false,
                Some((Target::Stage(stage), _)) => stages.push(*stage),
                Some((Target::Pipeline(inner), span)) => {
                    self.pipeline(*inner, *span, found);
                    match &self.state[*inner] {
                        State::Done { stages: inner, depth } => {
                            stages.extend_from_slice(inner);
                            deepest = deepest.max(depth + 1);
                        }
                        _ => good = false,
                    }
                }
            }
            let span = self.entries[index].key_span;
            if stages.len() > MOST_STEPS {
                let name = quote(&self.entries[index].key);
                let message = format!("the pipeline {name} has more than {MOST_STEPS} steps");
                found.push(Diagnostic::error("long-pipeline", span, message));
                return None;
            }
            if deepest >= DEPTH {
                found.push(too_deep(span));
                return None;
            }
        }
        good.then_some((stages, deepest))
    }

    fn cycle(&self, index: usize, span: Span) -> Diagnostic {
        let from = self.path.iter().position(|open| *open == index).unwrap_or(0);
        let names = self.path[from..].iter().chain([&index]);
        let names: Vec<_> = names.map(|index| quote(&self.entries[*index].key)).collect();
        let message = match &names[..] {
            [name, _] => format!("the pipeline {name} contains itself"),
            names => format!("these pipelines contain each other: {}", names.join(" → ")),
        };
        Diagnostic::error("pipeline-cycle", span, message)
            .also(self.entries[index].key_span, "begins here")
            .hint("to run steps again, answer with a goto from a stage")
    }
}

fn too_deep(span: Span) -> Diagnostic {
    let message = format!("pipelines are nested more than {DEPTH} deep");
    Diagnostic::error("too-deep", span, message)
}
