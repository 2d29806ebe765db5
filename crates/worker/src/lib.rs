//! The worker's side of the worker protocol: for programs that a node starts for a stage with `command` and `protocol: frames`, and for
//! the workers that the node makes of its own binary.
//!
//! [`serve`] speaks the worker protocol (docs/protocol.md) on descriptor 3, one job at a time, until the node ends. What this part
//! never does: hold jobs ahead, stream, or take batches.
//!
//! ```no_run
//! use evener_worker::{Job, Made, serve};
//!
//! fn main() -> std::io::Result<()> {
//!     serve("upper 1.0", |job: Job<'_>| match job.text() {
//!         Ok(text) => Made::text(text.to_uppercase()),
//!         Err(made) => made,
//!     })
//! }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use evener_protocol::frame::{HEADER, Header, Kind, MORE, PART};

/// The descriptor on which a worker finds its node.
const NODE: i32 = 3;

/// The most bytes of a name or a detail.
const LONGEST_DETAIL: usize = 4 << 10;
/// The most bytes of a message. As JSON, a control character is six times as long.
const LONGEST_MESSAGE: usize = 32 << 10;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// There is none.
    Nothing,
    /// JSON.
    Json,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
}

impl ValueKind {
    fn of(code: u8) -> ValueKind {
        match code {
            0 => ValueKind::Nothing,
            1 => ValueKind::Json,
            2 => ValueKind::Text,
            _ => ValueKind::Bytes,
        }
    }

    fn code(self) -> u8 {
        match self {
            ValueKind::Nothing => 0,
            ValueKind::Json => 1,
            ValueKind::Text => 2,
            ValueKind::Bytes => 3,
        }
    }
}

/// One job.
#[derive(Debug)]
pub struct Job<'a> {
    /// What the value is.
    pub kind: ValueKind,
    /// The value; of the first stage behind a route, the body.
    pub value: &'a [u8],
    /// The cold fields of the job, a JSON object, or nothing; behind a route that is hit by GET, HEAD or DELETE, `request` is in
    /// it.
    pub extension: &'a [u8],
    /// Executions, counting this one.
    pub tries: u32,
}

impl Job<'_> {
    /// The value as text; otherwise what the handler may return.
    pub fn text(&self) -> Result<&str, Made> {
        std::str::from_utf8(self.value).map_err(|error| Made::undecodable(format!("the value is not UTF-8: {error}")))
    }
}

/// What a handler makes of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    verb: u8,
    number: u32,
    content: u8,
    /// Fields of the extension: names and JSON.
    fields: Vec<(&'static str, String)>,
    payload: Vec<u8>,
}

impl Made {
    /// JSON text for the next stage, or as the answer.
    pub fn json(json: impl Into<Vec<u8>>) -> Made {
        Made::value(ValueKind::Json, json)
    }

    /// A text for the next stage, or as the answer.
    pub fn text(text: impl Into<String>) -> Made {
        Made::value(ValueKind::Text, text.into())
    }

    /// Bytes for the next stage, or as the answer.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Made {
        Made::value(ValueKind::Bytes, bytes)
    }

    /// A value for the next stage, or as the answer.
    pub fn value(kind: ValueKind, payload: impl Into<Vec<u8>>) -> Made {
        Made { verb: 1, number: 0, content: kind.code(), fields: Vec::new(), payload: payload.into() }
    }

    /// The same value, as the answer, now, with an HTTP status from 200 to 599; one beyond becomes the nearest.
    #[must_use]
    pub fn respond(self, status: u16) -> Made {
        Made { verb: 2, number: status.clamp(200, 599).into(), ..self }
    }

    /// The same value, for another stage or pipeline.
    #[must_use]
    pub fn goto(mut self, target: &str) -> Made {
        self.fields.push(("target", quoted(target)));
        Made { verb: 3, ..self }
    }

    /// The request is refused, with an HTTP status from 400 to 599 (one beyond becomes the nearest) and why, cut to 4 KiB.
    pub fn abort(status: u16, why: &str) -> Made {
        let status = status.clamp(400, 599).to_string();
        Made::failure(2, vec![("status", status), ("detail", quoted(cut(why, LONGEST_DETAIL)))])
    }

    /// The handler failed. Clients see the `name`, cut to 4 KiB; the message is for the log, cut to 32 KiB.
    pub fn error(name: &str, message: &str) -> Made {
        let (name, message) = (cut(name, LONGEST_DETAIL), cut(message, LONGEST_MESSAGE));
        Made::failure(1, vec![("type", quoted(name)), ("message", quoted(message))])
    }

    /// The value is not what its content says. The detail is cut to 4 KiB.
    pub fn undecodable(detail: impl AsRef<str>) -> Made {
        Made::failure(3, vec![("detail", quoted(cut(detail.as_ref(), LONGEST_DETAIL)))])
    }

    fn failure(reason: u32, fields: Vec<(&'static str, String)>) -> Made {
        Made { verb: 4, number: reason, content: 0, fields, payload: Vec::new() }
    }
}

/// The beginning of a text: what is said beside a value has to fit into a frame's extension, whose bound is 256 KiB.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let fields: Vec<String> = fields.map(|(name, json)| format!("\"{name}\":{json}")).collect();
    match fields.is_empty() {
        true => Vec::new(),
        false => format!("{{{}}}", fields.join(",")).into_bytes(),
    }
}

/// Serves the node that started this process until it ends: `handle` does one job at a time. `runtime` is what the program is, for
/// people. Fails at once in a process that no node has started.
pub fn serve(runtime: &str, handle: impl FnMut(Job<'_>) -> Made) -> io::Result<()> {
    // SAFETY: a node leaves descriptor 3 to its worker, and nothing in this process closes it. If no node has started the
    // process there may be none: then the copy fails, and nothing is owned that is not there.
    #[allow(unsafe_code)]
    let left = unsafe { BorrowedFd::borrow_raw(NODE) };
    let node = left.try_clone_to_owned().map(UnixStream::from).and_then(|node| node.peer_addr().map(|_| node));
    let node = node.map_err(|error| {
        io::Error::new(error.kind(), format!("descriptor 3 is not a node's: a node starts this program ({error})"))
    })?;
    serve_on(node, runtime, handle)
}

/// A job whose payload is still coming, or that waits for its turn.
struct Waiting {
    head: Header,
    extension: Vec<u8>,
    payload: Vec<u8>,
    cancelled: bool,
}

fn serve_on(mut node: UnixStream, runtime: &str, mut handle: impl FnMut(Job<'_>) -> Made) -> io::Result<()> {
    let runtime = quoted(runtime);
    let ready = object([("protocol", "1"), ("runtime", runtime.as_str())].into_iter());
    write(&mut node, Header::new(Kind::Ready), &ready, &[])?;
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    loop {
        let Some((head, extension, payload)) = read(&mut node)? else { return Ok(()) };
        match head.kind {
            kind if kind == Kind::Job as u8 => {
                waiting.push_back(Waiting { head, extension, payload, cancelled: false });
            }
            kind if kind == Kind::Part as u8 => {
                let job = waiting.back_mut().ok_or_else(|| broken("a PART without a beginning"))?;
                job.payload.extend_from_slice(&payload);
                job.head.flags = head.flags;
            }
            kind if kind == Kind::Cancel as u8 => {
                let same = |job: &&mut Waiting| (job.head.job, job.head.attempt) == (head.job, head.attempt);
                if let Some(job) = waiting.iter_mut().find(same) {
                    // What is left of its payload does not come.
                    (job.cancelled, job.head.flags) = (true, 0);
                }
            }
            kind if kind == Kind::Bye as u8 => return Ok(()),
            // It grants no jobs ahead, so none is called back; and what is new means nothing to it.
            _ => {}
        }
        while waiting.front().is_some_and(|job| job.head.flags & MORE == 0) {
            let Some(Waiting { head, extension, payload, cancelled }) = waiting.pop_front() else { break };
            let began = Instant::now();
            let job =
                Job { kind: ValueKind::of(head.content), value: &payload, extension: &extension, tries: head.number };
            let made = if cancelled { Made::failure(5, Vec::new()) } else { handle(job) };
            let ran = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            send(&mut node, &head, &made, ran)?;
        }
    }
}

/// The outcome of a job, cut into frames.
fn send(node: &mut UnixStream, job: &Header, made: &Made, ran: u64) -> io::Result<()> {
    let extension = object(made.fields.iter().map(|(name, json)| (*name, json.as_str())));
    let mut pieces = made.payload.chunks(PART).peekable();
    let first = pieces.next().unwrap_or(&[]);
    let more =
        |pieces: &mut std::iter::Peekable<std::slice::Chunks<'_, u8>>| if pieces.peek().is_some() { MORE } else { 0 };
    let head = Header {
        flags: more(&mut pieces),
        content: made.content,
        verb: made.verb,
        number: made.number,
        job: job.job,
        attempt: job.attempt,
        nanos: ran,
        ..Header::new(Kind::Outcome)
    };
    write(node, head, &extension, first)?;
    while let Some(piece) = pieces.next() {
        let head = Header { flags: more(&mut pieces), job: job.job, attempt: job.attempt, ..Header::new(Kind::Part) };
        write(node, head, &[], piece)?;
    }
    Ok(())
}

fn write(node: &mut UnixStream, head: Header, extension: &[u8], payload: &[u8]) -> io::Result<()> {
    let length = (extension.len() + payload.len()) as u32;
    let head = Header { length, extension: extension.len() as u32, ..head };
    // In one piece, so that a small outcome wakes the node once.
    node.write_all(&[&head.encode(), extension, payload].concat())
}

/// A header, an extension and a payload.
type Frame = (Header, Vec<u8>, Vec<u8>);

/// The next frame; `None` once the node has ended.
fn read(node: &mut UnixStream) -> io::Result<Option<Frame>> {
    let mut head = [0; HEADER];
    match node.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let header = Header::parse(&head).map_err(|error| broken(&error.to_string()))?;
    let header = header.ok_or_else(|| broken("half a frame"))?;
    let mut rest = vec![0; length];
    node.read_exact(&mut rest)?;
    let payload = rest.split_off(header.extension as usize);
    Ok(Some((header, rest, payload)))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the node does not keep to the protocol: {what}"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use evener_protocol::Inbox;
    use evener_protocol::frame::{BATCH, STREAM};

    use super::*;

    /// What the node says and what the worker answers to it, as text.
    fn exchange(said: &[u8], messages: usize, handle: impl FnMut(Job<'_>) -> Made + Send + 'static) -> Vec<String> {
        let (node, worker) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || serve_on(worker, "test", handle));
        let mut node_writes = node.try_clone().unwrap();
        node_writes.write_all(said).unwrap();
        let (mut inbox, mut node_reads, mut all) = (Inbox::new(1 << 30), node, Vec::new());
        while all.len() < messages {
            let count = node_reads.read(inbox.room()).unwrap();
            inbox.filled(count);
            while let Some(message) = inbox.next().unwrap() {
                all.push(format!("{message:?}"));
            }
        }
        node_writes.shutdown(std::net::Shutdown::Both).unwrap();
        serving.join().unwrap().unwrap();
        all
    }

    fn frame(head: Header, payload: &[u8]) -> Vec<u8> {
        let head = Header { length: payload.len() as u32, ..head };
        [&head.encode()[..], payload].concat()
    }

    fn job(number: u64, flags: u8) -> Header {
        Header { job: number, attempt: 1, number: 1, content: 2, flags, ..Header::new(Kind::Job) }
    }

    #[test]
    fn jobs_of_a_batch_are_done_one_after_the_other_as_well() {
        let said = [frame(job(1, BATCH), b"one"), frame(job(2, STREAM), b"two")].concat();
        let all = exchange(&said, 3, |job| Made::bytes(job.value));
        assert!(all[1].contains("job: 1") && all[2].contains("job: 2"), "{all:?}");
    }

    #[test]
    fn what_is_said_fits_into_a_frame() {
        let long = "\u{1}ä".repeat(200_000);
        let texts = [Made::error(&long, &long), Made::abort(200, &long), Made::undecodable(&long)];
        for made in texts {
            let length: usize = made.fields.iter().map(|(name, json)| name.len() + json.len() + 4).sum();
            assert!(length < 256 << 10, "{length}");
        }
        assert_eq!(Made::text("x").respond(100).number, 200);
    }

    #[test]
    fn jobs_are_done_one_after_the_other_whatever_their_size() {
        let large = vec![b'x'; PART + 5];
        let said = [
            frame(job(1, 0), b"one"),
            frame(job(2, MORE), &large[..PART]),
            frame(Header { job: 2, attempt: 1, ..Header::new(Kind::Part) }, &large[PART..]),
        ]
        .concat();
        let all = exchange(&said, 3, |job| Made::text(job.text().unwrap().to_uppercase()));
        assert!(all[0].contains("Ready") && all[0].contains("test"), "{}", all[0]);
        assert!(all[1].contains("Next") && all[1].contains("ONE"), "{}", all[1]);
        assert!(all[2].contains(&"X".repeat(PART + 5)), "the whole of it, and in one message");
    }

    #[test]
    fn every_way_to_end_a_job_is_understood() {
        let said = frame(job(1, 0), b"x");
        for (made, wanted) in [
            (Made::json("[1]"), "Next"),
            (Made::bytes(*b"b").respond(203), "status: 203"),
            (Made::text("t").goto("else\"where"), "target: \"else\\\"where\""),
            (Made::abort(418, "no\n"), "status: 418, detail: \"no\\n\""),
            (Made::error("Trouble", "of a kind"), "name: \"Trouble\""),
            (Made::undecodable("bad"), "Decode"),
        ] {
            let all = exchange(&said, 2, move |_| made.clone());
            assert!(all[1].contains(wanted), "{} has no {wanted}", all[1]);
        }
    }

    #[test]
    fn a_job_that_is_cancelled_before_it_is_whole_is_not_begun() {
        let said = [
            frame(job(1, MORE), &[b'x'; 10]),
            frame(Header { job: 1, attempt: 1, ..Header::new(Kind::Cancel) }, b""),
            frame(job(2, 0), b"two"),
        ]
        .concat();
        let all = exchange(&said, 3, |job| Made::text(job.text().unwrap()));
        assert!(all[1].contains("Cancelled"), "{}", all[1]);
        assert!(all[2].contains("two"), "{}", all[2]);
    }
}
