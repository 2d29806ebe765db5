//! Jobs that kill whatever worker does them, alone or in a batch: they fail after their tries, and nobody fails with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Assessment, Batch, Code, Dispatcher, FallbackOn, JobKey, Landed, Loss, Outcome, Part, Path,
    Payloads, RequestId, StageId, StageRules, Submission, Terms, Time, Topology, WorkerKey,
};
use proptest::prelude::*;

fn gather(_: &Topology, _: &[Part<'_, bool>], _: bool) -> Result<bool, String> {
    Ok(false)
}

const STAGE: StageId = StageId(0);

type Hold = (JobKey, u32, bool);

/// A pool whose workers take what they are handed as one, and die if a bad job is in it.
struct Pool {
    core: Dispatcher<bool, u32>,
    now: Time,
    at_work: BTreeMap<WorkerKey, Vec<Hold>>,
    answers: BTreeMap<u32, Answer<bool>>,
    deaths: u32,
}

impl Pool {
    fn new(workers: u32, rules: StageRules) -> Pool {
        let topology = Topology::new(vec![rules], Vec::<(String, Vec<StageId>)>::new(), 1);
        let core = Dispatcher::new(Arc::new(topology), Payloads { gather, constant: |_| false });
        let (at_work, answers) = (BTreeMap::new(), BTreeMap::new());
        let mut pool = Pool { core, now: Time::from_nanos(1), at_work, answers, deaths: 0 };
        (0..workers).for_each(|_| pool.arrive());
        pool
    }

    fn arrive(&mut self) {
        let worker = self.core.worker_ready(self.now, STAGE);
        self.at_work.insert(worker, Vec::new());
        self.act();
    }

    fn submit(&mut self, number: u32, is_bad: bool) {
        let submission = Submission {
            id: RequestId(u128::from(number) << RequestId::JOB_BITS),
            path: Path::Stage(STAGE),
            payload: is_bad,
            deadline: Time::NEVER,
            fallback_on: FallbackOn::default(),
            terms: Terms::default(),
            streams: false,
            on_error: None,
            reply: number,
        };
        self.core.submit(self.now, submission).expect("there is room");
        self.act();
    }

    fn act(&mut self) {
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Run { worker, job, attempt, payload, .. } => {
                    self.at_work.get_mut(&worker).expect("it is up").push((job, attempt, payload));
                }
                Action::Assess { job, .. } => {
                    self.core.assessed(self.now, job, Ok(Assessment { affinity: 0, weight: 2 }));
                    self.act();
                }
                Action::Answer { reply, answer, .. } => _ = self.answers.insert(reply, answer),
                _ => {}
            }
        }
        self.core.verify().expect("it is in order");
    }

    /// A worker does what it has, as one.
    fn work(&mut self, worker: WorkerKey) {
        let holds = self.at_work.get_mut(&worker).map(std::mem::take).unwrap_or_default();
        if holds.iter().any(|(.., is_bad)| *is_bad) {
            self.deaths += 1;
            self.at_work.remove(&worker);
            let loss = Loss { cause: "exited with code 9".to_owned(), certificate: String::new() };
            self.core.worker_lost(self.now, worker, loss);
            self.act();
            return self.arrive();
        }
        for (job, attempt, _) in holds {
            let (ran, outcome) = (Duration::from_millis(1), Outcome::Next(true));
            assert!(self.core.outcome(self.now, worker, Landed { job, attempt, ran, outcome }));
            self.act();
        }
    }

    /// Everybody works, in some order, until there is nothing left to do.
    fn run(&mut self, all: u32, order: &mut impl FnMut(usize) -> usize) {
        for _ in 0..10_000 {
            if self.answers.len() == all as usize {
                return;
            }
            let busy = self.at_work.iter().filter(|(_, holds)| !holds.is_empty());
            let busy: Vec<WorkerKey> = busy.map(|(worker, _)| *worker).collect();
            match busy.len() {
                0 => {
                    let next = self.core.next_timeout().expect("somebody waits for something");
                    self.now = self.now.max(next);
                    self.core.timeout(self.now);
                    self.act();
                }
                many => self.work(busy[order(many)]),
            }
        }
        panic!("it does not come to an end");
    }
}

fn batch(weighed: bool, idle: Duration) -> Option<Batch> {
    Some(Batch { wait: Duration::ZERO, idle, weighed })
}

proptest! {
    /// With one retry or more the bad ones fail after all their tries, and only they; each costs one worker for each try, or shares it.
    #[test]
    fn only_the_guilty_fail(
        jobs in proptest::collection::vec(prop::bool::weighted(0.1), 1..60),
        workers in 1u32..4,
        slots in 1u32..20,
        retries in 1u32..4,
        weighed in any::<bool>(),
        idle in prop_oneof![Just(0u64), Just(2)],
        late in 0usize..60,
        orders in proptest::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let batch = batch(weighed, Duration::from_millis(idle));
        let mut pool = Pool::new(workers, StageRules { slots, batch, retries, ..StageRules::named("s") });
        let mut orders = orders.iter().cycle();
        let mut order = |many: usize| orders.next().map_or(0, |index| index.index(many));
        let late = late.min(jobs.len());
        for (number, is_bad) in (0..).zip(&jobs[..late]) {
            pool.submit(number, *is_bad);
        }
        pool.run(late as u32, &mut order);
        for (number, is_bad) in (late as u32..).zip(&jobs[late..]) {
            pool.submit(number, *is_bad);
        }
        pool.run(jobs.len() as u32, &mut order);
        let is_died = |answer: &Answer<bool>| matches!(answer, Answer::Problem(problem)
            if problem.code == Code::WorkerDied && problem.tries == retries + 1);
        let failed: BTreeSet<u32> =
            pool.answers.iter().filter(|(_, answer)| is_died(answer)).map(|(number, _)| *number).collect();
        let bad: BTreeSet<u32> = (0..).zip(&jobs).filter(|(_, is_bad)| **is_bad).map(|(number, _)| number).collect();
        prop_assert_eq!(failed, bad.clone());
        let good = pool.answers.values().filter(|answer| matches!(answer, Answer::Value(true))).count();
        prop_assert_eq!(good, jobs.len() - bad.len());
        let most = bad.len() as u32 * (retries + 1);
        prop_assert!(pool.deaths <= most, "{} deaths of {most}", pool.deaths);
    }
}
