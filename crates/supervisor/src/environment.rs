//! Which variables a worker sees.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// What the node says about itself, and what a service manager says to the node alone: a worker
/// that answered to it would speak for the node.
const KEPT_BACK: [&[u8]; 2] = [b"EVENER_", b"LISTEN_"];

/// A worker's environment, made from the node's: all of it but `EVENER_*`, `NOTIFY_SOCKET` and
/// `LISTEN_*`.
///
/// ```
/// let worker = evener_supervisor::environment::worker_environment(std::env::vars_os());
/// assert!(worker.iter().all(|(name, _)| name != "NOTIFY_SOCKET"));
/// ```
pub fn worker_environment(parent: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    parent
        .into_iter()
        .filter(|(name, _)| {
            name != "NOTIFY_SOCKET" && !KEPT_BACK.iter().any(|prefix| name.as_bytes().starts_with(prefix))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_nodes_own_stays_with_it() {
        let names = ["PATH", "EVENER_TOKEN_FILE", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "EVENERX", "HOME"];
        let parent = names.map(|name| (OsString::from(name), OsString::from("value")));
        let worker: Vec<_> = worker_environment(parent).into_iter().map(|(name, _)| name).collect();
        assert_eq!(worker, ["PATH", "EVENERX", "HOME"]);
    }
}
