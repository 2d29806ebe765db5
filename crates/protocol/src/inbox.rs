//! What a worker says: bytes in, messages out.

use bytes::Bytes;
use evener_core::{Failure, JobKey, Outcome, Reply};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::VERSION;
use crate::content::{Content, Value};
use crate::frame::{HEADER, Header, Kind, MORE, ProtocolError};

/// How much room there always is for the next bytes.
const READ: usize = 64 * 1024;

/// A frame's payload of at least this size is not taken through the buffer.
const DIRECT: usize = 32 * 1024;
/// The most bytes that are made ready on the word of a worker.
const MOST_ANNOUNCED: u64 = 256 << 20;

/// A message of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// It can take jobs.
    Ready(Ready),
    /// What became of a job.
    Outcome {
        /// The job.
        job: JobKey,
        /// The fence.
        attempt: u32,
        /// How long the function ran, in nanoseconds.
        ran_nanos: u64,
        /// What became of it.
        outcome: Outcome<Value>,
        /// How many bytes the job had left unread in standard output and standard error. Only workers that hold jobs ahead say so.
        printed: [u64; 2],
    },
    /// How many jobs it takes beyond the one at hand.
    Credit(u32),
    /// It exits; before READY with the reason why it cannot start.
    Bye {
        /// Why it cannot start.
        error: Option<String>,
    },
}

/// What a worker says of itself when it can take jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Ready {
    protocol: u64,
    /// What it runs on, for people.
    #[serde(default)]
    pub runtime: String,
    /// Whether it wants the cold fields of every job.
    #[serde(default)]
    pub context: bool,
    /// Whether it calls functions that it is sent.
    #[serde(default)]
    pub functions: bool,
}

#[derive(Deserialize, Default)]
struct OutcomeExtension {
    #[serde(default)]
    content_type: Option<Box<str>>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    target: Option<String>,
    #[serde(default, rename = "type")]
    name: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    traceback: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    place: Option<String>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    printed: [u64; 2],
}

/// How large a payload in parts will be, if its first frame says so.
#[derive(Deserialize, Default)]
struct SizeExtension {
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize, Default)]
struct ByeExtension {
    #[serde(default)]
    error: Option<String>,
}

/// A payload whose parts are still coming.
#[derive(Debug)]
struct Partial {
    head: Header,
    extension: Vec<u8>,
    payload: Vec<u8>,
    /// Bytes that came, kept or not.
    size: u64,
    /// Of the frame that is being read: bytes that go straight to the end of the payload, and whether another frame follows.
    direct: Option<(usize, bool)>,
}

impl Partial {
    /// A payload of which nothing has come. It is read into one piece of memory if its size is announced.
    fn new(head: Header, extension: &[u8], largest: u64) -> Result<Partial, ProtocolError> {
        let SizeExtension { size } = if extension.is_empty() { SizeExtension::default() } else { parse(extension)? };
        // It is only a word of a worker, and memory is taken as it comes; but not for more than is kept.
        let room = usize::try_from(size.min(largest).min(MOST_ANNOUNCED)).unwrap_or(0);
        let payload = Vec::with_capacity(room);
        Ok(Partial { head, extension: extension.to_vec(), payload, size: 0, direct: None })
    }
}

/// Collects bytes from a worker and makes messages of them.
#[derive(Debug)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    partial: Option<Partial>,
    largest: u64,
}

impl Inbox {
    /// An inbox that keeps payloads of at most `largest` bytes. A larger one is read to its end and dropped, and the job
    /// fails.
    pub fn new(largest: u64) -> Inbox {
        Inbox { buffer: Vec::new(), start: 0, end: 0, partial: None, largest }
    }

    /// Room for the next bytes; [`filled`](Inbox::filled) says how many came.
    pub fn room(&mut self) -> &mut [u8] {
        if let Some(Partial { payload, direct: Some((left @ 1.., _)), .. }) = &mut self.partial {
            let from = payload.len() - *left;
            return &mut payload[from..];
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < READ / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < READ / 2 {
                self.buffer.resize(self.end + READ, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were put into the room.
    pub fn filled(&mut self, count: usize) {
        if let Some(Partial { direct: Some((left @ 1.., _)), .. }) = &mut self.partial {
            *left -= count.min(*left);
            return;
        }
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Takes bytes from elsewhere, for tests and fuzzing.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
        }
    }

    /// The next message, or `None` until more bytes are in. After an error the connection cannot go on.
    #[allow(clippy::should_implement_trait)] // An iterator would hide that the end is only the end for now.
    pub fn next(&mut self) -> Result<Option<FromWorker>, ProtocolError> {
        loop {
            match self.partial.as_mut().and_then(|open| open.direct) {
                Some((1.., _)) => return Ok(None),
                Some((0, more)) => {
                    if let Some(message) = end_part(&mut self.partial, more, self.largest)? {
                        return Ok(Some(message));
                    }
                }
                None => {}
            }
            let here = &self.buffer[self.start..self.end];
            let Some(header) = Header::decode(here)? else { return Ok(None) };
            let whole = HEADER + header.length as usize;
            if here.len() < whole {
                if begin_direct(&mut self.partial, self.largest, header, &here[HEADER..])? {
                    self.start = self.end;
                }
                return Ok(None);
            }
            let (extension, payload) = here[HEADER..whole].split_at(header.extension as usize);
            let message = take(&mut self.partial, self.largest, header, extension, payload)?;
            self.start += whole;
            if message.is_some() {
                return Ok(message);
            }
        }
    }
}

fn take(
    partial: &mut Option<Partial>,
    largest: u64,
    header: Header,
    extension: &[u8],
    payload: &[u8],
) -> Result<Option<FromWorker>, ProtocolError> {
    const READY: u8 = Kind::Ready as u8;
    const PART: u8 = Kind::Part as u8;
    const OUTCOME: u8 = Kind::Outcome as u8;
    const CREDIT: u8 = Kind::Credit as u8;
    const BYE: u8 = Kind::Bye as u8;
    match header.kind {
        READY => {
            let ready: Ready = parse(extension)?;
            if ready.protocol != VERSION {
                return Err(ProtocolError::Version(ready.protocol));
            }
            Ok(Some(FromWorker::Ready(ready)))
        }
        OUTCOME if partial.is_some() => Err(ProtocolError::OutOfTurn("an OUTCOME before the last part of another")),
        OUTCOME if header.flags & MORE != 0 => {
            let size = payload.len() as u64;
            let mut open = Partial::new(header, extension, largest)?;
            open.payload.extend_from_slice(payload);
            open.size = size;
            *partial = Some(open);
            Ok(None)
        }
        OUTCOME if payload.len() as u64 > largest => Ok(Some(too_large(&header, payload.len() as u64, largest))),
        OUTCOME => outcome(&header, extension, || Bytes::copy_from_slice(payload)).map(Some),
        PART => {
            let Some(open) = partial.as_mut() else {
                return Err(ProtocolError::OutOfTurn("a PART without a beginning"));
            };
            if (open.head.job, open.head.attempt) != (header.job, header.attempt) {
                return Err(ProtocolError::OutOfTurn("a PART of another job"));
            }
            open.size += payload.len() as u64;
            if open.size > largest {
                open.payload = Vec::new();
            } else {
                open.payload.extend_from_slice(payload);
            }
            end_part(partial, header.flags & MORE != 0, largest)
        }
        CREDIT => Ok(Some(FromWorker::Credit(header.number))),
        BYE => {
            let ByeExtension { error } = if extension.is_empty() { ByeExtension::default() } else { parse(extension)? };
            Ok(Some(FromWorker::Bye { error }))
        }
        other => Err(ProtocolError::Kind(other)),
    }
}

/// A frame of a payload that comes in parts has come.
fn end_part(partial: &mut Option<Partial>, more: bool, largest: u64) -> Result<Option<FromWorker>, ProtocolError> {
    if more {
        if let Some(open) = partial {
            open.direct = None;
        }
        return Ok(None);
    }
    match partial.take() {
        Some(Partial { head, size, .. }) if size > largest => Ok(Some(too_large(&head, size, largest))),
        Some(whole) => outcome(&whole.head, &whole.extension, || Bytes::from(whole.payload)).map(Some),
        None => Ok(None),
    }
}

/// Lets what is still to come of a large frame go straight to where its payload is kept, instead of through the buffer. `here` is what
/// has come behind the header. False if the frame is not of that kind, or is not kept.
fn begin_direct(
    partial: &mut Option<Partial>,
    largest: u64,
    header: Header,
    here: &[u8],
) -> Result<bool, ProtocolError> {
    let more = header.flags & MORE != 0;
    let extension = header.extension as usize;
    let payload = header.length as usize - extension;
    if payload < DIRECT || here.len() < extension {
        return Ok(false);
    }
    if header.kind == Kind::Outcome as u8 && more && partial.is_none() {
        *partial = Some(Partial::new(header, &here[..extension], largest)?);
    } else if header.kind != Kind::Part as u8 {
        return Ok(false);
    }
    let Some(open) = partial else { return Ok(false) };
    let same = (open.head.job, open.head.attempt) == (header.job, header.attempt);
    let size = open.size + payload as u64;
    if !same || size > largest {
        return Ok(false);
    }
    let here = &here[extension..];
    open.size = size;
    open.payload.extend_from_slice(here);
    open.payload.resize(open.payload.len() + payload - here.len(), 0);
    open.direct = Some((payload - here.len(), more));
    Ok(true)
}

fn too_large(header: &Header, size: u64, largest: u64) -> FromWorker {
    let detail = format!("the result has {size} bytes, and {largest} is the most");
    of(header, Outcome::Fail(Failure::TooLarge { detail }), [0; 2])
}

fn of(header: &Header, outcome: Outcome<Value>, printed: [u64; 2]) -> FromWorker {
    let (job, attempt) = (JobKey::unpack(header.job), header.attempt);
    FromWorker::Outcome { job, attempt, ran_nanos: header.nanos, outcome, printed }
}

fn parse<T: DeserializeOwned>(extension: &[u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(extension).map_err(|error| ProtocolError::Extension(error.to_string()))
}

fn outcome(header: &Header, extension: &[u8], payload: impl FnOnce() -> Bytes) -> Result<FromWorker, ProtocolError> {
    let mut cold = if extension.is_empty() { OutcomeExtension::default() } else { parse(extension)? };
    let field = |field, value: u32| Err(ProtocolError::Field { field, value: value.into() });
    let value = || {
        let content = match header.content {
            0 if header.length != header.extension => {
                return Err(ProtocolError::Field { field: "content", value: 0 });
            }
            0 => Content::Nothing,
            1 => Content::Json,
            2 => Content::Text,
            3 => Content::Bytes,
            4 => match cold.content_type.take() {
                Some(name) => Content::Named(name),
                None => return Err(ProtocolError::Extension("content 4 needs `content_type`".to_owned())),
            },
            other => return Err(ProtocolError::Field { field: "content", value: other.into() }),
        };
        Ok(Value { content, bytes: payload() })
    };
    let printed = cold.printed;
    let outcome = match header.verb {
        1 => Outcome::Next(value()?),
        2 => {
            let body = value()?;
            let Some(status) = u16::try_from(header.number).ok().filter(|status| (200..600).contains(status)) else {
                return field("number", header.number);
            };
            Outcome::Respond(Reply { status, headers: cold.headers, body })
        }
        3 => {
            let value = value()?;
            let Some(target) = cold.target else {
                return Err(ProtocolError::Extension("a goto needs `target`".to_owned()));
            };
            Outcome::Goto { target, value }
        }
        4 => Outcome::Fail(failure(header.number, cold)?),
        5 => Outcome::Returned,
        6 => {
            let exception = value()?;
            let OutcomeExtension { name, message, traceback, .. } = cold;
            Outcome::Raised { name, message, traceback, exception }
        }
        other => return field("verb", other.into()),
    };
    Ok(of(header, outcome, printed))
}

fn failure(reason: u32, cold: OutcomeExtension) -> Result<Failure, ProtocolError> {
    let OutcomeExtension { name, message, traceback, detail, place, status, .. } = cold;
    Ok(match reason {
        1 => Failure::Error { name, message, traceback },
        2 if (400..600).contains(&status) => Failure::Abort { status, detail },
        2 => return Err(ProtocolError::Field { field: "status", value: status.into() }),
        3 => Failure::Decode { detail },
        4 => Failure::Encode { detail: place.map_or(detail.clone(), |place| format!("{place}: {detail}")) },
        5 => Failure::Cancelled,
        6 => Failure::OutOfMemory { message },
        other => return Err(ProtocolError::Field { field: "number", value: other.into() }),
    })
}
