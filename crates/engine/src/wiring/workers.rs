//! Who does the jobs of each crew: the plans of worker processes, and what is done without them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{Budget, StageId};
use evener_doors::PoolView;
use evener_supervisor::Spawn;
use evener_supervisor::command::Bounds;
use evener_supervisor::environment::worker_environment;
use evener_supervisor::interpreter::{Interpreter, NotFound, Search};
use evener_supervisor::runtime_dir::{RuntimeDir, python_runtime};
use evener_supervisor::slot::{Place, Plan};
use evener_supervisor::warden::Wardens;

use super::{Crew, content, count, crews};
use crate::StartError;
use crate::config::{self, Concurrency, FunctionPool, Service, Stage};
use crate::jq::Program;
use crate::jq::template::Template;
use crate::kit::{Kit, Make};
use crate::ledger::{Numbers, lists};
use crate::local::Local;
use crate::registry::Registry;
use crate::roster::Pool;

/// The runtime of Python workers: one file that needs nothing but Python.
const PYTHON_RUNTIME: &str = include_str!("../../../../python/src/evener/_worker.py");

/// How long an interpreter may take to say which version it is.
const INTERPRETER_PATIENCE: Duration = Duration::from_secs(10);

/// Who does the jobs of a stage without workers that stay.
pub(crate) struct Locals {
    pub(crate) stage: StageId,
    /// Whoever does one, and how many jobs at a time.
    pub(crate) who: Vec<(Local, usize)>,
}

/// What the stages without worker processes do, in the order of the file, and then the hidden ones.
pub(crate) fn locals(
    service: &Service,
    numbers: &Numbers,
    registry: &Registry,
    wardens: &Arc<Wardens>,
) -> Result<Vec<Locals>, StartError> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut locals = Vec::new();
    for (stage, number) in service.stages.iter().zip(&numbers.crews) {
        let who = match &stage.kind {
            config::Kind::Python(_) | config::Kind::Frames(_) => continue,
            config::Kind::Command(line) => {
                let compiled = line.arguments().iter().map(|text| Template::compile(text));
                let arguments: Arc<[Template]> = compiled.collect::<Result<_, _>>()?;
                let place = |index| Place { stage: *number, name: stage.name.as_str().into(), index, id: 0 };
                let command = |index| command(service, stage, line, place(index), arguments.clone(), wardens.clone());
                (0..count(stage.workers)).map(|index| (Local::Command(Arc::new(command(index))), 1)).collect()
            }
            config::Kind::Jq(filter) => vec![(Local::Filter(Program::compile(&filter.source)?), cores)],
            config::Kind::Rust(name) => {
                let Some(function) = registry.get(name) else {
                    let (stage, function) = (stage.name.clone(), name.clone());
                    let known = registry.names().iter().map(|name| (*name).to_owned()).collect();
                    return Err(StartError::NoFunction { stage, function, known });
                };
                let at_a_time = match function.quick {
                    true => cores,
                    false => count(stage.workers) as usize,
                };
                vec![(Local::Function(function.clone()), at_a_time)]
            }
        };
        locals.push(Locals { stage: *number, who });
    }
    for ((_, filter), number) in lists(service).into_iter().zip(&numbers.splits) {
        let who = vec![(Local::Split(Program::compile(&filter.source)?), cores)];
        locals.push(Locals { stage: *number, who });
    }
    Ok(locals)
}

/// A command in one of the places of its stage.
fn command(
    service: &Service,
    stage: &Stage,
    line: &config::CommandLine,
    place: Place,
    arguments: Arc<[Template]>,
    wardens: Arc<Wardens>,
) -> crate::command::Command {
    let most = stage.max_output.unwrap_or(service.limits.body);
    crate::command::Command {
        wardens,
        runtime: tokio::runtime::Handle::current(),
        spawn: Spawn {
            program: line.program(&service.folder),
            args: Vec::new(),
            env: environment(&stage.env, place.index),
            cwd: stage.cwd.clone(),
            memory: stage.memory,
        },
        place,
        arguments,
        bounds: Bounds { output: usize::try_from(most).unwrap_or(usize::MAX), grace: stage.grace },
        timeout: stage.timeout,
        kill: stage.on_cancel == config::OnCancel::Kill,
        output: content(stage.output),
    }
}

/// The environment of the worker with this number.
fn environment(variables: &[(String, String)], index: u32) -> Vec<(OsString, OsString)> {
    let mut env = worker_environment(std::env::vars_os());
    for (name, value) in variables {
        env.retain(|(other, _)| other != name.as_str());
        env.push((name.into(), value.replace("{index}", &index.to_string()).into()));
    }
    env
}

/// The interpreter of each crew that has Python workers, looked up once for each way of asking.
pub(crate) fn interpreters(service: &Service) -> Result<Vec<Option<Interpreter>>, NotFound> {
    let mut found: HashMap<Option<&PathBuf>, Interpreter> = HashMap::new();
    let mut all = Vec::new();
    for crew in crews(service) {
        if crew.is_local() || crew.is_foreign() {
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
    let mut command = Command::new(interpreter);
    command.args(["-I", "-S", "-c", ask]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let said = command.spawn().ok().and_then(|child| first_line(child, INTERPRETER_PATIENCE)).unwrap_or_default();
    let is_version = said.split('.').count() == 2 && said.split('.').all(|part| part.parse::<u32>().is_ok());
    if is_version { said } else { String::new() }
}

/// The line that a process writes, if that comes in time; it is killed then, whatever it is at.
fn first_line(mut child: Child, patience: Duration) -> Option<String> {
    let out = child.stdout.take()?;
    let (told, line) = std::sync::mpsc::channel();
    // It ends with the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        if BufReader::new(out).read_line(&mut line).is_ok() {
            // Nobody listens any more if it comes too late.
            let _ = told.send(line.trim().to_owned());
        }
    });
    let line = line.recv_timeout(patience).ok();
    // It has mostly ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    line
}

/// The pools of worker processes, crew by crew.
pub(crate) fn recipes(
    service: &Arc<Service>,
    numbers: &Numbers,
    interpreters: &[Option<Interpreter>],
    folder: &Arc<RuntimeDir>,
    memory: &Budget,
) -> Vec<Pool> {
    let mut all = Vec::new();
    for (number, interpreter) in interpreters.iter().enumerate() {
        let crew = crews(service)[number];
        if interpreter.is_none() && !crew.is_foreign() {
            continue;
        }
        let (stage, wanted, most) = (numbers.crews[number], crew.wanted(), crew.processes());
        let name: Arc<str> = crew.name().into();
        let (make, stop_first) = match crew {
            Crew::Stage(stage) => {
                let python = interpreter.as_ref().map(|interpreter| interpreter.path.clone());
                (Make::of(stage.clone(), service.folder.clone(), python), stops_first(stage))
            }
            Crew::Functions(_) => (Make::Functions, false),
        };
        let (service, interpreter, folder, called) =
            (service.clone(), interpreter.clone(), folder.clone(), name.clone());
        // What calls of functions bring is bounded by the sessions that take it.
        let memory = matches!(crew, Crew::Stage(_)).then(|| memory.clone());
        let recipe = move |index, id| {
            let place = Place { stage, name: called.clone(), index, id };
            let plan = plan(&service, crews(&service)[number], interpreter.as_ref(), place, folder.clone());
            Plan { memory: memory.clone(), ..plan }
        };
        let kit = Arc::new(Kit { name, make, stop_first, recipe: Arc::new(recipe) });
        all.push(Pool { stage, wanted, most, scales: crew.scales(), kit });
    }
    all
}

fn plan(
    service: &Service,
    crew: Crew<'_>,
    interpreter: Option<&Interpreter>,
    place: Place,
    folder: Arc<RuntimeDir>,
) -> Plan {
    let (variables, cwd, memory, start_timeout, grace) = match crew {
        Crew::Stage(stage) => (&stage.env, &stage.cwd, stage.memory, stage.start_timeout, stage.grace),
        Crew::Functions(pool) => (&pool.env, &pool.cwd, pool.memory, pool.start_timeout, pool.grace),
    };
    let (program, args) = match (crew, interpreter) {
        (Crew::Stage(Stage { kind: config::Kind::Frames(line), .. }), _) => {
            (line.program(&service.folder), line.arguments().iter().map(OsString::from).collect())
        }
        (_, interpreter) => {
            let program = interpreter.map(|interpreter| interpreter.path.clone().into());
            (program.unwrap_or_default(), arguments(service, crew))
        }
    };
    let spawn = Spawn { program, args: Vec::new(), env: environment(variables, place.index), cwd: cwd.clone(), memory };
    let is_python = interpreter.is_some();
    Plan {
        place,
        spawn: Box::new(move || {
            let runtime: Option<OsString> =
                if is_python { Some(python_runtime(&folder, PYTHON_RUNTIME)?.into()) } else { None };
            let args = runtime.into_iter().chain(args.iter().cloned()).collect();
            Ok(Spawn { args, ..spawn.clone() })
        }),
        start_timeout,
        grace,
        largest: service.limits.memory,
        memory: None,
        calls: matches!(crew, Crew::Functions(_)),
        stop_first: matches!(crew, Crew::Stage(stage) if stops_first(stage)),
    }
}

fn stops_first(stage: &Stage) -> bool {
    stage.reload == config::Replacement::StopFirst
}

/// What the runtime of a worker is told on its command line.
fn arguments(service: &Service, crew: Crew<'_>) -> Vec<OsString> {
    let modules = || service.folder.clone().into();
    match crew {
        Crew::Stage(stage) => {
            let config::Kind::Python(python) = &stage.kind else { return Vec::new() };
            let target = format!("{}:{}", python.module, python.attribute);
            let way = match stage.concurrency {
                Concurrency::One => Vec::new(),
                Concurrency::Threads(slots) => vec!["--threads".into(), slots.to_string().into()],
                Concurrency::Async(slots) => vec!["--concurrency".into(), slots.to_string().into()],
                Concurrency::Batch { .. } => vec!["--batch".into()],
            };
            let rest = ["--path".into(), modules(), target.into()];
            way.into_iter().chain(rest).collect()
        }
        Crew::Functions(FunctionPool { sys_path: None, .. }) => vec!["--functions".into(), "--path".into(), modules()],
        Crew::Functions(FunctionPool { sys_path: Some(folders), .. }) => {
            let folders = folders.iter().flat_map(|folder| ["--sys-path".into(), folder.into()]);
            std::iter::once("--functions".into()).chain(folders).collect()
        }
    }
}
