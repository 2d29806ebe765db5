//! The worker protocol: frames in, frames out, as `docs/protocol.md` specifies them; and the messages of the API.
//!
//! What this crate will never do: no sockets, no clock, no decisions. Bytes go in and messages come out, and the other way
//! round. It never looks into a payload.

pub mod api;
pub mod content;
pub mod frame;
pub mod inbox;
pub mod outbox;

pub use content::{Content, Value};
pub use frame::{Header, Kind, ProtocolError};
pub use inbox::{FromWorker, Inbox, Ready};
pub use outbox::{JobHead, Outbox, Task};

/// The version of the protocol that this crate speaks.
pub const VERSION: u64 = 1;
