//! How to reach a node.

use std::path::PathBuf;
use std::time::Duration;

/// Where a node is and how to be let in.
#[derive(Debug, Clone)]
pub struct Options {
    /// `unix:/path`, `http://host:port` or `https://host:port`.
    pub address: String,
    /// The file that holds the token; else `$EVENER_TOKEN_FILE`, else the token of this user's own nodes, which is
    /// `$XDG_RUNTIME_DIR/evener/token`, or `/tmp/evener-<uid>/token` where that variable is not set.
    pub token_file: Option<PathBuf>,
    /// The certificates (PEM) of those who may vouch for an `https` node; else `$EVENER_CA_FILE`, else those that the system
    /// trusts.
    pub ca_file: Option<PathBuf>,
    /// Whether the token may travel in the clear to an `http` address, and to a Unix socket on which another user listens. Whoever
    /// listens there, and whoever can read what goes there, gets it, and can then run code as the node's user. Without it, the address
    /// must be named in `$EVENER_INSECURE`.
    pub insecure: bool,
    /// What this client is, for people who look at the node.
    pub client: String,
    /// How long connecting may take, until the node has said its welcome.
    pub timeout: Duration,
}

impl Options {
    /// The usual ones: token and certificates from where they are by default, five seconds to connect.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            token_file: None,
            ca_file: None,
            insecure: false,
            client: concat!("rust, evener ", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: Duration::from_secs(5),
        }
    }
}
