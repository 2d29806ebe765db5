//! One request as its client sees it, and what has to become of it.

use std::time::Duration;

use evener_core::{Answer, Code, FallbackOn, JobKey, RequestId, RequestKey, StageRules, Terms, Time, WorkerKey};

use crate::line::Place;
use crate::trail::Position;

/// What took a try away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    Lost,
    Timeout,
    Error,
}

/// An answer that has to come in the very step that made it due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Value(u64),
    Reply(u64),
    Raised(u64),
    Problem(Code),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Answered,
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: RequestId,
    pub(crate) key: RequestKey,
    pub(crate) deadline: Time,
    pub(crate) fallback_on: FallbackOn,
    /// What goes for the job that it now has.
    pub(crate) terms: Terms,
    pub(crate) at: Position,
    pub(crate) hops: u32,
    /// The payload that the job now has to have.
    pub(crate) value: u64,
    /// The number of the job among those of this request.
    pub(crate) ordinal: u32,
    /// The job's key, once it has been handed out.
    pub(crate) job: Option<JobKey>,
    /// The highest attempt seen.
    pub(crate) attempt: u32,
    /// Executions of this job that count as started.
    pub(crate) runs: u32,
    /// The worker whose outcome counts.
    pub(crate) holder: Option<WorkerKey>,
    /// Where it stands in its stage's line, if it does.
    pub(crate) place: Option<Place>,
    /// The next try does not start before this. Zero: it starts as soon as a worker is idle.
    pub(crate) not_before: Time,
    pub(crate) due: Option<Due>,
    /// A failed try that has to be reported in the very step that it failed in.
    pub(crate) to_report: Option<Code>,
    /// Its client has taken it back, and its worker is asked whether it has begun.
    pub(crate) asked: bool,
    /// Its client has to be told, in this very step, that it is too late to take it back.
    pub(crate) goes_on: bool,
    /// Its client has insisted on its end.
    pub(crate) killed: bool,
    /// The job that it had when its client took it back, before that job began.
    pub(crate) withdrawn: Option<u32>,
    pub(crate) state: State,
}

/// All requests that were let in, by number.
#[derive(Debug, Default)]
pub(crate) struct Records {
    records: Vec<Option<Record>>,
}

impl Records {
    pub(crate) fn insert(&mut self, number: u32, record: Record) {
        let index = number as usize;
        if self.records.len() <= index {
            self.records.resize_with(index + 1, || None);
        }
        self.records[index] = Some(record);
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Record> {
        self.records.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Record> {
        self.records.get_mut(number as usize)?.as_mut()
    }
}

impl std::ops::Index<u32> for Records {
    type Output = Record;

    fn index(&self, number: u32) -> &Record {
        self.get(number).expect("it was let in")
    }
}

impl Record {
    /// A new job begins, at the place where the request is.
    pub(crate) fn enter(&mut self, at: Position, value: u64) {
        (self.at, self.value) = (at, value);
        self.ordinal += 1;
        (self.job, self.attempt, self.runs, self.not_before) = (None, 0, 0, Time::ZERO);
        // The client speaks of the first job alone, but for how urgent it all is.
        self.terms = Terms { priority: self.terms.priority, ..Terms::default() };
    }

    /// How often its job may be tried again.
    pub(crate) fn retries(&self, rules: &StageRules) -> u32 {
        match self.terms.retries {
            Some(own) => own,
            None => rules.retries,
        }
    }

    /// How long one try of its job may take.
    pub(crate) fn timeout(&self, rules: &StageRules) -> Duration {
        match self.terms.timeout {
            Some(own) => own,
            None => rules.timeout,
        }
    }

    /// A try is over without an outcome that counts. True if another follows.
    pub(crate) fn mishap(&mut self, now: Time, rules: &StageRules, mishap: Mishap) -> bool {
        let (worth_it, code) = match mishap {
            Mishap::Lost => (rules.retry_on.lost, Code::WorkerDied),
            Mishap::Timeout => (rules.retry_on.timeout, Code::StageTimeout),
            Mishap::Error => (rules.retry_on.error, Code::FunctionFailed),
        };
        self.holder = None;
        let again = worth_it && self.runs <= self.retries(rules);
        if again {
            let pause = pause(rules, self.runs, mishap);
            self.to_report = Some(code);
            self.not_before = if pause.is_zero() { Time::ZERO } else { now + pause };
        } else {
            self.due = Some(Due::Problem(code));
        }
        again
    }

    /// Whether an answer is of the kind that was due, behind the fallback if that covers it.
    pub(crate) fn matches(&self, due: Due, answer: &Answer<u64>) -> bool {
        match (due, answer) {
            (Due::Value(due), Answer::Value(value)) => due == *value,
            (Due::Reply(due), Answer::Reply(reply)) => due == reply.body,
            (Due::Raised(due), Answer::Raised(_, value)) => due == *value,
            (Due::Problem(due), Answer::Problem(problem)) => due == problem.code && !covers(self.fallback_on, due),
            (Due::Problem(due), Answer::Fallback(problem)) => due == problem.code && covers(self.fallback_on, due),
            _ => false,
        }
    }
}

/// Whether a fallback stands in for a problem, by the status that it has.
pub(crate) fn covers(fallback_on: FallbackOn, code: Code) -> bool {
    match code.status() {
        504 => fallback_on.timeout,
        500 => fallback_on.error,
        502 => fallback_on.lost,
        429 | 503 => fallback_on.unavailable,
        _ => false,
    }
}

/// The wait between try number `runs` and the next. With no backoff of its own a stage waits 100 ms, except that the
/// first retry after a loss is free; each further wait is twice the last, up to 30 s.
pub(crate) fn pause(rules: &StageRules, runs: u32, mishap: Mishap) -> Duration {
    let longest = Duration::from_secs(30);
    let free = u32::from(rules.backoff.is_none() && mishap == Mishap::Lost);
    let first = rules.backoff.unwrap_or(Duration::from_millis(100));
    let mut waits = std::iter::successors(Some(first), |wait| Some((*wait * 2).min(longest.max(first))));
    match runs.checked_sub(free + 1) {
        Some(before) => waits.nth(before as usize).unwrap_or(longest),
        None => Duration::ZERO,
    }
}
