//! What a world is like: its service, and how much trouble there is in it.

use std::num::NonZero;
use std::time::Duration;

use evener_core::{FallbackOn, FunctionId, OnCancel, RetryOn, StageId, StageRules, Terms, Topology};
use fastrand::Rng;

/// Of a thousand.
pub(crate) type Odds = u32;

/// How often what goes wrong, and how many there are of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) requests: u32,
    /// Whether queues are long, and workers stay.
    pub(crate) roomy: bool,
    /// Most workers of one stage.
    pub(crate) workers: usize,
    /// Longest time between two requests.
    pub(crate) pace: Duration,
    /// Longest time that an honest try takes.
    pub(crate) work: Duration,
    /// How many tries are quick, and the longest time that one of those takes.
    pub(crate) quick: Odds,
    pub(crate) quick_work: Duration,
    /// Longest time that a message is on its way to a worker or back.
    pub(crate) wire: Duration,
    /// Longest time that a client gives its request.
    pub(crate) patience: Duration,
    pub(crate) leaves: Odds,
    /// How many clients take their request back, and how many of those insist.
    pub(crate) withdraws: Odds,
    pub(crate) insists: Odds,
    /// How many do so as soon as the job is handed out.
    pub(crate) doubts: Odds,
    /// How many requests say themselves how often and how long they are tried.
    pub(crate) own_terms: Odds,
    /// Priorities are as far from 0 as this at most.
    pub(crate) urgency: i8,
    /// How many functions there are for each pool, and whether all pools share them.
    pub(crate) functions: u32,
    pub(crate) shared: bool,
    /// How often a function is forgotten after a call of it.
    pub(crate) forgets: Odds,
    pub(crate) dies: Odds,
    pub(crate) hangs: Odds,
    pub(crate) raises: Odds,
    pub(crate) gotos: Odds,
    pub(crate) responds: Odds,
    pub(crate) out_of_memory: Odds,
    pub(crate) ignores_cancel: Odds,
    pub(crate) ignores_sigterm: Odds,
    /// How many workers never say how many jobs they take ahead.
    pub(crate) no_credit: Odds,
    /// How many workers read while they work.
    pub(crate) watches: Odds,
    pub(crate) freezes: Odds,
    pub(crate) freeze: Duration,
    pub(crate) prints: Odds,
    /// A worker prints only at the first so many of its jobs.
    pub(crate) prints_at_first: u64,
    pub(crate) ghosts: Odds,
    pub(crate) breaks: Odds,
    pub(crate) late_wakeups: Odds,
    pub(crate) leaps: Odds,
}

/// A pool has fewer functions than this.
const MOST_FUNCTIONS: u32 = 8;

pub(crate) fn happens(rng: &mut Rng, odds: Odds) -> bool {
    rng.u32(0..1000) < odds
}

/// A span of up to `most`, in odd nanoseconds or in whole milliseconds.
pub(crate) fn span(rng: &mut Rng, most: Duration) -> Duration {
    let nanos = rng.u64(0..=u64::try_from(most.as_nanos()).unwrap_or(u64::MAX));
    Duration::from_nanos(if rng.bool() { nanos } else { nanos / 1_000_000 * 1_000_000 })
}

/// What kind of world it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// As much of everything as there can be.
    Wild,
    /// Little trouble.
    Calm,
    /// Quick functions and many requests at once, so that jobs are handed out ahead; little trouble, but for slow runs.
    Brisk,
    /// The same, with clients that change their minds as soon as a job is handed out, to workers that do not listen.
    Fickle,
    /// Brisk for long enough that a function that printed counts as quiet again.
    Long,
}

/// Nothing, a little or a lot.
fn odds(rng: &mut Rng, mood: Mood, most: Odds) -> Odds {
    match (rng.u32(0..4), mood) {
        (0, _) => 0,
        (1, _) => rng.u32(0..=most / 8),
        (_, Mood::Wild) => rng.u32(0..=most),
        _ => rng.u32(0..=most / 20),
    }
}

impl Plan {
    pub(crate) fn random(rng: &mut Rng) -> Plan {
        let mood = match rng.u8(0..200) {
            0 => Mood::Long,
            1..=70 => Mood::Brisk,
            71..=90 => Mood::Fickle,
            91..=120 => Mood::Calm,
            _ => Mood::Wild,
        };
        let plan = Plan::plain(rng, mood);
        match mood {
            Mood::Wild | Mood::Calm => plan,
            Mood::Brisk => plan.brisk(rng),
            Mood::Fickle => plan.brisk(rng).fickle(rng),
            Mood::Long => plan.long(rng),
        }
    }

    fn plain(rng: &mut Rng, mood: Mood) -> Plan {
        let (millis, micros) = (Duration::from_millis, Duration::from_micros);
        Plan {
            requests: rng.u32(1..120),
            roomy: false,
            workers: rng.usize(1..7),
            pace: [millis(0), millis(10), millis(60), millis(200)][rng.usize(0..4)],
            work: [millis(2), millis(40), millis(400)][rng.usize(0..3)],
            quick: [0, 0, 900, 1_000][rng.usize(0..4)],
            quick_work: [micros(20), micros(200), micros(1_500)][rng.usize(0..3)],
            wire: [micros(0), micros(30), micros(300), millis(3)][rng.usize(0..4)],
            patience: [millis(200), millis(5_000), millis(60_000)][rng.usize(0..3)],
            leaves: odds(rng, mood, 300),
            withdraws: [0, 0, 300, 600][rng.usize(0..4)],
            insists: rng.u32(0..=600),
            doubts: [0, 50, 150][rng.usize(0..3)],
            own_terms: [0, 500, 1_000][rng.usize(0..3)],
            urgency: [0, 0, 1, 3, 127][rng.usize(0..5)],
            functions: rng.u32(1..5),
            shared: rng.u8(0..6) == 0,
            forgets: [0, 0, 0, 30][rng.usize(0..4)],
            dies: odds(rng, mood, 400),
            hangs: odds(rng, mood, 300),
            raises: odds(rng, mood, 300),
            gotos: odds(rng, mood, 400),
            responds: odds(rng, mood, 200),
            out_of_memory: odds(rng, mood, 150),
            ignores_cancel: rng.u32(0..=1000),
            ignores_sigterm: rng.u32(0..=1000),
            no_credit: [0, 0, 300][rng.usize(0..3)],
            watches: [1_000, 1_000, 500, 0][rng.usize(0..4)],
            freezes: odds(rng, mood, 200),
            freeze: [millis(5), millis(3_000), millis(20_000)][rng.usize(0..3)],
            prints: [0, 0, 0, 20][rng.usize(0..4)],
            prints_at_first: u64::MAX,
            ghosts: odds(rng, mood, 300),
            breaks: odds(rng, mood, 400),
            late_wakeups: odds(rng, mood, 400),
            leaps: odds(rng, mood, 8),
        }
    }

    /// Quick functions and many requests at once.
    fn brisk(self, rng: &mut Rng) -> Plan {
        let (millis, micros) = (Duration::from_millis, Duration::from_micros);
        Plan {
            requests: rng.u32(40..200),
            roomy: rng.u8(0..4) > 0,
            workers: rng.usize(1..4),
            pace: [micros(0), micros(50), micros(400)][rng.usize(0..3)],
            quick: rng.u32(900..=1_000),
            quick_work: [micros(20), micros(100), micros(500)][rng.usize(0..3)],
            patience: [millis(10), millis(300), millis(60_000)][rng.usize(0..3)],
            leaves: odds(rng, Mood::Wild, 600),
            functions: rng.u32(1..4),
            hangs: odds(rng, Mood::Wild, 30),
            freezes: odds(rng, Mood::Wild, 60),
            ..self
        }
    }

    /// Clients that change their minds, and workers that do not listen.
    fn fickle(self, rng: &mut Rng) -> Plan {
        let (millis, micros) = (Duration::from_millis, Duration::from_micros);
        Plan {
            roomy: true,
            quick: 1_000,
            quick_work: micros(100),
            pace: micros(50),
            patience: millis(60_000),
            leaves: 0,
            doubts: rng.u32(100..=600),
            insists: rng.u32(0..=200),
            own_terms: [0, 800][rng.usize(0..2)],
            urgency: rng.i8(0..2),
            functions: 1,
            forgets: 0,
            raises: 0,
            gotos: 0,
            hangs: rng.u32(0..=80),
            no_credit: 0,
            watches: [0, 0, 500][rng.usize(0..3)],
            freezes: rng.u32(0..=40),
            prints: 0,
            ..self
        }
    }

    /// For long enough that a function which printed counts as quiet again.
    fn long(self, rng: &mut Rng) -> Plan {
        let (millis, micros) = (Duration::from_millis, Duration::from_micros);
        Plan {
            requests: rng.u32(1_500..2_000),
            roomy: true,
            workers: 2,
            pace: micros(600),
            quick: 1_000,
            quick_work: micros(100),
            patience: millis(60_000),
            hangs: 0,
            dies: 0,
            freezes: 0,
            prints: 300,
            prints_at_first: 5,
            functions: 1,
            forgets: 0,
            leaps: 0,
            ..self
        }
    }

    /// Longest time after which a client goes away.
    pub(crate) fn stay(&self) -> Duration {
        if self.quick >= 900 { self.quick_work * 40 } else { self.work * 4 }
    }
}

fn rules(rng: &mut Rng, plan: &Plan, number: u32) -> StageRules {
    let millis = |rng: &mut Rng, most: u64| Duration::from_millis(rng.u64(0..=most));
    StageRules {
        timeout: Duration::from_millis(5) + [millis(rng, 40), millis(rng, 500), millis(rng, 3_000)][rng.usize(0..3)],
        retries: rng.u32(0..5),
        retry_on: RetryOn { lost: rng.u8(0..5) > 0, timeout: rng.bool(), error: rng.bool() },
        backoff: [None, None, Some(Duration::ZERO), Some(millis(rng, 300))][rng.usize(0..4)],
        queue: if plan.roomy { 1_000 } else { [1, 10, 1_000, 1_000][rng.usize(0..4)] },
        grace: [Duration::ZERO, millis(rng, 30), millis(rng, 500)][rng.usize(0..3)],
        on_cancel: if rng.bool() { OnCancel::Tell } else { OnCancel::Kill },
        max_jobs_per_worker: (!plan.roomy && rng.u8(0..5) == 0).then(|| rng.u64(1..6)),
        functions: rng.u8(0..3) == 0,
        ..StageRules::named(format!("s{number}"))
    }
}

/// A service of a few stages, with pipelines that may pass a stage more than once.
pub(crate) fn topology(rng: &mut Rng, plan: &Plan) -> Topology {
    let stages: Vec<StageRules> = (0..rng.u32(1..5)).map(|number| rules(rng, plan, number)).collect();
    let pipelines = (0..rng.u32(1..4)).map(|number| {
        let path: Vec<StageId> = (0..rng.usize(1..6)).map(|_| StageId(rng.u32(0..stages.len() as u32))).collect();
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

/// What a client says of a request that begins in that stage.
pub(crate) fn terms(rng: &mut Rng, plan: &Plan, stage: StageId, rules: &StageRules) -> Terms {
    let own = |rng: &mut Rng| happens(rng, plan.own_terms) && rng.bool();
    let timeouts = [Duration::from_millis(20), Duration::from_millis(500), Duration::MAX];
    let calls = rules.functions && rng.u8(0..20) > 0;
    Terms {
        flow: 0,
        retries: own(rng).then(|| [0, 0, 1, 5, u32::MAX][rng.usize(0..5)]),
        timeout: own(rng).then(|| match timeouts[rng.usize(0..3)] {
            Duration::MAX => Duration::MAX,
            most => Duration::from_millis(2) + span(rng, most),
        }),
        function: calls.then(|| function(rng, plan, stage)),
        priority: rng.i8(-plan.urgency..=plan.urgency),
    }
}

/// One of the functions of a pool.
fn function(rng: &mut Rng, plan: &Plan, stage: StageId) -> FunctionId {
    let first = if plan.shared { 0 } else { stage.0 * MOST_FUNCTIONS };
    FunctionId(NonZero::<u32>::MIN.saturating_add(first + rng.u32(0..plan.functions)))
}

/// How long the calls of a function take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    Quick,
    /// Now so, now so.
    Mixed,
    Slow,
}

/// How quick a function is: each has its own way for good.
pub(crate) fn speed(function: Option<FunctionId>) -> Speed {
    match function.map(|FunctionId(number)| number.get() % MOST_FUNCTIONS) {
        Some(1 | 2) => Speed::Quick,
        Some(3) => Speed::Slow,
        _ => Speed::Mixed,
    }
}
