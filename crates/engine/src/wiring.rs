//! From a service file to the parts of a node.

mod workers;

use std::collections::HashMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Batch, FallbackOn, OnCancel, OnFailure, Over, RetryOn, Scale, Scatter, StageId, StageRules, Topology,
};
use evener_doors::triggers::{BadSchedule, Overlap, Schedule, Trigger, When};
use evener_doors::{Cors, Fairness, Input, Route, RouteTarget};
use evener_protocol::Content;
use http::Method;

pub(crate) use self::workers::{Locals, interpreters, locals, pools, recipes};
use crate::config::{self, Concurrency, FunctionPool, Service, Stage};
use crate::errand::{self, Assess};
use crate::jq::workers::JqWorkers;
use crate::jq::{JqError, Program};
use crate::ledger::{Numbers, Shape, lists};

/// The workers of a stage, or of a function pool: both are stages to core, the stages of the file first.
#[derive(Clone, Copy)]
pub(crate) enum Crew<'a> {
    Stage(&'a Stage),
    Functions(&'a FunctionPool),
}

/// All crews of a service, in the order of core's stages.
pub(crate) fn crews(service: &Service) -> Vec<Crew<'_>> {
    service.stages.iter().map(Crew::Stage).chain(service.functions.iter().map(Crew::Functions)).collect()
}

impl<'a> Crew<'a> {
    pub(crate) fn name(&self) -> &'a str {
        match self {
            Crew::Stage(stage) => &stage.name,
            Crew::Functions(pool) => &pool.name,
        }
    }

    /// Whether its jobs are done in the node itself or by a process for each, without workers that stay.
    pub(crate) fn is_local(&self) -> bool {
        use config::Kind::{Command, Jq, Rust};
        matches!(self, Crew::Stage(Stage { kind: Jq(_) | Rust(_) | Command(_), .. }))
    }

    /// What its workers have in common.
    pub(crate) fn shape(&self) -> Shape {
        let (slots, batched) = match self {
            Crew::Stage(stage) => (slots(stage), matches!(stage.concurrency, Concurrency::Batch { .. })),
            Crew::Functions(_) => (1, false),
        };
        Shape { stays: !self.is_local(), slots, batched }
    }

    /// Whether its workers are programs of whatever kind that stay up.
    fn is_foreign(&self) -> bool {
        matches!(self, Crew::Stage(Stage { kind: config::Kind::Frames(_), .. }))
    }

    /// How many processes there are at most.
    pub(crate) fn processes(&self) -> u32 {
        match self {
            Crew::Stage(Stage { kind: config::Kind::Jq(_) | config::Kind::Rust(_), .. }) => 0,
            Crew::Stage(stage) => count(stage.workers),
            Crew::Functions(pool) => count(pool.workers),
        }
    }

    /// How many worker processes there shall be.
    pub(crate) fn wanted(&self) -> u32 {
        if self.is_local() {
            return 0;
        }
        let workers = match self {
            Crew::Stage(stage) => stage.workers,
            Crew::Functions(pool) => pool.workers,
        };
        match workers {
            config::Workers::Range { min, .. } => min,
            workers => count(workers),
        }
    }

    /// Whether its pool sizes itself.
    fn scales(&self) -> bool {
        let workers = match self {
            Crew::Stage(stage) => stage.workers,
            Crew::Functions(pool) => pool.workers,
        };
        scale(workers).is_some()
    }

    /// How many bytes of what a call prints are passed on.
    pub(crate) fn output(&self) -> u64 {
        match self {
            Crew::Stage(_) => 0,
            Crew::Functions(pool) => pool.output,
        }
    }

    fn interpreter(&self) -> Option<&'a PathBuf> {
        match self {
            Crew::Stage(stage) => stage.interpreter.as_ref(),
            Crew::Functions(pool) => pool.interpreter.as_ref(),
        }
    }

    fn rules(&self, service: &Service) -> StageRules {
        match self {
            Crew::Stage(stage) => rules(stage, service),
            Crew::Functions(pool) => pool_rules(pool, service),
        }
    }
}

fn pool_rules(pool: &FunctionPool, service: &Service) -> StageRules {
    StageRules {
        // Each call brings its own timeout and its own number of retries.
        timeout: Duration::MAX,
        retries: 0,
        queue: pool.queue.unwrap_or(service.limits.queue),
        grace: pool.grace,
        on_cancel: on_cancel(pool.on_cancel),
        max_jobs_per_worker: pool.max_jobs_per_worker,
        functions: true,
        scale: scale(pool.workers),
        ..StageRules::named(pool.name.clone())
    }
}

fn on_cancel(on_cancel: config::OnCancel) -> OnCancel {
    match on_cancel {
        config::OnCancel::Tell => OnCancel::Tell,
        config::OnCancel::Kill => OnCancel::Kill,
    }
}

/// The plan of a service: the stages of its file, its function pools, and a hidden stage for each `each`. It follows on the plan
/// `before`, if there is one, whose stages stay as long as requests may be on their way to them.
pub(crate) fn topology(service: &Service, numbers: &Numbers, before: Option<&Topology>) -> Topology {
    let mut stages: Vec<StageRules> = before.map_or_else(Vec::new, |before| before.stages().to_vec());
    for rules in &mut stages {
        // What is not in this service is no target any more, and nobody knows any more what to ask of its jobs.
        (rules.hidden, rules.affinity) = (true, false);
        rules.batch = rules.batch.map(|batch| Batch { weighed: false, ..batch });
    }
    let crews = crews(service);
    let rules = crews.iter().map(|crew| crew.rules(service)).zip(&numbers.crews);
    let splits = lists(service).into_iter().map(|(pipeline, _)| split_rules(pipeline, service)).zip(&numbers.splits);
    for (rules, number) in rules.chain(splits) {
        match stages.get_mut(number.0 as usize) {
            Some(known) => *known = rules,
            None => stages.push(rules),
        }
    }
    let mut splits = numbers.splits.iter().copied();
    let pipelines = service.pipelines.iter().map(|pipeline| {
        let steps = pipeline.steps.iter().map(|step| self::step(step, numbers, &mut splits));
        (pipeline.name.clone(), steps.collect())
    });
    let (pipelines, max_hops) = (pipelines.collect(), service.limits.max_hops);
    match before {
        Some(before) => before.followed_by(stages, pipelines, max_hops),
        None => Topology::new(stages, pipelines, max_hops),
    }
}

fn split_rules(pipeline: &str, service: &Service) -> StageRules {
    let name = format!("{pipeline}.each");
    StageRules { queue: service.limits.queue, retries: 0, hidden: true, ..StageRules::named(name) }
}

/// A step as core knows it. `splits` are the hidden stages, in the order of the steps that need them.
fn step(step: &config::Step, numbers: &Numbers, splits: &mut impl Iterator<Item = StageId>) -> evener_core::Step {
    let scatter = match step {
        config::Step::Stage(stage) => return evener_core::Step::Stage(numbers.crews[*stage]),
        config::Step::Scatter(scatter) => scatter,
    };
    let over = match &scatter.over {
        config::Over::Branches(branches) => {
            Over::Branches(branches.iter().map(|(name, target)| (name.clone(), numbers.path(*target))).collect())
        }
        config::Over::Each { over, max_in_flight, .. } => {
            // There is one for each of them.
            let split = splits.next().unwrap_or(StageId(u32::MAX));
            Over::Each { split, branch: numbers.path(*over), max_in_flight: *max_in_flight }
        }
    };
    evener_core::Step::Scatter(Box::new(Scatter {
        over,
        timeout: scatter.timeout,
        on_failure: match scatter.on_failure {
            config::OnFailure::Fail => OnFailure::Fail,
            config::OnFailure::Collect => OnFailure::Collect,
        },
        fallback: scatter.fallback.as_ref().map(|value| value.to_string().into()),
        fallback_on: fallback_on(scatter.fallback_on),
    }))
}

fn fallback_on(on: config::FallbackOn) -> FallbackOn {
    let config::FallbackOn { timeout, error, lost, unavailable } = on;
    FallbackOn { timeout, error, lost, unavailable }
}

fn rules(stage: &Stage, service: &Service) -> StageRules {
    let config::RetryOn { lost, timeout, error } = stage.retry_on;
    StageRules {
        name: stage.name.clone(),
        timeout: stage.timeout,
        retries: stage.retries,
        retry_on: RetryOn { lost, timeout, error },
        backoff: stage.backoff,
        queue: stage.queue.unwrap_or(service.limits.queue),
        grace: stage.grace,
        on_cancel: on_cancel(stage.on_cancel),
        max_jobs_per_worker: stage.max_jobs_per_worker,
        slots: slots(stage),
        batch: match stage.concurrency {
            Concurrency::Batch { wait, idle, .. } => Some(Batch { wait, idle, weighed: stage.weight.is_some() }),
            Concurrency::One | Concurrency::Threads(_) | Concurrency::Async(_) => None,
        },
        scale: scale(stage.workers).filter(|_| has_workers(stage)),
        affinity: stage.affinity.is_some(),
        goto: stage.goto.as_ref().map(|targets| targets.iter().map(|target| service.name_of(*target).into()).collect()),
        functions: false,
        hidden: false,
    }
}

fn slots(stage: &Stage) -> u32 {
    match stage.concurrency {
        Concurrency::One => 1,
        Concurrency::Threads(slots) | Concurrency::Async(slots) | Concurrency::Batch { max: slots, .. } => slots,
    }
}

/// Whether its jobs are done by worker processes that stay.
fn has_workers(stage: &Stage) -> bool {
    matches!(stage.kind, config::Kind::Python(_) | config::Kind::Frames(_))
}

pub(crate) fn routes(service: &Service, numbers: &Numbers, jq: &Arc<JqWorkers>) -> Result<Vec<Route>, JqError> {
    service.routes.iter().map(|route| self::route(route, service, numbers, jq)).collect()
}

/// What the requests of a route count by.
fn fairness(filter: &config::Filter, jq: &Arc<JqWorkers>) -> Result<Fairness, JqError> {
    let (program, jq) = (Program::compile(&filter.source)?, jq.clone());
    Ok(Fairness(Arc::new(move |origin| errand::flow(&program, &jq, origin))))
}

fn route(route: &config::Route, service: &Service, numbers: &Numbers, jq: &Arc<JqWorkers>) -> Result<Route, JqError> {
    let fallback = route.fallback.as_ref().map(|value| value.to_string().into());
    let fallback_on = match fallback {
        Some(_) => self::fallback_on(route.fallback_on),
        None => FallbackOn::default(),
    };
    Ok(Route {
        path: route.path.clone(),
        methods: route.methods.as_deref().map(methods),
        target: match route.target {
            config::RouteTarget::Path(target) => RouteTarget::Path(numbers.path(target)),
            config::RouteTarget::Health => RouteTarget::Health,
        },
        timeout: route.timeout,
        fallback,
        fallback_on,
        input: match route.input {
            config::Input::Auto => Input::Auto,
            config::Input::Body => Input::Body,
            config::Input::Request => Input::Request,
        },
        decode: route.decode.map(content),
        body: route.body.unwrap_or(service.limits.body),
        priority: route.priority,
        fairness: route.fairness.as_ref().map(|filter| fairness(filter, jq)).transpose()?,
        on_error: route.on_error.map(|target| numbers.path(target)),
        cors: route.cors.as_ref().map(cors),
        compression: route.compression,
    })
}

fn methods(methods: &[String]) -> Vec<Method> {
    // The reader of the service file has made sure that they are methods.
    methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect()
}

fn cors(cors: &config::Cors) -> Cors {
    Cors {
        origins: cors.origins.clone(),
        methods: cors.methods.as_deref().map(methods),
        headers: cors.headers.clone(),
        expose: cors.expose.clone(),
        credentials: cors.credentials,
        max_age: cors.max_age,
    }
}

fn content(decode: config::Decode) -> Content {
    match decode {
        config::Decode::Json => Content::Json,
        config::Decode::Text => Content::Text,
        config::Decode::Bytes => Content::Bytes,
    }
}

fn count(workers: config::Workers) -> u32 {
    match workers {
        config::Workers::Count(count) => count,
        config::Workers::Auto => std::thread::available_parallelism().map_or(1, NonZero::get) as u32,
        config::Workers::Range { max, .. } => max,
    }
}

/// What is asked of the jobs of which stages before they wait.
pub(crate) fn assess(service: &Service, numbers: &Numbers) -> Result<HashMap<StageId, Assess>, JqError> {
    let mut all = HashMap::new();
    for (stage, number) in service.stages.iter().zip(&numbers.crews) {
        // No stage has both.
        if let Some(filter) = &stage.affinity {
            all.insert(*number, Assess::Key(Program::compile(&filter.source)?));
        } else if let Some(filter) = &stage.weight {
            all.insert(*number, Assess::Weight(Program::compile(&filter.source)?));
        }
    }
    Ok(all)
}

/// How a pool sizes itself, if it does.
fn scale(workers: config::Workers) -> Option<Scale> {
    match workers {
        config::Workers::Range { min, max, wait, idle } => Some(Scale { min, max, wait, idle }),
        config::Workers::Count(_) | config::Workers::Auto => None,
    }
}

/// The triggers of a service.
pub(crate) fn triggers(service: &Service, numbers: &Numbers) -> Result<Vec<Trigger>, BadSchedule> {
    let trigger = |trigger: &config::Trigger| {
        let when = match &trigger.when {
            config::When::Every(interval) => When::Every(*interval),
            config::When::Cron { expression, timezone } => When::Cron(Box::new(Schedule::new(expression, timezone)?)),
            config::When::Startup => When::Startup,
            config::When::Shutdown => When::Shutdown,
        };
        Ok(Trigger {
            name: trigger.name.clone(),
            when,
            target: numbers.path(trigger.target),
            input: trigger.input.to_string().into(),
            timeout: trigger.timeout,
            priority: trigger.priority,
            on_error: trigger.on_error.map(|target| numbers.path(target)),
            overlap: match trigger.overlap {
                config::Overlap::Skip => Overlap::Skip,
                config::Overlap::Run => Overlap::Run,
            },
        })
    };
    service.triggers.iter().map(trigger).collect()
}
