//! What workers make of jobs, and what clients get.

use crate::problem::Problem;

/// What a worker made of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<P> {
    /// A value for the next stage, or the answer if there is none.
    Next(P),
    /// An answer, now.
    Respond(Reply<P>),
    /// A value for another stage or pipeline.
    Goto {
        /// Its name.
        target: String,
        /// The value for it.
        value: P,
    },
    /// No value.
    Fail(Failure),
    /// No value, since the function raised; and what it raised, for a client that can take it.
    Raised {
        /// The exception's type.
        name: String,
        /// Its message.
        message: String,
        /// Its traceback, as text.
        traceback: String,
        /// The exception itself.
        exception: P,
    },
    /// The elements of a list, of which each takes a branch of its own.
    Split(Vec<P>),
    /// The end of the chunks that it has brought, or of none.
    Ended,
    /// It had not begun the job when it was called back.
    Returned,
}

impl<P> Outcome<P> {
    /// The same outcome with another payload.
    pub fn map<Q>(self, mut change: impl FnMut(P) -> Q) -> Outcome<Q> {
        match self {
            Outcome::Next(value) => Outcome::Next(change(value)),
            Outcome::Respond(Reply { status, headers, body }) => {
                Outcome::Respond(Reply { status, headers, body: change(body) })
            }
            Outcome::Goto { target, value } => Outcome::Goto { target, value: change(value) },
            Outcome::Fail(failure) => Outcome::Fail(failure),
            Outcome::Raised { name, message, traceback, exception } => {
                Outcome::Raised { name, message, traceback, exception: change(exception) }
            }
            Outcome::Split(values) => Outcome::Split(values.into_iter().map(change).collect()),
            Outcome::Ended => Outcome::Ended,
            Outcome::Returned => Outcome::Returned,
        }
    }
}

/// An answer that a stage made by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<P> {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: P,
}

/// Why a worker has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The function raised.
    Error {
        /// The exception's type.
        name: String,
        /// Its message.
        message: String,
        /// Its traceback, as text.
        traceback: String,
    },
    /// The function refuses with a status and says why.
    Abort {
        /// The HTTP status, 400 to 599.
        status: u16,
        /// What the client is told.
        detail: String,
    },
    /// The value is not what its content type says.
    Decode {
        /// What is wrong with it.
        detail: String,
    },
    /// The result cannot travel.
    Encode {
        /// What is wrong with it, and where.
        detail: String,
    },
    /// A jq program came to no value.
    Filter {
        /// What is wrong, in a sentence.
        detail: String,
    },
    /// A command did not end well, or did not start. It may be tried again like a function that raised.
    Command {
        /// How it ended, as part of a sentence: "exited with code 3". Clients see it.
        detail: String,
        /// The last lines of its standard error, or why it did not start. Clients do not see it.
        stderr: String,
    },
    /// The result is over the limit.
    TooLarge {
        /// What was found and what is allowed.
        detail: String,
    },
    /// The node has no room for the result.
    NoRoom {
        /// How much there is and how much it may be.
        detail: String,
    },
    /// The function stopped because its job was cancelled.
    Cancelled,
    /// The worker ran out of memory; it counts as lost, with this job.
    OutOfMemory {
        /// What it said.
        message: String,
    },
}

/// How a worker was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The signal or exit code, as part of a sentence: "was killed by SIGKILL". Clients see it.
    pub cause: String,
    /// The whole death certificate, for the log.
    pub certificate: String,
}

/// What a client gets. Each request gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<P> {
    /// The value that the last stage returned.
    Value(P),
    /// What some stage answered by hand.
    Reply(Reply<P>),
    /// What the function raised, and the problem that it is.
    Raised(Problem, P),
    /// The end of an answer that came in chunks.
    Ended,
    /// The route's fallback, and the problem it stands in for.
    Fallback(Problem),
    /// No value.
    Problem(Problem),
}
