//! One request as its client sees it, and what has to become of it.

use std::time::Duration;

use evener_core::{Answer, Code, FallbackOn, JobKey, RequestId, RequestKey, StageRules, Time, WorkerKey};

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
    /// The next try does not start before this. Zero: it starts as soon as a worker is idle.
    pub(crate) not_before: Time,
    pub(crate) due: Option<Due>,
    /// A failed try that has to be reported in the very step that it failed in.
    pub(crate) to_report: Option<Code>,
    pub(crate) state: State,
}

impl Record {
    /// A new job begins, at the place where the request is.
    pub(crate) fn enter(&mut self, at: Position, value: u64) {
        (self.at, self.value) = (at, value);
        self.ordinal += 1;
        (self.job, self.attempt, self.runs, self.not_before) = (None, 0, 0, Time::ZERO);
    }

    /// A try is over without an outcome that counts. True if another follows.
    pub(crate) fn mishap(&mut self, now: Time, rules: &StageRules, mishap: Mishap) -> bool {
        let (worth_it, code) = match mishap {
            Mishap::Lost => (rules.retry_on.lost, Code::WorkerDied),
            Mishap::Timeout => (rules.retry_on.timeout, Code::StageTimeout),
            Mishap::Error => (rules.retry_on.error, Code::FunctionFailed),
        };
        self.holder = None;
        let again = worth_it && self.runs <= rules.retries;
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
fn pause(rules: &StageRules, runs: u32, mishap: Mishap) -> Duration {
    let longest = Duration::from_secs(30);
    let free = u32::from(rules.backoff.is_none() && mishap == Mishap::Lost);
    let first = rules.backoff.unwrap_or(Duration::from_millis(100));
    let mut waits = std::iter::successors(Some(first), |wait| Some((*wait * 2).min(longest.max(first))));
    match runs.checked_sub(free + 1) {
        Some(before) => waits.nth(before as usize).unwrap_or(longest),
        None => Duration::ZERO,
    }
}
