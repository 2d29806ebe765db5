//! What the node does itself once its lock is free: jobs of stages without workers, and keys that core asks for.

use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evener_core::{Assessment, Failure, JobKey, WorkerKey};
use evener_doors::{Flow, Origin, Parcel};
use evener_protocol::{Content, Value};

use crate::jq::workers::{JqWorkers, Run, Want};
use crate::jq::{Input, Limits, Program, RunError};
use crate::local::{LocalJob, accept, failed, input, request, seen};

/// The longest that a program may look for a key or a weight.
const LONGEST: Duration = Duration::from_secs(1);

/// The longest that a request waits for what it counts by. Others may keep the workers of the program busy: it counts by nothing then.
const SOON: Duration = Duration::from_millis(250);

/// How often it is told that `fairness` gave no key: any client can bring that about.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Errands {
    /// Jobs of stages without workers.
    pub(crate) jobs: Vec<LocalJob>,
    /// Jobs of other stages whose key or weight is to be found.
    pub(crate) questions: Vec<Question>,
    /// Workers without a process that leave for good.
    pub(crate) gone: Vec<WorkerKey>,
}

impl Errands {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.questions.is_empty() && self.gone.is_empty()
    }

    pub(crate) fn append(&mut self, mut others: Errands) {
        self.jobs.append(&mut others.jobs);
        self.questions.append(&mut others.questions);
        self.gone.append(&mut others.gone);
    }
}

/// What is asked of a job before it waits.
#[derive(Debug, Clone)]
pub(crate) enum Assess {
    /// Its key: the stage gives equal keys to the same worker.
    Key(Arc<Program>),
    /// Its weight in a batch.
    Weight(Arc<Program>),
}

/// What is asked of one job.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) job: JobKey,
    pub(crate) assess: Assess,
    pub(crate) payload: Parcel,
    /// The request, if the value is that.
    pub(crate) origin: Option<Arc<Origin>>,
}

impl Question {
    fn program(&self) -> &Arc<Program> {
        match &self.assess {
            Assess::Key(program) | Assess::Weight(program) => program,
        }
    }

    fn content(&self) -> Content {
        if self.origin.is_some() { Content::Json } else { self.payload.value.content.clone() }
    }

    /// The answer, if that comes soon.
    pub(crate) fn answer_at_once(&self) -> Option<Result<Assessment, Failure>> {
        let (program, value) = (self.program(), &self.payload.value);
        if !program.may_run_at_once(value.bytes.len()) {
            return None;
        }
        let seen = self.origin.as_ref().map(|origin| request(origin, &value.bytes));
        let seen = seen.as_deref().unwrap_or(&value.bytes);
        if !program.may_run_at_once(seen.len()) {
            return None;
        }
        match self.try_answer(seen) {
            Ok(Err(error)) if error.wants_more() => None,
            Ok(result) => Some(result.map_err(failed)),
            Err(failure) => Some(Err(failure)),
        }
    }

    fn try_answer(&self, seen: &[u8]) -> Result<Result<Assessment, RunError>, Failure> {
        let limits = Limits::at_once();
        let input = input(&self.content(), seen)?;
        Ok(match &self.assess {
            Assess::Key(program) => program.run(input, &limits).map(|json| key(&json)),
            Assess::Weight(program) => program.run_number(input, &limits).map(weight),
        })
    }

    /// The answer, from a worker process for jq programs. `None` if nobody wants it any more when one is free for it.
    pub(crate) async fn answer(
        &self,
        workers: &Arc<JqWorkers>,
        is_wanted: impl Fn() -> bool,
    ) -> Option<Result<Assessment, Failure>> {
        if let Err(failure) = accept(&self.content()) {
            return Some(Err(failure));
        }
        let want = match &self.assess {
            Assess::Key(_) => Want::Value,
            Assess::Weight(_) => Want::Number,
        };
        let program = self.program();
        let _turn = program.turn().await;
        if !is_wanted() {
            return None;
        }
        let bytes = match seen(self.origin.as_ref(), &self.payload.value.bytes, workers.memory()).await {
            Ok(bytes) => bytes,
            Err(failure) => return Some(Err(failure)),
        };
        let input = Value { content: self.content(), bytes };
        let given = workers.run_whatever(Run { program, want, input, time: LONGEST }).await;
        Some(given.and_then(|value| match &self.assess {
            Assess::Key(_) => Ok(key(&value.bytes)),
            Assess::Weight(_) => match serde_json::from_slice(&value.bytes) {
                Ok(number) => Ok(weight(number)),
                Err(error) => Err(Failure::Filter { detail: format!("the weight is no number: {error}") }),
            },
        }))
    }
}

fn key(json: &[u8]) -> Assessment {
    Assessment { affinity: hash(json), weight: 1 }
}

/// A key as a number: 0 if it is null, and nothing else is.
fn hash(json: &[u8]) -> u64 {
    if json == b"null" {
        return 0;
    }
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(json);
    hasher.finish().max(1)
}

/// A weight, rounded up. Nothing weighs less than 1.
fn weight(number: f64) -> Assessment {
    // Numbers that are too large or too small become the nearest that there is.
    Assessment { affinity: 0, weight: (number.ceil() as u32).max(1) }
}

/// What a request counts by, as the number of a flow: 0 if it counts by nothing, or if that cannot be said.
pub(crate) fn flow(program: &Arc<Program>, workers: &Arc<JqWorkers>, origin: &Origin) -> Flow {
    let request = request(origin, &[]);
    if program.may_run_at_once(request.len()) {
        match program.run(Input::Json(&request), &Limits::at_once()) {
            Err(error) if error.wants_more() => {}
            Ok(json) => return Flow::Known(flow_of(&json)),
            Err(error) => return Flow::Known(no_flow(&error.detail())),
        }
    }
    let (program, workers) = (program.clone(), workers.clone());
    Flow::Later(Box::pin(async move {
        let run = async {
            let _turn = program.turn().await;
            let input = Value { content: Content::Json, bytes: request.into() };
            workers.run_whatever(Run { program: &program, want: Want::Value, input, time: SOON }).await
        };
        match tokio::time::timeout(SOON, run).await {
            Ok(Ok(value)) => flow_of(&value.bytes),
            Ok(Err(Failure::Filter { detail } | Failure::Decode { detail })) => no_flow(&detail),
            Ok(Err(_)) => no_flow("its worker gave no value"),
            Err(_) => no_flow("it took too long"),
        }
    }))
}

fn flow_of(json: &[u8]) -> u16 {
    match hash(json) {
        0 => 0,
        hash => ((hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16).max(1),
    }
}

fn no_flow(why: &str) -> u16 {
    static UNTOLD: Mutex<(u64, Option<Instant>)> = Mutex::new((0, None));
    let mut untold = UNTOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let (requests, told) = &mut *untold;
    *requests += 1;
    if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
        tracing::warn!(error = why, requests, "`fairness` gave no key for requests, which count as those without");
        (*requests, *told) = (0, Some(Instant::now()));
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_no_key_and_equal_keys_are_equal() {
        assert_eq!(hash(b"null"), 0);
        assert_ne!(hash(b"0"), 0);
        assert_eq!(hash(b"\"a\""), hash(b"\"a\""));
        assert_ne!(hash(b"\"a\""), hash(b"\"b\""));
    }

    #[test]
    fn weights_are_whole_and_at_least_1() {
        assert_eq!([3.0, 2.1, 0.0, -7.0, 1e300].map(|number| weight(number).weight), [3, 3, 1, 1, u32::MAX]);
    }
}
