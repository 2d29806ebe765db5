//! What a caller hands in.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// The SHA-256 of a function's body, by which it is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A function, by value.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The SHA-256 of `body`.
    pub hash: Hash,
    /// Its name, for people.
    pub name: String,
    /// Major and minor version of the Python that `body` is for, such as `3.11`. A pool of another version refuses it.
    pub python: String,
    /// What a worker makes the function of.
    pub body: Bytes,
}

/// What is to be done with an input: everything about a call but the input.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Which function to call; it has been defined before.
    pub function: Hash,
    /// Which pool does it; empty stands for `default`.
    pub pool: &'a str,
    /// Whether the input holds many calls, of which each has a value or an exception of its own.
    pub group: bool,
    /// How often it may be tried again after its worker died.
    pub retries: u32,
    /// How long one try may run; None is without end.
    pub timeout: Option<Duration>,
    /// Higher goes first, -100 to 100.
    pub priority: i8,
    /// Whether what it prints is not wanted.
    pub discard_output: bool,
}

impl Work<'static> {
    /// A plain call of a function on the pool `default`: no retries, no timeout, priority 0.
    pub fn of(function: Hash) -> Self {
        Self { function, pool: "", group: false, retries: 0, timeout: None, priority: 0, discard_output: false }
    }
}

impl Work<'_> {
    /// The timeout as it travels: 0 is without end, and a timeout of nothing is the shortest there is.
    pub(crate) fn timeout_ns(&self) -> u64 {
        self.timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1))
    }
}

/// The beginning of a function's name, as much of it as a node takes.
pub(crate) fn told_name(name: &str) -> &str {
    const MOST: usize = 1024;
    let end = (0..=MOST.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}
