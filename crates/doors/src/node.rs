//! What a door needs of the node behind it.

use std::fmt::Debug;
use std::future::Future;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evener_core::{
    Answer, Budget, Code, FallbackOn, Path, Problem, RequestId, RequestKey, Reservation, StageId, Terms, Withdrawal,
};
use evener_protocol::{Content, Value};

use crate::origin::Origin;
use crate::stream::Chunks;

/// A payload on its way through the node, and the memory that is set aside for it. The memory is given back when the last
/// copy is dropped.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    /// The payload.
    pub value: Value,
    /// What is set aside for it.
    pub held: Option<Arc<Reservation>>,
}

/// A request as a door hands it in.
#[derive(Debug)]
pub struct Ticket {
    /// The id that the client is told.
    pub id: RequestId,
    /// The way through the stages.
    pub path: Path,
    /// The value for the first stage.
    pub parcel: Parcel,
    /// How long the client waits.
    pub timeout: Duration,
    /// Which problems the route's fallback stands in for.
    pub fallback_on: FallbackOn,
    /// Who goes first where requests wait: the higher.
    pub priority: i8,
    /// Whether the first stage gets the request instead of its body.
    pub as_request: bool,
    /// Whose requests take turns with those of others; 0 is nobody's.
    pub flow: u16,
    /// Whether the client takes an answer in chunks.
    pub streams: bool,
    /// The way that it takes instead of failing.
    pub on_error: Option<Path>,
    /// The request, for workers that ask. `None` if it came from elsewhere, as those of triggers do.
    pub origin: Option<Origin>,
}

/// A request's one answer.
pub type Answered = Answer<Parcel>;

/// What comes of a request that was let in.
#[derive(Debug)]
pub enum Arrival {
    /// Its whole answer.
    Answer(Answered),
    /// The beginning of an answer that comes in chunks.
    Stream {
        /// What the first of them is.
        first: Content,
        /// All of them.
        chunks: Chunks,
    },
}

/// A function that was sent here, for as long as somebody may call it.
#[derive(Debug)]
pub struct Function {
    /// Its number in this node.
    pub number: NonZero<u32>,
    /// The SHA-256 of its body.
    pub hash: [u8; 32],
    /// Its name, for people.
    pub name: String,
    /// Major and minor version of the Python that it is for.
    pub python: String,
    /// The function itself, which only workers look into.
    pub body: Bytes,
    /// What is set aside for it.
    pub held: Reservation,
}

/// A call of a function, as a door hands it in.
#[derive(Debug)]
pub struct CallTicket {
    /// Its public id.
    pub id: RequestId,
    /// Which pool does it; see [`Node::pool`].
    pub pool: StageId,
    /// The function.
    pub function: Arc<Function>,
    /// Whether the input holds many calls.
    pub group: bool,
    /// What goes for it beside the pool's rules. Which function it is the node fills in.
    pub terms: Terms,
    /// Whether what it prints is not wanted.
    pub discard_output: bool,
    /// The input.
    pub input: Parcel,
    /// Who waits for it.
    pub caller: Arc<dyn Caller>,
    /// The caller's number for it.
    pub number: u64,
}

/// What became of a call, and who did it.
#[derive(Debug)]
pub struct Called {
    /// Its public id.
    pub id: RequestId,
    /// What became of it.
    pub answer: Answered,
    /// The process number of its worker; 0 if it never got to one.
    pub worker: u32,
    /// How long the function ran.
    pub ran: Duration,
    /// Tries that were begun, as far as is known.
    pub tries: u32,
}

/// Whoever waits for calls. What is told here must not wait, nor call the node.
pub trait Caller: Debug + Send + Sync + 'static {
    /// The call wrote something. `cut`: this is all that is passed on. False if the caller takes no more.
    fn printed(&self, number: u64, stream: Stream, bytes: &[u8], cut: bool) -> bool;

    /// The call has ended; nothing more comes of it.
    fn answered(&self, number: u64, called: Called);

    /// The call was to be withdrawn, and goes on.
    fn goes_on(&self, number: u64);
}

/// Which of its two streams a call wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A pool of workers that call functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Major and minor version of its Python.
    pub python: String,
    /// How many workers it shall have.
    pub workers: u32,
}

/// A worker that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its process number.
    pub pid: u32,
    /// The name of its stage or pool.
    pub pool: String,
    /// Its number there, from 0.
    pub index: u32,
    /// Jobs that it has done.
    pub done: u64,
    /// Whether it is at one now.
    pub busy: bool,
}

/// How a stage stands, as far as anybody may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageHealth {
    /// Its name.
    pub name: String,
    /// `ready`, `starting`, `idle` (it has no workers, and wants none) or `broken`.
    pub state: &'static str,
    /// Why its workers are not as the service file says, if that is so: new ones did not come up, and those of before go on.
    pub reload_failed: Option<String>,
}

/// How the node stands, as far as anybody may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes requests for all its stages.
    pub ready: bool,
    /// Whether it is shutting down.
    pub draining: bool,
    /// Each stage.
    pub stages: Vec<StageHealth>,
}

impl Health {
    /// How it stands, in a word: `ready`, `draining`, `stage-broken` or `starting`.
    pub fn word(&self) -> &'static str {
        match self.ready {
            true => "ready",
            false if self.draining => Code::Draining.name(),
            false if self.stages.iter().any(|stage| stage.state == "broken") => Code::StageBroken.name(),
            false => "starting",
        }
    }
}

/// The node behind a door.
pub trait Node: Send + Sync + 'static {
    /// A fresh id, its last 20 bits zero.
    fn new_id(&self) -> RequestId;

    /// Lets a request in and waits for its answer. Dropping the future tells the node that the client went away.
    fn submit(&self, ticket: Ticket) -> impl Future<Output = Arrival> + Send;

    /// The answer to a request that cannot be let in: the problem, or the fallback that stands in for it.
    fn refused(&self, id: RequestId, problem: Problem, fallback_on: FallbackOn) -> Answered;

    /// The memory that payloads may take.
    fn budget(&self) -> &Budget;

    /// A stage's name.
    fn stage_name(&self, stage: StageId) -> String;

    /// Whether causes are shown to clients.
    fn debug(&self) -> bool;

    /// The node's name: its host's, and its process number.
    fn name(&self) -> &str;

    /// The pools that take functions.
    fn pools(&self) -> &[PoolView];

    /// The pool of that name, if it takes functions.
    fn pool(&self, name: &str) -> Option<StageId>;

    /// Takes a function in. If it is here already, it is the same one. `held` is set aside for its body.
    fn define(&self, hash: [u8; 32], name: String, python: String, body: Bytes, held: Reservation) -> Arc<Function>;

    /// Lets a call in, and from then on tells its caller; or says why not, which is noted.
    fn call(&self, call: CallTicket) -> Result<RequestKey, Problem>;

    /// A caller takes a call back; see [`Dispatcher::withdraw`](evener_core::Dispatcher::withdraw).
    fn withdraw(&self, call: RequestKey, kill: bool) -> Withdrawal;

    /// A caller is gone: nobody waits for its call.
    fn abandon(&self, call: RequestKey);

    /// The workers that are up.
    fn workers(&self) -> Vec<WorkerView>;

    /// How the node stands.
    fn health(&self) -> Health;

    /// All metrics, in the OpenMetrics text format.
    fn metrics(&self) -> String;
}
