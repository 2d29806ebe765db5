//! Virtual workers: what they do with a job, and how they take being told, being asked and being signalled.

use std::collections::VecDeque;
use std::time::Duration;

use evener_core::{Failure, FunctionId, JobKey, Landed, Outcome, Reply, StageId, Time, Topology};
use fastrand::Rng;

use crate::plan::{Plan, Speed, happens, span, speed};
use crate::trail;

/// A worker, as it is inside: two sockets' worth of messages, and jobs that it does one after the other.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) stage: StageId,
    /// Which of its jobs it is at; goes up with each.
    pub(crate) serial: u64,
    /// The job that it is at, and since when.
    pub(crate) at_work: Option<(Task, Time)>,
    /// The jobs that it knows of and has not begun.
    pub(crate) in_hand: VecDeque<Task>,
    /// What was sent to it and it has not read; the first `arrived` of it are there.
    pub(crate) inbox: VecDeque<Told>,
    pub(crate) arrived: usize,
    pub(crate) last_arrival: Time,
    /// What it has still to say of jobs that it dropped. It does before it begins another.
    pub(crate) unsaid: Vec<Landed<u64>>,
    /// What it sent and the dispatcher has not got.
    pub(crate) outbox: VecDeque<Said>,
    pub(crate) last_delivery: Time,
    /// Stopped, all of it.
    pub(crate) frozen: bool,
    /// What it was at the end of with when it froze.
    pub(crate) ripe: Option<(u64, Outcome<u64>)>,
    /// Whether it reads while it works. Otherwise it reads between two jobs.
    pub(crate) watches: bool,
    /// It exits.
    pub(crate) leaves: bool,
}

/// A job as its worker knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) request: u32,
    pub(crate) ordinal: u32,
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
    pub(crate) tries: u32,
    pub(crate) payload: u64,
    pub(crate) function: Option<FunctionId>,
    /// How long this try may take.
    pub(crate) timeout: Duration,
    /// It was cancelled before it began, and is answered in its turn.
    pub(crate) cancelled: bool,
}

impl Task {
    pub(crate) fn is(&self, job: JobKey, attempt: u32) -> bool {
        self.job == job && self.attempt == attempt
    }
}

/// What is sent to a worker.
#[derive(Debug)]
pub(crate) enum Told {
    Job(Task),
    Cancel(JobKey, u32),
    Recall(JobKey, u32),
    AskCredit,
}

/// What a worker sends.
#[derive(Debug)]
pub(crate) enum Said {
    Outcome(Landed<u64>),
    Credit(u32),
}

impl Actor {
    pub(crate) fn new(stage: StageId, watches: bool) -> Actor {
        Actor {
            stage,
            serial: 0,
            at_work: None,
            in_hand: VecDeque::new(),
            inbox: VecDeque::new(),
            arrived: 0,
            last_arrival: Time::ZERO,
            unsaid: Vec::new(),
            outbox: VecDeque::new(),
            last_delivery: Time::ZERO,
            frozen: false,
            ripe: None,
            watches,
            leaves: false,
        }
    }

    /// The next message, if it is there and the worker is in a state to read it.
    pub(crate) fn read(&mut self) -> Option<Told> {
        if self.frozen || self.leaves || self.arrived == 0 || (self.at_work.is_some() && !self.watches) {
            return None;
        }
        self.arrived -= 1;
        self.inbox.pop_front()
    }

    /// Takes a job out that it knows of and has not begun.
    pub(crate) fn drop_task(&mut self, job: JobKey, attempt: u32) -> bool {
        let at = self.in_hand.iter().position(|task| task.is(job, attempt));
        at.and_then(|at| self.in_hand.remove(at)).is_some()
    }
}

/// What a worker is going to do with a job.
#[derive(Debug)]
pub(crate) enum Intent {
    /// It brings this, in so long.
    Bring(Outcome<u64>, Duration),
    /// It dies, in so long.
    Die(Duration),
    /// Nothing, ever.
    Hang,
}

/// What a worker makes of a job that it has just begun.
pub(crate) fn intent(rng: &mut Rng, plan: &Plan, topology: &Topology, stage: StageId, task: &Task) -> Intent {
    let quick = match speed(task.function) {
        Speed::Quick => true,
        Speed::Mixed => happens(rng, plan.quick),
        Speed::Slow => false,
    };
    let work = if quick { nanos(rng, plan.quick_work) } else { span(rng, plan.work) };
    if happens(rng, plan.dies) {
        return Intent::Die(work);
    }
    let outcome = outcome(rng, plan, topology, stage, task.payload);
    if happens(rng, plan.hangs) {
        // Some hang for good; some were only held up, and go on when it is too late. Where nothing is ever too late,
        // somebody gets tired of it.
        return match task.timeout {
            Duration::MAX => Intent::Die(span(rng, Duration::from_secs(20))),
            _ if rng.bool() => Intent::Hang,
            timeout => Intent::Bring(outcome, timeout + span(rng, 2 * timeout)),
        };
    }
    Intent::Bring(outcome, work)
}

fn nanos(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_nanos(rng.u64(0..=most.as_nanos() as u64))
}

fn outcome(rng: &mut Rng, plan: &Plan, topology: &Topology, stage: StageId, payload: u64) -> Outcome<u64> {
    if happens(rng, plan.out_of_memory) {
        return Outcome::Fail(Failure::OutOfMemory { message: String::new() });
    }
    if happens(rng, plan.raises) {
        return match rng.u8(0..3) {
            0 => {
                let (name, message, traceback) = ("KeyError".to_owned(), String::new(), String::new());
                Outcome::Raised { name, message, traceback, exception: trail::raised(payload, stage) }
            }
            _ => Outcome::Fail(failure(rng)),
        };
    }
    if happens(rng, plan.gotos) {
        let target = match rng.u8(0..10) {
            0 => "nowhere".to_owned(),
            1..=6 => format!("s{}", rng.usize(0..topology.stages().len())),
            _ => format!("p{}", rng.u8(0..3)),
        };
        return Outcome::Goto { target, value: trail::goto(payload, stage) };
    }
    if happens(rng, plan.responds) {
        return Outcome::Respond(Reply { status: 200, headers: Vec::new(), body: trail::reply(payload, stage) });
    }
    Outcome::Next(trail::next(payload, stage))
}

fn failure(rng: &mut Rng) -> Failure {
    let detail = String::new();
    match rng.u8(0..10) {
        0 => Failure::Abort { status: 422, detail },
        1 => Failure::Decode { detail },
        2 => Failure::Encode { detail },
        3 => Failure::TooLarge { detail },
        4 => Failure::Cancelled,
        5 => Failure::NoRoom { detail },
        _ => Failure::Error { name: "ValueError".to_owned(), message: String::new(), traceback: String::new() },
    }
}

/// What a worker does that is told that nobody waits for the job that it is at: `None` if it takes no notice.
pub(crate) fn when_told(rng: &mut Rng, plan: &Plan) -> Option<(Outcome<u64>, Duration)> {
    let notices = !happens(rng, plan.ignores_cancel);
    notices.then(|| (Outcome::Fail(Failure::Cancelled), span(rng, Duration::from_millis(20))))
}

/// What a worker says that is asked how many jobs it takes ahead: `None` if it says nothing.
pub(crate) fn when_asked(rng: &mut Rng, plan: &Plan) -> Option<u32> {
    let answers = !happens(rng, plan.no_credit);
    answers.then(|| [0, 1, 2, 5, 16, 1_000][rng.usize(0..6)])
}

/// When a worker dies that gets SIGTERM: `None` if it takes no notice.
pub(crate) fn when_terminated(rng: &mut Rng, plan: &Plan) -> Option<Duration> {
    let notices = !happens(rng, plan.ignores_sigterm);
    notices.then(|| span(rng, Duration::from_millis(1_500)))
}
