//! Workers without a process that stays: jq programs and Rust functions that run in the node, and commands.
//!
//! Most programs take a few microseconds. So a job is done at once, on the thread that carried out core's actions and after
//! the node's lock is let go of, with little to spend, if what it spends can be counted; one that needs more begins again in a worker
//! process for such programs. A program is pure: to run it twice changes nothing.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evener_core::{Budget, Failure, JobKey, Outcome, StageId, Stop, WorkerKey};
use evener_doors::{Origin, Parcel};
use evener_protocol::{Content, Value};
use evener_supervisor::command::Ask;
use serde_json::{Map, json};
use tokio::sync::{Notify, watch};

use crate::command::{Command, Leash};
use crate::jq::workers::{JqWorkers, Lost, Run, Want};
use crate::jq::{self, Input, Limits, Program, RunError};
use crate::registry::{Function, Job};

/// How long after its timeout a program stops by itself.
const AFTER_TIMEOUT: Duration = Duration::from_secs(2);
/// A request with a larger body is put into JSON on a thread of its own.
const LARGEST_SEEN_AT_ONCE: usize = 64 * 1024;
/// The most elements of a list that is taken apart: more jobs than that no request may make.
const MOST_ELEMENTS: usize = 1_000_000;

/// What a stage without processes does.
#[derive(Debug, Clone)]
pub(crate) enum Local {
    /// Makes one value of each.
    Filter(Arc<Program>),
    /// Takes a list apart.
    Split(Arc<Program>),
    /// Calls a function of the program that embeds the node.
    Function(Function),
    /// Starts a program.
    Command(Arc<Command>),
}

/// Whether nobody waits for a job any more.
#[derive(Debug, Default)]
pub(crate) struct Cancelled {
    flag: AtomicBool,
    told: Notify,
}

impl Cancelled {
    /// As those look at it who cannot be told.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Waits until nobody waits for the job.
    pub(crate) async fn told(&self) {
        let mut told = pin!(self.told.notified());
        told.as_mut().enable();
        if !self.flag.load(Ordering::Acquire) {
            told.await;
        }
    }

    fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.told.notify_waiters();
    }
}

/// One who does jobs of such a stage, one at a time, as the node reaches it.
#[derive(Debug)]
pub(crate) struct LocalSeat {
    pub(crate) stage: StageId,
    pub(crate) local: Local,
    /// Whether nobody waits for the job at hand.
    cancelled: Arc<Cancelled>,
    /// The process of the job at hand.
    leash: Option<Leash>,
}

impl LocalSeat {
    pub(crate) fn new(stage: StageId, local: Local) -> LocalSeat {
        LocalSeat { stage, local, cancelled: Arc::default(), leash: None }
    }

    /// It gets another job: what that needs to hear.
    pub(crate) fn begin(&mut self) -> (Arc<Cancelled>, Option<watch::Receiver<Ask>>) {
        // One who still is at the job before, which was given up, is not to take it up again.
        match Arc::strong_count(&self.cancelled) {
            1 => self.cancelled.flag.store(false, Ordering::Relaxed),
            _ => self.cancelled = Arc::default(),
        }
        let asked = match &self.local {
            Local::Command(command) => {
                let (leash, asked) = Leash::new(command);
                self.leash = Some(leash);
                Some(asked)
            }
            Local::Filter(_) | Local::Split(_) | Local::Function(_) => None,
        };
        (self.cancelled.clone(), asked)
    }

    /// Nobody waits for its job any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.set();
        if let Some(leash) = &self.leash {
            leash.cancel();
        }
    }

    /// It has kept a job too long that nobody waits for.
    pub(crate) fn stop(&self, signal: Stop) {
        self.cancelled.set();
        if let Some(leash) = &self.leash {
            leash.stop(signal);
        }
    }
}

/// A job of such a stage.
#[derive(Debug)]
pub(crate) struct LocalJob {
    pub(crate) worker: WorkerKey,
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
    pub(crate) local: Local,
    pub(crate) payload: Parcel,
    /// The request behind it.
    pub(crate) origin: Option<Arc<Origin>>,
    /// Whether the value is the request with its body.
    pub(crate) is_request: bool,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// Turns true when nobody waits for it any more.
    pub(crate) cancelled: Arc<Cancelled>,
    /// What is asked of its process, if it has one.
    pub(crate) asked: Option<watch::Receiver<Ask>>,
}

impl LocalJob {
    /// What it comes to, if that is soon.
    pub(crate) fn run_at_once(&self) -> Option<Outcome<Value>> {
        match &self.local {
            Local::Function(function) => function.quick.then(|| self.call(function)),
            Local::Filter(program) | Local::Split(program) => {
                let value = &self.payload.value;
                if !program.may_run_at_once(value.bytes.len()) {
                    return None;
                }
                let seen = match self.origin.as_ref().filter(|_| self.is_request) {
                    Some(origin) => request(origin, &value.bytes).into(),
                    None => value.bytes.clone(),
                };
                if !program.may_run_at_once(seen.len()) {
                    return None;
                }
                match self.try_run(program, &seen) {
                    Err(error) if error.wants_more() => None,
                    result => Some(result.unwrap_or_else(|error| Outcome::Fail(failed(error)))),
                }
            }
            Local::Command(_) => None,
        }
    }

    /// What it comes to, in a worker process for jq programs.
    pub(crate) async fn run_in_worker(
        &self,
        program: &Program,
        workers: &Arc<JqWorkers>,
    ) -> Result<Outcome<Value>, Lost> {
        let is_split = matches!(self.local, Local::Split(_));
        let want = if is_split { Want::List { most: MOST_ELEMENTS } } else { Want::Value };
        if let Err(failure) = accept(&self.content()) {
            return Ok(Outcome::Fail(failure));
        }
        // Core's timer ends a try, and then the program is told; its own clock is there in case that should not come about.
        let time = self.timeout.saturating_add(AFTER_TIMEOUT);
        let result = async {
            let bytes = match self.seen(workers.memory()).await {
                Ok(bytes) => bytes,
                Err(failure) => return Ok(Err(failure)),
            };
            let input = Value { content: self.content(), bytes };
            workers.run(Run { program, want, input, time }).await
        };
        let result = tokio::select! {
            result = result => result?,
            () = self.cancelled.told() => Err(Failure::Cancelled),
        };
        Ok(match result {
            Ok(value) if is_split => Outcome::Split(jq::workers::elements(value.bytes)),
            Ok(value) => Outcome::Next(value),
            Err(failure) => Outcome::Fail(failure),
        })
    }

    /// Calls a function of the program that embeds the node.
    pub(crate) fn call(&self, function: &Function) -> Outcome<Value> {
        let (value, origin) = (&self.payload.value, self.origin.as_deref());
        function.call(Job { value, origin, cancelled: self.cancelled.flag() })
    }

    /// The value as the stage sees it: the request as JSON, if it is one.
    pub(crate) async fn seen(&self, memory: &Budget) -> Result<Bytes, Failure> {
        seen(self.origin.as_ref().filter(|_| self.is_request), &self.payload.value.bytes, memory).await
    }

    /// What that is.
    pub(crate) fn content(&self) -> Content {
        match self.origin.is_some() && self.is_request {
            true => Content::Json,
            false => self.payload.value.content.clone(),
        }
    }

    fn try_run(&self, program: &Program, seen: &[u8]) -> Result<Outcome<Value>, RunError> {
        let limits = Limits::at_once();
        let input = match input(&self.content(), seen) {
            Ok(input) => input,
            Err(failure) => return Ok(Outcome::Fail(failure)),
        };
        let json = |bytes: Vec<u8>| Value { content: Content::Json, bytes: bytes.into() };
        Ok(match &self.local {
            Local::Split(_) => {
                let elements = program.run_list(input, &limits, MOST_ELEMENTS)?;
                Outcome::Split(elements.into_iter().map(json).collect())
            }
            _ => Outcome::Next(json(program.run(input, &limits)?)),
        })
    }
}

/// A value, or the request that it is the body of as JSON, which is counted in `memory` as long as it is there.
pub(crate) async fn seen(origin: Option<&Arc<Origin>>, bytes: &Bytes, memory: &Budget) -> Result<Bytes, Failure> {
    let Some(origin) = origin.cloned() else { return Ok(bytes.clone()) };
    let detail = || format!("limits.memory has no room for a request of {} bytes as JSON", bytes.len());
    let full = || Failure::NoRoom { detail: detail() };
    let mut held = memory.reserve(bytes.len() as u64).ok_or_else(full)?;
    let json = match bytes.len() <= LARGEST_SEEN_AT_ONCE {
        true => request(&origin, bytes),
        false => {
            let bytes = bytes.clone();
            let written = tokio::task::spawn_blocking(move || request(&origin, &bytes));
            // The thread only fails if the runtime ends.
            written.await.unwrap_or_default()
        }
    };
    if !held.grow((json.len() as u64).saturating_sub(held.bytes())) {
        return Err(full());
    }
    Ok(evener_doors::hold(json.into(), Some(Arc::new(held))))
}

/// Whether a jq program takes a value of that kind.
pub(crate) fn accept(content: &Content) -> Result<(), Failure> {
    let what = match content {
        Content::Json | Content::Nothing | Content::Text => return Ok(()),
        Content::Bytes => "these are bytes".to_owned(),
        Content::Named(name) => format!("this is {name}"),
    };
    Err(Failure::Decode { detail: format!("a jq program takes JSON or text, and {what}") })
}

/// What a jq program gets.
pub(crate) fn input<'a>(content: &Content, bytes: &'a [u8]) -> Result<Input<'a>, Failure> {
    accept(content)?;
    match content {
        Content::Json => Ok(Input::Json(bytes)),
        Content::Text => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Input::Text(text)),
            Err(error) => Err(Failure::Decode { detail: format!("the value is not UTF-8: {error}") }),
        },
        Content::Nothing | Content::Bytes | Content::Named(_) => Ok(Input::Json(b"null")),
    }
}

pub(crate) fn failed(error: RunError) -> Failure {
    match error {
        RunError::NotJson(_) => Failure::Decode { detail: error.to_string() },
        error => Failure::Filter { detail: error.detail() },
    }
}

/// Writes JSON without the white space between its parts.
fn compact(from: &[u8], into: &mut Vec<u8>) {
    let (mut text, mut escaped) = (false, false);
    into.extend(from.iter().copied().filter(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            _ => {}
        }
        text || !byte.is_ascii_whitespace()
    }));
}

/// A request as jq programs see it: `{method, path, params, query: {name: [values]}, headers, client, body}`. A body that is
/// JSON or text by its bytes stands as such. It is looked through and not taken apart, which would take many times its memory.
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
    let head = serde_json::to_vec(&request).unwrap_or_default();
    let mut json = Vec::with_capacity(br#"{"body":"#.len() + body.len() + head.len());
    json.extend_from_slice(br#"{"body":"#);
    match std::str::from_utf8(body) {
        Ok(text) if jq::is_json(text) => compact(body, &mut json),
        Ok(text) if !text.is_empty() => _ = serde_json::to_writer(&mut json, text),
        _ => json.extend_from_slice(b"null"),
    }
    json.push(b',');
    // The head is an object that is not empty.
    json.extend_from_slice(&head[1..]);
    json.shrink_to_fit();
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_except_in_texts() {
        let mut json = Vec::new();
        compact(b" {\"a b\" :\t[1, \"x \\\" y\\\\\" , null]\r\n}\n", &mut json);
        assert_eq!(std::str::from_utf8(&json), Ok(r#"{"a b":[1,"x \" y\\",null]}"#));
    }
}
