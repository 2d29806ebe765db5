//! Workers without a process: jq programs that run in the node.
//!
//! Most of them take a few microseconds. So a job is done at once, on the thread that carried out core's actions and after
//! the node's lock is let go of, with little to spend; one that needs more begins again on a thread of its own. A program is
//! pure: to run it twice changes nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use evener_core::{Failure, JobKey, Outcome, WorkerKey};
use evener_doors::{Origin, Parcel};
use evener_protocol::{Content, Value};
use serde_json::{Map, json};

use crate::jq::{Input, Limits, Program, RunError};

/// What a job may spend before it gets a thread of its own.
const AT_ONCE: Duration = Duration::from_millis(1);
/// The same in steps of its program.
const STEPS_AT_ONCE: u64 = 20_000;
/// Values larger than this get a thread from the start.
const LARGEST_AT_ONCE: usize = 32 * 1024;
/// The most elements of a list that is taken apart: more jobs than that no request may make.
const MOST_ELEMENTS: usize = 1_000_000;

/// What a stage without processes does.
#[derive(Debug, Clone)]
pub(crate) enum Local {
    /// Makes one value of each.
    Filter(Arc<Program>),
    /// Takes a list apart.
    Split(Arc<Program>),
}

/// A job of such a stage.
#[derive(Debug)]
pub(crate) struct LocalJob {
    pub(crate) worker: WorkerKey,
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
    pub(crate) local: Local,
    pub(crate) payload: Parcel,
    /// The request with its body, as JSON, if that is the value.
    pub(crate) request: Option<Vec<u8>>,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// Turns true when nobody waits for it any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl LocalJob {
    /// What it comes to, if that is soon.
    pub(crate) fn run_at_once(&self) -> Option<Outcome<Value>> {
        if self.payload.value.bytes.len() > LARGEST_AT_ONCE {
            return None;
        }
        let limits = Limits { steps: STEPS_AT_ONCE, until: Some(Instant::now() + AT_ONCE), ..Limits::default() };
        match self.try_run(&limits) {
            Err(RunError::Steps | RunError::Time) => None,
            result => Some(result.unwrap_or_else(failed)),
        }
    }

    /// What it comes to, on a thread of its own.
    pub(crate) fn run(&self) -> Outcome<Value> {
        let until = Instant::now().checked_add(self.timeout);
        let limits = Limits { steps: u64::MAX, until, cancel: Some(self.cancelled.clone()), ..Limits::default() };
        self.try_run(&limits).unwrap_or_else(failed)
    }

    fn try_run(&self, limits: &Limits) -> Result<Outcome<Value>, RunError> {
        let value = &self.payload.value;
        let input = match (&self.request, &value.content) {
            (Some(request), _) => Input::Json(request),
            (None, Content::Json) => Input::Json(&value.bytes),
            (None, Content::Nothing) => Input::Json(b"null"),
            (None, Content::Text) => match std::str::from_utf8(&value.bytes) {
                Ok(text) => Input::Text(text),
                Err(error) => return Ok(undecodable(format!("the text is not UTF-8: {error}"))),
            },
            (None, Content::Bytes) => return Ok(undecodable("a jq program takes JSON or text, and these are bytes")),
            (None, Content::Named(name)) => {
                return Ok(undecodable(format!("a jq program takes JSON or text, and this is {name}")));
            }
        };
        let json = |bytes: Vec<u8>| Value { content: Content::Json, bytes: bytes.into() };
        Ok(match &self.local {
            Local::Filter(program) => Outcome::Next(json(program.run(input, limits)?)),
            Local::Split(program) => {
                let elements = program.run_list(input, limits, MOST_ELEMENTS)?;
                Outcome::Split(elements.into_iter().map(json).collect())
            }
        })
    }
}

fn undecodable(detail: impl Into<String>) -> Outcome<Value> {
    Outcome::Fail(Failure::Decode { detail: detail.into() })
}

fn failed(error: RunError) -> Outcome<Value> {
    Outcome::Fail(match error {
        RunError::Cancelled => Failure::Cancelled,
        RunError::NotJson(detail) => Failure::Decode { detail: format!("the value is not JSON: {detail}") },
        error => Failure::Filter { detail: error.to_string() },
    })
}

/// A request as jq programs see it: `{method, path, params, query: {name: [values]}, headers, client, body}`. A body that is
/// JSON or text by its bytes stands as such.
pub(crate) fn request(origin: &Origin, body: &[u8]) -> Vec<u8> {
    // Strings under string keys: nothing here can fail to be JSON.
    let mut request = serde_json::to_value(origin).unwrap_or_default();
    let pairs = |value: &serde_json::Value| -> Vec<(String, String)> {
        serde_json::from_value(value.clone()).unwrap_or_default()
    };
    let mut query = Map::new();
    for (name, value) in pairs(&request["query"]) {
        if let Some(values) = query.entry(name).or_insert_with(|| json!([])).as_array_mut() {
            values.push(value.into());
        }
    }
    let headers: Map<String, serde_json::Value> =
        pairs(&request["headers"]).into_iter().map(|(name, value)| (name, value.into())).collect();
    request["query"] = query.into();
    request["headers"] = headers.into();
    request["body"] = match (body, std::str::from_utf8(body)) {
        ([], _) | (_, Err(_)) => serde_json::Value::Null,
        (_, Ok(text)) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    };
    serde_json::to_vec(&request).unwrap_or_default()
}
