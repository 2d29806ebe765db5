//! A node's wardens: one at a time, and a new one if it dies.

use std::io;
use std::process::Command;

use tokio::sync::Mutex;

use super::Warden;

/// Keeps one warden running, from the first time one is needed.
pub struct Wardens {
    command: Box<dyn Fn() -> Command + Send + Sync>,
    current: Mutex<Option<Warden>>,
}

impl Wardens {
    /// No warden yet. `command` is what starts one; see [`Warden::start`].
    pub fn new(command: impl Fn() -> Command + Send + Sync + 'static) -> Wardens {
        Wardens { command: Box::new(command), current: Mutex::new(None) }
    }

    /// The warden that is running; a new one if there was none, or if it is gone and all its workers with it.
    pub async fn get(&self) -> io::Result<Warden> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(warden) if !warden.is_closed() => Ok(warden.clone()),
            gone => {
                if gone.is_some() {
                    tracing::error!("the warden died, and the workers with it; starting another");
                }
                let warden = Warden::start((self.command)())?;
                *current = Some(warden.clone());
                Ok(warden)
            }
        }
    }

    /// Ends all that is still running, and waits for it.
    pub async fn shutdown(&self) {
        let current = self.current.lock().await.take();
        if let Some(warden) = current {
            warden.shutdown().await;
        }
    }
}
