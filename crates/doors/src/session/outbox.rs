//! What there is to tell a client of its calls, until it takes it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use evener_core::{Answer, Cause, Code, Problem, RequestId, Reservation, StageId};
use evener_protocol::api::outcome::Result as Ended;
use evener_protocol::api::{self, PIECE, SessionReply};

use crate::node::{Called, Parcel, Stream};

/// The most bytes of output that wait for a client; what its calls print beyond that is dropped, and marked as cut.
const MOST_PRINTED: usize = 64 << 20;
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
    printed: VecDeque<api::Printed>,
    printed_bytes: usize,
    outcomes: VecDeque<(api::Outcome, Held)>,
    rests: VecDeque<Rest>,
    going_on: Vec<u64>,
}

impl Outbox {
    pub(super) fn new(whole: bool) -> Outbox {
        Outbox { whole, ..Outbox::default() }
    }

    /// Outcomes that the client has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.outcomes.len()
    }

    pub(super) fn printed(&mut self, number: u64, stream: Stream, bytes: &[u8], cut: bool) {
        let stream = match stream {
            Stream::Stdout => api::Stream::Stdout,
            Stream::Stderr => api::Stream::Stderr,
        };
        let room = self.printed_bytes + bytes.len() <= MOST_PRINTED;
        let (bytes, cut) = if room { (bytes, cut) } else { (&[][..], true) };
        if let Some(last) = self.printed.back_mut().filter(|last| last.number == number && last.stream == stream as i32)
        {
            if !room && last.truncated {
                return;
            }
            // A client that is slow gets what has come together.
            if last.data.len() + bytes.len() <= 4096 {
                last.data = [&last.data[..], bytes].concat().into();
                last.truncated |= cut;
                self.printed_bytes += bytes.len();
                return;
            }
        }
        self.printed_bytes += bytes.len();
        let data = Bytes::copy_from_slice(bytes);
        self.printed.push_back(api::Printed { number, stream: stream.into(), data, truncated: cut });
    }

    /// A call has ended. Says whether that was because it was cancelled.
    pub(super) fn ended(&mut self, number: u64, called: Called, name: impl Fn(StageId) -> String) -> bool {
        let Called { id, answer, worker, ran, tries } = called;
        let mut cancelled = false;
        let (result, held, tries) = match answer {
            Answer::Value(Parcel { value, held }) => (Ended::Value(value.bytes), held, tries),
            // A function worker does not make replies; if one does, its body is what there is.
            Answer::Reply(reply) => (Ended::Value(reply.body.value.bytes), reply.body.held, tries),
            Answer::Raised(problem, Parcel { value, held }) => (Ended::Raised(value.bytes), held, problem.tries),
            Answer::Problem(problem) | Answer::Fallback(problem) => {
                cancelled = problem.code == Code::Cancelled;
                (Ended::Problem(view(id, &problem, name)), None, problem.tries)
            }
        };
        let ran_ns = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX);
        let outcome = api::Outcome { number, more: false, worker, ran_ns, tries, size: 0, result: Some(result) };
        self.outcomes.push_back((outcome, held));
        cancelled
    }

    pub(super) fn goes_on(&mut self, number: u64) {
        self.going_on.push(number);
    }

    /// The next message, if there is anything to say. What a call printed comes before its outcome.
    pub(super) fn take(&mut self) -> Option<SessionReply> {
        let mut reply = SessionReply { going_on: std::mem::take(&mut self.going_on), ..SessionReply::default() };
        let mut size = 0;
        while size < PIECE
            && let Some(printed) = self.printed.pop_front()
        {
            size += printed.data.len() + 16;
            self.printed_bytes -= printed.data.len();
            reply.printed.push(printed);
        }
        // The reservations of what is sent here are given back with the message's fields, which is soon enough.
        if self.printed.is_empty() {
            while size < PIECE
                && reply.outcomes.len() < MOST_OUTCOMES
                && let Some((outcome, held)) = self.outcomes.pop_front()
            {
                let outcome = self.cut(outcome, held);
                size += length(&outcome);
                reply.outcomes.push(outcome);
            }
        }
        if size < PIECE
            && let Some(mut rest) = self.rests.pop_front()
        {
            let data = rest.bytes.split_to(rest.bytes.len().min(PIECE));
            let more = !rest.bytes.is_empty();
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

fn length(outcome: &api::Outcome) -> usize {
    match &outcome.result {
        Some(Ended::Value(bytes) | Ended::Raised(bytes)) => bytes.len() + 24,
        Some(Ended::Problem(problem)) => problem.detail.len() + problem.certificate.len() + 200,
        None => 24,
    }
}

fn view(id: RequestId, problem: &Problem, name: impl Fn(StageId) -> String) -> api::Problem {
    api::Problem {
        code: problem.code.name().to_owned(),
        title: problem.code.title().to_owned(),
        detail: problem.detail.clone(),
        status: problem.status.into(),
        stage: problem.stage.map(name).unwrap_or_default(),
        retryable: problem.code.is_retryable(),
        retry_after_ns: problem.retry_after.map_or(0, |wait| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        request_id: id.to_string(),
        certificate: match &problem.cause {
            Some(Cause::Died(certificate)) => certificate.clone(),
            Some(Cause::Raised { .. }) | None => String::new(),
        },
    }
}
