//! From a service to its drawing.
//!
//! Each branch is drawn where it is taken, also if that is in several places, since what follows it differs from place to place.

use std::collections::{BTreeMap, BTreeSet};

use evener_engine::config::{FunctionPool, Over, Route, RouteTarget, Scatter, Service, Step, Target, Trigger, When};

use super::drawing::{Drawing, Edge, Group, Id, Node, Part, Shape};
use super::gotos::{gone_to, on_path};
use super::words::{count, described, gathered, instead, short};

/// From so many nodes on, the pipelines of branches are named in their places and drawn once, on their own. A few lines of a
/// service file can nest branches to many millions of steps, and Mermaid draws at most 500 edges unless it is told otherwise.
const MOST_IN_PLACE: usize = 200;

/// What leads to what: pipelines come before stages, each in the order of the file.
pub(super) type Key = (bool, usize);

pub(super) fn key(target: Target) -> Key {
    match target {
        Target::Pipeline(index) => (false, index),
        Target::Stage(index) => (true, index),
    }
}

/// Draws a service.
pub(super) fn draw(service: &Service) -> Drawing {
    let mut pen = Pen::new(service);
    let mut parts = Vec::new();
    let client = (!service.routes.is_empty()).then(|| pen.node(&mut parts, Shape::Outside, ["client"]));
    let routes: Vec<_> = service.routes.iter().map(|route| (route, pen.route(route, &mut parts))).collect();
    let triggers: Vec<_> = service.triggers.iter().map(|trigger| (trigger, pen.trigger(trigger, &mut parts))).collect();
    let mut ends = BTreeMap::new();
    for target in pen.by_themselves() {
        ends.insert(key(target), pen.own(target, &mut parts));
    }
    while let Some(index) = pen.pending.pop() {
        if !ends.contains_key(&key(Target::Pipeline(index))) {
            pen.own(Target::Pipeline(index), &mut parts);
        }
    }
    // A reader begins with the client, and so does whoever lays out the drawing.
    let within = std::mem::take(&mut pen.edges);
    if let Some(client) = client {
        pen.join(client, &routes, &ends, &mut parts);
    }
    for (trigger, id) in triggers {
        pen.edge(id, ends[&key(trigger.target)].first, false, "");
        if let Some(target) = trigger.on_error {
            pen.edge(id, ends[&key(target)].first, true, "on error");
        }
    }
    pen.edges.extend(within);
    for (from, target) in std::mem::take(&mut pen.gotos) {
        pen.edge(from, ends[&key(target)].first, true, "goto");
    }
    pen.functions(&mut parts);
    Drawing { title: service.name.clone(), parts, edges: pen.edges }
}

/// The stages that a route leads to; none if the node answers by itself.
fn path_of(route: &Route) -> Option<Target> {
    match route.target {
        RouteTarget::Path(target) => Some(target),
        RouteTarget::Health => None,
    }
}

/// The pipelines that branches of these steps go through.
fn branches_of(steps: &[Step]) -> Vec<usize> {
    let targets = steps.iter().flat_map(|step| match step {
        Step::Stage(_) => Vec::new(),
        Step::Scatter(scatter) => match &scatter.over {
            Over::Branches(branches) => branches.iter().map(|(_, target)| *target).collect(),
            Over::Each { over, .. } => vec![*over],
        },
    });
    let pipeline = |target| match target {
        Target::Pipeline(index) => Some(index),
        Target::Stage(_) => None,
    };
    targets.filter_map(pipeline).collect()
}

/// Where the way through something begins and ends.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: Id,
    last: Id,
}

struct Pen<'s> {
    service: &'s Service,
    /// What routes lead to.
    routed: BTreeSet<Key>,
    /// What triggers lead to.
    triggered: BTreeSet<Key>,
    /// What the code of stages goes to, beside the path that they are on, and where requests go instead of failing.
    gone_to: BTreeSet<Key>,
    /// From where it goes there.
    gotos: Vec<(Id, Target)>,
    /// How many nodes and groups there are.
    ids: usize,
    edges: Vec<Edge>,
    /// Pipelines that were named and not drawn in their place.
    elsewhere: BTreeSet<usize>,
    /// Those of them that are still to be drawn.
    pending: Vec<usize>,
}

impl<'s> Pen<'s> {
    fn new(service: &'s Service) -> Self {
        Self {
            service,
            routed: service.routes.iter().filter_map(|route| path_of(route).map(key)).collect(),
            triggered: service.triggers.iter().map(|trigger| key(trigger.target)).collect(),
            gone_to: gone_to(service),
            gotos: Vec::new(),
            ids: 0,
            edges: Vec::new(),
            elsewhere: BTreeSet::new(),
            pending: Vec::new(),
        }
    }

    /// Whether something leads there that is no pipeline.
    fn is_entered(&self, target: Target) -> bool {
        [&self.routed, &self.triggered, &self.gone_to].iter().any(|entered| entered.contains(&key(target)))
    }

    fn id(&mut self) -> Id {
        self.ids += 1;
        Id(self.ids)
    }

    fn node<S: Into<String>>(&mut self, parts: &mut Vec<Part>, shape: Shape, lines: impl IntoIterator<Item = S>) -> Id {
        let id = self.id();
        let lines = lines.into_iter().map(Into::into).collect();
        parts.push(Part::Node(Node { id, shape, lines }));
        id
    }

    fn edge(&mut self, from: Id, to: Id, dashed: bool, label: impl Into<String>) {
        self.edges.push(Edge { from, to, dashed, label: label.into() });
    }

    fn route(&mut self, route: &Route, parts: &mut Vec<Part>) -> Id {
        let methods = route.methods.as_ref().map_or("any method".into(), |methods| methods.join(", "));
        let within = path_of(route).map(|_| format!("within {:?}", route.timeout));
        self.node(parts, Shape::WayIn, [format!("{methods} {}", route.path)].into_iter().chain(within))
    }

    fn trigger(&mut self, trigger: &Trigger, parts: &mut Vec<Part>) -> Id {
        let when = match &trigger.when {
            When::Every(interval) => format!("every {interval:?}"),
            When::Cron { expression, timezone } => format!("cron {expression} {timezone}"),
            When::Startup => "at the start".into(),
            When::Shutdown => "before the end".into(),
        };
        self.node(parts, Shape::WayIn, [format!("trigger {}", trigger.name), when])
    }

    /// What is drawn by itself: stages that routes, triggers and gotos lead to, and pipelines, but for those that are drawn as branches and
    /// nothing else.
    fn by_themselves(&self) -> Vec<Target> {
        let service = self.service;
        let branches: BTreeSet<_> =
            service.pipelines.iter().flat_map(|pipeline| branches_of(&pipeline.steps)).collect();
        let entered = |target: &Target| self.is_entered(*target);
        let pipelines = (0..service.pipelines.len())
            .map(Target::Pipeline)
            .filter(|target| entered(target) || !branches.contains(&key(*target).1));
        pipelines.chain((0..service.stages.len()).map(Target::Stage).filter(entered)).collect()
    }

    /// Draws a target by itself.
    fn own(&mut self, target: Target, parts: &mut Vec<Part>) -> Ends {
        match target {
            Target::Stage(stage) => self.stage(stage, parts),
            Target::Pipeline(index) => {
                let mut title = self.service.pipelines[index].name.clone();
                if !self.is_entered(target) && !self.elsewhere.contains(&index) {
                    title.push_str(" (no route)");
                }
                self.pipeline(index, title, parts)
            }
        }
    }

    fn pipeline(&mut self, index: usize, title: String, parts: &mut Vec<Part>) -> Ends {
        let id = self.id();
        let mut inner = Vec::new();
        let ends = self.steps(index, &mut inner);
        parts.push(Part::Group(Group { id, title, parts: inner }));
        ends
    }

    fn steps(&mut self, pipeline: usize, parts: &mut Vec<Part>) -> Ends {
        let service = self.service;
        let steps = &service.pipelines[pipeline].steps;
        let mut all: Vec<Ends> = Vec::new();
        for step in steps {
            let ends = match step {
                Step::Stage(stage) => self.node_of(*stage, parts),
                Step::Scatter(scatter) => self.scatter(scatter, parts),
            };
            if let Some(before) = all.last() {
                self.edge(before.last, ends.first, false, "");
            }
            all.push(ends);
        }
        for (at, step) in steps.iter().enumerate() {
            let Step::Stage(stage) = step else { continue };
            for target in service.stages[*stage].goto.iter().flatten() {
                match on_path(steps, at, *target) {
                    Some(place) => self.edge(all[at].last, all[place].first, true, "goto"),
                    None => self.gotos.push((all[at].last, *target)),
                }
            }
        }
        let (first, last) = all.first().zip(all.last()).expect("a pipeline has a step at least");
        Ends { first: first.first, last: last.last }
    }

    /// Draws a stage that is a path by itself.
    fn stage(&mut self, stage: usize, parts: &mut Vec<Part>) -> Ends {
        let ends = self.node_of(stage, parts);
        for target in self.service.stages[stage].goto.iter().flatten() {
            match *target == Target::Stage(stage) {
                true => self.edge(ends.last, ends.first, true, "goto"),
                false => self.gotos.push((ends.last, *target)),
            }
        }
        ends
    }

    fn node_of(&mut self, stage: usize, parts: &mut Vec<Part>) -> Ends {
        let (shape, lines) = described(&self.service.stages[stage]);
        let id = self.node(parts, shape, lines);
        Ends { first: id, last: id }
    }

    fn scatter(&mut self, scatter: &Scatter, parts: &mut Vec<Part>) -> Ends {
        let lines = match &scatter.over {
            Over::Branches(_) => vec!["scatter".into()],
            Over::Each { max_in_flight, .. } => vec!["each".into(), format!("{max_in_flight} at a time")],
        };
        let first = self.node(parts, Shape::Branching, lines);
        let taken = match &scatter.over {
            Over::Branches(branches) => branches.iter().map(|(name, target)| (name.clone(), *target, false)).collect(),
            Over::Each { items, over, .. } => vec![(format!("each {}", short(&items.source)), *over, true)],
        };
        let mut lasts = Vec::new();
        for (label, target, dashed) in taken {
            let ends = self.branch(target, parts);
            self.edge(first, ends.first, dashed, label);
            lasts.push((ends.last, dashed));
        }
        let last = self.node(parts, Shape::Branching, gathered(scatter));
        for (end, dashed) in lasts {
            self.edge(end, last, dashed, "");
        }
        Ends { first, last }
    }

    fn branch(&mut self, target: Target, parts: &mut Vec<Part>) -> Ends {
        let index = match target {
            Target::Stage(stage) => return self.stage(stage, parts),
            Target::Pipeline(index) => index,
        };
        let name = self.service.pipelines[index].name.clone();
        if self.ids >= MOST_IN_PLACE {
            if self.elsewhere.insert(index) {
                self.pending.push(index);
            }
            let id = self.node(parts, Shape::Elsewhere, [name]);
            return Ends { first: id, last: id };
        }
        // Steps that stand in the branch itself need no frame; their name, which has a dot, is nobody's choice.
        if name.contains('.') { self.steps(index, parts) } else { self.pipeline(index, name, parts) }
    }

    /// Joins the client with the routes, the routes with what they lead to, and the ends of that with the client.
    fn join(&mut self, client: Id, routes: &[(&Route, Id)], ends: &BTreeMap<Key, Ends>, parts: &mut Vec<Part>) {
        let back = self.node(parts, Shape::Outside, ["back to the client"]);
        for (route, id) in routes {
            self.edge(client, *id, false, "");
            match path_of(route) {
                Some(target) => self.edge(*id, ends[&key(target)].first, false, ""),
                None => self.edge(*id, back, false, "whether the node is ready"),
            }
            if let Some(fallback) = &route.fallback {
                self.edge(*id, back, true, instead(fallback, route.fallback_on));
            }
            if let Some(target) = route.on_error {
                self.edge(*id, ends[&key(target)].first, true, "on error");
            }
        }
        for (key, ends) in ends {
            if self.routed.contains(key) || self.gone_to.contains(key) {
                self.edge(ends.last, back, false, "answer");
            }
        }
    }

    fn functions(&mut self, parts: &mut Vec<Part>) {
        let service = self.service;
        if service.functions.is_empty() {
            return;
        }
        let callers = self.node(parts, Shape::Outside, ["callers of functions"]);
        let id = self.id();
        let mut pools = Vec::new();
        for FunctionPool { name, workers, .. } in &service.functions {
            let pool = self.node(&mut pools, Shape::FunctionPool, [name.clone(), count(*workers)]);
            self.edge(callers, pool, false, "calls");
            self.edge(pool, callers, true, "results");
        }
        parts.push(Part::Group(Group { id, title: "functions".into(), parts: pools }));
    }
}
