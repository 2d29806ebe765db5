//! Random operations on services with nested branches, and with workers that do several jobs at a time or as one: nothing is lost, and each request gets one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Batch, Dispatcher, Failure, FallbackOn, JobKey, Landed, Loss, OnFailure, Outcome, Over, Part, Path,
    Payloads, Reply, RequestId, RequestKey, Scatter, StageId, StageRules, Step, Submission, Terms, Time, Topology,
    WorkerKey,
};
use proptest::prelude::*;

const STAGES: u32 = 3;
/// The stage that takes lists apart.
const SPLIT: StageId = StageId(STAGES);
const NO_FALLBACK: FallbackOn = FallbackOn { timeout: false, error: false, lost: false, unavailable: false };

#[derive(Clone, Debug)]
enum Op {
    Submit { pipeline: u32, millis: u16 },
    Cancel(prop::sample::Index),
    Arrive(u32),
    Lose(prop::sample::Index),
    Outcome(prop::sample::Index, Kind),
    Wait(u16),
    Break(u32),
    Drain,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Next,
    Respond,
    Goto(u8),
    Abort,
    Error,
    Split(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    let kind = prop_oneof![
        12 => Just(Kind::Next),
        1 => Just(Kind::Respond),
        2 => (0..5u8).prop_map(Kind::Goto),
        1 => Just(Kind::Abort),
        1 => Just(Kind::Error),
        6 => (0..5u8).prop_map(Kind::Split),
    ];
    prop_oneof![
        6 => (0..3u32, 1..2000u16).prop_map(|(pipeline, millis)| Op::Submit { pipeline, millis }),
        1 => index().prop_map(Op::Cancel),
        4 => (0..=STAGES).prop_map(Op::Arrive),
        1 => index().prop_map(Op::Lose),
        30 => (index(), kind).prop_map(|(index, kind)| Op::Outcome(index, kind)),
        2 => (1..500u16).prop_map(Op::Wait),
        1 => (0..=STAGES).prop_map(Op::Break),
        1 => Just(Op::Drain),
    ]
}

/// Steps that may lead into pipelines with a lower number alone.
fn steps(number: u32) -> impl Strategy<Value = Vec<Step>> {
    let path = move || {
        prop_oneof![
            3 => (0..STAGES).prop_map(|stage| Path::Stage(StageId(stage))),
            2 => (0..number.max(1)).prop_map(move |lower| match number {
                0 => Path::Stage(StageId(0)),
                _ => Path::Pipeline(lower),
            }),
        ]
    };
    let over = prop_oneof![
        proptest::collection::vec(path(), 1..4).prop_map(|paths| {
            Over::Branches(paths.into_iter().enumerate().map(|(at, path)| (format!("b{at}"), path)).collect())
        }),
        (path(), 1..4u32).prop_map(|(branch, max_in_flight)| Over::Each { split: SPLIT, branch, max_in_flight }),
    ];
    let scatter = (over, any::<bool>(), proptest::option::of(50..500u64), any::<bool>()).prop_map(
        |(over, collect, timeout, fallback)| {
            Step::Scatter(Box::new(Scatter {
                over,
                timeout: timeout.map(Duration::from_millis),
                on_failure: if collect { OnFailure::Collect } else { OnFailure::Fail },
                fallback: fallback.then(|| "7".into()),
                fallback_on: FallbackOn { timeout: true, error: true, ..NO_FALLBACK },
            }))
        },
    );
    let stage = (0..STAGES).prop_map(|stage| Step::Stage(StageId(stage)));
    proptest::collection::vec(prop_oneof![stage, scatter], 1..4)
}

struct World {
    core: Dispatcher<u32, u32>,
    now: Time,
    workers: Vec<WorkerKey>,
    /// Jobs that were handed out and have no outcome.
    held: Vec<(WorkerKey, JobKey, u32, StageId)>,
    slots: [(u32, bool); STAGES as usize],
    stage_of: BTreeMap<WorkerKey, StageId>,
    waiting: BTreeMap<u32, RequestKey>,
    answered: BTreeSet<u32>,
    requests: u32,
}

/// A gathered value counts how many leaves it has.
fn gather(_: &Topology, parts: &[Part<'_, u32>], _: bool) -> Result<u32, String> {
    Ok(parts.iter().map(|part| part.value.copied().unwrap_or(1)).fold(0, u32::wrapping_add))
}

impl World {
    fn new(pipelines: Vec<Vec<Step>>, slots: [(u32, bool); STAGES as usize]) -> World {
        let rules = |number: u32| {
            let (slots, batched) = slots.get(number as usize).copied().unwrap_or((1, false));
            let idle = Duration::from_millis(20 * u64::from(number % 2));
            let batch = batched.then_some(Batch { wait: Duration::ZERO, idle, weighed: false });
            let timeout = Duration::from_secs(2);
            StageRules { hidden: number == STAGES, slots, batch, timeout, ..StageRules::named(format!("s{number}")) }
        };
        let named = pipelines.into_iter().enumerate().map(|(number, steps)| (format!("p{number}"), steps));
        let topology = Topology::new((0..=STAGES).map(rules).collect(), named.collect(), 5);
        World {
            core: Dispatcher::new(Arc::new(topology), Payloads { gather, constant: |json| json.len() as u32 }),
            now: Time::from_nanos(1),
            workers: Vec::new(),
            held: Vec::new(),
            slots,
            stage_of: BTreeMap::new(),
            waiting: BTreeMap::new(),
            answered: BTreeSet::new(),
            requests: 0,
        }
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Submit { pipeline, millis } => {
                let number = self.requests;
                self.requests += 1;
                let submission = Submission {
                    id: RequestId(u128::from(number) << RequestId::JOB_BITS),
                    path: Path::Pipeline(pipeline),
                    payload: 1,
                    deadline: self.now + Duration::from_millis(millis.into()),
                    fallback_on: NO_FALLBACK,
                    terms: Terms::default(),
                    streams: true,
                    on_error: None,
                    reply: number,
                };
                match self.core.submit(self.now, submission) {
                    Ok(key) => _ = self.waiting.insert(number, key),
                    Err(_) => _ = self.answered.insert(number),
                }
            }
            Op::Cancel(index) if !self.waiting.is_empty() => {
                let number = *self.waiting.keys().nth(index.index(self.waiting.len())).expect("it is in range");
                let key = self.waiting.remove(&number).expect("it waits");
                assert!(self.core.cancel(self.now, key));
                self.answered.insert(number);
            }
            Op::Arrive(stage) if self.workers.len() < 12 => {
                let worker = self.core.worker_ready(self.now, StageId(stage));
                self.workers.push(worker);
                self.stage_of.insert(worker, StageId(stage));
            }
            Op::Lose(index) if !self.workers.is_empty() => {
                let worker = self.workers.swap_remove(index.index(self.workers.len()));
                self.held.retain(|(holder, ..)| *holder != worker);
                let loss = Loss { cause: "died".to_owned(), certificate: String::new() };
                self.core.worker_lost(self.now, worker, loss);
            }
            Op::Outcome(index, kind) if !self.held.is_empty() => {
                let (worker, job, attempt, stage) = self.held.swap_remove(index.index(self.held.len()));
                let outcome = outcome(kind, stage);
                let ran = Duration::from_secs(1);
                assert!(self.core.outcome(self.now, worker, Landed { job, attempt, ran, outcome }));
            }
            Op::Wait(millis) => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.core.timeout(self.now);
            }
            Op::Break(stage) => self.core.stage_broken(self.now, StageId(stage), "it does not start"),
            Op::Drain => self.core.drain(self.now, self.now + Duration::from_millis(300)),
            Op::Cancel(_) | Op::Arrive(_) | Op::Lose(_) | Op::Outcome(..) => {}
        }
        self.look();
    }

    fn look(&mut self) {
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        if let Err(wrong) = self.core.verify() {
            panic!("the dispatcher contradicts itself: {wrong}");
        }
        for action in actions {
            match action {
                Action::Run { worker, job, attempt, .. } => {
                    let stage = self.stage_of[&worker];
                    self.held.push((worker, job, attempt, stage));
                    let held = self.held.iter().filter(|(holder, ..)| *holder == worker).count();
                    let most = self.slots.get(stage.0 as usize).map_or(1, |(slots, _)| *slots as usize);
                    assert!(held <= most, "it holds {held} jobs of at most {most}");
                }
                Action::Stop { worker, .. } => {
                    self.workers.retain(|other| *other != worker);
                    self.held.retain(|(holder, ..)| *holder != worker);
                    let loss = Loss { cause: "was killed".to_owned(), certificate: String::new() };
                    self.core.worker_lost(self.now, worker, loss);
                    return self.look();
                }
                Action::Answer { reply, .. } => {
                    assert!(self.answered.insert(reply), "request {reply} was answered twice");
                    self.waiting.remove(&reply);
                }
                _ => {}
            }
        }
    }
}

fn outcome(kind: Kind, stage: StageId) -> Outcome<u32> {
    match kind {
        Kind::Abort => Outcome::Fail(Failure::Abort { status: 400, detail: "no".to_owned() }),
        Kind::Error => {
            Outcome::Fail(Failure::Error { name: "E".to_owned(), message: String::new(), traceback: String::new() })
        }
        Kind::Split(count) => match stage == SPLIT {
            true => Outcome::Split(vec![1; count.into()]),
            false => Outcome::Next(1),
        },
        _ if stage == SPLIT => Outcome::Split(vec![1; 2]),
        Kind::Next => Outcome::Next(1),
        Kind::Respond => Outcome::Respond(Reply { status: 200, headers: vec![], body: 1 }),
        Kind::Goto(number) if u32::from(number) < STAGES => Outcome::Goto { target: format!("s{number}"), value: 1 },
        Kind::Goto(number) => Outcome::Goto { target: format!("p{}", number - STAGES as u8), value: 1 },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_request_gets_one_answer(
        pipelines in (steps(0), steps(1), steps(2)),
        slots in [(1..4u32, any::<bool>()), (1..4u32, any::<bool>()), (1..4u32, any::<bool>())],
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new(vec![pipelines.0, pipelines.1, pipelines.2], slots);
        ops.into_iter().for_each(|op| world.act(op));
        // By its deadline each request has its answer, and nothing stays behind.
        for _ in 0..40 {
            world.act(Op::Wait(400));
        }
        prop_assert_eq!(world.core.pending(), 0);
        prop_assert_eq!(world.answered.len() as u32, world.requests);
    }
}
