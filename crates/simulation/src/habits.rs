//! Virtual workers: what they do with a job, and how they take being told and being signalled.

use std::time::Duration;

use evener_core::{Failure, JobKey, Outcome, Reply, StageId, Topology};
use fastrand::Rng;

use crate::plan::{Plan, happens, span};
use crate::trail;

/// A worker, as it is inside.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) stage: StageId,
    /// Which of its jobs it is at; goes up with each.
    pub(crate) serial: u64,
    /// Its job, until it has brought an outcome.
    pub(crate) job: Option<Work>,
}

/// A job as its worker knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
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

/// What a worker makes of a job that it has just been handed.
pub(crate) fn intent(rng: &mut Rng, plan: &Plan, topology: &Topology, stage: StageId, payload: u64) -> Intent {
    let work = span(rng, plan.work);
    if happens(rng, plan.dies) {
        return Intent::Die(work);
    }
    let outcome = outcome(rng, plan, topology, stage, payload);
    if happens(rng, plan.hangs) {
        // Some hang for good; some were only stopped, and go on when it is too late.
        let timeout = topology.stage(stage).timeout;
        return if rng.bool() { Intent::Hang } else { Intent::Bring(outcome, timeout + span(rng, 2 * timeout)) };
    }
    Intent::Bring(outcome, work)
}

fn outcome(rng: &mut Rng, plan: &Plan, topology: &Topology, stage: StageId, payload: u64) -> Outcome<u64> {
    if happens(rng, plan.out_of_memory) {
        return Outcome::Fail(Failure::OutOfMemory { message: String::new() });
    }
    if happens(rng, plan.raises) {
        return Outcome::Fail(failure(rng));
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
        _ => Failure::Error { name: "ValueError".to_owned(), message: String::new(), traceback: String::new() },
    }
}

/// What a worker does that is told that nobody waits: `None` if it takes no notice.
pub(crate) fn when_told(rng: &mut Rng, plan: &Plan) -> Option<(Outcome<u64>, Duration)> {
    let notices = !happens(rng, plan.ignores_cancel);
    notices.then(|| (Outcome::Fail(Failure::Cancelled), span(rng, Duration::from_millis(20))))
}

/// When a worker dies that gets SIGTERM: `None` if it takes no notice.
pub(crate) fn when_terminated(rng: &mut Rng, plan: &Plan) -> Option<Duration> {
    let notices = !happens(rng, plan.ignores_sigterm);
    notices.then(|| span(rng, Duration::from_millis(1_500)))
}
