//! Frames about what jobs keep for each other, and what workers have loaded.

use std::sync::Arc;
use std::time::Duration;

use evener_core::JobKey;
use evener_core::state::{Number, StateAsk, StateOp};
use serde::{Deserialize, Deserializer};

use super::{FromWorker, parse};
use crate::frame::{Header, MORE, ProtocolError};

/// The most files that a worker names.
const FILES: usize = 1000;

/// JSON text.
type Json = Arc<[u8]>;

#[derive(Deserialize)]
struct Extension {
    key: Box<str>,
    #[serde(default)]
    ttl: Option<f64>,
    #[serde(default)]
    amount: Option<Box<serde_json::value::RawValue>>,
    #[serde(default)]
    expected: Option<u32>,
}

/// A STATE of a worker.
pub(super) fn ask(header: &Header, extension: &[u8], payload: &[u8]) -> Result<FromWorker, ProtocolError> {
    let field = |field, value: u8| Err(ProtocolError::Field { field, value: value.into() });
    let Extension { key, ttl, amount, expected } = parse(extension)?;
    let has_value = matches!(header.verb, 2 | 4);
    if header.flags & MORE != 0 {
        return field("flags", header.flags);
    }
    if header.content != u8::from(has_value) || payload.is_empty() == has_value {
        return field("content", header.content);
    }
    let ttl = ttl.map(duration).transpose()?;
    let op = match header.verb {
        1 => StateOp::Get,
        2 => StateOp::Set { value: payload.into(), ttl },
        3 => {
            let number = amount.and_then(|amount| Number::parse(amount.get().as_bytes()));
            let Some(amount) = number else {
                return Err(ProtocolError::Extension("an add needs `amount`, a number of 64 bits".to_owned()));
            };
            StateOp::Add { amount, ttl }
        }
        4 => {
            let (expected, value) = split(expected, payload)?;
            StateOp::CompareAndSet { expected, value, ttl }
        }
        5 => StateOp::Delete,
        other => return field("verb", other),
    };
    let (number, job, attempt) = (header.number, JobKey::unpack(header.job), header.attempt);
    Ok(FromWorker::State { number, job, attempt, ask: StateAsk { key, op } })
}

/// What is expected, and what is to be there then.
fn split(expected: Option<u32>, payload: &[u8]) -> Result<(Option<Json>, Json), ProtocolError> {
    let Some(length) = expected else { return Ok((None, payload.into())) };
    match payload.split_at_checked(length as usize) {
        Some((expected @ [_, ..], value @ [_, ..])) => Ok((Some(expected.into()), value.into())),
        _ => Err(ProtocolError::Field { field: "expected", value: length.into() }),
    }
}

fn duration(seconds: f64) -> Result<Duration, ProtocolError> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(ProtocolError::Extension(format!("`ttl` is {seconds}")));
    }
    // What is too long to be told ends never.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// The first of the files.
pub(super) fn files<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let mut files = Vec::<String>::deserialize(from)?;
    files.truncate(FILES);
    Ok(files)
}
