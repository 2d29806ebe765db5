//! The client of an Evener node: functions are called, and what they print, return and raise comes back.
//!
//! - [`Session`] holds many calls over one stream: [`Session::submit`] never blocks, and what becomes of the calls comes
//!   out of a [`Mailbox`] in batches, for a thread that waits or for a task that awaits.
//! - [`Client`] does without a session: one call, its cancellation, the list of workers.
//! - [`Options`] say where the node is and how to find the token.
//!
//! What this crate never does: it never looks into a function, an input or a value, which are bytes to it; it never calls
//! anything again that a node has let in (a call that was refused because a queue was full is brought again, and nothing
//! else is); it never connects again by itself, because calls do not outlive their session; it never starts a node.
//!
//! ```no_run
//! use evener_sdk::{Definition, Hash, Options, Session, What, Work};
//!
//! # async fn example(hash: Hash, pickled: bytes::Bytes, input: bytes::Bytes) -> Result<(), evener_sdk::Error> {
//! let (session, driver) = Session::connect(Options::new("http://127.0.0.1:7070")).await?;
//! tokio::spawn(driver.run());
//! session.define(Definition { hash, name: "square".into(), python: "3.11".into(), body: pickled })?;
//! let number = session.submit(&Work::of(hash), input)?;
//! while let Some(events) = session.events().recv().await {
//!     for event in events {
//!         if let What::Value { value, .. } = event.what {
//!             println!("call {}: {} bytes (it was {number})", event.number, value.len());
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod answer;
mod client;
mod connection;
mod error;
mod event;
mod mailbox;
mod options;
mod session;
mod tls;
mod token;
mod work;

pub use address::Address;
pub use answer::Answer;
pub use client::{Client, Submitted, Worker};
pub use error::Error;
pub use event::{Done, Event, Payload, Problem, Stream, What};
pub use mailbox::Mailbox;
pub use options::Options;
pub use session::{Direct, Driver, Pool, Session, Welcome};
pub use work::{Definition, Hash, Work};
