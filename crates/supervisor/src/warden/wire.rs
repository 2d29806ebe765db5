//! What node and warden say to each other: a length (four bytes, little-endian), then JSON.
//!
//! Both ends are the same binary, so there is no version. The three descriptors of a spawn travel
//! with the first byte of its frame; as they come in order, a reader only has to queue them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::certificate::How;

/// Room for the largest environment that a kernel takes (it refuses a few MiB), several times over.
const LONGEST: usize = 64 << 20;

/// A buffer that has once grown beyond this is given back when it is empty.
const KEEP: usize = 64 << 10;

/// How many descriptors travel with a spawn: the worker's socket or its stdin, its stdout, its stderr.
pub(super) const DESCRIPTORS: usize = 3;

/// What the node asks of the warden.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start a process; three descriptors come along.
    Spawn(Box<Order>),
    /// Send a signal to a process that was started as `id`, or to its whole group.
    Signal { id: u64, signal: i32, group: bool },
}

/// A process to start, in full.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) program: Text,
    pub(super) args: Vec<Text>,
    pub(super) env: Vec<(Text, Text)>,
    pub(super) cwd: Text,
    /// The most address space that the process may have, in bytes.
    pub(super) memory: Option<u64>,
    /// Whether the first descriptor is its standard input, and not a socket.
    pub(super) stdin: bool,
}

/// What the warden tells the node. Of one id: Spawned, then Exited; or Failed alone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Spawned { id: u64, pid: u32 },
    Failed { id: u64, failure: Failure },
    Exited { id: u64, exit: Exit },
}

/// Why a process did not start, told as a sentence.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) at: At,
    pub(super) reason: String,
    pub(super) errno: Option<i32>,
}

/// What was in the way of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum At {
    Program,
    Folder,
    System,
}

/// How a process ended, as its parent saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// By which code or signal.
    pub how: How,
    /// The most memory that it held at once, in bytes. Counts the largest of the process and of
    /// the children that it waited for, never less than the few MiB of the warden it came from.
    pub peak_rss: Option<u64>,
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
}

impl Exit {
    /// The end of a process that nobody saw, because the warden ended first.
    pub fn unknown() -> Self {
        Self { how: How::Unknown, peak_rss: None, core_dumped: false }
    }
}

/// A string of the operating system, which is UTF-8 nearly always but need not be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Text {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl From<&OsStr> for Text {
    fn from(text: &OsStr) -> Self {
        match text.to_str() {
            Some(text) => Self::Utf8(text.to_owned()),
            None => Self::Bytes(text.as_bytes().to_vec()),
        }
    }
}

impl From<Text> for OsString {
    fn from(text: Text) -> Self {
        match text {
            Text::Utf8(text) => text.into(),
            Text::Bytes(bytes) => OsString::from_vec(bytes),
        }
    }
}

/// One message as it travels.
pub(super) fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Bytes that came in and are not yet messages.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
}

/// The other end said something that is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a message of {0} bytes")]
    TooLong(usize),
    #[error("not a message: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a request to start a process without its descriptors")]
    NoDescriptors,
    #[error("descriptors were lost on the way")]
    LostDescriptors,
    #[error("no such signal: {0}")]
    NoSuchSignal(i32),
}

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if it is here.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Malformed> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > LONGEST {
            return Err(Malformed::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_cut_and_any_bytes() {
        let order = Order {
            id: 7,
            program: Text::from(OsStr::from_bytes(b"/bin/\xff\xfe")),
            args: vec![Text::from(OsStr::new("a b")), Text::from(OsStr::new(""))],
            env: vec![(Text::from(OsStr::new("K")), Text::from(OsStr::from_bytes(b"\x80")))],
            cwd: Text::from(OsStr::new("/")),
            memory: Some(1),
            stdin: false,
        };
        let mut wire = frame(&Request::Spawn(Box::new(order))).unwrap();
        wire.extend(frame(&Request::Signal { id: 7, signal: 9, group: true }).unwrap());
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for byte in wire {
            inbox.push(&[byte]);
            while let Some(request) = inbox.next::<Request>().unwrap() {
                seen.push(request);
            }
        }
        let [Request::Spawn(order), Request::Signal { id: 7, signal: 9, group: true }] = &mut seen[..] else {
            panic!("{seen:?}")
        };
        let program = std::mem::replace(&mut order.program, Text::Bytes(Vec::new()));
        assert_eq!(OsString::from(program).as_bytes(), b"/bin/\xff\xfe");
    }

    #[test]
    fn a_wrong_length_and_wrong_json_are_errors() {
        let mut inbox = Inbox::default();
        inbox.push(&[0xff; 8]);
        assert!(matches!(inbox.next::<Request>(), Err(Malformed::TooLong(_))));
        let mut inbox = Inbox::default();
        inbox.push(&[2, 0, 0, 0, b'{', b'}']);
        assert!(matches!(inbox.next::<Request>(), Err(Malformed::Json(_))));
    }
}
