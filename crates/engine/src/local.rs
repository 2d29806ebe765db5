//! Workers without a process that stays: jq programs and Rust functions that run in the node, and commands.
//!
//! Most programs take a few microseconds. So a job is done at once, on the thread that carried out core's actions and after
//! the node's lock is let go of, with little to spend; one that needs more begins again on a thread of its own. A program is
//! pure: to run it twice changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evener_core::{Failure, JobKey, Outcome, StageId, Stop, WorkerKey};
use evener_doors::{Origin, Parcel};
use evener_protocol::{Content, Value};
use evener_supervisor::command::Ask;
use serde_json::{Map, json};
use tokio::sync::watch;

use crate::command::{Command, Leash};
use crate::jq::{Input, Limits, Program, RunError};
use crate::registry::{Function, Job};

/// What a job may spend before it gets a thread of its own.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(1);
/// The same in steps of its program.
pub(crate) const STEPS_AT_ONCE: u64 = 20_000;
/// Values larger than this get a thread from the start.
const LARGEST_AT_ONCE: usize = 32 * 1024;
/// How long after its timeout a program stops by itself.
const AFTER_TIMEOUT: Duration = Duration::from_secs(2);
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

/// One who does jobs of such a stage, one at a time, as the node reaches it.
#[derive(Debug)]
pub(crate) struct LocalSeat {
    pub(crate) stage: StageId,
    pub(crate) local: Local,
    /// Whether nobody waits for the job at hand.
    cancelled: Arc<AtomicBool>,
    /// The process of the job at hand.
    leash: Option<Leash>,
}

impl LocalSeat {
    pub(crate) fn new(stage: StageId, local: Local) -> LocalSeat {
        LocalSeat { stage, local, cancelled: Arc::default(), leash: None }
    }

    /// It gets another job: what that needs to hear.
    pub(crate) fn begin(&mut self) -> (Arc<AtomicBool>, Option<watch::Receiver<Ask>>) {
        self.cancelled.store(false, Ordering::Relaxed);
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
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(leash) = &self.leash {
            leash.cancel();
        }
    }

    /// It has kept a job too long that nobody waits for.
    pub(crate) fn stop(&self, signal: Stop) {
        self.cancelled.store(true, Ordering::Relaxed);
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
    pub(crate) cancelled: Arc<AtomicBool>,
    /// What is asked of its process, if it has one.
    pub(crate) asked: Option<watch::Receiver<Ask>>,
}

impl LocalJob {
    /// What it comes to, if that is soon.
    pub(crate) fn run_at_once(&self) -> Option<Outcome<Value>> {
        if let Local::Function(function) = &self.local {
            return function.quick.then(|| self.call(function));
        }
        if self.payload.value.bytes.len() > LARGEST_AT_ONCE {
            return None;
        }
        let limits = Limits { steps: STEPS_AT_ONCE, until: Some(Instant::now() + AT_ONCE), ..Limits::default() };
        match self.try_run(&limits) {
            Err(RunError::Steps | RunError::Time) => None,
            result => Some(result.unwrap_or_else(|error| Outcome::Fail(failed(error)))),
        }
    }

    /// What it comes to, on a thread of its own.
    pub(crate) fn run(&self) -> Outcome<Value> {
        if let Local::Function(function) = &self.local {
            return self.call(function);
        }
        // Core's timer ends a try, and then the program is told; its own clock is there in case that should not come about.
        let until = Instant::now().checked_add(self.timeout.saturating_add(AFTER_TIMEOUT));
        let limits = Limits { steps: u64::MAX, until, cancel: Some(self.cancelled.clone()), ..Limits::default() };
        self.try_run(&limits).unwrap_or_else(|error| Outcome::Fail(failed(error)))
    }

    fn call(&self, function: &Function) -> Outcome<Value> {
        let (value, origin) = (&self.payload.value, self.origin.as_deref());
        function.call(Job { value, origin, cancelled: &self.cancelled })
    }

    /// The value as the stage sees it: the request as JSON, if it is one.
    pub(crate) fn seen(&self) -> Bytes {
        let value = &self.payload.value;
        match self.origin.as_ref().filter(|_| self.is_request) {
            Some(origin) => request(origin, &value.bytes).into(),
            None => value.bytes.clone(),
        }
    }

    /// What that is.
    pub(crate) fn content(&self) -> Content {
        match self.origin.is_some() && self.is_request {
            true => Content::Json,
            false => self.payload.value.content.clone(),
        }
    }

    fn try_run(&self, limits: &Limits) -> Result<Outcome<Value>, RunError> {
        let (content, seen) = (self.content(), self.seen());
        let input = match input(&content, &seen) {
            Ok(input) => input,
            Err(failure) => return Ok(Outcome::Fail(failure)),
        };
        let json = |bytes: Vec<u8>| Value { content: Content::Json, bytes: bytes.into() };
        Ok(match &self.local {
            Local::Filter(program) => Outcome::Next(json(program.run(input, limits)?)),
            // These two are told apart before they come here.
            Local::Function(function) => self.call(function),
            Local::Command(_) => Outcome::Fail(Failure::Cancelled),
            Local::Split(program) => {
                let elements = program.run_list(input, limits, MOST_ELEMENTS)?;
                Outcome::Split(elements.into_iter().map(json).collect())
            }
        })
    }
}

/// What a jq program gets.
pub(crate) fn input<'a>(content: &Content, bytes: &'a [u8]) -> Result<Input<'a>, Failure> {
    let undecodable = |detail| Failure::Decode { detail };
    match content {
        Content::Json => Ok(Input::Json(bytes)),
        Content::Nothing => Ok(Input::Json(b"null")),
        Content::Text => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Input::Text(text)),
            Err(error) => Err(undecodable(format!("the text is not UTF-8: {error}"))),
        },
        Content::Bytes => Err(undecodable("a jq program takes JSON or text, and these are bytes".to_owned())),
        Content::Named(name) => Err(undecodable(format!("a jq program takes JSON or text, and this is {name}"))),
    }
}

pub(crate) fn failed(error: RunError) -> Failure {
    match error {
        RunError::Cancelled => Failure::Cancelled,
        RunError::NotJson(detail) => Failure::Decode { detail: format!("the value is not JSON: {detail}") },
        RunError::Failed(detail) => Failure::Filter { detail: format!("the jq program failed: {detail}") },
        error => Failure::Filter { detail: error.to_string() },
    }
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
