//! Ways into Evener: the service's own HTTP routes, and the API.
//!
//! A door translates: a request into a [`Ticket`](node::Ticket), and an answer back. It never decides what becomes of a job;
//! the [`Node`](node::Node) behind it does. What this crate will never do: no queues, no workers, no retries, no service
//! files.

pub mod api;
mod body;
pub mod connection;
mod cors;
mod grpc;
mod gzip;
mod head;
pub mod http;
pub mod listener;
pub mod node;
mod origin;
mod problem;
mod route;
mod session;
mod socket;
mod spoken;
pub mod stream;
mod streamed;
pub mod triggers;

pub use api::ApiDoor;
pub use body::hold;
pub use cors::Cors;
pub use http::{HttpDoor, Table};
pub use listener::{BoundListener, Listening, Timeouts};
pub use node::{
    Answered, Arrival, CallTicket, Called, Caller, Function, Health, Node, Parcel, PoolView, StageHealth, Stream,
    Ticket, WorkerView,
};
pub use origin::Origin;
pub use problem::ProblemView;
pub use route::{Fairness, Flow, Input, Route, RouteError, RouteTarget, normal_path};
