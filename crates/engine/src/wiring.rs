//! From a service file to the parts of a node.

use std::collections::HashMap;
use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{FallbackOn, OnCancel, OnFailure, Over, Path, RetryOn, Scatter, StageId, StageRules, Topology};
use evener_doors::{Input, PoolView, Route};
use evener_protocol::Content;
use evener_supervisor::Spawn;
use evener_supervisor::environment::worker_environment;
use evener_supervisor::interpreter::{Interpreter, NotFound, Search};
use evener_supervisor::runtime_dir::{RuntimeDir, python_runtime};
use evener_supervisor::slot::{Place, Plan};
use http::Method;

use crate::config::{self, FunctionPool, Service, Stage};
use crate::jq::{JqError, Program};
use crate::local::Local;

/// The runtime of Python workers: one file that needs nothing but Python.
const PYTHON_RUNTIME: &str = include_str!("../../../python/src/evener/_worker.py");

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

    /// Whether its jobs are done in the node itself, without worker processes.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Crew::Stage(Stage { kind: config::Kind::Jq(_), .. }))
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
            config::Workers::Count(count) => count,
            config::Workers::Auto => std::thread::available_parallelism().map_or(1, NonZero::get) as u32,
        }
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
        ..StageRules::named(pool.name.clone())
    }
}

fn on_cancel(on_cancel: config::OnCancel) -> OnCancel {
    match on_cancel {
        config::OnCancel::Tell => OnCancel::Tell,
        config::OnCancel::Kill => OnCancel::Kill,
    }
}

/// The plan of a service: the stages of its file, its function pools, and behind them one hidden stage for each `each`.
pub(crate) fn topology(service: &Service) -> Topology {
    let crews = crews(service);
    let mut stages: Vec<StageRules> = crews.iter().map(|crew| crew.rules(service)).collect();
    let mut next = stages.len() as u32;
    let splits = splits(service);
    stages.extend(splits.iter().map(|(pipeline, _)| StageRules {
        queue: service.limits.queue,
        retries: 0,
        hidden: true,
        ..StageRules::named(format!("{pipeline}.each"))
    }));
    let mut pipelines = Vec::new();
    for pipeline in &service.pipelines {
        let steps: Vec<evener_core::Step> = pipeline.steps.iter().map(|step| self::step(step, &mut next)).collect();
        pipelines.push((pipeline.name.clone(), steps));
    }
    Topology::new(stages, pipelines, service.limits.max_hops)
}

/// The lists that are taken apart, in the order of the hidden stages: in which pipeline, and by which program.
fn splits(service: &Service) -> Vec<(&str, &config::Filter)> {
    let mut splits = Vec::new();
    for pipeline in &service.pipelines {
        for step in &pipeline.steps {
            if let config::Step::Scatter(scatter) = step
                && let config::Over::Each { items, .. } = &scatter.over
            {
                splits.push((pipeline.name.as_str(), items));
            }
        }
    }
    splits
}

/// A step as core knows it. `next` is the next hidden stage.
fn step(step: &config::Step, next: &mut u32) -> evener_core::Step {
    let scatter = match step {
        config::Step::Stage(stage) => return evener_core::Step::Stage(StageId(*stage as u32)),
        config::Step::Scatter(scatter) => scatter,
    };
    let over = match &scatter.over {
        config::Over::Branches(branches) => {
            Over::Branches(branches.iter().map(|(name, target)| (name.clone(), path(*target))).collect())
        }
        config::Over::Each { over, max_in_flight, .. } => {
            let split = StageId(*next);
            *next += 1;
            Over::Each { split, branch: path(*over), max_in_flight: *max_in_flight }
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

fn path(target: config::Target) -> Path {
    match target {
        config::Target::Stage(stage) => Path::Stage(StageId(stage as u32)),
        config::Target::Pipeline(pipeline) => Path::Pipeline(pipeline as u32),
    }
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
        functions: false,
        hidden: false,
    }
}

pub(crate) fn routes(service: &Service) -> Vec<Route> {
    service.routes.iter().map(|route| self::route(route, service)).collect()
}

fn route(route: &config::Route, service: &Service) -> Route {
    let fallback = route.fallback.as_ref().map(|value| value.to_string().into());
    let fallback_on = match fallback {
        Some(_) => self::fallback_on(route.fallback_on),
        None => FallbackOn::default(),
    };
    Route {
        path: route.path.clone(),
        // The reader of the service file has made sure that they are methods.
        methods: route
            .methods
            .as_ref()
            .map(|methods| methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect()),
        target: path(route.target),
        timeout: route.timeout,
        fallback,
        fallback_on,
        input: match route.input {
            config::Input::Auto => Input::Auto,
            config::Input::Body => Input::Body,
            config::Input::Request => Input::Request,
        },
        decode: route.decode.map(|decode| match decode {
            config::Decode::Json => Content::Json,
            config::Decode::Text => Content::Text,
            config::Decode::Bytes => Content::Bytes,
        }),
        body: route.body.unwrap_or(service.limits.body),
    }
}

/// What the stages without worker processes do, hidden ones among them.
pub(crate) fn locals(service: &Service) -> Result<Vec<(StageId, Local)>, JqError> {
    let mut locals = Vec::new();
    for (stage, number) in service.stages.iter().zip(0..) {
        if let config::Kind::Jq(filter) = &stage.kind {
            locals.push((StageId(number), Local::Filter(Program::compile(&filter.source)?)));
        }
    }
    let behind = crews(service).len() as u32;
    for ((_, filter), number) in splits(service).into_iter().zip(behind..) {
        locals.push((StageId(number), Local::Split(Program::compile(&filter.source)?)));
    }
    Ok(locals)
}

/// The interpreter of each crew that has worker processes, looked up once for each way of asking.
pub(crate) fn interpreters(service: &Service) -> Result<Vec<Option<Interpreter>>, NotFound> {
    let mut found: HashMap<Option<&PathBuf>, Interpreter> = HashMap::new();
    let mut all = Vec::new();
    for crew in crews(service) {
        if crew.is_local() {
            all.push(None);
            continue;
        }
        let interpreter = match found.get(&crew.interpreter()) {
            Some(interpreter) => interpreter.clone(),
            None => Search::here(crew.interpreter().cloned(), &service.folder).find()?,
        };
        found.insert(crew.interpreter(), interpreter.clone());
        all.push(Some(interpreter));
    }
    Ok(all)
}

/// The function pools as clients see them, and the Python of each.
pub(crate) fn pools(service: &Service, interpreters: &[Option<Interpreter>]) -> Vec<PoolView> {
    let interpreters = &interpreters[service.stages.len()..];
    let view = |(pool, interpreter): (&FunctionPool, &Option<Interpreter>)| PoolView {
        name: pool.name.clone(),
        python: match pool.sys_path {
            // A private engine runs the Python of the script that it belongs to.
            Some(_) => String::new(),
            None => interpreter.as_ref().map_or_else(String::new, |found| python_version(&found.path)),
        },
        workers: Crew::Functions(pool).wanted(),
    };
    service.functions.iter().zip(interpreters).map(view).collect()
}

/// Major and minor version of a Python: "3.11". Empty if it does not say; then its workers will not start either, and that is
/// reported with more to go by.
fn python_version(interpreter: &std::path::Path) -> String {
    let ask = "import sys; print('%d.%d' % sys.version_info[:2])";
    let asked = Command::new(interpreter).args(["-I", "-S", "-c", ask]).stdin(Stdio::null()).output();
    let said = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let is_version = said.split('.').count() == 2 && said.split('.').all(|part| part.parse::<u32>().is_ok());
    if is_version { said } else { String::new() }
}

/// The plans of all workers, crew by crew.
pub(crate) fn plans(service: &Service, interpreters: &[Option<Interpreter>], folder: &Arc<RuntimeDir>) -> Vec<Plan> {
    let mut plans = Vec::new();
    for ((crew, interpreter), number) in crews(service).into_iter().zip(interpreters).zip(0..) {
        let Some(interpreter) = interpreter else { continue };
        let name: Arc<str> = crew.name().into();
        for index in 0..crew.wanted() {
            let place = Place { stage: StageId(number), name: name.clone(), index };
            plans.push(plan(service, crew, interpreter, place, folder.clone()));
        }
    }
    plans
}

fn plan(service: &Service, crew: Crew<'_>, interpreter: &Interpreter, place: Place, folder: Arc<RuntimeDir>) -> Plan {
    let (variables, cwd, memory, start_timeout, grace) = match crew {
        Crew::Stage(stage) => (&stage.env, &stage.cwd, stage.memory, stage.start_timeout, stage.grace),
        Crew::Functions(pool) => (&pool.env, &pool.cwd, pool.memory, pool.start_timeout, pool.grace),
    };
    let mut env = worker_environment(std::env::vars_os());
    for (name, value) in variables {
        env.retain(|(other, _)| other != name.as_str());
        env.push((name.into(), value.replace("{index}", &place.index.to_string()).into()));
    }
    let args = arguments(service, crew);
    let spawn = Spawn { program: interpreter.path.clone().into(), args: Vec::new(), env, cwd: cwd.clone(), memory };
    Plan {
        place,
        spawn: Box::new(move || {
            let runtime: OsString = python_runtime(&folder, PYTHON_RUNTIME)?.into();
            let args = std::iter::once(runtime).chain(args.iter().cloned()).collect();
            Ok(Spawn { args, ..spawn.clone() })
        }),
        start_timeout,
        grace,
        largest: service.limits.memory,
        calls: matches!(crew, Crew::Functions(_)),
    }
}

/// What the runtime of a worker is told on its command line.
fn arguments(service: &Service, crew: Crew<'_>) -> Vec<OsString> {
    let modules = || service.folder.clone().into();
    match crew {
        Crew::Stage(stage) => {
            let config::Kind::Python(python) = &stage.kind else { return Vec::new() };
            let target = format!("{}:{}", python.module, python.attribute);
            vec!["--path".into(), modules(), target.into()]
        }
        Crew::Functions(FunctionPool { sys_path: None, .. }) => vec!["--functions".into(), "--path".into(), modules()],
        Crew::Functions(FunctionPool { sys_path: Some(folders), .. }) => {
            let folders = folders.iter().flat_map(|folder| ["--sys-path".into(), folder.into()]);
            std::iter::once("--functions".into()).chain(folders).collect()
        }
    }
}
