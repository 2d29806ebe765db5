//! A service file, resolved: every default filled in, every name looked up, every path absolute.
//!
//! Nothing here is optional unless its absence means something, and then its comment says what.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::Test;
use super::defaults;
use super::keys::MOST_WORKERS;

/// A service that was read without errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The name of the service: `[A-Za-z_][A-Za-z0-9_-]*`, at most 64 characters.
    pub name: String,
    /// The service file, as it was named by whoever loaded it; empty for a service that is in no file.
    pub file: PathBuf,
    /// The files that the service was read from, absolute: the service file, and all that it includes. None for a
    /// service that is in no file.
    pub files: Vec<PathBuf>,
    /// The folder of the service file; relative paths in the file start here.
    pub folder: PathBuf,
    /// Where the node listens.
    pub listen: Listen,
    /// The stages, in the order of the file; at least one where there are no function pools.
    pub stages: Vec<Stage>,
    /// The pipelines, in the order of the file.
    pub pipelines: Vec<Pipeline>,
    /// The routes, in the order of the file.
    pub routes: Vec<Route>,
    /// The function pools, in the order of the file; none if the service takes no functions.
    pub functions: Vec<FunctionPool>,
    /// The triggers, in the order of the file.
    pub triggers: Vec<Trigger>,
    /// The tests, in the order of the file.
    pub tests: Vec<Test>,
    /// What bounds the node as a whole.
    pub limits: Limits,
    /// How long running work may take to finish once the node is told to stop (30 s).
    pub drain: Duration,
    /// Whether answers to clients carry messages, tracebacks and death certificates (no).
    pub debug: bool,
}

impl Service {
    /// A service without a file: it has one function pool `default`, whose workers run in `folder`, and listens on its
    /// API's Unix socket alone.
    ///
    /// `name` becomes part of the socket's path; `folder` should be absolute.
    pub fn functions_only(name: &str, workers: Workers, folder: PathBuf) -> Self {
        Self {
            name: name.into(),
            file: PathBuf::new(),
            files: Vec::new(),
            folder: folder.clone(),
            listen: Listen::default(),
            stages: Vec::new(),
            pipelines: Vec::new(),
            routes: Vec::new(),
            functions: vec![FunctionPool { workers, ..FunctionPool::new(FunctionPool::DEFAULT, folder) }],
            triggers: Vec::new(),
            tests: Vec::new(),
            limits: Limits::default(),
            drain: defaults::DRAIN,
            debug: false,
        }
    }

    /// What a target is called in the service file.
    pub fn name_of(&self, target: Target) -> &str {
        match target {
            Target::Stage(stage) => &self.stages[stage].name,
            Target::Pipeline(pipeline) => &self.pipelines[pipeline].name,
        }
    }
}

/// The addresses a node listens on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listen {
    /// The service's own routes. `None` only where the file has no routes and does not ask for it;
    /// a file with routes and no address gets `127.0.0.1:8000`.
    pub http: Option<Listener>,
    /// Evener's own API. `None` means a Unix socket and nothing else.
    pub api: Option<Listener>,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `host:port` as written, after expansion; the host is a name, an IPv4 address or an IPv6 address
    /// in brackets, and port 0 lets the system choose.
    pub address: String,
    /// The certificate to serve with; `None` is plain text.
    pub tls: Option<Tls>,
    /// Whether the file accepts an address that others can reach without TLS.
    pub insecure: bool,
}

/// A certificate and its key, both existing files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM, absolute.
    pub cert: PathBuf,
    /// The private key, PEM, absolute.
    pub key: PathBuf,
}

/// A step with a queue and a pool of workers of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name, unique among stages, pipelines and function pools.
    pub name: String,
    /// What does the jobs.
    pub kind: Kind,
    /// How many workers (1).
    pub workers: Workers,
    /// How long one try may run, from its start (60 s).
    pub timeout: Duration,
    /// How often a job is tried again after its first try (2).
    pub retries: u32,
    /// After which failures a job is tried again (only when its worker was lost).
    pub retry_on: RetryOn,
    /// How long to wait before a retry; `None` is not at all before the first retry after a loss.
    pub backoff: Option<Duration>,
    /// The most jobs that may wait here; `None` is `limits.queue`.
    pub queue: Option<usize>,
    /// Variables added to the workers' environment, in the order of the file. `{index}` in a value
    /// stands for the worker's number and is not yet replaced here.
    pub env: Vec<(String, String)>,
    /// The workers' working directory, absolute (the folder of the service file).
    pub cwd: PathBuf,
    /// The Python interpreter: an absolute path, or a bare command name to be found on `PATH`; `None`
    /// leaves the choice to the node.
    pub interpreter: Option<PathBuf>,
    /// The most memory of one worker, in bytes; `None` is no limit.
    pub memory: Option<u64>,
    /// After how many jobs a worker is replaced; `None` is never.
    pub max_jobs_per_worker: Option<u64>,
    /// How long a worker may take from its start until it is ready (5 min).
    pub start_timeout: Duration,
    /// How long a worker that is told to stop has before it is signalled (5 s).
    pub grace: Duration,
    /// What happens to a running job that nobody waits for any more (its worker is told).
    pub on_cancel: OnCancel,
    /// How a worker is replaced by another (the new one is up before the old one goes).
    pub reload: Replacement,
    /// How many jobs one worker does, and how (one at a time).
    pub concurrency: Concurrency,
    /// The key of a job, if equal keys go to the same worker while it is free.
    pub affinity: Option<Filter>,
    /// The weight of a job, if that and not the number of jobs bounds a batch.
    pub weight: Option<Filter>,
    /// Where its code may send a value; `None` is anywhere.
    pub goto: Option<Vec<Target>>,
    /// What a command prints (text).
    pub output: Decode,
    /// The most bytes that a command may print; `None` is `limits.body`.
    pub max_output: Option<u64>,
}

/// How a worker is replaced by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    /// The new one is up before the old one goes.
    StartFirst,
    /// The old one is gone before the new one starts.
    StopFirst,
}

/// How many jobs one worker does, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// One at a time.
    One,
    /// So many at the same time, each in a thread.
    Threads(u32),
    /// So many at the same time, as asynchronous functions.
    Async(u32),
    /// Up to `max` in one call.
    Batch {
        /// The most jobs of one call, or the most that they weigh together.
        max: u32,
        /// How long jobs may gather while all workers are busy, before a pool that sizes itself grows for them (5 ms).
        wait: Duration,
        /// How long a job may wait for others beside an idle worker (not at all).
        idle: Duration,
    },
}

/// A pool of Python workers that run the functions which clients send.
///
/// How long a call may run and how often it is tried again is said by the function, on the client's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionPool {
    /// Its name, unique among stages, pipelines and function pools.
    pub name: String,
    /// How many workers (one for each core).
    pub workers: Workers,
    /// The most calls that may wait here; `None` is `limits.queue`.
    pub queue: Option<usize>,
    /// Variables added to the workers' environment, in the order of the file. `{index}` in a value
    /// stands for the worker's number and is not yet replaced here.
    pub env: Vec<(String, String)>,
    /// The workers' working directory, absolute (the folder of the service file).
    pub cwd: PathBuf,
    /// The Python interpreter: an absolute path, or a bare command name to be found on `PATH`; `None`
    /// leaves the choice to the node.
    pub interpreter: Option<PathBuf>,
    /// The whole `sys.path` of the workers, in place of their own; `None` leaves them theirs. No service file says it:
    /// a private engine takes it from the script that it belongs to.
    pub sys_path: Option<Vec<PathBuf>>,
    /// The most memory of one worker, in bytes; `None` is no limit.
    pub memory: Option<u64>,
    /// After how many calls a worker is replaced; `None` is never.
    pub max_jobs_per_worker: Option<u64>,
    /// How long a worker may take from its start until it is ready (5 min).
    pub start_timeout: Duration,
    /// How long a worker that is told to stop has before it is signalled (5 s).
    pub grace: Duration,
    /// What happens to a running call that nobody waits for any more (its worker is killed, since a caller that is gone
    /// can never take the result).
    pub on_cancel: OnCancel,
    /// The most bytes of what one call prints that are kept and passed on (8 MiB); a mark stands for the rest.
    pub output: u64,
}

impl FunctionPool {
    /// The pool that functions go to unless they say otherwise.
    pub const DEFAULT: &str = "default";

    /// A pool with all defaults, whose workers run in `cwd`.
    pub fn new(name: &str, cwd: PathBuf) -> Self {
        Self {
            name: name.into(),
            workers: Workers::Auto,
            queue: None,
            env: Vec::new(),
            cwd,
            interpreter: None,
            sys_path: None,
            memory: None,
            max_jobs_per_worker: None,
            start_timeout: defaults::START_TIMEOUT,
            grace: defaults::GRACE,
            on_cancel: OnCancel::Kill,
            output: defaults::OUTPUT,
        }
    }
}

/// What does the jobs of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A Python function or class, in worker processes.
    Python(PythonTarget),
    /// A program that is started for each job: the value is what it reads, what it prints is the result.
    Command(CommandLine),
    /// A program that stays up and speaks the worker protocol.
    Frames(CommandLine),
    /// A jq program, in the node itself.
    Jq(Filter),
    /// A function of the program that embeds the node, by its name there.
    Rust(String),
}

/// A program and its arguments, at least the program. In a [`Kind::Command`] the arguments may be
/// [templates](crate::jq::template), known to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Both as they are written.
    pub argv: Vec<String>,
}

impl CommandLine {
    /// The program: a path that starts in `folder` if there is a slash in it, else a name to be found on the PATH.
    pub fn program(&self, folder: &Path) -> OsString {
        match self.argv.first() {
            Some(name) if name.contains('/') => folder.join(name).into(),
            Some(name) => name.into(),
            None => OsString::new(),
        }
    }

    /// Its arguments.
    pub fn arguments(&self) -> &[String] {
        self.argv.get(1..).unwrap_or_default()
    }
}

/// A jq program, known to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program as it is written.
    pub source: String,
}

/// `module:attribute`, both of them dotted paths of Python identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonTarget {
    /// The module to import.
    pub module: String,
    /// What to take from it.
    pub attribute: String,
}

/// How many workers a stage or a function pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// This many. None at all is allowed: the stage then only queues.
    Count(u32),
    /// One for each core that the node may use.
    Auto,
    /// As many as are needed.
    Range {
        /// No fewer.
        min: u32,
        /// No more.
        max: u32,
        /// One more when a job has waited so long (100 ms).
        wait: Duration,
        /// One less when one was not needed for so long (30 s).
        idle: Duration,
    },
}

impl FromStr for Workers {
    type Err = String;

    /// Reads what a service file may say: a number, or `auto`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u32>() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count) if u64::from(count) <= MOST_WORKERS => Ok(Self::Count(count)),
            _ => Err(format!("expected a number of at most {MOST_WORKERS}, or `auto`")),
        }
    }
}

/// After which failures of a try a job is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryOn {
    /// The worker died.
    pub lost: bool,
    /// The try ran into the stage's timeout.
    pub timeout: bool,
    /// The code raised an exception.
    pub error: bool,
}

/// What happens to a running job that nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCancel {
    /// Its worker is told, and may go on until the stage's timeout.
    Tell,
    /// Its worker is told, and after the grace killed and replaced.
    Kill,
}

/// A named path through stages.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Its name, unique among stages, pipelines and function pools.
    pub name: String,
    /// At least one. Pipelines named as steps are already replaced by their own steps.
    pub steps: Vec<Step>,
}

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// An index into [`Service::stages`].
    Stage(usize),
    /// Several branches, whose values are gathered.
    Scatter(Box<Scatter>),
}

/// A step with branches.
#[derive(Debug, Clone, PartialEq)]
pub struct Scatter {
    /// What the branches are.
    pub over: Over,
    /// How long they have together; `None` is as long as the request has.
    pub timeout: Option<Duration>,
    /// What becomes of the others when one fails (they are cancelled, and the step fails).
    pub on_failure: OnFailure,
    /// What stands in for the gathered value if the step fails.
    pub fallback: Option<serde_json::Value>,
    /// Which failures the fallback covers (only timeouts). Without a fallback it says nothing.
    pub fallback_on: FallbackOn,
}

/// What the branches of a step are.
#[derive(Debug, Clone, PartialEq)]
pub enum Over {
    /// Each of these gets the value.
    Branches(Vec<(String, Target)>),
    /// One branch for each element of a list.
    Each {
        /// What takes the list out of the value.
        items: Filter,
        /// Where each element goes.
        over: Target,
        /// How many are on their way at a time (100).
        max_in_flight: u32,
    },
}

/// What becomes of the other branches when one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They are cancelled, and the step fails.
    Fail,
    /// They go on, and the problem is gathered in place of a value.
    Collect,
}

/// A way in over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The path, with `{name}` for one segment and `{*name}` for the rest, in the syntax of the
    /// `matchit` crate.
    pub path: String,
    /// Upper-case methods, at least one; `None` is any.
    pub methods: Option<Vec<String>>,
    /// Where its requests go.
    pub target: RouteTarget,
    /// How long a client waits (30 s).
    pub timeout: Duration,
    /// What to answer instead of some failures; `None` lets failures show.
    pub fallback: Option<serde_json::Value>,
    /// Which failures the fallback covers (only timeouts). Without a fallback it says nothing.
    pub fallback_on: FallbackOn,
    /// What the first stage sees (by method).
    pub input: Input,
    /// How a body is decoded; `None` goes by its content type.
    pub decode: Option<Decode>,
    /// The largest body in bytes; `None` is `limits.body`.
    pub body: Option<u64>,
    /// Whose requests go first where some wait: those of the higher number (0).
    pub priority: i8,
    /// What a request counts by, so that one client's flood does not starve another; `None` is by nothing.
    pub fairness: Option<Filter>,
    /// Where its requests go instead of failing, with the problem and what the client had sent.
    pub on_error: Option<Target>,
    /// Which web pages of other origins may use it; `None` is none.
    pub cors: Option<Cors>,
    /// Whether answers are compressed for clients that take gzip (no).
    pub compression: bool,
}

/// Which web pages of other origins may use a route, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The origins as browsers send them, or `*` alone for all.
    pub origins: Vec<String>,
    /// The methods that they may use; `None` is those of the route.
    pub methods: Option<Vec<String>>,
    /// The headers that they may send, or `*` alone for all.
    pub headers: Vec<String>,
    /// The headers of answers that they may read.
    pub expose: Vec<String>,
    /// Whether browsers send cookies and passwords along (no); never with `*`.
    pub credentials: bool,
    /// How long a browser may remember what it was told (10 min).
    pub max_age: Duration,
}

/// What makes requests without a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// Its name, unique among triggers: that of the file, or its number.
    pub name: String,
    /// When it fires.
    pub when: When,
    /// Where its requests go.
    pub target: Target,
    /// Their value (null).
    pub input: serde_json::Value,
    /// How long each may take (30 s).
    pub timeout: Duration,
    /// Who goes first where requests wait: the higher (0).
    pub priority: i8,
    /// Where its requests go instead of failing.
    pub on_error: Option<Target>,
    /// What happens when it fires while its last request is still on its way (nothing).
    pub overlap: Overlap,
}

/// When a trigger fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Each time that so much has passed.
    Every(Duration),
    /// At times of the day; both are known to be good.
    Cron {
        /// A cron expression.
        expression: String,
        /// A name of the IANA database (UTC).
        timezone: String,
    },
    /// Once, when the node starts.
    Startup,
    /// Once, when the node begins to stop.
    Shutdown,
}

/// What happens when a trigger fires while its last request is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing.
    Skip,
    /// Another request is made.
    Run,
}

/// Where a route's requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteTarget {
    /// Through stages.
    Path(Target),
    /// Nowhere: the node itself says whether it is ready.
    Health,
}

/// A stage or a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An index into [`Service::stages`].
    Stage(usize),
    /// An index into [`Service::pipelines`].
    Pipeline(usize),
}

/// Which failures a fallback covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackOn {
    /// The deadline or a stage's timeout passed (504).
    pub timeout: bool,
    /// A stage's code failed (500).
    pub error: bool,
    /// A worker died and the tries are spent (502).
    pub lost: bool,
    /// The node drains or a stage is broken (503).
    pub unavailable: bool,
}

/// What the first stage behind a route sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The request for GET, HEAD and DELETE, else the body.
    Auto,
    /// Always the decoded body.
    Body,
    /// Always the request.
    Request,
}

/// How a body is decoded, whatever its content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decode {
    /// As JSON.
    Json,
    /// As UTF-8 text.
    Text,
    /// Not at all.
    Bytes,
}

/// What bounds the node as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest request body, in bytes (10 MiB).
    pub body: u64,
    /// The most jobs that may wait in one stage (10 000).
    pub queue: usize,
    /// The most bytes of bodies and values held at once (1 GiB).
    pub memory: u64,
    /// The most client connections at once (10 000).
    pub connections: usize,
    /// The most gotos one request may take (64).
    pub max_hops: u32,
    /// The most bytes that the headers of one request may have together (64 KiB).
    pub headers: u64,
    /// How long a client may take to send its headers (10 s).
    pub header_timeout: Duration,
    /// How long a client may pause between two pieces of a body (30 s).
    pub body_timeout: Duration,
    /// How long a kept connection may stay without a request (75 s).
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: defaults::BODY,
            queue: defaults::QUEUE,
            memory: defaults::MEMORY,
            connections: defaults::CONNECTIONS,
            max_hops: defaults::MAX_HOPS,
            headers: defaults::HEADERS,
            header_timeout: defaults::HEADER_TIMEOUT,
            body_timeout: defaults::BODY_TIMEOUT,
            idle_timeout: defaults::IDLE_TIMEOUT,
        }
    }
}

impl Default for RetryOn {
    fn default() -> Self {
        Self { lost: true, timeout: false, error: false }
    }
}

impl Default for FallbackOn {
    fn default() -> Self {
        Self { timeout: true, error: false, lost: false, unavailable: false }
    }
}
