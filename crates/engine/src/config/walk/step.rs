//! The steps of a pipeline: names, and steps with branches.

use super::Walk;
use super::fields::Fields;
use super::pipeline::{DEPTH, Draft, DraftStep, Names};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{EACH, MOST, MOST_BRANCHES, ON_FAILURE, SCATTER};
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};
use crate::config::{OnFailure, Over, Scatter, Target, defaults};

impl Walk<'_> {
    /// The steps of a list, which belongs to the pipeline `name` and stands `depth` steps deep.
    pub(super) fn steps(
        &mut self,
        items: &[Node],
        name: &str,
        depth: usize,
        names: &mut Names<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Vec<DraftStep> {
        items.iter().map(|node| self.step(node, name, depth, names, drafts).unwrap_or(DraftStep::Bad)).collect()
    }

    fn step(
        &mut self,
        node: &Node,
        name: &str,
        depth: usize,
        names: &mut Names<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Option<DraftStep> {
        let Value::Map(entries) = &node.value else {
            return Some(DraftStep::To(self.reference(node, names)?, node.span));
        };
        if depth >= DEPTH {
            let message = format!("steps are nested more than {DEPTH} deep");
            self.found.push(Diagnostic::error("too-deep", node.span, message));
            return None;
        }
        let has = |key: &str| entries.iter().any(|entry| &*entry.key == key);
        match (has("scatter"), has("each") || has("do")) {
            (true, false) => self.scatter(node, name, depth, names, drafts),
            (false, true) => self.each(node, name, depth, names, drafts),
            (true, true) => {
                let message = "a step has `scatter`, or `each` and `do`, and this one has both";
                let both = Diagnostic::error("two-kinds", node.span, message);
                self.found.push(both.hint("make two steps of it"));
                None
            }
            (false, false) => {
                let message = "a step is the name of a stage or pipeline, or has `scatter`, or `each` and `do`";
                let hint = "branches by name: `scatter: {a: stage_a, b: stage_b}`; one for each element of a list: \
                            `each: .items` and `do: stage`";
                self.found.push(Diagnostic::error("bad-step", node.span, message).hint(hint));
                None
            }
        }
    }

    fn scatter(
        &mut self,
        node: &Node,
        name: &str,
        depth: usize,
        names: &mut Names<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Option<DraftStep> {
        let mut fields = Fields::open(node, node.span, &SCATTER, &[], self)?;
        let branches = fields.require("scatter", self, |node, walk| {
            if let Value::Seq(items) = &node.value {
                let named = |item: &Node| match item.scalar().map(Scalar::resolve) {
                    Some(Plain::Str(name)) => format!("{name}: {name}"),
                    _ => "name: steps".to_owned(),
                };
                let named: Vec<_> = items.iter().take(4).map(named).collect();
                // They are in use all the same.
                items.iter().filter(|item| item.scalar().is_some()).for_each(|item| _ = walk.reference(item, names));
                let message = "expected branches by name, a mapping, found a list";
                let wrong = Diagnostic::error("wrong-type", node.span, message);
                walk.found.push(wrong.hint(format!("name them: `scatter: {{{}}}`", named.join(", "))));
                return None;
            }
            let entries = walk.named(node, "branches by name, a mapping")?;
            walk.check_count(node, entries.len())?;
            let branch = |entry: &Entry| {
                let name = format!("{name}.{}", entry.key);
                let target = walk.branch(&entry.value, &name, depth, names, drafts);
                target.map(|target| (entry.key.to_string(), target, entry.value.span))
            };
            let branches: Vec<_> = entries.iter().map(branch).collect();
            branches.into_iter().collect::<Option<Vec<_>>>()
        });
        let draft = self.gathered(&mut fields);
        fields.finish();
        let branches = branches?;
        let targets = branches.iter().map(|(_, target, span)| (*target, *span)).collect();
        let over = Over::Branches(branches.into_iter().map(|(name, target, _)| (name, target)).collect());
        Some(DraftStep::Scatter(Box::new(Scatter { over, ..draft? }), targets))
    }

    fn check_count(&mut self, node: &Node, count: usize) -> Option<()> {
        if (1..=MOST_BRANCHES).contains(&count) {
            return Some(());
        }
        let message = match count {
            0 => "a scatter without branches does nothing".to_owned(),
            _ => format!("a scatter has at most {MOST_BRANCHES} branches, and this one has {count}"),
        };
        let hint = "name the branches: `scatter: {a: stage_a, b: stage_b}`; for the elements of a list there is `each`";
        self.found.push(Diagnostic::error("bad-scatter", node.span, message).hint(hint));
        None
    }

    fn each(
        &mut self,
        node: &Node,
        name: &str,
        depth: usize,
        names: &mut Names<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Option<DraftStep> {
        let mut fields = Fields::open(node, node.span, &EACH, &[], self)?;
        let items = fields.require("each", self, |node, walk| walk.filter(node));
        let over = fields.require("do", self, |node, walk| {
            let target = walk.branch(node, &format!("{name}.do"), depth, names, drafts)?;
            Some((target, node.span))
        });
        let max_in_flight =
            fields.read("max_in_flight", self, |node, walk| walk.number(node, "a number of elements", 1, MOST));
        let draft = self.gathered(&mut fields);
        fields.finish();
        let (items, (target, span)) = (items?, over?);
        let max_in_flight = max_in_flight.map_or(defaults::MAX_IN_FLIGHT, |most| most as u32);
        let over = Over::Each { items, over: target, max_in_flight };
        Some(DraftStep::Scatter(Box::new(Scatter { over, ..draft? }), vec![(target, span)]))
    }

    /// Where a branch leads: to a name, or through steps of its own, which make a pipeline without a route.
    fn branch(
        &mut self,
        node: &Node,
        name: &str,
        depth: usize,
        names: &mut Names<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Option<Target> {
        let Value::Seq(items) = &node.value else { return self.reference(node, names) };
        if items.is_empty() {
            let empty = Diagnostic::error("empty-pipeline", node.span, "a branch without steps");
            self.found.push(empty.hint("list at least one stage"));
            return None;
        }
        let taken = |name: &str, drafts: &[Draft]| drafts.iter().any(|draft| draft.name == name);
        let unique = (1..).map(|number| if number == 1 { name.to_owned() } else { format!("{name}.{number}") });
        let unique = unique.into_iter().find(|name| !taken(name, drafts))?;
        let index = drafts.len();
        drafts.push(Draft { name: unique.clone(), span: node.span, steps: Vec::new() });
        drafts[index].steps = self.steps(items, &unique, depth + 1, names, drafts);
        Some(Target::Pipeline(index))
    }

    /// What both kinds of steps with branches have; what they are over is filled in later.
    fn gathered(&mut self, fields: &mut Fields<'_>) -> Option<Scatter> {
        let timeout = fields.read("timeout", self, |node, walk| walk.duration(node, false));
        let on_failure = fields.read("on_failure", self, |node, walk| walk.choice(node, ON_FAILURE));
        let fallback = fields.entry("fallback");
        let fallback_on = fields.read("fallback_on", self, |node, walk| Some(walk.fallback_on(node)));
        if fallback.is_none() && fallback_on.is_some() {
            let span = fields.span_of("fallback_on");
            self.useless_fallback_on(span);
        }
        let fallback = match fallback {
            Some(entry) => Some(self.json(&entry.value)?),
            None => None,
        };
        Some(Scatter {
            over: Over::Branches(Vec::new()),
            timeout,
            on_failure: if on_failure == Some("collect") { OnFailure::Collect } else { OnFailure::Fail },
            fallback,
            fallback_on: fallback_on.unwrap_or_default(),
        })
    }

    pub(super) fn useless_fallback_on(&mut self, span: Span) {
        let message = "`fallback_on` says when a `fallback` stands in, and there is none";
        let useless = Diagnostic::error("no-fallback", span, message);
        self.found.push(useless.hint(format!("add {} with a value, or remove `fallback_on`", quote("fallback"))));
    }
}
