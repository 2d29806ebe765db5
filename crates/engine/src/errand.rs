//! What the node does itself once its lock is free: jobs of stages without workers, and keys that core asks for.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evener_core::{Assessment, Failure, JobKey, WorkerKey};
use evener_doors::{Origin, Parcel};
use evener_protocol::Content;

use crate::jq::{Input, Limits, Program, RunError};
use crate::local::{AT_ONCE, LocalJob, STEPS_AT_ONCE, failed, input, request};

/// The longest that a program may look for a key or a weight.
const LONGEST: Duration = Duration::from_secs(1);

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
    /// The answer, if that comes soon.
    pub(crate) fn answer_at_once(&self) -> Option<Result<Assessment, Failure>> {
        match self.try_answer(&at_once()) {
            Ok(Err(RunError::Steps | RunError::Time)) => None,
            Ok(result) => Some(result.map_err(failed)),
            Err(failure) => Some(Err(failure)),
        }
    }

    /// The answer, on a thread of its own.
    pub(crate) fn answer(&self) -> Result<Assessment, Failure> {
        let until = Some(Instant::now() + LONGEST);
        self.try_answer(&Limits { until, ..Limits::default() })?.map_err(failed)
    }

    fn try_answer(&self, limits: &Limits) -> Result<Result<Assessment, RunError>, Failure> {
        let value = &self.payload.value;
        let seen = self.origin.as_ref().map(|origin| request(origin, &value.bytes));
        let input = match &seen {
            Some(request) => input(&Content::Json, request)?,
            None => input(&value.content, &value.bytes)?,
        };
        let assessment = match &self.assess {
            Assess::Key(program) => {
                program.run(input, limits).map(|json| Assessment { affinity: hash(&json), weight: 1 })
            }
            Assess::Weight(program) => {
                let number = program.run_number(input, limits);
                number.map(|number| Assessment { affinity: 0, weight: weight(number) })
            }
        };
        Ok(assessment)
    }
}

fn at_once() -> Limits {
    Limits { steps: STEPS_AT_ONCE, until: Some(Instant::now() + AT_ONCE), ..Limits::default() }
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
fn weight(number: f64) -> u32 {
    // Numbers that are too large or too small become the nearest that there is.
    (number.ceil() as u32).max(1)
}

/// What a request counts by, as the number of a flow: 0 if it counts by nothing, or if that cannot be said.
pub(crate) fn flow(program: &Program, origin: &Origin) -> u16 {
    match program.run(Input::Json(&request(origin, &[])), &at_once()) {
        Ok(json) => match hash(&json) {
            0 => 0,
            hash => ((hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16).max(1),
        },
        Err(error) => {
            tracing::warn!(%error, "`fairness` gave no key for a request, which counts as one of those without");
            0
        }
    }
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
        assert_eq!([3.0, 2.1, 0.0, -7.0, 1e300].map(weight), [3, 3, 1, 1, u32::MAX]);
    }
}
