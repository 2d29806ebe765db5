//! The books of a session: which calls wait on this side, which are with the node, and what is to be sent next.
//!
//! No sockets, no clock, no threads: callers' wishes and the node's replies go in, messages and effects come out. Time is an
//! argument, and so is the seed of the randomness that spreads retries.
//!
//! A call waits, is sent, and ends with its outcome:
//!
//! ```text
//!          ┌─ its function is being sent ─> held ─┐
//! submit ─> waiting <─────────────────────────────┘
//!            │    ^
//!      next  │    └─ there was no room for it ┐
//!            └───────────────────────────> sent ─> outcome
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use evener_protocol::api;

use super::arrival;
use super::functions::{Functions, State};
use super::pieces::{INLINE_BYTES, Of, Pieces};
use super::queue::Queue;
use super::table::Table;
use crate::event::{Done, Event, Payload, Problem, What};
use crate::work::{Definition, Work};

/// About the most bytes of one message, beside a piece.
const MESSAGE_BYTES: usize = 64 * 1024;
/// What a call counts in a message beside its input.
const CALL_BYTES: usize = 64;
/// A call that was refused is sent again under another number, as a number is used once. Those begin here.
const AGAIN: u64 = 1 << 63;

/// What a node says of a call whose function it had no memory for.
const UNKNOWN_FUNCTION: &str = "unknown-function";

/// What a session has to do, beside sending.
#[derive(Debug)]
pub(super) enum Effect<S, A> {
    /// Tell whom it concerns.
    Event {
        /// Whom.
        sink: S,
        /// What.
        event: Event,
    },
    /// It is known whether a call is cancelled.
    Cancelled {
        /// Who asked.
        answer: A,
        /// Whether it is.
        cancelled: bool,
    },
}

/// A message to the node. A large piece of something stands beside the rest, so that its bytes need not be copied.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Message {
    /// All but the piece.
    pub(super) rest: api::SessionRequest,
    /// The piece.
    pub(super) piece: Option<api::Part>,
}

/// The books. `S` is where the events of a call go, `A` who wants to know whether a call is cancelled.
#[derive(Debug)]
pub(super) struct Ledger<S, A> {
    calls: Table<u64, Entry<S, A>>,
    /// The calls that travel under another number.
    renumbered: Table<u64, u64>,
    functions: Functions,
    queues: Vec<Queue>,
    pieces: Pieces,
    cancels: Vec<api::Cancel>,
    last_number: u64,
    last_again: u64,
    /// How many calls may be with the node at a time, and how many bytes of input they may have together.
    window: u32,
    window_bytes: u64,
    in_flight: u32,
    in_flight_bytes: u64,
    effects: Vec<Effect<S, A>>,
    random: fastrand::Rng,
}

/// A call that has no outcome.
#[derive(Debug)]
struct Entry<S, A> {
    function: u32,
    queue: u32,
    group: bool,
    discard_output: bool,
    priority: i8,
    retries: u32,
    timeout_ns: u64,
    /// Kept until the outcome, as the call may be refused and must then be sent again.
    input: Bytes,
    sink: S,
    place: Place,
    /// Which sending of its function it came after.
    edition: u32,
    /// Its number has been on the wire.
    again: bool,
    /// Those who want it cancelled, and whether they want that even if it has begun.
    cancels: Vec<(bool, A)>,
    /// The outcome, while pieces of it are missing.
    arriving: Option<Box<(api::Outcome, Payload)>>,
}

/// Where a call is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In its queue.
    Waiting,
    /// With its function, which is being sent.
    Held,
    /// With the node, which knows it by this number.
    Sent(u64),
}

/// The function of a call was not defined before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undefined;

impl<S: Clone, A> Ledger<S, A> {
    /// An empty one. Nothing is sent before [`Ledger::welcome`].
    pub(super) fn new(seed: u64) -> Self {
        Self {
            calls: Table::default(),
            renumbered: Table::default(),
            functions: Functions::default(),
            queues: Vec::new(),
            pieces: Pieces::default(),
            cancels: Vec::new(),
            last_number: 0,
            last_again: AGAIN,
            window: 0,
            window_bytes: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            effects: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The node has said how much it takes.
    pub(super) fn welcome(&mut self, window: u32, window_bytes: u64) {
        // A window of nothing would be a session for nothing.
        self.window = window.max(1);
        self.window_bytes = window_bytes;
    }

    /// A function becomes known here; the node gets it with its first call.
    pub(super) fn define(&mut self, definition: Definition) {
        self.functions.define(definition);
    }

    /// Calls wait from now on, in this order. Returns the number of the first; those of the others follow it.
    pub(super) fn submit(
        &mut self,
        work: &Work<'_>,
        inputs: impl IntoIterator<Item = Bytes>,
        sink: &S,
    ) -> Result<u64, Undefined> {
        let function = self.functions.find(&work.function).ok_or(Undefined)?;
        let queue = self.queue(work.pool);
        let priority = work.priority.clamp(-100, 100);
        let first = self.last_number + 1;
        for input in inputs {
            self.last_number += 1;
            let entry = Entry {
                function,
                queue: queue as u32,
                group: work.group,
                discard_output: work.discard_output,
                priority,
                retries: work.retries,
                timeout_ns: work.timeout_ns(),
                input,
                sink: sink.clone(),
                place: Place::Waiting,
                edition: 0,
                again: false,
                cancels: Vec::new(),
                arriving: None,
            };
            self.calls.insert(self.last_number, entry);
            self.queues[queue].insert(priority, self.last_number);
        }
        Ok(first)
    }

    /// A call is to be cancelled; `kill`: also if it has begun. One that waits here is cancelled at once, the node is asked about
    /// one that it has.
    pub(super) fn cancel(&mut self, number: u64, kill: bool, answer: A) {
        let Some(entry) = self.calls.get_mut(&number) else {
            self.effects.push(Effect::Cancelled { answer, cancelled: false });
            return;
        };
        if let Place::Sent(wire) = entry.place {
            entry.cancels.push((kill, answer));
            self.cancels.push(api::Cancel { number: wire, kill });
            // Without its whole input it cannot have begun.
            self.pieces.forget(wire);
            return;
        }
        entry.cancels.push((kill, answer));
        self.end_cancelled(number);
    }

    /// What the node says.
    pub(super) fn reply(&mut self, now: Instant, reply: api::SessionReply) {
        for printed in reply.printed {
            if let Some((number, entry)) = self.sent(printed.number) {
                let event = Event { number, what: arrival::printed(printed) };
                let sink = entry.sink.clone();
                self.effects.push(Effect::Event { sink, event });
            }
        }
        for outcome in reply.outcomes {
            self.outcome(now, outcome);
        }
        for part in reply.parts {
            self.part(part);
        }
        for wire in reply.going_on {
            let Some((_, entry)) = self.sent(wire) else { continue };
            let known: Vec<_> = entry.cancels.extract_if(.., |(kill, _)| !*kill).collect();
            self.effects.extend(known.into_iter().map(|(_, answer)| Effect::Cancelled { answer, cancelled: false }));
        }
    }

    /// Nothing more will come: all calls end with this problem.
    pub(super) fn end(&mut self, problem: &Problem) {
        let mut numbers: Vec<u64> = self.calls.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.finish(number, What::Problem { problem: Box::new(problem.clone()), done: Done::default() });
        }
        self.functions = Functions::default();
        self.queues.clear();
        self.pieces = Pieces::default();
        self.cancels.clear();
    }

    /// What has come of it so far, beside messages.
    pub(super) fn effects(&mut self) -> std::vec::Drain<'_, Effect<S, A>> {
        self.effects.drain(..)
    }

    /// The next message, made of what has gathered, or None if there is nothing that may be sent now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Message> {
        let mut message = Message::default();
        self.next_calls(now, &mut message.rest);
        if let Some((of, mut part)) = self.pieces.next() {
            if let Of::Function(index) = of {
                part.function = self.functions.get(index).hash.clone();
                if !part.more {
                    self.function_sent(index);
                }
            }
            message.piece = Some(part);
        }
        message.rest.cancels = std::mem::take(&mut self.cancels);
        (message != Message::default()).then_some(message)
    }

    /// When there may be something to send, though nothing happens until then.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.queues.iter().filter_map(Queue::wake_at).min()
    }

    /// Whether something waits to be sent, now or later.
    pub(super) fn has_more(&self) -> bool {
        !self.cancels.is_empty() || !self.pieces.is_empty() || self.queues.iter().any(|queue| !queue.is_empty())
    }

    /// How many calls are with the node.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Functions and calls, in this order in the message: as many as may go and find room.
    fn next_calls(&mut self, now: Instant, message: &mut api::SessionRequest) {
        self.queues.iter_mut().for_each(|queue| queue.resume(now));
        let mut bytes = 0;
        while bytes < MESSAGE_BYTES && self.in_flight < self.window {
            let firsts = self.queues.iter().enumerate();
            let first = firsts.filter_map(|(index, queue)| Some((queue.first()?, index))).min();
            let Some(((_, number), index)) = first else { break };
            let queue = &mut self.queues[index];
            let Some(entry) = self.calls.get_mut(&number) else { break };
            let len = entry.input.len();
            if self.in_flight > 0 && self.in_flight_bytes + len as u64 > self.window_bytes {
                // Who is next stays next: a large input that others overtook would never go.
                break;
            }
            queue.remove(entry.priority, number);
            let (function, taken) = self.functions.for_call(entry.function, &mut self.pieces, message);
            bytes += taken;
            if let State::Going { held } = &mut function.state {
                entry.place = Place::Held;
                held.push(number);
                continue;
            }
            let wire = if entry.again { self.last_again + 1 } else { number };
            if entry.again {
                self.last_again = wire;
                self.renumbered.insert(wire, number);
            }
            entry.again = true;
            entry.edition = function.edition;
            entry.place = Place::Sent(wire);
            self.in_flight += 1;
            self.in_flight_bytes += len as u64;
            queue.sent();
            let inline = len <= INLINE_BYTES;
            bytes += CALL_BYTES + if inline { len } else { 0 };
            if !inline {
                self.pieces.push(Of::Call(wire), entry.input.clone());
            }
            message.calls.push(api::Call {
                number: wire,
                function: function.hash.clone(),
                pool: queue.name.clone(),
                group: entry.group,
                retries: entry.retries,
                timeout_ns: entry.timeout_ns,
                priority: entry.priority.into(),
                discard_output: entry.discard_output,
                input: if inline { entry.input.clone() } else { Bytes::new() },
                more: !inline,
                size: if inline { 0 } else { len as u64 },
            });
        }
    }

    /// The last piece of a function goes out: the calls that waited for it may follow.
    fn function_sent(&mut self, index: u32) {
        for number in self.functions.sent(index) {
            if let Some(entry) = self.calls.get_mut(&number) {
                entry.place = Place::Waiting;
                self.queues[entry.queue as usize].insert(entry.priority, number);
            }
        }
    }

    fn outcome(&mut self, now: Instant, mut outcome: api::Outcome) {
        let Some(number) = self.sent(outcome.number).map(|(number, _)| number) else { return };
        let Some(entry) = self.calls.get_mut(&number) else { return };
        if outcome.more {
            let first = match &mut outcome.result {
                Some(api::outcome::Result::Value(first) | api::outcome::Result::Raised(first)) => std::mem::take(first),
                _ => Bytes::new(),
            };
            entry.arriving = Some(Box::new((outcome, Payload::from(first))));
            return;
        }
        match &outcome.result {
            Some(api::outcome::Result::Problem(problem)) if is_refusal(&problem.code) => {
                let retry_after = Some(problem.retry_after_ns).filter(|&ns| ns > 0).map(Duration::from_nanos);
                if problem.code == UNKNOWN_FUNCTION {
                    self.functions.missing(entry.function, entry.edition);
                }
                self.refused(now, number, retry_after);
            }
            _ => self.finish(number, arrival::outcome(outcome)),
        }
    }

    fn part(&mut self, part: api::Part) {
        let Some((number, entry)) = self.sent(part.number) else { return };
        let Some(arriving) = &mut entry.arriving else { return };
        arriving.1.push(part.data);
        if part.more {
            return;
        }
        if let Some(arriving) = entry.arriving.take() {
            let (outcome, payload) = *arriving;
            self.finish(number, arrival::whole(outcome, payload));
        }
    }

    /// The node had no room for a call: it waits again, unless it was to be cancelled.
    fn refused(&mut self, now: Instant, number: u64, retry_after: Option<Duration>) {
        let Some(entry) = self.calls.get_mut(&number) else { return };
        let Place::Sent(wire) = entry.place else { return };
        entry.place = Place::Waiting;
        let (queue, priority, cancel) = (entry.queue as usize, entry.priority, !entry.cancels.is_empty());
        self.no_longer_sent(number, wire);
        self.queues[queue].refused(now, retry_after, self.random.f64());
        self.queues[queue].insert(priority, number);
        if cancel {
            self.end_cancelled(number);
        }
    }

    /// A call that the node does not have is cancelled.
    fn end_cancelled(&mut self, number: u64) {
        let problem = Problem::new("cancelled", "the call was cancelled before it was sent");
        self.finish(number, What::Problem { problem: Box::new(problem), done: Done::default() });
    }

    /// A call has its outcome: it is told, and forgotten.
    fn finish(&mut self, number: u64, what: What) {
        let Some(entry) = self.calls.get(&number) else { return };
        let queue = entry.queue as usize;
        match entry.place {
            Place::Waiting => self.queues[queue].remove(entry.priority, number),
            Place::Held => self.functions.let_go(entry.function, number),
            Place::Sent(wire) => {
                self.no_longer_sent(number, wire);
                self.queues[queue].finished();
            }
        }
        let Some(entry) = self.calls.remove(&number) else { return };
        let cancelled = matches!(&what, What::Problem { problem, .. } if problem.code == "cancelled");
        self.effects.push(Effect::Event { sink: entry.sink, event: Event { number, what } });
        let known = entry.cancels.into_iter();
        self.effects.extend(known.map(|(_, answer)| Effect::Cancelled { answer, cancelled }));
    }

    fn no_longer_sent(&mut self, number: u64, wire: u64) {
        let len = self.calls.get(&number).map_or(0, |entry| entry.input.len());
        self.in_flight -= 1;
        self.in_flight_bytes -= len as u64;
        if len > INLINE_BYTES {
            self.pieces.forget(wire);
        }
        if wire >= AGAIN {
            self.renumbered.remove(&wire);
        }
    }

    /// The call that the node knows by a number, and its own number.
    fn sent(&mut self, wire: u64) -> Option<(u64, &mut Entry<S, A>)> {
        let number = if wire < AGAIN { wire } else { *self.renumbered.get(&wire)? };
        let entry = self.calls.get_mut(&number)?;
        // Under its old number the node may still speak of a call that it refused.
        matches!(entry.place, Place::Sent(sent) if sent == wire).then_some((number, entry))
    }

    /// The queue for a pool, by its name.
    fn queue(&mut self, name: &str) -> usize {
        let name = if name == "default" { "" } else { name };
        if let Some(index) = self.queues.iter().position(|queue| queue.name == name) {
            return index;
        }
        self.queues.push(Queue::new(name.to_owned()));
        self.queues.len() - 1
    }
}

/// Whether a code says that there was no room for a call, or for its function, which may change.
fn is_refusal(code: &str) -> bool {
    matches!(code, "queue-full" | "memory-full" | UNKNOWN_FUNCTION)
}

#[cfg(test)]
mod tests;
