//! What can go wrong between a client and its node.

/// Why a session or a connection is of no use. Each says what happened and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody listens there, or the address is malformed.
    #[error("{0}")]
    Connect(String),
    /// The node did not accept the token, or there is none.
    #[error("{0}")]
    Unauthorized(String),
    /// The connection ended.
    #[error("{0}")]
    Lost(String),
    /// The session was closed on this side.
    #[error("the session is closed")]
    Closed,
    /// A call of a function that was not defined in the session before.
    #[error("{0}")]
    Undefined(String),
    /// What answers is no node, or a node of another version.
    #[error("{0}")]
    Protocol(String),
}

impl Error {
    /// A stable word for the kind: `connect`, `unauthorized`, `lost`, `closed`, `undefined` or `protocol`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Unauthorized(_) => "unauthorized",
            Self::Lost(_) => "lost",
            Self::Closed => "closed",
            Self::Undefined(_) => "undefined",
            Self::Protocol(_) => "protocol",
        }
    }
}
