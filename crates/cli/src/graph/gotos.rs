//! Where the gotos lead that stages declare, and what else is entered from beside.
//!
//! A goto to a stage that is on the same path as its own moves the request along that path: to the next place of the stage there, or else
//! to the first. Any other goto leaves the path.

use std::collections::BTreeSet;

use evener_engine::config::{Over, RouteTarget, Service, Step, Target};

use super::draw::{Key, key};

/// The place on a path that a goto leads to, if it stays there. `at`: the place of the stage whose code answers with it.
pub(super) fn on_path(steps: &[Step], at: usize, target: Target) -> Option<usize> {
    let Target::Stage(wanted) = target else { return None };
    let is_wanted = |step: &Step| *step == Step::Stage(wanted);
    let ahead = at + 1;
    let next = steps.iter().skip(ahead).position(is_wanted).map(|offset| ahead + offset);
    next.or_else(|| steps.iter().position(is_wanted))
}

/// What gotos lead to that leave their path, and where requests go instead of failing.
pub(super) fn gone_to(service: &Service) -> BTreeSet<Key> {
    let declared = |stage: usize| service.stages[stage].goto.iter().flatten().copied();
    let mut gone_to = BTreeSet::new();
    for pipeline in &service.pipelines {
        for (at, step) in pipeline.steps.iter().enumerate() {
            let Step::Stage(stage) = step else { continue };
            gone_to.extend(declared(*stage).filter(|target| on_path(&pipeline.steps, at, *target).is_none()).map(key));
        }
    }
    for stage in alone(service) {
        gone_to.extend(declared(stage).filter(|target| *target != Target::Stage(stage)).map(key));
    }
    let on_error = service.routes.iter().filter_map(|route| route.on_error);
    gone_to.extend(on_error.chain(service.triggers.iter().filter_map(|trigger| trigger.on_error)).map(key));
    // A stage that only gotos lead to is a path of its own, and what its code goes to as well.
    let mut new: Vec<Key> = gone_to.iter().copied().collect();
    while let Some((is_stage, index)) = new.pop() {
        if !is_stage {
            continue;
        }
        for target in declared(index).filter(|target| *target != Target::Stage(index)) {
            if gone_to.insert(key(target)) {
                new.push(key(target));
            }
        }
    }
    gone_to
}

/// The stages that are a path by themselves, since something leads to them alone.
fn alone(service: &Service) -> BTreeSet<usize> {
    let routes = service.routes.iter().filter_map(|route| match route.target {
        RouteTarget::Path(target) => Some(target),
        RouteTarget::Health => None,
    });
    let branches = service.pipelines.iter().flat_map(|pipeline| &pipeline.steps).flat_map(|step| match step {
        Step::Stage(_) => Vec::new(),
        Step::Scatter(scatter) => match &scatter.over {
            Over::Branches(branches) => branches.iter().map(|(_, target)| *target).collect(),
            Over::Each { over, .. } => vec![*over],
        },
    });
    let targets = routes.chain(service.triggers.iter().map(|trigger| trigger.target)).chain(branches);
    targets.filter_map(|target| if let Target::Stage(stage) = target { Some(stage) } else { None }).collect()
}
