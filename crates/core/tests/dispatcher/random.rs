//! Random histories of one stage against a plain list of what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Dispatcher, FallbackOn, JobKey, Landed, Loss, Outcome, Path, Payloads, RequestId, RequestKey, StageId,
    StageRules, Submission, Terms, Time, Topology, Withdrawal, WorkerKey,
};
use proptest::prelude::*;

/// Too long for jobs ahead.
const SLOW: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
enum Input {
    Submit(i8),
    Cancel(prop::sample::Index),
    Withdraw(prop::sample::Index, bool),
    Arrive,
    Finish(prop::sample::Index),
    Lose(prop::sample::Index),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        5 => (-1..=1i8).prop_map(Input::Submit),
        1 => any::<prop::sample::Index>().prop_map(Input::Cancel),
        1 => any::<(prop::sample::Index, bool)>().prop_map(|(index, kill)| Input::Withdraw(index, kill)),
        1 => Just(Input::Arrive),
        4 => any::<prop::sample::Index>().prop_map(Input::Finish),
        1 => any::<prop::sample::Index>().prop_map(Input::Lose),
    ]
}

/// What a stage is, said plainly: a list of those who wait, a list of those who are idle, and who holds what.
#[derive(Default)]
struct Plain {
    waiting: VecDeque<u32>,
    priorities: BTreeMap<u32, i8>,
    /// Those that have run at some time.
    begun: BTreeSet<u32>,
    idle: Vec<WorkerKey>,
    held: BTreeMap<WorkerKey, (u32, JobKey, u32)>,
    told: BTreeMap<WorkerKey, (JobKey, u32)>,
}

impl Plain {
    /// Who must be handed what now.
    fn dispatch(&mut self) -> Vec<(WorkerKey, u32)> {
        let pairs = self.waiting.len().min(self.idle.len());
        let mut order: Vec<u32> = self.waiting.iter().copied().collect();
        order.sort_by_key(|request| -self.priorities[request]);
        order.truncate(pairs);
        self.waiting.retain(|waiting| !order.contains(waiting));
        self.begun.extend(&order);
        self.idle.split_off(self.idle.len() - pairs).into_iter().rev().zip(order).collect()
    }

    /// Nobody waits for a request any more.
    fn drop_request(&mut self, request: u32) {
        self.waiting.retain(|waiting| *waiting != request);
        if let Some(worker) = self.held.iter().find(|(_, held)| held.0 == request).map(|(worker, _)| *worker) {
            let told = self.held.remove(&worker).map(|(_, job, attempt)| (job, attempt));
            told.map(|told| self.told.insert(worker, told));
        }
    }
}

fn pick<T: Copy>(from: impl Iterator<Item = T>, index: prop::sample::Index) -> Option<T> {
    let all: Vec<T> = from.collect();
    (!all.is_empty()).then(|| all[index.index(all.len())])
}

proptest! {
    /// The highest priority first, and then first come, first served, by whoever got idle last; a job whose worker died
    /// goes in front of its equals.
    #[test]
    fn one_stage_is_two_lists(inputs in proptest::collection::vec(input(), 1..300)) {
        run(inputs)?;
    }
}

fn run(inputs: Vec<Input>) -> Result<(), TestCaseError> {
    let rules =
        StageRules { retries: 1_000, queue: usize::MAX, backoff: Some(Duration::ZERO), ..StageRules::named("a") };
    let topology = Topology::new::<StageId>(vec![rules], vec![], 64);
    let mut core: Dispatcher<u32, u32> =
        Dispatcher::new(Arc::new(topology), Payloads { gather: |_, _, _| Ok(0), constant: |_| 0 });
    let mut plain = Plain::default();
    let mut keys: BTreeMap<u32, RequestKey> = BTreeMap::new();
    let now = Time::ZERO;
    for (number, input) in (0..).zip(inputs) {
        let mut answered = None;
        match input {
            Input::Submit(priority) => {
                let submission = Submission {
                    id: RequestId(0),
                    path: Path::Stage(StageId(0)),
                    payload: number,
                    deadline: Time::NEVER,
                    fallback_on: FallbackOn::default(),
                    terms: Terms { priority, ..Terms::default() },
                    streams: false,
                    on_error: None,
                    reply: number,
                };
                keys.insert(number, core.submit(now, submission).expect("there is room"));
                plain.waiting.push_back(number);
                plain.priorities.insert(number, priority);
            }
            Input::Cancel(index) => {
                let Some(request) = pick(keys.keys().copied(), index) else { continue };
                if let Some(key) = keys.remove(&request) {
                    core.cancel(now, key);
                }
                plain.drop_request(request);
            }
            Input::Withdraw(index, kill) => {
                let Some(request) = pick(keys.keys().copied(), index) else { continue };
                let came = core.withdraw(now, keys[&request], kill);
                if plain.begun.contains(&request) && !kill {
                    prop_assert_eq!(came, Withdrawal::GoesOn);
                } else {
                    prop_assert_eq!(came, Withdrawal::Done);
                    keys.remove(&request);
                    plain.drop_request(request);
                    answered = Some(request);
                }
            }
            Input::Arrive => plain.idle.push(core.worker_ready(now, StageId(0))),
            Input::Finish(index) => {
                let all = plain.held.keys().chain(plain.told.keys()).copied();
                let Some(worker) = pick(all, index) else { continue };
                let (job, attempt) = match plain.held.remove(&worker) {
                    Some((request, job, attempt)) => {
                        keys.remove(&request);
                        answered = Some(request);
                        (job, attempt)
                    }
                    None => plain.told.remove(&worker).expect("it was told"),
                };
                let landed = Landed { job, attempt, ran: SLOW, outcome: Outcome::Next(number) };
                prop_assert!(core.outcome(now, worker, landed));
                plain.idle.push(worker);
            }
            Input::Lose(index) => {
                let all = plain.held.keys().chain(plain.told.keys()).chain(&plain.idle).copied();
                let Some(worker) = pick(all, index) else { continue };
                core.worker_lost(now, worker, Loss { cause: String::new(), certificate: String::new() });
                plain.idle.retain(|idle| *idle != worker);
                plain.told.remove(&worker);
                if let Some((request, ..)) = plain.held.remove(&worker) {
                    plain.waiting.push_front(request);
                }
            }
        }
        prop_assert_eq!(core.verify(), Ok(()));
        let mut expected = plain.dispatch().into_iter();
        let mut actions = Vec::new();
        core.take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Run { worker, job, attempt, payload, .. } => {
                    prop_assert_eq!(expected.next(), Some((worker, payload)));
                    plain.held.insert(worker, (payload, job, attempt));
                }
                Action::Answer { reply, .. } => prop_assert_eq!(answered.take(), Some(reply)),
                Action::Retried { .. } => {}
                Action::Cancel { worker, .. } => prop_assert!(plain.told.contains_key(&worker)),
                other => prop_assert!(false, "{other:?} was not called for"),
            }
        }
        prop_assert_eq!(expected.next(), None);
        prop_assert_eq!(answered, None);
    }
    Ok(())
}
