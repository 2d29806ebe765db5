//! Noticing that the process which started this one has ended, however that came about.

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, getppid};
#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, pidfd_open};
#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};

/// How often to look whether the parent is still there, where the system does not tell when it ends.
const LOOK: Duration = Duration::from_millis(100);

/// The process whose end ends this one.
pub(crate) struct Parent {
    pid: Pid,
    /// Becomes readable when it ends; None where the kernel or a sandbox has no such thing.
    #[cfg(target_os = "linux")]
    handle: Option<AsyncFd<OwnedFd>>,
}

impl Parent {
    /// None if it is not, or no longer, the parent of this process.
    pub(crate) fn watch(pid: Pid) -> Option<Self> {
        // Looked at after it is watched: the number of a process that has ended may be given to another one.
        let parent = Self {
            pid,
            #[cfg(target_os = "linux")]
            handle: handle(pid),
        };
        parent.is_there().then_some(parent)
    }

    /// The process that has started this one; None where the system does not tell, or where it has ended by now.
    pub(crate) fn of_this_process() -> Option<Self> {
        getppid().and_then(Self::watch)
    }

    fn is_there(&self) -> bool {
        getppid() == Some(self.pid)
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        #[cfg(target_os = "linux")]
        if let Some(handle) = &self.handle
            && handle.readable().await.is_ok()
        {
            return;
        }
        while self.is_there() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(target_os = "linux")]
fn handle(pid: Pid) -> Option<AsyncFd<OwnedFd>> {
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // SAFETY: an OwnedFd stays open and names one description for as long as it lives, and the AsyncFd owns it from
    // here on.
    #[allow(unsafe_code)]
    let watched = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) };
    watched.ok()
}
