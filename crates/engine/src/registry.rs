//! Rust functions that do the jobs of stages, in the node itself: for programs that embed it.
//!
//! A stage of kind `rust` names one. [`Registry::quick`] is for functions that take microseconds: they run where the node
//! carries out its decisions, so that nobody is woken for them and nobody else runs meanwhile. [`Registry::blocking`] is for
//! all others: each job has a thread.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use evener_core::{Failure, Outcome, Reply};
use evener_doors::Origin;
use evener_protocol::{Content, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A job, as a function sees it.
#[derive(Debug)]
pub struct Job<'a> {
    pub(crate) value: &'a Value,
    pub(crate) origin: Option<&'a Origin>,
    pub(crate) cancelled: &'a AtomicBool,
}

impl Job<'_> {
    /// The value's bytes: of the first stage behind a route, the body.
    pub fn bytes(&self) -> &Bytes {
        &self.value.bytes
    }

    /// What the value is.
    pub fn content(&self) -> &Content {
        &self.value.content
    }

    /// The value, read from JSON. The error is what the function may return.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Done> {
        serde_json::from_slice(&self.value.bytes).map_err(|error| {
            let detail = format!("the value is not the JSON that it should be: {error}");
            Done(Outcome::Fail(Failure::Decode { detail }))
        })
    }

    /// The value, as text.
    pub fn text(&self) -> Result<&str, Done> {
        std::str::from_utf8(&self.value.bytes).map_err(|error| {
            let detail = format!("the value is not UTF-8: {error}");
            Done(Outcome::Fail(Failure::Decode { detail }))
        })
    }

    /// The first value of a parameter of the request's query, decoded. `None` if it is not there, or no request is.
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.origin?.query(name)
    }

    /// The value of a parameter of the request's path.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.origin?.param(name)
    }

    /// The value of a header of the request, if it is plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.origin?.header(name)
    }

    /// The request's method. `None` where no request is behind the job.
    pub fn method(&self) -> Option<&str> {
        Some(self.origin?.method())
    }

    /// Whether nobody waits for it any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// What a function makes of a job.
#[derive(Debug)]
pub struct Done(pub(crate) Outcome<Value>);

impl Done {
    /// A value for the next stage, or the answer if there is none: as JSON.
    pub fn json(value: &impl Serialize) -> Done {
        match serde_json::to_vec(value) {
            Ok(json) => Done::value(Content::Json, json),
            Err(error) => Done(Outcome::Fail(Failure::Encode { detail: error.to_string() })),
        }
    }

    /// The same, as text.
    pub fn text(text: impl Into<String>) -> Done {
        Done::value(Content::Text, text.into())
    }

    /// The same, as bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Done {
        Done::value(Content::Bytes, bytes)
    }

    /// Another stage or pipeline gets this value.
    pub fn goto(self, target: impl Into<String>) -> Done {
        match self.0 {
            Outcome::Next(value) => Done(Outcome::Goto { target: target.into(), value }),
            other => Done(other),
        }
    }

    /// This value is the answer, now, with that HTTP status (200 to 599).
    pub fn respond(self, status: u16) -> Done {
        match self.0 {
            Outcome::Next(body) => Done(Outcome::Respond(Reply { status, headers: Vec::new(), body })),
            other => Done(other),
        }
    }

    /// The request is refused, with that HTTP status (400 to 599) and why.
    pub fn abort(status: u16, why: impl Into<String>) -> Done {
        Done(Outcome::Fail(Failure::Abort { status, detail: why.into() }))
    }

    /// The function failed. Clients see the `name`; the message is for the log.
    pub fn error(name: impl Into<String>, message: impl Into<String>) -> Done {
        let (name, message) = (name.into(), message.into());
        Done(Outcome::Fail(Failure::Error { name, message, traceback: String::new() }))
    }

    fn value(content: Content, bytes: impl Into<Bytes>) -> Done {
        Done(Outcome::Next(Value { content, bytes: bytes.into() }))
    }
}

impl<E: Into<Done>> From<Result<Done, E>> for Done {
    fn from(result: Result<Done, E>) -> Done {
        result.unwrap_or_else(E::into)
    }
}

type Call = dyn Fn(Job<'_>) -> Done + Send + Sync;

/// A function that stages may name.
#[derive(Clone)]
pub(crate) struct Function {
    call: Arc<Call>,
    /// Whether it runs where the node carries out its decisions.
    pub(crate) quick: bool,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("quick", &self.quick).finish_non_exhaustive()
    }
}

impl Function {
    /// Calls it. A panic is the function's failure and nobody else's.
    pub(crate) fn call(&self, job: Job<'_>) -> Outcome<Value> {
        catch_unwind(AssertUnwindSafe(|| (self.call)(job).0)).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let message = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Outcome::Fail(Failure::Error { name: "panic".to_owned(), message, traceback: String::new() })
        })
    }
}

/// The Rust functions that stages may name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    functions: HashMap<String, Function>,
}

impl Registry {
    /// A registry without functions.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// The same with a function that takes microseconds and never waits.
    #[must_use]
    pub fn quick<T: Into<Done>>(self, name: &str, call: impl Fn(Job<'_>) -> T + Send + Sync + 'static) -> Registry {
        self.with(name, call, true)
    }

    /// The same with a function that may take long, or wait.
    #[must_use]
    pub fn blocking<T: Into<Done>>(self, name: &str, call: impl Fn(Job<'_>) -> T + Send + Sync + 'static) -> Registry {
        self.with(name, call, false)
    }

    fn with<T: Into<Done>>(
        mut self,
        name: &str,
        call: impl Fn(Job<'_>) -> T + Send + Sync + 'static,
        quick: bool,
    ) -> Registry {
        let call: Arc<Call> = Arc::new(move |job: Job<'_>| call(job).into());
        self.functions.insert(name.to_owned(), Function { call, quick });
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// The names of all functions, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.functions.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}
