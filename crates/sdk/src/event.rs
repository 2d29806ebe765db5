//! What becomes of a call.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use evener_protocol::api;

/// Something happened to a call.
#[derive(Debug)]
pub struct Event {
    /// Which call.
    pub number: u64,
    /// What.
    pub what: What,
}

/// What happened. Any number of times `Printed`, then one of the others, which is the call's outcome and the last event of it.
#[derive(Debug)]
pub enum What {
    /// It wrote something.
    Printed {
        /// Where to.
        stream: Stream,
        /// What: whole lines or pieces of them.
        data: Bytes,
        /// This is where it was cut: what the call writes from now on is dropped.
        truncated: bool,
    },
    /// The function returned.
    Value {
        /// What it returned.
        value: Payload,
        /// How it was done.
        done: Done,
    },
    /// The function raised.
    Raised {
        /// What it raised.
        exception: Payload,
        /// How it was done.
        done: Done,
    },
    /// There is neither a value nor an exception.
    Problem {
        /// Why.
        problem: Box<Problem>,
        /// How it was done, as far as it was.
        done: Done,
    },
}

impl What {
    /// Whether nothing comes after it.
    pub fn is_outcome(&self) -> bool {
        !matches!(self, Self::Printed { .. })
    }
}

/// Where a call wrote something to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a call was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// The process number of the worker that did it; 0 if none did.
    pub worker: u32,
    /// How long the function ran.
    pub ran: Duration,
    /// How many tries were begun.
    pub tries: u32,
}

/// Why a call has neither a value nor an exception.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// A stable code. Those of the node have a page each in `docs/errors`; `engine-lost` (the connection ended) and
    /// `session-closed` come from this side.
    pub code: String,
    /// What happened this time, in a sentence.
    pub detail: String,
    /// How the worker died, if one did; else empty.
    pub certificate: String,
    /// Whether it may go better when it is tried again.
    pub retryable: bool,
}

impl Problem {
    pub(crate) fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into(), ..Self::default() }
    }
}

impl From<api::Problem> for Problem {
    fn from(problem: api::Problem) -> Self {
        let api::Problem { code, title, detail, retryable, certificate, .. } = problem;
        Self { code, detail: if detail.is_empty() { title } else { detail }, certificate, retryable }
    }
}

/// Bytes of any size, in the pieces in which they came.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Payload {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.first[..]).chain(self.rest.iter().map(|piece| &piece[..]))
    }

    /// All of it in one piece, without copying if it came in one.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        self.pieces().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push(piece);
        }
    }
}

impl From<Bytes> for Payload {
    fn from(first: Bytes) -> Self {
        Self { first, rest: Vec::new() }
    }
}
