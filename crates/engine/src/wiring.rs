//! From a service file to the parts of a node.

use std::collections::HashMap;
use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{FallbackOn, OnCancel, Path, RetryOn, StageId, StageRules, Topology};
use evener_doors::{Input, PoolView, Route};
use evener_protocol::Content;
use evener_supervisor::Spawn;
use evener_supervisor::environment::worker_environment;
use evener_supervisor::interpreter::{Interpreter, NotFound, Search};
use evener_supervisor::runtime_dir::{RuntimeDir, python_runtime};
use evener_supervisor::slot::{Place, Plan};
use http::Method;

use crate::config::{self, FunctionPool, Service, Stage};

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

    /// How many workers there shall be.
    pub(crate) fn wanted(&self) -> u32 {
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

pub(crate) fn topology(service: &Service) -> Topology {
    let stages = crews(service).iter().map(|crew| crew.rules(service)).collect();
    let pipelines = service
        .pipelines
        .iter()
        .map(|pipeline| (pipeline.name.clone(), pipeline.stages.iter().map(|stage| StageId(*stage as u32)).collect()));
    Topology::new(stages, pipelines.collect(), service.limits.max_hops)
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
    }
}

pub(crate) fn routes(service: &Service) -> Vec<Route> {
    service.routes.iter().map(|route| self::route(route, service)).collect()
}

fn route(route: &config::Route, service: &Service) -> Route {
    let config::FallbackOn { timeout, error, lost, unavailable } = route.fallback_on;
    let fallback = route.fallback.as_ref().map(|value| value.to_string().into());
    let fallback_on = match fallback {
        Some(_) => FallbackOn { timeout, error, lost, unavailable },
        None => FallbackOn::default(),
    };
    Route {
        path: route.path.clone(),
        // The reader of the service file has made sure that they are methods.
        methods: route
            .methods
            .as_ref()
            .map(|methods| methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect()),
        target: match route.target {
            config::Target::Stage(stage) => Path::Stage(StageId(stage as u32)),
            config::Target::Pipeline(pipeline) => Path::Pipeline(pipeline as u32),
        },
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

/// The interpreter of each crew, looked up once for each way of asking.
pub(crate) fn interpreters(service: &Service) -> Result<Vec<Interpreter>, NotFound> {
    let mut found: HashMap<Option<&PathBuf>, Interpreter> = HashMap::new();
    let mut all = Vec::new();
    for crew in crews(service) {
        let interpreter = match found.get(&crew.interpreter()) {
            Some(interpreter) => interpreter.clone(),
            None => Search::here(crew.interpreter().cloned(), &service.folder).find()?,
        };
        found.insert(crew.interpreter(), interpreter.clone());
        all.push(interpreter);
    }
    Ok(all)
}

/// The function pools as clients see them, and the Python of each.
pub(crate) fn pools(service: &Service, interpreters: &[Interpreter]) -> Vec<PoolView> {
    let interpreters = &interpreters[service.stages.len()..];
    let view = |(pool, interpreter): (&FunctionPool, &'_ Interpreter)| PoolView {
        name: pool.name.clone(),
        python: match pool.sys_path {
            // A private engine runs the Python of the script that it belongs to.
            Some(_) => String::new(),
            None => python_version(&interpreter.path),
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
pub(crate) fn plans(service: &Service, interpreters: &[Interpreter], folder: &Arc<RuntimeDir>) -> Vec<Plan> {
    let mut plans = Vec::new();
    for ((crew, interpreter), number) in crews(service).into_iter().zip(interpreters).zip(0..) {
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
            let target = format!("{}:{}", stage.python.module, stage.python.attribute);
            vec!["--path".into(), modules(), target.into()]
        }
        Crew::Functions(FunctionPool { sys_path: None, .. }) => vec!["--functions".into(), "--path".into(), modules()],
        Crew::Functions(FunctionPool { sys_path: Some(folders), .. }) => {
            let folders = folders.iter().flat_map(|folder| ["--sys-path".into(), folder.into()]);
            std::iter::once("--functions".into()).chain(folders).collect()
        }
    }
}
