//! The worker processes of a node: how they start, how they are watched and limited, what they
//! print, how they end, and when the next one may start.
//!
//! - [`warden`] starts processes through a small helper process, so that they all end with the node.
//! - [`slot`] keeps a worker alive in one place of a pool, and talks with it.
//! - [`command`] runs a process for one job.
//! - [`certificate`] says how a worker died, as far as that is known.
//! - [`restart`] says how long to wait before the next start of a worker.
//! - [`output`] turns what a worker prints into lines.
//! - [`receipt`] counts what has come of a result.
//! - [`interpreter`] finds the Python that runs Python workers.
//! - [`runtime_dir`] keeps the user's private folder of sockets, the token and the worker runtime.
//! - [`environment`] says which variables a worker may see.
//!
//! What this crate never does: it never decides a job's fate (whether a job is retried, dropped or
//! answered is decided in `evener-core`, which is only told that a worker is gone), and it never
//! reads service files (who starts a worker says what to start, in full).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod certificate;
pub mod command;
pub mod environment;
pub mod interpreter;
pub mod output;
pub mod receipt;
pub mod restart;
pub mod runtime_dir;
pub mod slot;
pub mod warden;

pub use certificate::{Certificate, How};
pub use warden::{Exit, Piped, Process, ProcessId, Signal, Spawn, SpawnError, Target, Warden};
