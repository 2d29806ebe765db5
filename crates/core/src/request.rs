//! What clients wait for: until when, and how far along its path each request is.

use crate::gather::Work;
use crate::job::{Due, RequestId};
use crate::problem::Code;
use crate::slab::{Key, Slab};
use crate::timers::TimerKey;

/// Names a request, for as long as somebody waits for it.
pub type RequestKey = Key<Request>;

/// Which problems a request's fallback stands in for. All false: it has no fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FallbackOn {
    /// The deadline, or a stage's timeout.
    pub timeout: bool,
    /// The stage's code failed.
    pub error: bool,
    /// The worker died.
    pub lost: bool,
    /// A stage is broken or full, the node is full or shutting down.
    pub unavailable: bool,
}

impl FallbackOn {
    /// Whether the fallback stands in for this problem. What the client did wrong is always told as it is.
    pub fn covers(self, code: Code) -> bool {
        match code {
            Code::DeadlineExceeded | Code::StageTimeout | Code::ScatterTimeout => self.timeout,
            Code::FunctionFailed
            | Code::ResultNotEncodable
            | Code::ValueNotDecodable
            | Code::ResultTooLarge
            | Code::UnknownTarget
            | Code::TooManyHops
            | Code::FilterFailed
            | Code::CommandFailed
            | Code::TooManyJobs => self.error,
            Code::WorkerDied => self.lost,
            Code::QueueFull | Code::MemoryFull | Code::StageBroken | Code::Draining => self.unavailable,
            Code::BadRequest
            | Code::BadBody
            | Code::BadCall
            | Code::UnknownPool
            | Code::UnknownFunction
            | Code::PythonMismatch
            | Code::Cancelled
            | Code::Unauthorized
            | Code::ForbiddenOrigin
            | Code::NoRoute
            | Code::MethodNotAllowed
            | Code::BodyTimeout
            | Code::BodyTooLarge
            | Code::HeadersTooLarge
            | Code::Aborted => false,
        }
    }
}

/// One request on its way.
#[derive(Debug)]
pub struct Request {
    pub(crate) id: RequestId,
    pub(crate) jobs_made: u32,
    /// Which plan was in force when it was let in.
    pub(crate) generation: u32,
    pub(crate) fallback_on: FallbackOn,
    pub(crate) deadline: TimerKey<Due>,
    pub(crate) until: crate::time::Time,
    /// What serves it.
    pub(crate) work: Work,
    /// Whether its client takes an answer in chunks.
    pub(crate) streams: bool,
    /// Whether the client has got a chunk. What comes then is no whole answer any more.
    pub(crate) streamed: bool,
    /// Whether it ends if its job turns out not to have begun.
    pub(crate) withdrawn: bool,
}

/// A request and what its owner keeps with it.
#[derive(Debug)]
pub(crate) struct Waiting<R> {
    pub(crate) request: Request,
    pub(crate) reply: R,
}

/// All requests that somebody waits for.
pub(crate) type Requests<R> = Slab<Waiting<R>, Request>;
