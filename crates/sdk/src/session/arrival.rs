//! What a node says about a call, made into what this crate says.

use std::time::Duration;

use evener_protocol::api;

use crate::event::{Done, Payload, Problem, Stream, What};

pub(crate) fn printed(printed: api::Printed) -> What {
    let stream = match printed.stream() {
        api::Stream::Stderr => Stream::Stderr,
        api::Stream::Stdout | api::Stream::Unspecified => Stream::Stdout,
    };
    What::Printed { stream, data: printed.data, truncated: printed.truncated }
}

/// An outcome that has come whole.
pub(crate) fn outcome(outcome: api::Outcome) -> What {
    whole(outcome, Payload::default())
}

/// An outcome whose payload has gone on in `pieces`, the first of which is in the outcome itself and in `pieces` too.
pub(crate) fn whole(outcome: api::Outcome, pieces: Payload) -> What {
    let api::Outcome { result, worker, ran_ns, tries, .. } = outcome;
    let done = Done { worker, ran: Duration::from_nanos(ran_ns), tries };
    let all = |first| if pieces.is_empty() { Payload::from(first) } else { pieces };
    match result {
        Some(api::outcome::Result::Value(value)) => What::Value { value: all(value), done },
        Some(api::outcome::Result::Raised(exception)) => What::Raised { exception: all(exception), done },
        Some(api::outcome::Result::Problem(problem)) => What::Problem { problem: Box::new(problem.into()), done },
        None => {
            let problem =
                Problem::new("protocol", "the node sent an outcome without a result; is it of another version?");
            What::Problem { problem: Box::new(problem), done }
        }
    }
}
