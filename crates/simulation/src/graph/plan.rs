//! What a world is like: its service, and how much trouble there is in it.

use std::time::Duration;

use evener_core::{
    Batch, FallbackOn, OnCancel, OnFailure, Over, Path, RetryOn, Scale, Scatter, StageId, StageRules, Step, Terms,
    Topology,
};
use fastrand::Rng;

use crate::plan::{Odds, happens, span};

/// The pipelines are called `p0` and so on.
const PIPELINES: u32 = 3;

#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) requests: u32,
    /// Whether all workers do several jobs at a time, and little patience is had with any of them.
    pub(super) crowded: bool,
    /// Whether lists within lists are taken apart, and what fails of them is gathered: then what ends several jobs of one request at
    /// once makes several others of it, and those differ.
    pub(super) nested: bool,
    /// Longest time between two requests.
    pub(super) pace: Duration,
    /// Longest time that an honest try takes.
    pub(super) work: Duration,
    /// Longest time that a client gives its request.
    pub(super) patience: Duration,
    /// Most workers of one stage.
    pub(super) workers: usize,
    pub(super) flows: u16,
    pub(super) urgency: i8,
    pub(super) keys: u64,
    pub(super) leaves: Odds,
    pub(super) dies: Odds,
    pub(super) retires: Odds,
    pub(super) hangs: Odds,
    pub(super) ignores: Odds,
    pub(super) raises: Odds,
    pub(super) gotos: Odds,
    pub(super) responds: Odds,
    pub(super) streams: Odds,
    pub(super) recovers: Odds,
    pub(super) breaks: Odds,
    pub(super) reloads: Odds,
    pub(super) ghosts: Odds,
    pub(super) leaps: Odds,
}

impl Plan {
    pub(super) fn random(rng: &mut Rng) -> Plan {
        let millis = Duration::from_millis;
        // Some worlds are calm but for one thing, so that what follows from it can be seen to its end.
        let calm = rng.u8(0..3) == 0;
        let odds = |rng: &mut Rng, most: Odds| match calm && rng.u8(0..4) > 0 {
            true => 0,
            false => [0, rng.u32(0..=most), rng.u32(0..=most)][rng.usize(0..3)],
        };
        let nested = rng.u8(0..3) == 0;
        Plan {
            requests: rng.u32(5..50),
            crowded: rng.u8(0..4) == 0,
            nested,
            pace: millis([2, 10, 60][rng.usize(0..3)]),
            work: millis([5, 20, 100][rng.usize(0..3)]),
            patience: millis([200, 1_000, 5_000][rng.usize(0..3)]),
            workers: rng.usize(1..4),
            flows: rng.u16(1..4),
            urgency: [0, 0, 1][rng.usize(0..3)],
            keys: rng.u64(1..6),
            leaves: odds(rng, 150),
            dies: odds(rng, 80),
            retires: odds(rng, 200),
            hangs: if nested { rng.u32(50..300) } else { odds(rng, 150) },
            ignores: odds(rng, 1_000),
            raises: odds(rng, 200),
            gotos: odds(rng, 200),
            responds: odds(rng, 60),
            streams: odds(rng, 1_000),
            recovers: odds(rng, 800),
            breaks: odds(rng, 40),
            reloads: odds(rng, 100),
            ghosts: odds(rng, 60),
            leaps: odds(rng, 10),
        }
    }
}

fn up_to(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(1..=most))
}

fn rules(rng: &mut Rng, plan: &Plan, name: String, hidden: bool) -> StageRules {
    let slots = [1, 1, rng.u32(2..5)][rng.usize(0..3)];
    let batch = (slots > 1 && rng.bool()).then(|| a_batch(rng, 40));
    let min = rng.u32(1..3);
    let scale = Scale { min, max: min + rng.u32(0..3), wait: up_to(rng, 40), idle: up_to(rng, 400) };
    let rules = StageRules {
        timeout: Duration::from_millis(5) + [up_to(rng, 40), up_to(rng, 500), up_to(rng, 3_000)][rng.usize(0..3)],
        retries: rng.u32(0..4),
        retry_on: RetryOn { lost: rng.u8(0..5) > 0, timeout: rng.bool(), error: rng.bool() },
        backoff: [None, None, Some(Duration::ZERO), Some(up_to(rng, 200))][rng.usize(0..4)],
        queue: [3, 1_000, 1_000][rng.usize(0..3)],
        grace: [Duration::ZERO, up_to(rng, 30), up_to(rng, 500)][rng.usize(0..3)],
        on_cancel: if rng.bool() { OnCancel::Tell } else { OnCancel::Kill },
        max_jobs_per_worker: (rng.u8(0..8) == 0).then(|| rng.u64(1..6)),
        slots,
        batch,
        affinity: batch.is_none() && rng.u8(0..4) == 0,
        scale: (rng.u8(0..4) == 0).then_some(scale),
        goto: (rng.u8(0..4) == 0).then(|| (0..rng.usize(0..4)).map(|_| any_name(rng)).collect()),
        hidden,
        ..StageRules::named(name)
    };
    match plan.crowded {
        true => StageRules {
            timeout: Duration::from_millis(20) + up_to(rng, 80),
            grace: [Duration::ZERO, up_to(rng, 10)][rng.usize(0..2)],
            slots: rng.u32(2..5),
            batch: None,
            ..rules
        },
        _ if plan.nested => StageRules {
            timeout: Duration::from_millis(20) + up_to(rng, 80),
            retry_on: RetryOn { timeout: false, ..rules.retry_on },
            slots: rng.u32(2..6),
            batch: Some(Batch { weighed: false, ..a_batch(rng, 10) }),
            affinity: false,
            ..rules
        },
        false => rules,
    }
}

/// Idle workers wait for more, or they do not.
fn a_batch(rng: &mut Rng, most: u64) -> Batch {
    let idle = [Duration::ZERO, up_to(rng, most)][rng.usize(0..2)];
    Batch { wait: up_to(rng, most), idle, weighed: rng.u8(0..3) == 0 }
}

/// A name that a stage may declare, whether there is something of that name or not.
fn any_name(rng: &mut Rng) -> String {
    let number = rng.u32(0..PIPELINES);
    if rng.bool() { format!("s{number}") } else { format!("p{number}") }
}

/// Pipelines over those stages, of which the last takes lists apart. Each leads at most into those before it.
fn pipelines(rng: &mut Rng, plan: &Plan, stages: &[StageRules], before: u32) -> Vec<(String, Vec<Step>)> {
    if plan.nested {
        return nested(rng, stages, before);
    }
    let count = rng.u32(1..=PIPELINES);
    (0..count).map(|number| (format!("p{number}"), steps(rng, stages, before, number))).collect()
}

/// Two pipelines for a third that leads into both, or into the first of them with each element of a list. In all of them the same
/// stage does what may fail.
fn nested(rng: &mut Rng, stages: &[StageRules], before: u32) -> Vec<(String, Vec<Step>)> {
    let leaf = Path::Stage(any_stage(rng, stages, false));
    let split = any_stage(rng, stages, true);
    let scatter = |over, on_failure, fallback: Option<u32>| {
        let fallback_on = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };
        let fallback = fallback.map(|value| value.to_string().into());
        Step::Scatter(Box::new(Scatter { over, timeout: None, on_failure, fallback, fallback_on }))
    };
    let each = |branch| scatter(Over::Each { split, branch, max_in_flight: 3 }, OnFailure::Collect, None);
    let by_name = |paths: [Path; 2], fallback| {
        let named = paths.into_iter().zip(0..).map(|(path, at)| (format!("b{at}"), path));
        scatter(Over::Branches(named.collect()), OnFailure::Fail, fallback)
    };
    let lists = rng.bool();
    let inner = |fallback| if lists { each(leaf) } else { by_name([leaf, leaf], Some(fallback)) };
    let [first, second] = [Path::Pipeline(before), Path::Pipeline(before + 1)];
    let outer = if lists { each(first) } else { by_name([first, second], None) };
    let then = |rng: &mut Rng| Step::Stage(any_stage(rng, stages, false));
    let all = [inner(1), inner(2), outer].map(|step| vec![step, then(rng)]);
    all.into_iter().zip(0..).map(|(steps, number)| (format!("p{number}"), steps)).collect()
}

fn steps(rng: &mut Rng, stages: &[StageRules], before: u32, number: u32) -> Vec<Step> {
    let step = |rng: &mut Rng| match rng.u8(0..3) {
        0 => Step::Scatter(Box::new(scatter(rng, stages, before, number))),
        _ => Step::Stage(any_stage(rng, stages, false)),
    };
    (0..rng.usize(1..4)).map(|_| step(rng)).collect()
}

fn any_stage(rng: &mut Rng, stages: &[StageRules], hidden: bool) -> StageId {
    let fitting: Vec<u32> = (0..stages.len() as u32).filter(|at| stages[*at as usize].hidden == hidden).collect();
    StageId(fitting[rng.usize(0..fitting.len())])
}

fn scatter(rng: &mut Rng, stages: &[StageRules], before: u32, number: u32) -> Scatter {
    let path = |rng: &mut Rng| match number > 0 && rng.bool() {
        true => Path::Pipeline(before + rng.u32(0..number)),
        false => Path::Stage(any_stage(rng, stages, false)),
    };
    let over = match rng.bool() {
        true => Over::Branches((0..rng.u32(1..4)).map(|at| (format!("b{at}"), path(rng))).collect()),
        false => Over::Each { split: any_stage(rng, stages, true), branch: path(rng), max_in_flight: rng.u32(1..4) },
    };
    Scatter {
        over,
        timeout: rng.bool().then(|| up_to(rng, 300)),
        on_failure: if rng.bool() { OnFailure::Fail } else { OnFailure::Collect },
        fallback: (rng.u8(0..3) == 0).then(|| rng.u32(..).to_string().into()),
        fallback_on: fallback_on(rng),
    }
}

pub(super) fn topology(rng: &mut Rng, plan: &Plan) -> Topology {
    let hidden = |at: u32| at == 0;
    let stages: Vec<StageRules> = (0..rng.u32(2..6)).map(|at| rules(rng, plan, format!("s{at}"), hidden(at))).collect();
    let pipelines = pipelines(rng, plan, &stages, 0);
    Topology::new(stages, pipelines, rng.u32(0..5))
}

/// The plan that follows on that one: other rules for some stages, at times a new stage, and other pipelines.
pub(super) fn next_topology(rng: &mut Rng, plan: &Plan, topology: &Topology) -> Topology {
    let mut stages = topology.stages().to_vec();
    for stage in &mut stages {
        if rng.u8(0..3) == 0 {
            let other = rules(rng, plan, stage.name.clone(), stage.hidden);
            let keeps = rng.bool();
            *stage = StageRules { scale: if keeps { stage.scale } else { other.scale }, ..other };
        }
    }
    if rng.u8(0..3) == 0 {
        stages.push(rules(rng, plan, format!("s{}", stages.len()), false));
    }
    let pipelines = pipelines(rng, plan, &stages, topology.pipelines());
    topology.followed_by(stages, pipelines, rng.u32(0..5))
}

pub(super) fn fallback_on(rng: &mut Rng) -> FallbackOn {
    match rng.bool() {
        true => FallbackOn { timeout: rng.bool(), error: rng.bool(), lost: rng.bool(), unavailable: rng.bool() },
        false => FallbackOn::default(),
    }
}

pub(super) fn terms(rng: &mut Rng, plan: &Plan) -> Terms {
    let priority = rng.i8(-plan.urgency..=plan.urgency);
    Terms { priority, flow: rng.u16(0..plan.flows), ..Terms::default() }
}

/// A way of the present plan, by its name.
pub(super) fn name(rng: &mut Rng, topology: &Topology) -> String {
    match rng.u8(0..3) {
        0 => format!("s{}", rng.usize(0..topology.stages().len())),
        _ => format!("p{}", rng.u32(0..PIPELINES).max(rng.u32(0..PIPELINES))),
    }
}

/// The way of a new request.
pub(super) fn path(rng: &mut Rng, topology: &Topology) -> Path {
    let name = name(rng, topology);
    topology.find(&name).or_else(|| topology.find("p0")).unwrap_or(Path::Stage(StageId(1)))
}

/// What a worker does with a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Intent {
    Bring(Duration),
    Die(Duration),
    Hang,
}

pub(super) fn intent(rng: &mut Rng, plan: &Plan) -> Intent {
    let work = span(rng, plan.work);
    if happens(rng, plan.dies) {
        Intent::Die(work)
    } else if happens(rng, plan.hangs) {
        [Intent::Hang, Intent::Bring(10 * work)][rng.usize(0..2)]
    } else {
        Intent::Bring(work)
    }
}
