//! What a client is told when its request cannot be served: one stable code each, with a page in `docs/errors/`.

use std::time::Duration;

use crate::job::JobId;
use crate::topology::StageId;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $status:literal, $title:literal, $retryable:literal;)+) => {
        /// Why a request failed. The name is part of the public contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Code] = &[$(Code::$variant),+];

            /// The code as clients see it.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name),+ }
            }

            /// The HTTP status that goes with it; an abort brings its own.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status),+ }
            }

            /// A short title for people, the same for every problem of this code.
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),+ }
            }

            /// Whether the same request may well succeed if it is sent again.
            pub fn is_retryable(self) -> bool {
                match self { $(Code::$variant => $retryable),+ }
            }
        }
    };
}

codes! {
    /// The request cannot be understood.
    BadRequest = "bad-request", 400, "The request is malformed", false;
    /// The body is not what its content type says.
    BadBody = "bad-body", 400, "The body is not what its content type says", false;
    /// The API wants a token, and got none or a wrong one.
    Unauthorized = "unauthorized", 401, "A valid token is needed", false;
    /// The Host or Origin header is not one that the API answers to.
    ForbiddenOrigin = "forbidden-origin", 403, "Not allowed from here", false;
    /// A call cannot be understood.
    BadCall = "bad-call", 400, "The call is malformed", false;
    /// No pool has this name.
    UnknownPool = "unknown-pool", 404, "No such pool", false;
    /// A call is of a function that was not sent.
    UnknownFunction = "unknown-function", 404, "No such function", true;
    /// A function is for another version of Python than its pool has.
    PythonMismatch = "python-mismatch", 409, "The versions of Python differ", false;
    /// The call was cancelled.
    Cancelled = "cancelled", 409, "The call was cancelled", false;
    /// No route has this path.
    NoRoute = "no-route", 404, "No such route", false;
    /// The route does not take this method.
    MethodNotAllowed = "method-not-allowed", 405, "The route does not take this method", false;
    /// The body came too slowly.
    BodyTimeout = "body-timeout", 408, "The body did not arrive in time", true;
    /// The body is over the limit.
    BodyTooLarge = "body-too-large", 413, "The body is over the limit", false;
    /// The head of the request is over the limit.
    HeadersTooLarge = "headers-too-large", 431, "The headers are over the limit", false;
    /// A stage's queue is full.
    QueueFull = "queue-full", 429, "The queue is full", true;
    /// The node holds as many bytes as it may.
    MemoryFull = "memory-full", 429, "The node's memory is full", true;
    /// The stage's function raised.
    FunctionFailed = "function-failed", 500, "The stage's code failed", false;
    /// The stage's function refused with a status of its own.
    Aborted = "aborted", 400, "The service refused the request", false;
    /// The result of a stage cannot travel.
    ResultNotEncodable = "result-not-encodable", 500, "A result cannot be encoded", false;
    /// A value between two stages is not what its content type says.
    ValueNotDecodable = "value-not-decodable", 500, "A value between stages cannot be decoded", false;
    /// The result of a stage is over the limit.
    ResultTooLarge = "result-too-large", 500, "A result is over the limit", false;
    /// A goto names no stage or pipeline.
    UnknownTarget = "unknown-target", 500, "A goto leads nowhere", false;
    /// The request took more gotos than allowed.
    TooManyHops = "too-many-hops", 500, "Too many gotos", false;
    /// The request made more jobs than allowed.
    TooManyJobs = "too-many-jobs", 500, "Too many jobs", false;
    /// A jq program came to no value.
    FilterFailed = "filter-failed", 500, "A jq program failed", false;
    /// The command of a stage did not end well.
    CommandFailed = "command-failed", 500, "A command failed", false;
    /// The worker died, and the tries are spent.
    WorkerDied = "worker-died", 502, "The worker died", true;
    /// The node is shutting down.
    Draining = "draining", 503, "The node is shutting down", true;
    /// The workers of a stage do not start.
    StageBroken = "stage-broken", 503, "A stage has no workers that start", true;
    /// The request's deadline passed.
    DeadlineExceeded = "deadline-exceeded", 504, "The deadline passed", true;
    /// A stage took longer than its timeout.
    StageTimeout = "stage-timeout", 504, "A stage took too long", true;
    /// The branches of a scatter did not all end within its timeout.
    ScatterTimeout = "scatter-timeout", 504, "A scatter took too long", true;
}

/// What lies behind a problem, for the log and for services with `debug: true`; never for the public otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What the function raised.
    Raised {
        /// The exception's type.
        name: String,
        /// Its message.
        message: String,
        /// Its traceback, as text.
        traceback: String,
    },
    /// The death certificate of the worker, as a sentence.
    Died(String),
    /// What a command wrote to its standard error, or why it did not start.
    Said(String),
}

/// Why a request failed, with all that its client may know, and the cause that the log may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, in a sentence.
    pub detail: String,
    /// The stage it happened in.
    pub stage: Option<StageId>,
    /// The job it happened to.
    pub job: Option<JobId>,
    /// How many tries that job had.
    pub tries: u32,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// What lies behind it.
    pub cause: Option<Cause>,
}

impl Problem {
    /// A problem with the status of its code, in no stage.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem {
            code,
            status: code.status(),
            detail: detail.into(),
            stage: None,
            job: None,
            tries: 0,
            retry_after: None,
            cause: None,
        }
    }

    /// The same problem, in `stage`.
    pub fn in_stage(mut self, stage: StageId) -> Problem {
        self.stage = Some(stage);
        self
    }

    /// The same problem, with an hour to come back.
    pub fn retry_after(mut self, wait: Duration) -> Problem {
        self.retry_after = Some(wait);
        self
    }

    /// The same problem, with what lies behind it.
    pub fn because(mut self, cause: Cause) -> Problem {
        self.cause = Some(cause);
        self
    }
}
