//! What a world is like: its service, and how much trouble there is in it.

use std::time::Duration;

use evener_core::{FallbackOn, OnCancel, RetryOn, StageId, StageRules, Topology};
use fastrand::Rng;

/// Of a thousand.
pub(crate) type Odds = u32;

/// How often what goes wrong, and how many there are of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) requests: u32,
    /// Most workers of one stage.
    pub(crate) workers: usize,
    /// Longest time between two requests.
    pub(crate) pace: Duration,
    /// Longest time that an honest try takes.
    pub(crate) work: Duration,
    /// Longest time that a client gives its request.
    pub(crate) patience: Duration,
    pub(crate) leaves: Odds,
    pub(crate) dies: Odds,
    pub(crate) hangs: Odds,
    pub(crate) raises: Odds,
    pub(crate) gotos: Odds,
    pub(crate) responds: Odds,
    pub(crate) out_of_memory: Odds,
    pub(crate) ignores_cancel: Odds,
    pub(crate) ignores_sigterm: Odds,
    pub(crate) ghosts: Odds,
    pub(crate) breaks: Odds,
    pub(crate) late_wakeups: Odds,
    pub(crate) leaps: Odds,
}

pub(crate) fn happens(rng: &mut Rng, odds: Odds) -> bool {
    rng.u32(0..1000) < odds
}

/// A span of up to `most`, in odd nanoseconds or in whole milliseconds.
pub(crate) fn span(rng: &mut Rng, most: Duration) -> Duration {
    let nanos = rng.u64(0..=u64::try_from(most.as_nanos()).unwrap_or(u64::MAX));
    Duration::from_nanos(if rng.bool() { nanos } else { nanos / 1_000_000 * 1_000_000 })
}

/// Nothing, a little or a lot.
fn odds(rng: &mut Rng, most: Odds) -> Odds {
    match rng.u32(0..4) {
        0 => 0,
        1 => rng.u32(0..=most / 8),
        _ => rng.u32(0..=most),
    }
}

impl Plan {
    pub(crate) fn random(rng: &mut Rng) -> Plan {
        let millis = Duration::from_millis;
        Plan {
            requests: rng.u32(1..120),
            workers: rng.usize(1..7),
            pace: [millis(0), millis(10), millis(60), millis(200)][rng.usize(0..4)],
            work: [millis(2), millis(40), millis(400)][rng.usize(0..3)],
            patience: [millis(200), millis(5_000), millis(60_000)][rng.usize(0..3)],
            leaves: odds(rng, 300),
            dies: odds(rng, 400),
            hangs: odds(rng, 300),
            raises: odds(rng, 300),
            gotos: odds(rng, 400),
            responds: odds(rng, 200),
            out_of_memory: odds(rng, 150),
            ignores_cancel: rng.u32(0..=1000),
            ignores_sigterm: rng.u32(0..=1000),
            ghosts: odds(rng, 300),
            breaks: odds(rng, 400),
            late_wakeups: odds(rng, 400),
            leaps: odds(rng, 8),
        }
    }
}

fn rules(rng: &mut Rng, number: u32) -> StageRules {
    let millis = |rng: &mut Rng, most: u64| Duration::from_millis(rng.u64(0..=most));
    StageRules {
        timeout: Duration::from_millis(5) + [millis(rng, 40), millis(rng, 500), millis(rng, 3_000)][rng.usize(0..3)],
        retries: rng.u32(0..5),
        retry_on: RetryOn { lost: rng.u8(0..5) > 0, timeout: rng.bool(), error: rng.bool() },
        backoff: [None, None, Some(Duration::ZERO), Some(millis(rng, 300))][rng.usize(0..4)],
        queue: [1, 10, 1_000, 1_000][rng.usize(0..4)],
        grace: [Duration::ZERO, millis(rng, 30), millis(rng, 500)][rng.usize(0..3)],
        on_cancel: if rng.bool() { OnCancel::Tell } else { OnCancel::Kill },
        max_jobs_per_worker: (rng.u8(0..4) == 0).then(|| rng.u64(1..6)),
        ..StageRules::named(format!("s{number}"))
    }
}

/// A service of a few stages, with pipelines that may pass a stage more than once.
pub(crate) fn topology(rng: &mut Rng) -> Topology {
    let stages: Vec<StageRules> = (0..rng.u32(1..5)).map(|number| rules(rng, number)).collect();
    let pipelines = (0..rng.u32(1..4)).map(|number| {
        let path = (0..rng.usize(1..6)).map(|_| StageId(rng.u32(0..stages.len() as u32))).collect();
        (format!("p{number}"), path)
    });
    let pipelines = pipelines.collect();
    let max_hops = rng.u32(0..6);
    Topology::new(stages, pipelines, max_hops)
}

pub(crate) fn fallback_on(rng: &mut Rng) -> FallbackOn {
    match rng.u8(0..3) {
        0 => FallbackOn { timeout: rng.bool(), error: rng.bool(), lost: rng.bool(), unavailable: rng.bool() },
        _ => FallbackOn::default(),
    }
}
