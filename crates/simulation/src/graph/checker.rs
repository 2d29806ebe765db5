//! The history of a world with branches, from outside: what each input makes due, and whether it comes.

mod actions;
mod inputs;
mod rest;
mod sizes;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evener_core::{
    Code, FallbackOn, JobKey, OnCancel, Path, RequestId, RequestKey, StageId, StageRules, Time, Topology, WorkerKey,
};

use self::sizes::Size;
use super::book::{Book, Job, JobName, Place};
use super::crew::Member;
use super::tally::Happening;
use super::tree::{Desk, End, Event, Way};
use super::turns::{Turns, Urgency};
use super::{due_tick, fired};
use crate::record::covers;
use crate::tally::Tally;

/// An answer that has to come in the very step that made it due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Value(u64),
    Reply(u64),
    Ended,
    Problem(Code),
}

/// The other way of a request, and why it was taken.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    path: Path,
    payload: u64,
    taken: Option<Code>,
    /// Whether that was told.
    told: bool,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Request {
    id: RequestId,
    key: RequestKey,
    deadline: Time,
    fallback_on: FallbackOn,
    streams: bool,
    streamed: bool,
    recovery: Option<Recovery>,
    way: Way,
    due: Option<Due>,
    is_old: bool,
}

/// What time brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Try(WorkerKey, JobKey, u32),
    Retry(JobName, u32),
    Expiry(u32, u32),
    Deadline(u32),
    DrainEnd,
}

/// Keeps the history, and holds every action against it.
#[derive(Debug)]
pub(super) struct Checker {
    topology: Arc<Topology>,
    book: Book,
    requests: BTreeMap<u32, Request>,
    /// How urgent each request is and whose, those that have ended among them.
    urgency: BTreeMap<u32, Urgency>,
    names: BTreeMap<JobKey, JobName>,
    timers: BTreeSet<(u64, Timer)>,
    turns: Turns,
    crew: BTreeMap<WorkerKey, Member>,
    sizes: BTreeMap<StageId, Size>,
    /// Of two workers that could take a job of a key, which one did.
    preferred: BTreeSet<(StageId, u64, WorkerKey, WorkerKey)>,
    broken: Vec<bool>,
    draining: bool,
    accepted: u64,
    answered: u64,
    cancelled: u64,
    /// How often it is to be told in this step that an old plan is done.
    outdated: u32,
    told_outdated: u32,
    /// Whether a stream is to go on in this step.
    chunk: Option<(RequestKey, u64)>,
    credit: Option<(WorkerKey, JobKey, u64)>,
    /// Whether all that happens in this step comes of one cause. If not, a job may go to a worker before another cause ends it.
    strict: bool,
    /// The requests that got jobs in a step with several causes: nobody can say which of them came first.
    adrift: BTreeSet<u32>,
    /// What those jobs turned out to be called, where that is not as it was thought.
    called: BTreeMap<JobName, JobName>,
    /// The jobs that have ended in this step, and have not gone to a worker since.
    fallen: BTreeMap<JobName, Job>,
    /// Whether this step is that time passed.
    time_passed: bool,
    /// Nobody can say in which order things happened: the end of what can be checked.
    pub(super) blurred: bool,
    pub(super) tally: Tally<Happening>,
}

impl Checker {
    pub(super) fn new(topology: Arc<Topology>) -> Checker {
        let stages = topology.stages().len();
        Checker {
            topology,
            book: Book::default(),
            requests: BTreeMap::new(),
            urgency: BTreeMap::new(),
            names: BTreeMap::new(),
            timers: BTreeSet::new(),
            turns: Turns::default(),
            crew: BTreeMap::new(),
            sizes: BTreeMap::new(),
            preferred: BTreeSet::new(),
            broken: vec![false; stages],
            draining: false,
            accepted: 0,
            answered: 0,
            cancelled: 0,
            outdated: 0,
            told_outdated: 0,
            chunk: None,
            credit: None,
            strict: true,
            adrift: BTreeSet::new(),
            called: BTreeMap::new(),
            fallen: BTreeMap::new(),
            time_passed: false,
            blurred: false,
            tally: Tally::default(),
        }
    }

    fn begin_step(&mut self) {
        self.book.step += 1;
        self.book.born_now.clear();
        (self.strict, self.time_passed) = (true, false);
        self.fallen.clear();
    }

    fn rules(&self, stage: StageId) -> &StageRules {
        self.topology.stage(stage)
    }

    fn urgency_of(&self) -> impl Fn(u32) -> Urgency + '_ {
        |request| self.urgency.get(&request).copied().unwrap_or_default()
    }

    fn set_timer(&mut self, at: Time, timer: Timer) {
        self.timers.insert((due_tick(at), timer));
    }

    /// Something happens to the tree of a request, and all that follows from it is taken note of.
    fn happens(&mut self, now: Time, request: u32, event: &Event) {
        let topology = self.topology.clone();
        let Some(record) = self.requests.get_mut(&request).filter(|record| record.due.is_none()) else { return };
        let mut desk = Desk {
            topology: &topology,
            book: &mut self.book,
            broken: &self.broken,
            now,
            request,
            streams: record.streams,
            problem: record.recovery.and_then(|recovery| recovery.taken),
        };
        let end = record.way.apply(event, &mut desk);
        self.end_way(now, request, end);
    }

    /// The way of a request has come to its end, if it has: an answer is due, or it takes its other way.
    fn end_way(&mut self, now: Time, request: u32, mut end: Option<End>) {
        let topology = self.topology.clone();
        let draining = self.draining;
        while let Some(came_to) = end.take() {
            let Some(record) = self.requests.get_mut(&request) else { break };
            let code = match came_to {
                Ok(value) => {
                    record.due = Some(Due::Value(value));
                    break;
                }
                Err(code) => code,
            };
            let streamed = record.streamed;
            match record.recovery.as_mut().filter(|_| !streamed) {
                Some(Recovery { taken: Some(first), .. }) => record.due = Some(Due::Problem(*first)),
                Some(recovery) if is_recoverable(code) && !draining => {
                    recovery.taken = Some(code);
                    self.tally.count(Happening::Recovered);
                    let Recovery { path, payload, .. } = *recovery;
                    let streams = record.streams;
                    let problem = Some(code);
                    let (book, broken) = (&mut self.book, &self.broken);
                    let mut desk = Desk { topology: &topology, book, broken, now, request, streams, problem };
                    record.way.drop_jobs(&mut desk);
                    record.way = Way::new(path);
                    end = record.way.enter(payload, true, &mut desk);
                }
                _ => record.due = Some(Due::Problem(code)),
            }
        }
        self.look_at_what_ended(now);
    }

    /// An answer is due now, whatever the request is at.
    fn ends(&mut self, now: Time, request: u32, due: Due) {
        let topology = self.topology.clone();
        let Some(record) = self.requests.get_mut(&request).filter(|record| record.due.is_none()) else { return };
        let (book, broken) = (&mut self.book, &self.broken);
        let streams = record.streams;
        let mut desk = Desk { topology: &topology, book, broken, now, request, streams, problem: None };
        record.way.drop_jobs(&mut desk);
        record.due = Some(due);
        self.look_at_what_ended(now);
    }

    /// The request fails now, whatever it is at.
    fn fails(&mut self, now: Time, request: u32, code: Code) {
        if self.requests.get(&request).is_some_and(|record| record.due.is_none()) {
            self.end_way(now, request, Some(Err(code)));
            self.drop_what_is_due(now, request);
        }
    }

    fn drop_what_is_due(&mut self, now: Time, request: u32) {
        if let Some(due) = self.requests.get_mut(&request).and_then(|record| record.due.take()) {
            self.ends(now, request, due);
        }
    }

    /// Jobs have ended: workers that have them are to be told. Gathers have begun: their time is measured.
    fn look_at_what_ended(&mut self, now: Time) {
        self.strict &= !std::mem::take(&mut self.book.failed_at_once);
        for (at, request, gather) in std::mem::take(&mut self.book.expiries) {
            self.set_timer(at, Timer::Expiry(request, gather));
        }
        for (name, job) in std::mem::take(&mut self.book.ended) {
            match job.place {
                Place::With(worker) => self.unwanted(now, worker, name),
                Place::InLine => {
                    let urgency = self.urgency_of()(name.0);
                    self.turns.leaves(job.stage, urgency);
                }
                Place::ToBeAsked | Place::Asked | Place::Delayed => {}
            }
            self.fallen.insert(name, job);
        }
    }

    fn unwanted(&mut self, now: Time, worker: WorkerKey, name: JobName) {
        let Some(member) = self.crew.get_mut(&worker) else { return };
        let rules = self.topology.stage(member.stage);
        let kills = rules.on_cancel == OnCancel::Kill && !member.batched;
        if let Some(hold) = member.of(name) {
            hold.awaited = false;
            hold.grace = kills.then_some(now + rules.grace);
        }
    }

    /// A request is over. Was it the last of an old plan?
    fn forget(&mut self, request: u32) -> Option<Request> {
        let record = self.requests.remove(&request)?;
        if record.is_old && !self.requests.values().any(|record| record.is_old) {
            self.outdated += 1;
        }
        Some(record)
    }
}

/// Whether there is something to be done about a problem, and time for it.
fn is_recoverable(code: Code) -> bool {
    let all = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };
    covers(all, code) && !matches!(code, Code::DeadlineExceeded | Code::Draining)
}
