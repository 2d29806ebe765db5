//! Pipelines: steps looked up, pipelines among them replaced by their own steps.

use std::collections::HashMap;

use super::Walk;
use crate::config::diagnostic::Diagnostic;
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Plain, Scalar, quote};
use crate::config::{Pipeline, Scatter, Step, Target};

/// The most steps of one pipeline once the pipelines in it are replaced.
const MOST_STEPS: usize = 1000;
/// How deep pipelines may be nested.
pub(super) const DEPTH: usize = 32;

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
                "name it in a pipeline, or in the `goto` of a stage whose code sends values there, or remove it",
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

/// A pipeline before those in it are replaced. Lists of steps within a step are pipelines as well, behind the named ones.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) span: Span,
    pub(super) steps: Vec<DraftStep>,
}

/// A step before pipelines are replaced.
pub(super) enum DraftStep {
    /// It was reported.
    Bad,
    To(Target, Span),
    /// With the targets of its branches.
    Scatter(Box<Scatter>, Vec<(Target, Span)>),
}

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
        let mut drafts: Vec<Draft> = entries
            .iter()
            .map(|entry| Draft { name: entry.key.to_string(), span: entry.key_span, steps: Vec::new() })
            .collect();
        for (index, entry) in entries.iter().enumerate() {
            drafts[index].steps = self.steps_of_pipeline(entry, names, &mut drafts);
        }
        let mut expansion = Expansion { state: vec![State::New; drafts.len()], drafts: &drafts, path: Vec::new() };
        for (index, draft) in drafts.iter().enumerate() {
            expansion.pipeline(index, draft.span, &mut self.found);
        }
        let states = expansion.state;
        let done = |state| match state {
            State::Done { steps, .. } => steps,
            State::New | State::Open | State::Failed => Vec::new(),
        };
        drafts
            .iter()
            .zip(states)
            .map(|(draft, state)| Pipeline { name: draft.name.clone(), steps: done(state) })
            .collect()
    }

    fn steps_of_pipeline(&mut self, entry: &Entry, names: &mut Names<'_>, drafts: &mut Vec<Draft>) -> Vec<DraftStep> {
        let items = match self.list(&entry.value, &["first_stage, second_stage"]) {
            Some(items) => items,
            None => return vec![DraftStep::Bad],
        };
        if items.is_empty() {
            let message = format!("the pipeline {} has no steps", quote(&entry.key));
            let empty = Diagnostic::error("empty-pipeline", entry.key_span, message);
            self.found.push(empty.hint("list at least one stage"));
        }
        self.steps(items, &entry.key, 0, names, drafts)
    }
}

#[derive(Clone)]
enum State {
    New,
    Open,
    /// It, or something in it, was reported.
    Failed,
    Done {
        steps: Vec<Step>,
        depth: usize,
    },
}

/// Replaces pipelines by their steps, each pipeline once.
struct Expansion<'a> {
    drafts: &'a [Draft],
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
            Some((steps, depth)) => State::Done { steps, depth },
            None => State::Failed,
        };
    }

    fn expand(&mut self, index: usize, found: &mut Vec<Diagnostic>) -> Option<(Vec<Step>, usize)> {
        let drafts = self.drafts;
        let Draft { name, span, steps: draft_steps } = &drafts[index];
        let (mut steps, mut deepest, mut good) = (Vec::new(), 0, true);
        for step in draft_steps {
            match step {
                DraftStep::Bad => good = false,
                DraftStep::To(Target::Stage(stage), _) => steps.push(Step::Stage(*stage)),
                DraftStep::To(Target::Pipeline(inner), span) => match self.within(*inner, *span, found) {
                    Some((inner, depth)) => {
                        steps.extend(inner);
                        deepest = deepest.max(depth);
                    }
                    None => good = false,
                },
                DraftStep::Scatter(scatter, branches) => {
                    for (target, span) in branches {
                        let Target::Pipeline(inner) = target else { continue };
                        match self.within(*inner, *span, found) {
                            Some((_, depth)) => deepest = deepest.max(depth),
                            None => good = false,
                        }
                    }
                    steps.push(Step::Scatter(scatter.clone()));
                }
            }
            if steps.len() > MOST_STEPS {
                let message = format!("the pipeline {} has more than {MOST_STEPS} steps", quote(name));
                found.push(Diagnostic::error("long-pipeline", *span, message));
                return None;
            }
            if deepest >= DEPTH {
                found.push(too_deep(*span));
                return None;
            }
        }
        good.then_some((steps, deepest))
    }

    /// The steps of a pipeline that is named within another, and how deep they are there.
    fn within(&mut self, inner: usize, span: Span, found: &mut Vec<Diagnostic>) -> Option<(Vec<Step>, usize)> {
        self.pipeline(inner, span, found);
        match &self.state[inner] {
            State::Done { steps, depth } => Some((steps.clone(), depth + 1)),
            State::New | State::Open | State::Failed => None,
        }
    }

    fn cycle(&self, index: usize, span: Span) -> Diagnostic {
        let from = self.path.iter().position(|open| *open == index).unwrap_or(0);
        let names = self.path[from..].iter().chain([&index]);
        let names: Vec<_> = names.map(|index| quote(&self.drafts[*index].name)).collect();
        let message = match &names[..] {
            [name, _] => format!("the pipeline {name} contains itself"),
            names => format!("these pipelines contain each other: {}", names.join(" → ")),
        };
        Diagnostic::error("pipeline-cycle", span, message)
            .also(self.drafts[index].span, "begins here")
            .hint("to run steps again, answer with a goto from a stage")
    }
}

fn too_deep(span: Span) -> Diagnostic {
    let message = format!("pipelines are nested more than {DEPTH} deep");
    Diagnostic::error("too-deep", span, message)
}
