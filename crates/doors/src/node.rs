//! What a door needs of the node behind it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use evener_core::{Answer, Budget, FallbackOn, Path, Problem, RequestId, Reservation, StageId};
use evener_protocol::Value;

use crate::origin::Origin;

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
    /// Whether the first stage gets the request instead of its body.
    pub as_request: bool,
    /// The request, for workers that ask.
    pub origin: Origin,
}

/// A request's one answer.
pub type Answered = Answer<Parcel>;

/// How a stage stands, as far as anybody may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageHealth {
    /// Its name.
    pub name: String,
    /// `ready`, `starting`, `idle` (it has no workers, and wants none) or `broken`.
    pub state: &'static str,
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

/// The node behind a door.
pub trait Node: Send + Sync + 'static {
    /// A fresh id, its last 20 bits zero.
    fn new_id(&self) -> RequestId;

    /// Lets a request in and waits for its answer. Dropping the future tells the node that the client went away.
    fn submit(&self, ticket: Ticket) -> impl Future<Output = Answered> + Send;

    /// The answer to a request that cannot be let in: the problem, or the fallback that stands in for it.
    fn refused(&self, id: RequestId, problem: Problem, fallback_on: FallbackOn) -> Answered;

    /// The memory that payloads may take.
    fn budget(&self) -> &Budget;

    /// A stage's name.
    fn stage_name(&self, stage: StageId) -> &str;

    /// Whether causes are shown to clients.
    fn debug(&self) -> bool;

    /// How the node stands.
    fn health(&self) -> Health;

    /// All metrics, in the OpenMetrics text format.
    fn metrics(&self) -> String;
}
