//! Noticing that what runs is not any more what the files say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evener_engine::{Node, Stamp};

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// The files of a service, as they were when it was read.
pub(crate) struct Fresh {
    stamps: Vec<Stamp>,
    /// Whether they were refused: then code that has changed waits until they are mended.
    refused: bool,
}

impl Fresh {
    /// The files as they are now.
    pub(crate) fn of(files: &[PathBuf]) -> Fresh {
        Fresh { stamps: files.iter().map(Stamp::of).collect(), refused: false }
    }

    /// The same of files that were refused.
    pub(crate) fn of_refused(files: &[PathBuf]) -> Fresh {
        Fresh { refused: true, ..Fresh::of(files) }
    }

    /// Waits until a file has changed, or code that a worker has loaded, and does not change any more.
    pub(crate) async fn stale(&mut self, node: &Arc<Node>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.has_changed() || !self.refused && has_changed_code(node).await {
                break;
            }
        }
        // Whoever writes may not be done.
        loop {
            self.stamps = self.stamps.iter().map(Stamp::again).collect();
            tokio::time::sleep(LOOK).await;
            if !self.has_changed() {
                return;
            }
        }
    }

    fn has_changed(&self) -> bool {
        self.stamps.iter().any(Stamp::has_changed)
    }
}

/// Workers may have loaded many files: looking at all of them is not for the thread that everything else runs on.
async fn has_changed_code(node: &Arc<Node>) -> bool {
    let node = node.clone();
    tokio::task::spawn_blocking(move || node.has_changed_code()).await.unwrap_or(false)
}
