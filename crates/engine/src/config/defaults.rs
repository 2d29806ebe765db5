//! What a service file leaves unsaid.
//!
//! The resolved types, the table of keys and the JSON Schema all take their defaults from here.

use std::time::Duration;

/// Where the routes are served when the file has routes and no `listen.http`.
pub(crate) const HTTP_ADDRESS: &str = "127.0.0.1:8000";

/// How many workers a stage has.
pub(crate) const WORKERS: u32 = 1;
/// How long one try of a job may run.
pub(crate) const STAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a job is tried again after its first try.
pub(crate) const RETRIES: u32 = 2;
/// How long a worker may take from its start until it is ready.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a worker that is told to stop has before it is signalled.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The most bytes of what one call of a function prints that are kept and passed on.
pub(crate) const OUTPUT: u64 = 8 << 20;

/// How long a client waits behind a route.
pub(crate) const ROUTE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest request body, in bytes.
pub(crate) const BODY: u64 = 10 << 20;
/// The most jobs that wait in one stage.
pub(crate) const QUEUE: usize = 10_000;
/// The most bytes of bodies and values held at once.
pub(crate) const MEMORY: u64 = 1 << 30;
/// The most client connections at once.
pub(crate) const CONNECTIONS: usize = 10_000;
/// The most gotos one request may take.
pub(crate) const MAX_HOPS: u32 = 64;
/// The most bytes that the headers of one request may have together.
pub(crate) const HEADERS: u64 = 64 << 10;
/// How long a client may take to send its headers.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may pause between two pieces of a body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a kept connection may stay without a request.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long running work may take to finish once the node is told to stop.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// How many elements of a list are on their way at a time.
pub(crate) const MAX_IN_FLIGHT: u32 = 100;

/// How long jobs may gather for a batch while all workers are busy, before that is a reason to grow.
pub(crate) const BATCH_WAIT: Duration = Duration::from_millis(5);

/// The headers that a page of another origin may send.
pub(crate) const CORS_HEADERS: &[&str] = &["Content-Type"];
/// The headers of an answer that a page of another origin may read.
pub(crate) const CORS_EXPOSE: &[&str] = &["Evener-Request-Id", "Evener-Fallback", "Retry-After"];
/// How long a browser may remember what a page of another origin may do.
pub(crate) const CORS_MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// The time zone of cron expressions.
pub(crate) const TIMEZONE: &str = "UTC";

/// After how long a wait of a job a pool grows.
pub(crate) const GROW_WAIT: Duration = Duration::from_millis(100);
/// After how long a pool shrinks by what nobody has needed.
pub(crate) const SHRINK_IDLE: Duration = Duration::from_secs(30);
