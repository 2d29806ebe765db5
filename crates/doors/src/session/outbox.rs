//! What there is to tell a client of its calls, until it takes it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use evener_core::{Answer, Budget, Cause, Code, Problem, RequestId, Reservation};
use evener_protocol::api::outcome::Result as Ended;
use evener_protocol::api::{self, PIECE, SessionReply};

use crate::node::{Called, Parcel, Stream};

/// The most bytes of output that wait for a client; what its calls print beyond that is dropped, and marked as cut.
const MOST_PRINTED: usize = 64 << 20;
/// What a piece of output takes beside its bytes.
const ENTRY: usize = 64;
/// With more outcomes than this that a client has not taken, nothing more is taken from it.
const MOST_WAITING: usize = 2 * super::WINDOW as usize;
/// The most outcomes in one message.
const MOST_OUTCOMES: usize = 1024;

type Held = Option<Arc<Reservation>>;

/// A value of which the first pieces are sent.
struct Rest {
    number: u64,
    bytes: Bytes,
    /// Set aside until the last piece is taken.
    _held: Held,
}

#[derive(Default)]
pub(super) struct Outbox {
    /// Whether values are sent in one piece, however large.
    whole: bool,
    printed: VecDeque<(api::Printed, Reservation)>,
    printed_bytes: usize,
    outcomes: VecDeque<(api::Outcome, Held)>,
    /// Bytes of values that wait, or of which the rest does.
    value_bytes: u64,
    rests: VecDeque<Rest>,
    going_on: BTreeSet<u64>,
}

impl Outbox {
    pub(super) fn new(whole: bool) -> Outbox {
        Outbox { whole, ..Outbox::default() }
    }

    /// Outcomes that the client has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.outcomes.len()
    }

    /// Bytes of values that the client has not taken.
    pub(super) fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// Whether so much waits for the client that no more is taken from it for now.
    pub(super) fn is_full(&self) -> bool {
        self.outcomes.len() > MOST_WAITING || self.going_on.len() > MOST_WAITING
    }

    /// A call wrote something, and `cut` says whether that is all that is passed on. False if it is cut here, for want of room.
    pub(super) fn printed(&mut self, number: u64, stream: Stream, bytes: &[u8], cut: bool, budget: &Budget) -> bool {
        let stream = match stream {
            Stream::Stdout => api::Stream::Stdout,
            Stream::Stderr => api::Stream::Stderr,
        };
        let size = bytes.len() + ENTRY;
        let held = Some(size).filter(|size| self.printed_bytes + size <= MOST_PRINTED);
        let held = held.and_then(|size| budget.reserve(size as u64));
        let room = held.is_some();
        let data = if room { Bytes::copy_from_slice(bytes) } else { Bytes::new() };
        let size = data.len() + ENTRY;
        self.printed_bytes += size;
        let printed = api::Printed { number, stream: stream.into(), data, truncated: cut || !room };
        self.printed.push_back((printed, held.unwrap_or_else(|| budget.charge(size as u64))));
        room
    }

    /// A call has ended, in that stage. Says whether that was because it was cancelled.
    pub(super) fn ended(&mut self, number: u64, called: Called, stage: String, budget: &Budget) -> bool {
        let Called { id, answer, worker, ran, tries } = called;
        let mut cancelled = false;
        let (result, held, tries) = match answer {
            Answer::Value(Parcel { value, held }) => (Ended::Value(value.bytes), held, tries),
            // Nobody takes a call's answer in chunks.
            Answer::Ended => (Ended::Value(Bytes::new()), None, tries),
            // A function worker does not make replies; if one does, its body is what there is.
            Answer::Reply(reply) => (Ended::Value(reply.body.value.bytes), reply.body.held, tries),
            Answer::Raised(problem, Parcel { value, held }) => (Ended::Raised(value.bytes), held, problem.tries),
            Answer::Problem(problem) | Answer::Fallback(problem) => {
                cancelled = problem.code == Code::Cancelled;
                let told = view(id, &problem, stage);
                let held = budget.charge(problem_length(&told) as u64);
                (Ended::Problem(told), Some(Arc::new(held)), problem.tries)
            }
        };
        let ran_ns = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX);
        self.value_bytes += value_length(&result);
        let outcome = api::Outcome { number, more: false, worker, ran_ns, tries, size: 0, result: Some(result) };
        self.outcomes.push_back((outcome, held));
        cancelled
    }

    pub(super) fn goes_on(&mut self, number: u64) {
        self.going_on.insert(number);
    }

    /// The next message, if there is anything to say. What a call printed comes before its outcome.
    pub(super) fn take(&mut self) -> Option<SessionReply> {
        let mut reply = SessionReply {
            going_on: std::mem::take(&mut self.going_on).into_iter().collect(),
            ..SessionReply::default()
        };
        let mut size = 0;
        while size < PIECE
            && let Some((printed, _)) = self.printed.pop_front()
        {
            size += printed.data.len() + ENTRY;
            self.printed_bytes -= printed.data.len() + ENTRY;
            reply.printed.push(printed);
        }
        // The reservations of what is sent here are given back with the message's fields, which is soon enough.
        if self.printed.is_empty() {
            while size < PIECE
                && reply.outcomes.len() < MOST_OUTCOMES
                && let Some((outcome, held)) = self.outcomes.pop_front()
            {
                let outcome = self.cut(outcome, held);
                self.value_bytes -= outcome.result.as_ref().map_or(0, value_length);
                size += length(&outcome);
                reply.outcomes.push(outcome);
            }
        }
        if size < PIECE
            && let Some(mut rest) = self.rests.pop_front()
        {
            let data = rest.bytes.split_to(rest.bytes.len().min(PIECE));
            let more = !rest.bytes.is_empty();
            self.value_bytes -= data.len() as u64;
            reply.parts.push(api::Part { number: rest.number, function: Bytes::new(), data, more });
            if more {
                self.rests.push_back(rest);
            }
        }
        let empty = reply.printed.is_empty()
            && reply.outcomes.is_empty()
            && reply.parts.is_empty()
            && reply.going_on.is_empty();
        (!empty).then_some(reply)
    }

    /// The outcome, with its first piece if its value is too large for one.
    fn cut(&mut self, mut outcome: api::Outcome, held: Held) -> api::Outcome {
        if self.whole {
            return outcome;
        }
        let number = outcome.number;
        if let Some(Ended::Value(bytes) | Ended::Raised(bytes)) = &mut outcome.result
            && bytes.len() > PIECE
        {
            outcome.size = bytes.len() as u64;
            let rest = bytes.split_off(PIECE);
            self.rests.push_back(Rest { number, bytes: rest, _held: held });
            outcome.more = true;
        }
        outcome
    }
}

/// How many bytes wait with an outcome.
fn value_length(result: &Ended) -> u64 {
    match result {
        Ended::Value(bytes) | Ended::Raised(bytes) => bytes.len() as u64,
        Ended::Problem(problem) => problem_length(problem) as u64,
    }
}

fn problem_length(problem: &api::Problem) -> usize {
    const REST: usize = 200;
    problem.detail.len() + problem.certificate.len() + problem.stage.len() + REST
}

fn length(outcome: &api::Outcome) -> usize {
    match &outcome.result {
        Some(Ended::Value(bytes) | Ended::Raised(bytes)) => bytes.len() + 24,
        Some(Ended::Problem(problem)) => problem_length(problem),
        None => 24,
    }
}

fn view(id: RequestId, problem: &Problem, stage: String) -> api::Problem {
    api::Problem {
        code: problem.code.name().to_owned(),
        title: problem.code.title().to_owned(),
        detail: problem.detail.clone(),
        status: problem.status.into(),
        stage,
        retryable: problem.code.is_retryable(),
        retry_after_ns: problem.retry_after.map_or(0, |wait| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        request_id: id.to_string(),
        certificate: match &problem.cause {
            Some(Cause::Died(certificate)) => certificate.clone(),
            Some(Cause::Raised { .. } | Cause::Said(_)) | None => String::new(),
        },
    }
}
