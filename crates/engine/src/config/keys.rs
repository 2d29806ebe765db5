//! Every key of a service file: what it means, what it takes, what it is when left out.
//!
//! The walker asks for keys by these names and in debug builds panics over one that is missing here or
//! that it never asked for; the JSON Schema is written from the same rows. So they cannot drift apart.

mod test;

use std::time::Duration;

pub(crate) use test::{EXPECT, TEST, TEST_REQUEST};

use super::defaults;

/// The keys of one kind of mapping.
pub(crate) struct Table {
    /// What such a mapping is, with its article: "a stage".
    pub(crate) what: &'static str,
    pub(crate) keys: &'static [Key],
    /// Keys of which at least one is required; none if all of them may be left out.
    pub(crate) some_of: &'static [&'static str],
    /// Words that later versions know.
    pub(crate) later: &'static [&'static str],
    /// Words that people try: each with the key that is meant, empty if there is none, and what to say.
    pub(crate) instead: &'static [(&'static str, &'static str, &'static str)],
}

/// One key.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it means, in sentences.
    pub(crate) about: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) default: Default,
}

/// What a key is when left out, as far as one value says it.
#[derive(Clone, Copy)]
pub(crate) enum Default {
    None,
    Text(&'static str),
    Words(&'static [&'static str]),
    Number(u64),
    Bool(bool),
    Duration(Duration),
    Size(u64),
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A name of the service's own making.
    Name,
    /// The name of a stage or a pipeline.
    Reference,
    Text,
    Address,
    /// `module:attribute`.
    Python,
    RoutePath,
    /// An HTTP method.
    Method,
    Duration,
    Size,
    Number {
        least: u64,
        most: u64,
    },
    /// A whole number that may be below zero.
    Signed {
        least: i64,
        most: i64,
    },
    Bool,
    /// `false`, beside a shape that says more than `true` could.
    Off,
    Choice(&'static [&'static str]),
    /// A list with at least so many items.
    List(usize, &'static Shape),
    /// A mapping from at least so many names to something.
    Named(usize, &'static Shape),
    /// A mapping from environment variables to texts.
    Env,
    /// A text, a number or a boolean, taken as it is written.
    Scalar,
    Mapping(&'static Table),
    /// A mapping that is described elsewhere.
    AnyMapping,
    Either(&'static [Shape]),
    /// No value at all.
    Nothing,
    /// Whatever JSON can say.
    Anything,
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, shape, required: false, default: Default::None }
}

impl Key {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn or(self, default: Default) -> Self {
        Self { default, ..self }
    }
}

impl Table {
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.name == name)
    }
}

/// The most workers of a stage; more is a slip of the finger.
pub(crate) const MOST_WORKERS: u64 = 4096;
/// The most jobs that one worker does at the same time.
pub(crate) const MOST_SLOTS: u64 = 4096;
/// The most retries of a stage.
pub(crate) const MOST_RETRIES: u64 = 1000;
/// The most jobs, connections and the like: beyond this, counting makes no sense.
pub(crate) const MOST: u64 = 1_000_000_000;
/// The least memory a worker may be given, in bytes; less is a forgotten unit.
pub(crate) const LEAST_MEMORY: u64 = 1 << 20;
/// The least bytes of headers; less refuses every browser.
pub(crate) const LEAST_HEADERS: u64 = 1 << 10;

pub(crate) const ON_CANCEL: &[&str] = &["tell", "kill"];
pub(crate) const RELOAD: &[&str] = &["start-first", "stop-first"];
pub(crate) const PROTOCOL: &[&str] = &["frames"];
pub(crate) const RETRY_ON: &[&str] = &["lost", "timeout", "error"];
pub(crate) const FALLBACK_ON: &[&str] = &["timeout", "error", "lost", "unavailable"];
pub(crate) const INPUT: &[&str] = &["body", "request"];
pub(crate) const DECODE: &[&str] = &["json", "text", "bytes"];

/// The kinds of stages that later versions know.
pub(crate) const LATER_KINDS: &[&str] = &["zmq"];

/// The kinds of stages.
pub(crate) const KINDS: &[&str] = &["python", "jq", "rust", "command"];

/// Those that say something about programs which are started for each job.
pub(crate) const OF_COMMANDS: &[&str] = &["output", "max_output"];
/// Those that mean nothing for a program which is started for each job.
pub(crate) const NOT_OF_COMMANDS: &[&str] = &[
    "interpreter",
    "max_jobs_per_worker",
    "start_timeout",
    "reload",
    "threads",
    "concurrency",
    "batch",
    "affinity",
    "goto",
];
/// Those that mean nothing for a program which speaks the worker protocol.
pub(crate) const NOT_OF_FRAMES: &[&str] = &["interpreter", "threads", "output", "max_output"];

/// Those of the next that mean something for a Rust function as well.
pub(crate) const OF_FUNCTIONS: &[&str] = &["workers", "retries", "retry_on", "backoff", "grace", "goto"];

/// The keys of a stage that say something about worker processes.
pub(crate) const OF_WORKERS: &[&str] = &[
    "workers",
    "env",
    "cwd",
    "interpreter",
    "memory",
    "max_jobs_per_worker",
    "start_timeout",
    "grace",
    "on_cancel",
    "reload",
    "retries",
    "retry_on",
    "backoff",
    "threads",
    "concurrency",
    "batch",
    "affinity",
    "goto",
];

pub(crate) const ON_FAILURE: &[&str] = &["fail", "collect"];
/// The most branches of one scatter.
pub(crate) const MOST_BRANCHES: usize = 1000;

pub(crate) static SERVICE: Table = Table {
    what: "a service file",
    keys: &[
        key("service", Shape::Name, "The name of the service.").required(),
        key(
            "include",
            Shape::List(0, &Shape::Text),
            "Files that this one is put over, relative to its folder: mappings merge, and this file wins.",
        ),
        key("listen", Shape::Mapping(&LISTEN), "Where the node listens."),
        key(
            "stages",
            Shape::Named(1, &Shape::Mapping(&STAGE)),
            "The stages, by name. Each has its own queue and its own workers.",
        ),
        key(
            "pipelines",
            Shape::Named(0, &STEPS),
            "Named paths through stages: lists of stages, of other pipelines, whose steps are taken in, and of steps with \
             branches.",
        ),
        key(
            "routes",
            Shape::List(0, &Shape::Mapping(&ROUTE)),
            "The HTTP routes, each of them a way into a stage or a pipeline.",
        ),
        key("cors", CORS_SHAPE, "Which web pages of other origins may use the routes that say nothing of their own.")
            .or(Default::Bool(false)),
        key(
            "compression",
            Shape::Bool,
            "Whether answers of the routes that say nothing of their own are compressed for clients that take gzip.",
        )
        .or(Default::Bool(false)),
        key(
            "functions",
            Shape::Named(1, &Shape::Either(&[Shape::Mapping(&FUNCTION_POOL), Shape::Nothing])),
            "Pools of workers, by name, that run the Python functions which clients send. Without it, none are taken.",
        ),
        key(
            "triggers",
            Shape::List(0, &Shape::Mapping(&TRIGGER)),
            "What makes requests without a client: at intervals, at times of the day, when the node starts or stops.",
        ),
        key(
            "tests",
            Shape::List(0, &Shape::Mapping(&TEST)),
            "The tests of the service: requests, and what has to come of them.",
        ),
        key("limits", Shape::Mapping(&LIMITS), "What bounds the node as a whole."),
        key("drain", Shape::Duration, "How long running work may take to finish once the node is told to stop.")
            .or(Default::Duration(defaults::DRAIN)),
        key("debug", Shape::Bool, "Whether answers to clients carry messages, tracebacks and death certificates.")
            .or(Default::Bool(false)),
    ],
    some_of: &["stages", "functions"],
    later: &["store"],
    instead: &[("name", "service", "the name of the service is the value of `service`")],
};

/// A step: a name, or branches.
const STEP: Shape = Shape::Either(&[Shape::Reference, Shape::Mapping(&SCATTER), Shape::Mapping(&EACH)]);
/// A list of steps.
const STEPS: Shape = Shape::List(1, &STEP);

/// What the two kinds of steps with branches have in common.
mod gathered {
    use super::{Default, FALLBACK_ON, Key, ON_FAILURE, Shape, key};

    pub(super) const TIMEOUT: Key =
        key("timeout", Shape::Duration, "How long the branches have together. Without it, as long as the request has.");
    pub(super) const ON_FAILURE_KEY: Key = key(
        "on_failure",
        Shape::Choice(ON_FAILURE),
        "What happens when a branch fails: the others are cancelled and the step fails, or the problem is gathered in \
         place of a value.",
    )
    .or(Default::Text("fail"));
    pub(super) const FALLBACK: Key =
        key("fallback", Shape::Anything, "What stands in for the gathered value if the step fails.");
    pub(super) const FALLBACK_ON_KEY: Key =
        key("fallback_on", Shape::List(1, &Shape::Choice(FALLBACK_ON)), "Which failures the fallback covers.")
            .or(Default::Words(&["timeout"]));
}

pub(crate) static SCATTER: Table = Table {
    what: "a step with branches",
    keys: &[
        key(
            "scatter",
            Shape::Named(1, &Shape::Either(&[Shape::Reference, STEPS_WITHIN])),
            "The branches, by name: each a stage, a pipeline or a list of steps. All get the value, and what they come to \
             is gathered in an object under their names.",
        )
        .required(),
        gathered::TIMEOUT,
        gathered::ON_FAILURE_KEY,
        gathered::FALLBACK,
        gathered::FALLBACK_ON_KEY,
    ],
    some_of: &[],
    later: &[],
    instead: &[("branches", "scatter", "the branches are the value of `scatter`")],
};

pub(crate) static EACH: Table = Table {
    what: "a step for each element",
    keys: &[
        key("each", Shape::Text, "A jq program that takes a list out of the value. Each of its elements takes a branch.")
            .required(),
        key(
            "do",
            Shape::Either(&[Shape::Reference, STEPS_WITHIN]),
            "Where each element goes: a stage, a pipeline or a list of steps. What they come to is gathered in a list in \
             the order of the elements.",
        )
        .required(),
        key(
            "max_in_flight",
            Shape::Number { least: 1, most: MOST },
            "How many elements of one list are on their way at a time.",
        )
        .or(Default::Number(defaults::MAX_IN_FLIGHT as u64)),
        gathered::TIMEOUT,
        gathered::ON_FAILURE_KEY,
        gathered::FALLBACK,
        gathered::FALLBACK_ON_KEY,
    ],
    some_of: &[],
    later: &[],
    instead: &[("items", "each", "what gives the elements is the value of `each`"), ("over", "each", "write `each`")],
};

/// Steps within a step. They may have branches in turn, which the schema does not spell out.
const STEPS_WITHIN: Shape = Shape::List(1, &Shape::Either(&[Shape::Reference, Shape::AnyMapping]));

pub(crate) static LISTEN: Table = Table {
    what: "`listen`",
    keys: &[
        key("http", LISTENER_SHAPE, "Where the routes are served. Port 0 picks a free one.")
            .or(Default::Text(defaults::HTTP_ADDRESS)),
        key(
            "api",
            LISTENER_SHAPE,
            "Where Evener's own API is served. Without it, the API has a Unix socket only. An address that others can reach needs `tls`, or `insecure: true`.",
        ),
    ],
    some_of: &[],
    later: &["zmq"],
    instead: &[],
};

const LISTENER_SHAPE: Shape = Shape::Either(&[Shape::Address, Shape::Mapping(&LISTENER)]);

pub(crate) static LISTENER: Table = Table {
    what: "a listener",
    keys: &[
        key("address", Shape::Address, "The address, as `host:port`.").required(),
        key("tls", Shape::Mapping(&TLS), "The certificate to serve with."),
        key("insecure", Shape::Bool, "Accept an address that others can reach, without TLS.").or(Default::Bool(false)),
    ],
    some_of: &[],
    later: &[],
    instead: &[],
};

pub(crate) static TLS: Table = Table {
    what: "`tls`",
    keys: &[
        key("cert", Shape::Text, "The file with the certificate chain, in PEM.").required(),
        key("key", Shape::Text, "The file with the private key, in PEM.").required(),
    ],
    some_of: &[],
    later: &[],
    instead: &[],
};

/// Which Python runs a worker, where, and under which bounds: what a stage and a function pool have in common.
mod workforce {
    use super::{Default, Key, MOST, MOST_WORKERS, Shape, defaults, key};

    const WORKERS_SHAPE: Shape = Shape::Either(&[
        Shape::Number { least: 0, most: MOST_WORKERS },
        Shape::Choice(&["auto"]),
        Shape::Mapping(&super::RANGE),
    ]);
    pub(super) const WORKERS: Key = key(
        "workers",
        WORKERS_SHAPE,
        "How many workers; `auto` is one for each core; with `min` and `max`, as many as are needed.",
    );
    pub(super) const QUEUE: Key = key(
        "queue",
        Shape::Number { least: 1, most: MOST },
        "The most jobs that may wait here. Without it, `limits.queue`.",
    );
    pub(super) const ENV: Key =
        key("env", Shape::Env, "Variables for the workers' environment. `{index}` stands for the worker's number.");
    pub(super) const CWD: Key =
        key("cwd", Shape::Text, "The workers' working directory. Without it, the folder of the service file.");
    pub(super) const INTERPRETER: Key =
        key("interpreter", Shape::Text, "The Python interpreter: a path, or a command to be found on PATH.");
    pub(super) const MEMORY: Key = key("memory", Shape::Size, "The most memory of one worker. Without it, no limit.");
    pub(super) const MAX_JOBS_PER_WORKER: Key = key(
        "max_jobs_per_worker",
        Shape::Number { least: 1, most: MOST },
        "After how many jobs a worker is replaced. Without it, never.",
    );
    pub(super) const START_TIMEOUT: Key =
        key("start_timeout", Shape::Duration, "How long a worker may take from its start until it is ready.")
            .or(Default::Duration(defaults::START_TIMEOUT));
    pub(super) const GRACE: Key =
        key("grace", Shape::Duration, "How long a worker that is told to stop has before it is signalled.")
            .or(Default::Duration(defaults::GRACE));
    pub(super) const ON_CANCEL: Key = key(
        "on_cancel",
        Shape::Choice(super::ON_CANCEL),
        "What happens to a running job that nobody waits for any more: its worker is told, or told and then killed.",
    );
}

pub(crate) static STAGE: Table = Table {
    what: "a stage",
    keys: &[
        key(
            "python",
            Shape::Python,
            "The function or class that does the jobs, as `module:attribute`. Modules are found beside the service file.",
        ),
        key("jq", Shape::Text, "A jq program that makes one value of each. It runs in the node, and needs no workers."),
        key("rust", Shape::Name, "A Rust function by the name that the program gave it which embeds the node."),
        key(
            "command",
            Shape::List(1, &Shape::Scalar),
            "A program and its arguments. It is started for each job, reads the value and prints the result; arguments \
             may hold jq programs between `{{` and `}}`. With `protocol` it stays up and is a worker.",
        ),
        key(
            "protocol",
            Shape::Choice(PROTOCOL),
            "How a command that stays up talks with the node: `frames` is the worker protocol, on descriptor 3.",
        ),
        key("output", Shape::Choice(DECODE), "What a command prints.").or(Default::Text("text")),
        key("max_output", Shape::Size, "The most that a command may print. Without it, `limits.body`."),
        workforce::WORKERS.or(Default::Number(defaults::WORKERS as u64)),
        key("timeout", Shape::Duration, "How long one try of a job may run, from its start.")
            .or(Default::Duration(defaults::STAGE_TIMEOUT)),
        key(
            "retries",
            Shape::Number { least: 0, most: MOST_RETRIES },
            "How often a job is tried again after its first try.",
        )
        .or(Default::Number(defaults::RETRIES as u64)),
        key(
            "retry_on",
            Shape::List(0, &Shape::Choice(RETRY_ON)),
            "After which failures a job is tried again: its worker died, it ran into the timeout, its code raised.",
        )
        .or(Default::Words(&["lost"])),
        key(
            "backoff",
            Shape::Duration,
            "How long to wait before a retry. Without it, the first retry after a loss comes at once.",
        ),
        workforce::QUEUE,
        workforce::ENV,
        workforce::CWD,
        workforce::INTERPRETER,
        workforce::MEMORY,
        workforce::MAX_JOBS_PER_WORKER,
        workforce::START_TIMEOUT,
        workforce::GRACE,
        workforce::ON_CANCEL.or(Default::Text("tell")),
        key(
            "reload",
            Shape::Choice(RELOAD),
            "How a worker is replaced by another, after a reload or after `max_jobs_per_worker` jobs: the new one is up before \
             the old one goes, or the old one is gone before the new one starts.",
        )
        .or(Default::Text("start-first")),
        key(
            "threads",
            Shape::Number { least: 1, most: MOST_SLOTS },
            "How many jobs a worker does at the same time, each in a thread of its own.",
        )
        .or(Default::Number(1)),
        key(
            "concurrency",
            Shape::Number { least: 1, most: MOST_SLOTS },
            "How many jobs a worker does at the same time, where the function is an `async def`, or the worker a program \
             that speaks the worker protocol.",
        )
        .or(Default::Number(1)),
        key(
            "goto",
            Shape::List(0, &Shape::Text),
            "Where the stage's code may send a value: names of stages and pipelines. Without it, anywhere.",
        ),
        key(
            "affinity",
            Shape::Text,
            "A jq program over the value: jobs for which it gives equal keys go to the same worker while that is free.",
        ),
        key(
            "batch",
            Shape::Mapping(&BATCH),
            "Lets the function do several jobs in one call: it gets a list of values and returns a list of results.",
        ),
    ],
    some_of: KINDS,
    later: &["zmq"],
    instead: &[
        ("function", "python", "write `python: module:function`"),
        ("module", "python", "write `python: module:function`"),
        ("exec", "command", "write `command: [program, argument]`"),
        ("args", "command", "the arguments stand behind the program: `command: [program, argument]`"),
    ],
};

pub(crate) static RANGE: Table = Table {
    what: "a pool that sizes itself",
    keys: &[
        key("min", Shape::Number { least: 0, most: MOST_WORKERS }, "It has no fewer workers.").required(),
        key("max", Shape::Number { least: 1, most: MOST_WORKERS }, "It has no more workers.").required(),
        key("wait", Shape::Duration, "It grows when a job has waited so long.")
            .or(Default::Duration(defaults::GROW_WAIT)),
        key("idle", Shape::Duration, "It shrinks by the workers that nobody has needed for so long.")
            .or(Default::Duration(defaults::SHRINK_IDLE)),
    ],
    some_of: &[],
    later: &[],
    instead: &[],
};

pub(crate) static BATCH: Table = Table {
    what: "`batch`",
    keys: &[
        key(
            "max",
            Shape::Number { least: 1, most: MOST_SLOTS },
            "The most jobs of one call, or with `weight` the most that they weigh together.",
        )
        .required(),
        key(
            "wait",
            Shape::Either(&[Shape::Duration, Shape::Mapping(&BATCH_WAIT)]),
            "How long jobs may gather while all workers are busy, before a pool that sizes itself grows for them. An idle \
             worker takes what there is at once, or with `idle` waits for more.",
        )
        .or(Default::Duration(defaults::BATCH_WAIT)),
        key(
            "weight",
            Shape::Text,
            "A jq program over the value that gives a job's weight, a number from 1 on. One that weighs more than `max` \
             is called alone.",
        ),
    ],
    some_of: &[],
    later: &[],
    instead: &[("size", "max", "write `max`"), ("timeout", "wait", "write `wait`")],
};

pub(crate) static BATCH_WAIT: Table = Table {
    what: "`wait`",
    keys: &[key(
        "idle",
        Shape::Duration,
        "How long a job may wait for others beside an idle worker; a batch that is full does not wait.",
    )
    .required()],
    some_of: &[],
    later: &[],
    instead: &[("busy", "", "while all workers are busy, jobs gather by themselves")],
};

pub(crate) static FUNCTION_POOL: Table = Table {
    what: "a function pool",
    keys: &[
        workforce::WORKERS.or(Default::Text("auto")),
        workforce::INTERPRETER,
        workforce::CWD,
        workforce::ENV,
        workforce::MEMORY,
        workforce::MAX_JOBS_PER_WORKER,
        workforce::START_TIMEOUT,
        workforce::GRACE,
        workforce::QUEUE,
        workforce::ON_CANCEL.or(Default::Text("kill")),
        key("output", Shape::Size, "The most bytes of what one call prints that are passed on.")
            .or(Default::Size(defaults::OUTPUT)),
    ],
    some_of: &[],
    later: &[],
    instead: &[
        ("timeout", "", "say it where the function is decorated: `@evener.function(timeout=60)`"),
        ("retries", "", "say it where the function is decorated: `@evener.function(retries=2)`"),
        ("retry_on", "", CALLS_RETRY),
        ("backoff", "", CALLS_RETRY),
        ("python", "", "functions come here from clients; one of the service's own is a stage: name it in `stages`"),
        ("max_workers", "workers", "write `workers`"),
        ("size", "workers", "write `workers`"),
    ],
};

/// What to say about keys of stages that calls do not have.
const CALLS_RETRY: &str = "a call is tried again if its worker dies; how often is said where the function is decorated: \
                           `@evener.function(retries=2)`";

pub(crate) static ROUTE: Table = Table {
    what: "a route",
    keys: &[
        key("path", Shape::RoutePath, "The path. `{name}` takes one segment, `{*name}` at the end takes the rest.")
            .required(),
        key("methods", Shape::List(1, &Shape::Method), "The methods, in upper case. Without it, any."),
        key("pipeline", Shape::Reference, "The pipeline or stage that its requests go to."),
        key(
            "health",
            Shape::Bool,
            "Whether the node itself answers, in place of a pipeline: 200 if it is ready, else 503.",
        )
        .or(Default::Bool(false)),
        key("timeout", Shape::Duration, "How long a client waits.").or(Default::Duration(defaults::ROUTE_TIMEOUT)),
        key("fallback", Shape::Anything, "What to answer instead of some failures."),
        key("fallback_on", Shape::List(1, &Shape::Choice(FALLBACK_ON)), "Which failures the fallback covers.")
            .or(Default::Words(&["timeout"])),
        key(
            "input",
            Shape::Choice(INPUT),
            "What the first stage sees. Without it, the request for GET, HEAD and DELETE, else the body.",
        ),
        key("decode", Shape::Choice(DECODE), "How the body is decoded. Without it, as its content type says."),
        key("body", Shape::Size, "The largest body. Without it, `limits.body`."),
        key(
            "fairness",
            Shape::Text,
            "A jq program over the request: those for which it gives different keys take turns where they wait.",
        ),
        key(
            "on_error",
            Shape::Reference,
            "The pipeline or stage that a request goes to instead of failing, with the problem and what the client had sent.",
        ),
        key(
            "priority",
            Shape::Signed { least: i8::MIN as i64, most: i8::MAX as i64 },
            "Whose requests go first where some wait: those of the higher number.",
        )
        .or(Default::Number(0)),
        key("cors", CORS_SHAPE, "Which web pages of other origins may use it. Without it, as the service says."),
        key(
            "compression",
            Shape::Bool,
            "Whether answers are compressed for clients that take gzip. Without it, as the service says.",
        ),
    ],
    some_of: &["pipeline", "health"],
    later: &[],
    instead: &[
        ("stage", "pipeline", "write `pipeline`: it takes the name of a stage, too"),
        ("target", "pipeline", "write `pipeline`"),
        ("url", "path", "write `path`"),
    ],
};

const CORS_SHAPE: Shape = Shape::Either(&[Shape::Mapping(&CORS), Shape::Off]);

pub(crate) static CORS: Table = Table {
    what: "`cors`",
    keys: &[
        key(
            "origins",
            Shape::List(1, &Shape::Text),
            "The origins of the pages, as browsers send them, or `*` for all.",
        )
        .required(),
        key(
            "methods",
            Shape::List(1, &Shape::Method),
            "The methods that they may use. Without it, those of the route.",
        ),
        key("headers", Shape::List(0, &Shape::Text), "The headers that they may send, or `*` for all.")
            .or(Default::Words(defaults::CORS_HEADERS)),
        key("expose", Shape::List(0, &Shape::Text), "The headers of answers that they may read.")
            .or(Default::Words(defaults::CORS_EXPOSE)),
        key("credentials", Shape::Bool, "Whether browsers send cookies and passwords along.").or(Default::Bool(false)),
        key("max_age", Shape::Duration, "How long a browser may remember what it was told.")
            .or(Default::Duration(defaults::CORS_MAX_AGE)),
    ],
    some_of: &[],
    later: &[],
    instead: &[
        ("origin", "origins", "write `origins: [\"https://example.org\"]`"),
        ("allow_origins", "origins", "write `origins`"),
        ("allow_methods", "methods", "write `methods`"),
        ("allow_headers", "headers", "write `headers`"),
        ("allow_credentials", "credentials", "write `credentials`"),
        ("expose_headers", "expose", "write `expose`"),
    ],
};

pub(crate) const ON_EVENT: &[&str] = &["startup", "shutdown"];
pub(crate) const OVERLAP: &[&str] = &["skip", "run"];

pub(crate) static TRIGGER: Table = Table {
    what: "a trigger",
    keys: &[
        key("every", Shape::Duration, "Fires each time that so much has passed."),
        key(
            "cron",
            Shape::Text,
            "Fires at times of the day: a cron expression of five fields, or of six, which begin with seconds.",
        ),
        key("timezone", Shape::Text, "The time zone of `cron`, by its name in the IANA database.")
            .or(Default::Text(defaults::TIMEZONE)),
        key("on", Shape::Choice(ON_EVENT), "Fires once, when the node starts or begins to stop."),
        key("pipeline", Shape::Reference, "The pipeline or stage that its requests go to.").required(),
        key("name", Shape::Name, "Its name, for the log. Without it, its number."),
        key("input", Shape::Anything, "The value of its requests.").or(Default::None),
        key("timeout", Shape::Duration, "How long each request may take.")
            .or(Default::Duration(defaults::ROUTE_TIMEOUT)),
        key(
            "priority",
            Shape::Signed { least: i8::MIN as i64, most: i8::MAX as i64 },
            "Whose requests go first where some wait: those of the higher number.",
        )
        .or(Default::Number(0)),
        key("on_error", Shape::Reference, "The pipeline or stage that its requests go to instead of failing."),
        key(
            "overlap",
            Shape::Choice(OVERLAP),
            "What happens when it fires while its last request is still on its way: nothing, or another request.",
        )
        .or(Default::Text("skip")),
    ],
    some_of: &["every", "cron", "on"],
    later: &[],
    instead: &[
        ("schedule", "cron", "write `cron`"),
        ("interval", "every", "write `every`"),
        ("stage", "pipeline", "write `pipeline`: it takes the name of a stage, too"),
    ],
};

pub(crate) static LIMITS: Table = Table {
    what: "`limits`",
    keys: &[
        key("body", Shape::Size, "The largest request body.").or(Default::Size(defaults::BODY)),
        key("queue", Shape::Number { least: 1, most: MOST }, "The most jobs that may wait in one stage.")
            .or(Default::Number(defaults::QUEUE as u64)),
        key("memory", Shape::Size, "The most bytes of bodies and values held at once.")
            .or(Default::Size(defaults::MEMORY)),
        key("connections", Shape::Number { least: 1, most: MOST }, "The most client connections at once.")
            .or(Default::Number(defaults::CONNECTIONS as u64)),
        key("max_hops", Shape::Number { least: 0, most: MOST }, "The most gotos one request may take.")
            .or(Default::Number(defaults::MAX_HOPS as u64)),
        key("headers", Shape::Size, "The most bytes that the headers of one request may have together.")
            .or(Default::Size(defaults::HEADERS)),
        key("header_timeout", Shape::Duration, "How long a client may take to send its headers.")
            .or(Default::Duration(defaults::HEADER_TIMEOUT)),
        key("body_timeout", Shape::Duration, "How long a client may pause between two pieces of a body.")
            .or(Default::Duration(defaults::BODY_TIMEOUT)),
        key("idle_timeout", Shape::Duration, "How long a kept connection may stay without a request.")
            .or(Default::Duration(defaults::IDLE_TIMEOUT)),
    ],
    some_of: &[],
    later: &[],
    instead: &[],
};
