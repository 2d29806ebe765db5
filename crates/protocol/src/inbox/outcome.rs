//! What became of jobs: whole OUTCOMEs and CHUNKs.

use bytes::Bytes;
use evener_core::{Failure, JobKey, Outcome, Reply};
use serde::Deserialize;

use super::{FromWorker, parse};
use crate::content::{Content, Value};
use crate::frame::{Header, Kind, ProtocolError};

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

pub(super) fn too_large(header: &Header, size: u64, largest: u64) -> Result<FromWorker, ProtocolError> {
    if header.kind == Kind::Chunk as u8 {
        return Err(ProtocolError::Chunk { size, largest });
    }
    let detail = format!("the result has {size} bytes, and {largest} is the most");
    Ok(of(header, Outcome::Fail(Failure::TooLarge { detail }), [0; 2]))
}

/// An OUTCOME whose value was not kept.
pub(super) fn no_room(header: &Header, size: u64) -> FromWorker {
    let detail = format!("it has {size} bytes, for which the node's limits.memory had no room");
    of(header, Outcome::Fail(Failure::NoRoom { detail }), [0; 2])
}

/// An OUTCOME or a CHUNK of which all has come.
pub(super) fn whole(
    header: &Header,
    extension: &[u8],
    payload: impl FnOnce() -> Bytes,
) -> Result<FromWorker, ProtocolError> {
    if header.kind == Kind::Chunk as u8 {
        chunk(header, extension, payload)
    } else {
        outcome(header, extension, payload)
    }
}

fn chunk(header: &Header, extension: &[u8], payload: impl FnOnce() -> Bytes) -> Result<FromWorker, ProtocolError> {
    if header.verb != 0 {
        return Err(ProtocolError::Field { field: "verb", value: header.verb.into() });
    }
    let cold = if extension.is_empty() { OutcomeExtension::default() } else { parse(extension)? };
    let value = value(header, cold.content_type, payload)?;
    if value.content == Content::Nothing {
        return Err(ProtocolError::Field { field: "content", value: 0 });
    }
    Ok(FromWorker::Chunk { job: JobKey::unpack(header.job), attempt: header.attempt, value })
}

/// The payload, as the content code says.
fn value(header: &Header, name: Option<Box<str>>, payload: impl FnOnce() -> Bytes) -> Result<Value, ProtocolError> {
    let content = match header.content {
        0 if header.length != header.extension => return Err(ProtocolError::Field { field: "content", value: 0 }),
        0 => Content::Nothing,
        1 => Content::Json,
        2 => Content::Text,
        3 => Content::Bytes,
        4 => match name {
            Some(name) => Content::Named(name),
            None => return Err(ProtocolError::Extension("content 4 needs `content_type`".to_owned())),
        },
        other => return Err(ProtocolError::Field { field: "content", value: other.into() }),
    };
    Ok(Value { content, bytes: payload() })
}

fn of(header: &Header, outcome: Outcome<Value>, printed: [u64; 2]) -> FromWorker {
    let (job, attempt) = (JobKey::unpack(header.job), header.attempt);
    FromWorker::Outcome { job, attempt, ran_nanos: header.nanos, outcome, printed }
}

fn outcome(header: &Header, extension: &[u8], payload: impl FnOnce() -> Bytes) -> Result<FromWorker, ProtocolError> {
    let mut cold = if extension.is_empty() { OutcomeExtension::default() } else { parse(extension)? };
    let field = |field, value: u32| Err(ProtocolError::Field { field, value: value.into() });
    let name = cold.content_type.take();
    let value = || value(header, name, payload);
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
        7 if header.content != 0 || header.length != header.extension => {
            return field("content", header.content.into());
        }
        7 => Outcome::Ended,
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
