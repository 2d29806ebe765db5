//! The warden: a small process that starts all workers of a node, so that none outlives it.
//!
//! ```text
//!   node ──control socket──> warden ──fork──> worker ──fork──> whatever the worker starts
//!     └───────── one socket and two pipes per worker ────┘
//! ```
//!
//! The node asks for a worker and sends three descriptors along: the worker's end of its socket (for a
//! command that does one job and reads it, a pipe), and the ends of two pipes for what it prints. The warden starts the process, says its number,
//! and later says how it ended. When the control socket ends, however the node ended, the warden
//! kills every worker and every process that the workers have left behind, and exits.
//!
//! It is a process of its own for three reasons. A parent that dies by SIGKILL cannot clean up, but
//! its child can. A process that adopts orphans (a "subreaper" on Linux) must reap them, which a
//! program that embeds a node may not want to do. And a fork from a large process with many threads
//! is slow and delicate, while one from this small single-threaded process is neither.
//!
//! [`serve`] is the warden's side, a mode of the node's own binary. [`Warden`] is the node's side.
//!
//! If the warden itself is killed, its workers die with it (the kernel sees to that on Linux), and
//! the node kills their process groups and starts a new warden. Only then can a process survive that
//! has left the group of its worker.
//!
//! On systems other than Linux there are no subreapers and no parent-death signals: workers and
//! their process groups still end with the node, but a process that has left its worker's group does
//! not.

mod child;
mod client;
mod keeper;
mod link;
mod reap;
mod server;
mod wire;

pub use client::{Piped, Process, ProcessId, Signal, Spawn, SpawnError, Target, Warden};
pub use keeper::Wardens;
pub use server::serve;
pub use wire::Exit;
