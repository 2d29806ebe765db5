//! From a service file to the parts of a node.

use std::collections::HashMap;
use std::ffi::OsString;
use std::num::NonZero;
use std::sync::Arc;

use evener_core::{FallbackOn, OnCancel, Path, RetryOn, StageId, StageRules, Topology};
use evener_doors::{Input, Route};
use evener_protocol::Content;
use evener_supervisor::Spawn;
use evener_supervisor::environment::worker_environment;
use evener_supervisor::interpreter::{Interpreter, NotFound, Search};
use evener_supervisor::runtime_dir::{RuntimeDir, python_runtime};
use evener_supervisor::slot::{Place, Plan};
use http::Method;

use crate::config::{self, Service, Stage};

/// The runtime of Python workers: one file that needs nothing but Python.
const PYTHON_RUNTIME: &str = include_str!("../../../python/src/evener/_worker.py");

pub(crate) fn topology(service: &Service) -> Topology {
    let stages = service.stages.iter().map(|stage| rules(stage, service)).collect();
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
        on_cancel: match stage.on_cancel {
            config::OnCancel::Tell => OnCancel::Tell,
            config::OnCancel::Kill => OnCancel::Kill,
        },
        max_jobs_per_worker: stage.max_jobs_per_worker,
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

/// How many workers each stage shall have.
pub(crate) fn wanted(service: &Service) -> Vec<u32> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get) as u32;
    let count = |stage: &Stage| match stage.workers {
        config::Workers::Count(count) => count,
        config::Workers::Auto => cores,
    };
    service.stages.iter().map(count).collect()
}

/// The interpreter of each stage, looked up once for each way of asking.
pub(crate) fn interpreters(service: &Service) -> Result<Vec<Interpreter>, NotFound> {
    let mut found: HashMap<Option<&std::path::PathBuf>, Interpreter> = HashMap::new();
    let mut all = Vec::new();
    for stage in &service.stages {
        let interpreter = match found.get(&stage.interpreter.as_ref()) {
            Some(interpreter) => interpreter.clone(),
            None => Search::here(stage.interpreter.clone(), &service.folder).find()?,
        };
        found.insert(stage.interpreter.as_ref(), interpreter.clone());
        all.push(interpreter);
    }
    Ok(all)
}

/// The plans of all workers, stage by stage.
pub(crate) fn plans(service: &Service, interpreters: &[Interpreter], folder: &Arc<RuntimeDir>) -> Vec<Plan> {
    let mut plans = Vec::new();
    let wanted = wanted(service);
    for (number, (stage, interpreter)) in service.stages.iter().zip(interpreters).enumerate() {
        let name: Arc<str> = stage.name.as_str().into();
        for index in 0..wanted[number] {
            let place = Place { stage: StageId(number as u32), name: name.clone(), index };
            plans.push(plan(service, stage, interpreter, place, folder.clone()));
        }
    }
    plans
}

fn plan(service: &Service, stage: &Stage, interpreter: &Interpreter, place: Place, folder: Arc<RuntimeDir>) -> Plan {
    let mut env = worker_environment(std::env::vars_os());
    for (name, value) in &stage.env {
        env.retain(|(other, _)| other != name.as_str());
        env.push((name.into(), value.replace("{index}", &place.index.to_string()).into()));
    }
    let target = format!("{}:{}", stage.python.module, stage.python.attribute);
    let spawn = Spawn {
        program: interpreter.path.clone().into(),
        args: Vec::new(),
        env,
        cwd: stage.cwd.clone(),
        memory: stage.memory,
    };
    let modules: OsString = service.folder.clone().into();
    Plan {
        place,
        spawn: Box::new(move || {
            let runtime = python_runtime(&folder, PYTHON_RUNTIME)?;
            let args = vec![runtime.into(), "--path".into(), modules.clone(), target.clone().into()];
            Ok(Spawn { args, ..spawn.clone() })
        }),
        start_timeout: stage.start_timeout,
        grace: stage.grace,
        largest: service.limits.memory,
    }
}
