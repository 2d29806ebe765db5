//! Gives memory back to the system that large payloads have left behind.
//!
//! The allocator keeps what was freed, as it may be wanted again soon. What is not wanted for a while goes back.

use std::sync::Weak;
use std::time::Duration;

use crate::node::Node;

/// How often the node looks.
const LOOK: Duration = Duration::from_secs(10);
/// So much beyond what the payloads take is the node's own, and no reason to do anything.
const OWN: u64 = 48 << 20;
/// How many looks are left out after one that gave back next to nothing.
const PAUSE: u32 = 3;
/// What is kept beyond that, as payloads come and go.
const KEPT: u64 = 16 << 20;

/// Looks again and again, for as long as there is the node.
pub(crate) async fn watch(node: Weak<Node>) {
    let mut before = 0;
    // A node that is itself so large is not stopped again and again for nothing.
    let mut pause = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(used) = node.upgrade().map(|node| node.memory().used()) else { return };
        // What was wanted at the last look may be wanted again at once.
        let wanted = used.max(std::mem::replace(&mut before, used));
        pause = u32::saturating_sub(pause, 1);
        let Some(there) = resident().filter(|resident| pause == 0 && *resident > wanted + OWN + KEPT) else { continue };
        // Whoever wants memory meanwhile waits for a part of the time that it takes. If the runtime ends, so does this.
        let _ = tokio::task::spawn_blocking(give_back).await;
        if resident().is_some_and(|left| left + KEPT > there) {
            pause = PAUSE;
        }
    }
}

#[cfg(target_os = "linux")]
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(not(target_os = "linux"))]
fn resident() -> Option<u64> {
    None
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: it gives back what nothing refers to.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
