//! What a worker says: bytes in, messages out.

mod outcome;
mod state;

use bytes::Bytes;
use evener_core::state::StateAsk;
use evener_core::{JobKey, Outcome};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::outcome::{no_room, too_large, whole};
use crate::VERSION;
use crate::content::Value;
use crate::frame::{HEADER, Header, Kind, MORE, ProtocolError};

/// How much room there always is for the next bytes.
const READ: usize = 64 * 1024;

/// A frame's payload of at least this size is not taken through the buffer.
const DIRECT: usize = 32 * 1024;
/// The most bytes that are made ready on the word of a worker.
const MOST_ANNOUNCED: u64 = 256 << 20;

/// A message of a worker.
#[derive(Clone, Debug, PartialEq)]
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
    /// A piece of a job's streamed answer.
    Chunk {
        /// The job.
        job: JobKey,
        /// The fence.
        attempt: u32,
        /// The piece.
        value: Value,
    },
    /// A job asks for, or changes, what jobs keep for each other.
    State {
        /// The worker's own number of the question, for the answer.
        number: u32,
        /// The job.
        job: JobKey,
        /// The fence.
        attempt: u32,
        /// What it asks.
        ask: StateAsk,
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
    /// Whether it may be told that the chunks of a job go to a client.
    #[serde(default)]
    pub stream: bool,
    /// Whether it calls functions that it is sent.
    #[serde(default)]
    pub functions: bool,
    /// The files of the service that it has loaded, as absolute paths: when one of them changes, it runs old code.
    #[serde(default, deserialize_with = "state::files")]
    pub files: Vec<String>,
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
    /// Whether it is not kept, for want of room.
    dropped: bool,
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
        Ok(Partial { head, extension: extension.to_vec(), payload, size: 0, dropped: false, direct: None })
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

    /// How many bytes it takes to keep a result or a chunk that is not whole yet.
    pub fn held(&self) -> u64 {
        self.partial.as_ref().map_or(0, |partial| partial.payload.capacity() as u64)
    }

    /// Keeps no more of the result that is not whole yet, for want of room: its job fails. A chunk is kept.
    pub fn drop_result(&mut self) {
        if let Some(partial) = self.partial.as_mut().filter(|partial| partial.head.kind == Kind::Outcome as u8) {
            partial.dropped = true;
            if partial.direct.is_none() {
                partial.payload = Vec::new();
            }
        }
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
    const CHUNK: u8 = Kind::Chunk as u8;
    const CREDIT: u8 = Kind::Credit as u8;
    const STATE: u8 = Kind::State as u8;
    const BYE: u8 = Kind::Bye as u8;
    match header.kind {
        READY => {
            let ready: Ready = parse(extension)?;
            if ready.protocol != VERSION {
                return Err(ProtocolError::Version(ready.protocol));
            }
            Ok(Some(FromWorker::Ready(ready)))
        }
        OUTCOME | CHUNK if partial.is_some() => {
            Err(ProtocolError::OutOfTurn("an OUTCOME or a CHUNK before the last part of another"))
        }
        OUTCOME | CHUNK if header.flags & MORE != 0 => {
            let size = payload.len() as u64;
            let mut open = Partial::new(header, extension, largest)?;
            open.payload.extend_from_slice(payload);
            open.size = size;
            *partial = Some(open);
            Ok(None)
        }
        OUTCOME | CHUNK if payload.len() as u64 > largest => {
            too_large(&header, payload.len() as u64, largest).map(Some)
        }
        OUTCOME | CHUNK => whole(&header, extension, || Bytes::copy_from_slice(payload)).map(Some),
        STATE => state::ask(&header, extension, payload).map(Some),
        PART => {
            let Some(open) = partial.as_mut() else {
                return Err(ProtocolError::OutOfTurn("a PART without a beginning"));
            };
            if (open.head.job, open.head.attempt) != (header.job, header.attempt) {
                return Err(ProtocolError::OutOfTurn("a PART of another job"));
            }
            open.size += payload.len() as u64;
            if open.size > largest || open.dropped {
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
            if open.dropped {
                open.payload = Vec::new();
            }
        }
        return Ok(None);
    }
    match partial.take() {
        Some(Partial { head, size, dropped: true, .. }) => Ok(Some(no_room(&head, size))),
        Some(Partial { head, size, .. }) if size > largest => too_large(&head, size, largest).map(Some),
        Some(Partial { head, extension, mut payload, .. }) => {
            // From here on its bytes alone are counted.
            payload.shrink_to_fit();
            whole(&head, &extension, || Bytes::from(payload)).map(Some)
        }
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
    let begins = [Kind::Outcome as u8, Kind::Chunk as u8].contains(&header.kind);
    if begins && more && partial.is_none() {
        *partial = Some(Partial::new(header, &here[..extension], largest)?);
    } else if header.kind != Kind::Part as u8 {
        return Ok(false);
    }
    let Some(open) = partial else { return Ok(false) };
    let same = (open.head.job, open.head.attempt) == (header.job, header.attempt);
    let size = open.size + payload as u64;
    if !same || open.dropped || size > largest {
        return Ok(false);
    }
    let here = &here[extension..];
    open.size = size;
    open.payload.extend_from_slice(here);
    open.payload.resize(open.payload.len() + payload - here.len(), 0);
    open.direct = Some((payload - here.len(), more));
    Ok(true)
}

fn parse<T: DeserializeOwned>(extension: &[u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(extension).map_err(|error| ProtocolError::Extension(error.to_string()))
}
