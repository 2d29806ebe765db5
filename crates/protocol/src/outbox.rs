//! What a node says to a worker: messages in, bytes out.

use bytes::Bytes;
use evener_core::JobKey;

use crate::content::{Content, Value};
use crate::frame::{Header, Kind, MORE, PART};

/// All of a job but its payload.
#[derive(Clone, Debug)]
pub struct JobHead<'a> {
    /// The job.
    pub job: JobKey,
    /// The fence.
    pub attempt: u32,
    /// Executions, counting this one.
    pub tries: u32,
    /// Nanoseconds until the deadline.
    pub left_nanos: u64,
    /// Whether the payload is the body of a request, and the extension has the rest of it.
    pub is_request: bool,
    /// The cold fields, a JSON object, or nothing. At most [`PART`] bytes.
    pub extension: &'a [u8],
}

/// The rest of a payload that is being sent.
#[derive(Debug)]
struct Rest {
    job: JobKey,
    attempt: u32,
    bytes: Bytes,
}

/// Frames that wait to be written to a worker. A large payload is cut, and only one piece of it is in the buffer at any time,
/// so that a CANCEL never waits for the rest.
#[derive(Debug, Default)]
pub struct Outbox {
    buffer: Vec<u8>,
    written: usize,
    rest: Option<Rest>,
}

impl Outbox {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.written == self.buffer.len() && self.rest.is_none()
    }

    /// The bytes to write next; empty if there are none. [`wrote`](Outbox::wrote) says how many were taken.
    pub fn bytes(&mut self) -> &[u8] {
        if self.written == self.buffer.len() {
            self.buffer.clear();
            self.written = 0;
            if let Some(mut rest) = self.rest.take() {
                let piece = rest.bytes.split_to(rest.bytes.len().min(PART));
                let more = if rest.bytes.is_empty() { 0 } else { MORE };
                let head = Header {
                    length: piece.len() as u32,
                    flags: more,
                    job: rest.job.pack(),
                    attempt: rest.attempt,
                    ..Header::new(Kind::Part)
                };
                self.buffer.extend_from_slice(&head.encode());
                self.buffer.extend_from_slice(&piece);
                self.rest = (more != 0).then_some(rest);
            }
        }
        &self.buffer[self.written..]
    }

    /// The first `count` bytes are written.
    pub fn wrote(&mut self, count: usize) {
        self.written = (self.written + count).min(self.buffer.len());
    }

    /// A job for the worker. The worker holds no other whose parts are still being sent.
    pub fn job(&mut self, head: &JobHead<'_>, value: &Value) {
        let mut bytes = value.bytes.clone();
        let first = bytes.split_to(bytes.len().min(PART));
        let header = Header {
            length: (head.extension.len() + first.len()) as u32,
            flags: if bytes.is_empty() { 0 } else { MORE },
            content: value.content.code(),
            verb: head.is_request.into(),
            job: head.job.pack(),
            attempt: head.attempt,
            extension: head.extension.len() as u32,
            number: head.tries,
            nanos: head.left_nanos,
            ..Header::new(Kind::Job)
        };
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(head.extension);
        self.buffer.extend_from_slice(&first);
        if !bytes.is_empty() {
            self.rest = Some(Rest { job: head.job, attempt: head.attempt, bytes });
        }
    }

    /// Nobody waits for the job any more. What is left of its payload is not sent.
    pub fn cancel(&mut self, job: JobKey, attempt: u32) {
        self.rest = self.rest.take().filter(|rest| (rest.job, rest.attempt) != (job, attempt));
        let header = Header { job: job.pack(), attempt, ..Header::new(Kind::Cancel) };
        self.buffer.extend_from_slice(&header.encode());
    }

    /// The worker may go when it is done.
    pub fn bye(&mut self) {
        self.buffer.extend_from_slice(&Header::new(Kind::Bye).encode());
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
mod tests {
    use super::*;
    use crate::frame::HEADER;

    fn head(extension: &[u8]) -> JobHead<'_> {
        JobHead { job: JobKey::unpack(7), attempt: 2, tries: 1, left_nanos: 5, is_request: false, extension }
    }

    fn written(outbox: &mut Outbox) -> Vec<(Header, Vec<u8>)> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let bytes = outbox.bytes().to_vec();
            outbox.wrote(bytes.len());
            all.extend(bytes);
        }
        let mut frames = Vec::new();
        while let Some(header) = Header::decode(&all).expect("a sound header") {
            let rest = all.split_off(HEADER + header.length as usize);
            frames.push((header, all.split_off(HEADER)));
            all = rest;
        }
        frames
    }

    #[test]
    fn a_large_payload_is_cut_and_a_cancel_overtakes_it() {
        let mut outbox = Outbox::default();
        let value = Value { content: Content::Bytes, bytes: vec![1; 3 * PART + 1].into() };
        outbox.job(&head(b"{}"), &value);
        let sizes: Vec<(u8, u8, usize)> =
            written(&mut outbox).iter().map(|(header, rest)| (header.kind, header.flags, rest.len())).collect();
        assert_eq!(sizes, [(2, 1, PART + 2), (4, 1, PART), (4, 1, PART), (4, 0, 1)]);

        outbox.job(&head(b""), &value);
        outbox.cancel(JobKey::unpack(7), 2);
        let kinds: Vec<u8> = written(&mut outbox).iter().map(|(header, _)| header.kind).collect();
        assert_eq!(kinds, [2, 8], "what is left of a cancelled payload is not sent");
    }
}
