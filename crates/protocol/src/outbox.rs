//! What a node says to a worker: messages in, bytes out.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use evener_core::JobKey;
use evener_core::state::StateAnswer;

use crate::content::{Content, Value};
use crate::frame::{BATCH, Header, Kind, MORE, PART, STREAM};

/// What a job's payload is to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The value for the worker's own function.
    Value,
    /// The body of a request, and the extension has the rest of it.
    Request,
    /// The input of one call of the function with this number.
    Call(u32),
    /// The inputs of many calls of it.
    Group(u32),
}

impl Task {
    fn verb(self) -> u8 {
        match self {
            Task::Value => 0,
            Task::Request => 1,
            Task::Call(_) => 2,
            Task::Group(_) => 3,
        }
    }

    fn function(self) -> u32 {
        match self {
            Task::Value | Task::Request => 0,
            Task::Call(function) | Task::Group(function) => function,
        }
    }
}

/// All of a job but its payload.
#[derive(Clone, Debug)]
pub struct JobHead<'a> {
    /// The job.
    pub job: JobKey,
    /// The fence.
    pub attempt: u32,
    /// Executions, counting this one.
    pub tries: u32,
    /// Nanoseconds until the deadline; all ones if there is none.
    pub left_nanos: u64,
    /// What the payload is.
    pub task: Task,
    /// Whether chunks of it go to the client as they come.
    pub stream: bool,
    /// Whether the next job belongs to the same batch.
    pub batch: bool,
    /// The cold fields, a JSON object, or nothing. At most [`PART`] bytes.
    pub extension: &'a [u8],
}

/// Stands in the job's place in frames that belong to no job.
const NO_JOB: u64 = u64::MAX;

/// The rest of a payload that is being sent.
#[derive(Debug)]
struct Rest {
    job: u64,
    attempt: u32,
    function: u32,
    bytes: Bytes,
}

/// A job that waits for the rest of another's payload.
#[derive(Debug)]
struct Waiting {
    header: Header,
    extension: Vec<u8>,
    bytes: Bytes,
    /// What is to be said of it once it is sent: a CANCEL or a RECALL.
    withdrawn: Option<Kind>,
}

/// Payloads up to this size are copied in between the headers; larger ones are written from where they are.
const COPY: usize = 16 * 1024;

/// Frames that wait to be written to a worker. A large payload is cut, and only one piece of it is handed out for writing at any
/// time, so that a CANCEL never waits for the rest.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Frames, and of the last one perhaps all but its payload.
    buffer: Vec<u8>,
    written: usize,
    /// The payload of the last frame in the buffer, as far as it is not written.
    piece: Bytes,
    /// Frames behind that.
    after: Vec<u8>,
    rest: Option<Rest>,
    waiting: VecDeque<Waiting>,
}

impl Outbox {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.written == self.buffer.len() && self.after.is_empty() && !self.is_held()
    }

    /// The bytes to write next, in two slices; both are empty if there are none. [`wrote`](Outbox::wrote) says how many were taken.
    pub fn bytes(&mut self) -> [&[u8]; 2] {
        while self.written == self.buffer.len() && self.piece.is_empty() {
            self.buffer.clear();
            self.written = 0;
            std::mem::swap(&mut self.buffer, &mut self.after);
            match self.rest.take() {
                Some(rest) => self.send_part(rest),
                None => self.send_waiting(),
            }
            if self.buffer.is_empty() {
                break;
            }
        }
        [&self.buffer[self.written..], &self.piece]
    }

    /// The first `count` bytes are written.
    pub fn wrote(&mut self, count: usize) {
        let frames = count.min(self.buffer.len() - self.written);
        self.written += frames;
        let payload = (count - frames).min(self.piece.len());
        self.piece.advance(payload);
    }

    /// Whether a payload is on its way, which others have to wait for.
    fn is_held(&self) -> bool {
        self.rest.is_some() || !self.piece.is_empty() || !self.waiting.is_empty()
    }

    /// Where a frame goes that waits for no payload.
    fn next_frames(&mut self) -> &mut Vec<u8> {
        if self.piece.is_empty() { &mut self.buffer } else { &mut self.after }
    }

    /// Appends a frame with its payload. Nothing else is on its way.
    fn push(&mut self, header: &Header, extension: &[u8], payload: Bytes) {
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(extension);
        if payload.len() <= COPY {
            self.buffer.extend_from_slice(&payload);
        } else {
            self.piece = payload;
        }
    }

    /// A job for the worker.
    pub fn job(&mut self, head: &JobHead<'_>, value: &Value) {
        let header = Header {
            content: value.content.code(),
            verb: head.task.verb(),
            function: head.task.function(),
            job: head.job.pack(),
            attempt: head.attempt,
            number: head.tries,
            nanos: head.left_nanos,
            flags: if head.stream { STREAM } else { 0 } | if head.batch { BATCH } else { 0 },
            ..Header::new(Kind::Job)
        };
        if self.is_held() {
            let (extension, bytes) = (head.extension.to_vec(), value.bytes.clone());
            self.waiting.push_back(Waiting { header, extension, bytes, withdrawn: None });
        } else {
            self.send_job(header, head.extension, &value.bytes);
        }
    }

    /// A function that calls will name by `number`.
    pub fn define(&mut self, number: u32, body: &Bytes) {
        let header = Header { content: 3, job: NO_JOB, function: number, ..Header::new(Kind::Function) };
        if self.is_held() {
            let bytes = body.clone();
            self.waiting.push_back(Waiting { header, extension: Vec::new(), bytes, withdrawn: None });
        } else {
            self.send_job(header, &[], body);
        }
    }

    /// No call will name the function with this number any more.
    pub fn forget(&mut self, number: u32) {
        let header = Header { verb: 1, job: NO_JOB, function: number, ..Header::new(Kind::Function) };
        if self.is_held() {
            self.waiting.push_back(Waiting { header, extension: Vec::new(), bytes: Bytes::new(), withdrawn: None });
        } else {
            self.send_job(header, &[], &Bytes::new());
        }
    }

    /// Nobody waits for the job any more. What is left of its payload is not sent.
    pub fn cancel(&mut self, job: JobKey, attempt: u32) {
        self.withdraw(Kind::Cancel, job, attempt);
    }

    /// The job is wanted back, if it has not begun. What is left of its payload is not sent.
    pub fn recall(&mut self, job: JobKey, attempt: u32) {
        self.withdraw(Kind::Recall, job, attempt);
    }

    /// Asks how many jobs the worker takes beyond the one at hand.
    pub fn ask_credit(&mut self) {
        self.next_frames().extend_from_slice(&Header::new(Kind::Credit).encode());
    }

    /// The client took so many bytes of the job's chunks.
    pub fn credit_chunks(&mut self, job: JobKey, attempt: u32, bytes: u32) {
        let header = Header { job: job.pack(), attempt, number: bytes, ..Header::new(Kind::Credit) };
        self.next_frames().extend_from_slice(&header.encode());
    }

    /// Answers the worker's question with this number.
    pub fn state(&mut self, number: u32, answer: &StateAnswer) {
        let (verb, extension, payload): (u8, _, &[u8]) = match answer {
            StateAnswer::No => (0, Vec::new(), &[]),
            StateAnswer::Value(json) => (1, Vec::new(), json),
            StateAnswer::Done => (2, Vec::new(), &[]),
            StateAnswer::Refused(detail) => (3, serde_json::json!({ "detail": detail }).to_string().into_bytes(), &[]),
        };
        let header = Header {
            length: (extension.len() + payload.len()) as u32,
            content: if verb == 1 { 1 } else { 0 },
            verb,
            job: NO_JOB,
            extension: extension.len() as u32,
            number,
            ..Header::new(Kind::State)
        };
        let frames = self.next_frames();
        frames.extend_from_slice(&header.encode());
        frames.extend_from_slice(&extension);
        frames.extend_from_slice(payload);
    }

    /// The worker may go when it is done.
    pub fn bye(&mut self) {
        self.next_frames().extend_from_slice(&Header::new(Kind::Bye).encode());
    }

    fn send_job(&mut self, header: Header, extension: &[u8], bytes: &Bytes) {
        let first = bytes.slice(..bytes.len().min(PART));
        let header = Header {
            length: (extension.len() + first.len()) as u32,
            flags: header.flags | if first.len() < bytes.len() { MORE } else { 0 },
            extension: extension.len() as u32,
            ..header
        };
        self.push(&header, extension, first);
        if bytes.len() > PART {
            let function = if header.kind == Kind::Function as u8 { header.function } else { 0 };
            let (job, attempt) = (header.job, header.attempt);
            self.rest = Some(Rest { job, attempt, function, bytes: bytes.slice(PART..) });
        }
    }

    fn send_part(&mut self, mut rest: Rest) {
        let piece = rest.bytes.split_to(rest.bytes.len().min(PART));
        let header = Header {
            length: piece.len() as u32,
            flags: if rest.bytes.is_empty() { 0 } else { MORE },
            job: rest.job,
            attempt: rest.attempt,
            function: rest.function,
            ..Header::new(Kind::Part)
        };
        self.push(&header, &[], piece);
        if rest.bytes.is_empty() {
            self.send_waiting();
        } else {
            self.rest = Some(rest);
        }
    }

    /// Sends what waited for a payload, up to the next one that is large.
    fn send_waiting(&mut self) {
        while self.rest.is_none() && self.piece.is_empty() {
            let Some(Waiting { header, extension, bytes, withdrawn }) = self.waiting.pop_front() else { return };
            let Some(withdrawn) = withdrawn else {
                self.send_job(header, &extension, &bytes);
                continue;
            };
            // The worker must hear of it, since it owes an outcome; that more is to come keeps it from beginning.
            let job = Header { flags: header.flags | MORE, ..header };
            self.buffer.extend_from_slice(&job.encode());
            self.say(withdrawn, header.job, header.attempt);
        }
    }

    fn withdraw(&mut self, kind: Kind, job: JobKey, attempt: u32) {
        let same = |header: &Header| (header.job, header.attempt) == (job.pack(), attempt);
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| same(&waiting.header)) {
            waiting.withdrawn = Some(kind);
            waiting.bytes = Bytes::new();
            return;
        }
        self.say(kind, job.pack(), attempt);
        if self.rest.as_ref().is_some_and(|rest| (rest.job, rest.attempt) == (job.pack(), attempt)) {
            self.rest = None;
            self.send_waiting();
        }
    }

    fn say(&mut self, kind: Kind, job: u64, attempt: u32) {
        let frame = Header { job, attempt, ..Header::new(kind) }.encode();
        self.next_frames().extend_from_slice(&frame);
    }
}

/// Whether a value's content needs to be named in the extension.
pub fn media_type_to_name(value: &Value) -> Option<&str> {
    match &value.content {
        Content::Named(name) => Some(name),
        Content::Nothing | Content::Json | Content::Text | Content::Bytes => None,
    }
}

#[cfg(test)]
mod tests;
