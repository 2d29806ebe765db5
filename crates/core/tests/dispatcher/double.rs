//! A recording double of the dispatcher's owner: it carries nothing out, writes every action down as a sentence, and
//! insists that a test has named each of them before the next input.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Dispatcher, Failure, FallbackOn, JobId, JobKey, Loss, Outcome, Path, Problem, Reply, RequestId,
    RequestKey, StageId, StageRules, Stop, Submission, Time, Topology, WorkerKey,
};

pub(crate) const NO_FALLBACK: FallbackOn = FallbackOn { timeout: false, error: false, lost: false, unavailable: false };

/// What a request is to be, where a test does not say otherwise: due in an hour, without a fallback.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) timeout: Duration,
    pub(crate) fallback_on: FallbackOn,
}

impl Default for Wish {
    fn default() -> Self {
        Wish { timeout: Duration::from_secs(3600), fallback_on: NO_FALLBACK }
    }
}

pub(crate) fn within(millis: u64) -> Wish {
    Wish { timeout: Duration::from_millis(millis), ..Wish::default() }
}

pub(crate) fn stage(name: &str) -> StageRules {
    StageRules::named(name)
}

/// A job in a worker's hands.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) worker: WorkerKey,
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
}

pub(crate) struct Double {
    pub(crate) core: Dispatcher<&'static str, u32>,
    pub(crate) now: Time,
    seen: Vec<String>,
    workers: BTreeMap<WorkerKey, String>,
    arrived: Vec<u32>,
    held: BTreeMap<String, Held>,
    keys: BTreeMap<u32, RequestKey>,
    requests: u32,
    problem: Option<Problem>,
}

impl Double {
    /// A service of these stages, and one pipeline `all` through them in order.
    pub(crate) fn new(stages: Vec<StageRules>) -> Double {
        let all = (0..stages.len() as u32).map(StageId).collect();
        Double::with(stages, vec![("all".to_owned(), all)], 64)
    }

    pub(crate) fn with(stages: Vec<StageRules>, pipelines: Vec<(String, Vec<StageId>)>, max_hops: u32) -> Double {
        let arrived = vec![0; stages.len()];
        Double {
            core: Dispatcher::new(Arc::new(Topology::new(stages, pipelines, max_hops))),
            now: Time::from_nanos(1_000_000_000),
            seen: Vec::new(),
            workers: BTreeMap::new(),
            arrived,
            held: BTreeMap::new(),
            keys: BTreeMap::new(),
            requests: 0,
            problem: None,
        }
    }

    /// Asserts that exactly these actions went out since the last call, in this order.
    #[track_caller]
    pub(crate) fn expect<const N: usize>(&mut self, expected: [&str; N]) {
        assert_eq!(std::mem::take(&mut self.seen), expected);
    }

    /// The problem that was answered or refused last.
    #[track_caller]
    pub(crate) fn problem(&self) -> &Problem {
        self.problem.as_ref().expect("a problem was told")
    }

    #[track_caller]
    fn input<T>(&mut self, input: impl FnOnce(&mut Dispatcher<&'static str, u32>, Time) -> T) -> T {
        assert!(self.seen.is_empty(), "the test has not named these actions: {:#?}", self.seen);
        let result = input(&mut self.core, self.now);
        self.record();
        result
    }

    fn record(&mut self) {
        if let Err(wrong) = self.core.verify() {
            panic!("the dispatcher contradicts itself: {wrong}; it put out {:#?}", self.seen);
        }
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        for action in actions {
            let line = self.describe(action);
            self.seen.push(line);
        }
    }

    fn describe(&mut self, action: Action<&'static str, u32>) -> String {
        match action {
            Action::Run { worker, job, attempt, tries, id, request, request_id, payload, .. } => {
                let name = self.workers[&worker].clone();
                assert_eq!(self.core.worker_job(worker), Some(id));
                let reply = self.core.reply(request).expect("a job runs for somebody");
                assert_eq!(request_id, request_id_of(*reply));
                let line = format!("{name} runs {} try {tries}: {payload}", job_name(id));
                self.held.insert(name, Held { worker, job, attempt });
                line
            }
            Action::Cancel { worker, job, attempt } => {
                let held = self.held[&self.workers[&worker]];
                assert!(held.job == job && held.attempt == attempt, "it is told of the job that it holds");
                format!("{} is told", self.workers[&worker])
            }
            Action::Stop { worker, signal: Stop::Terminate } => format!("{} gets SIGTERM", self.workers[&worker]),
            Action::Stop { worker, signal: Stop::Kill } => format!("{} gets SIGKILL", self.workers[&worker]),
            Action::Retire { worker } => format!("{} retires", self.workers[&worker]),
            Action::Answer { reply, request_id, answer } => {
                assert_eq!(request_id, request_id_of(reply));
                format!("r{reply} = {}", self.answer(answer))
            }
        }
    }

    fn answer(&mut self, answer: Answer<&'static str>) -> String {
        match answer {
            Answer::Value(value) => format!("value {value}"),
            Answer::Reply(Reply { status, body, .. }) => format!("reply {status} {body}"),
            Answer::Problem(problem) => {
                let line = format!("{} {}", problem.status, problem.code.name());
                self.problem = Some(problem);
                line
            }
            Answer::Fallback(problem) => {
                let line = format!("fallback for {}", problem.code.name());
                self.problem = Some(problem);
                line
            }
        }
    }

    /// A worker of stage number `stage` is up: `NAME.0` is the first of its stage.
    #[track_caller]
    pub(crate) fn arrive(&mut self, stage: u32) {
        let name = &self.core.topology().stage(StageId(stage)).name;
        let name = format!("{name}.{}", self.arrived[stage as usize]);
        self.arrived[stage as usize] += 1;
        assert!(self.seen.is_empty(), "the test has not named these actions: {:#?}", self.seen);
        let key = self.core.worker_ready(self.now, StageId(stage));
        self.workers.insert(key, name);
        self.record();
    }

    /// A client brings a request for the named stage or pipeline. The first is `r1`.
    #[track_caller]
    pub(crate) fn submit(&mut self, to: &str, payload: &'static str) -> u32 {
        self.submit_with(to, payload, Wish::default())
    }

    #[track_caller]
    pub(crate) fn submit_with(&mut self, to: &str, payload: &'static str, wish: Wish) -> u32 {
        self.requests += 1;
        let number = self.requests;
        let path = self.core.topology().find(to).expect("such a stage or pipeline");
        let result = self.input(|core, now| core.submit(now, submission(number, path, payload, now, wish)));
        match result {
            Ok(key) => {
                self.keys.insert(number, key);
            }
            Err(refused) => {
                assert_eq!(refused.reply, number);
                let line = format!("r{number} refused: {}", self.answer(refused.answer));
                self.seen.push(line);
            }
        }
        number
    }

    #[track_caller]
    pub(crate) fn cancel(&mut self, request: u32) {
        let key = self.keys[&request];
        self.input(|core, now| core.cancel(now, key));
    }

    /// What the named worker was handed last.
    #[track_caller]
    pub(crate) fn held(&self, worker: &str) -> Held {
        self.held[worker]
    }

    /// The named worker brings an outcome for what it was handed last.
    #[track_caller]
    pub(crate) fn outcome(&mut self, worker: &str, outcome: Outcome<&'static str>) {
        let held = self.held(worker);
        assert!(self.bring(held, outcome), "the outcome is not stale");
    }

    #[track_caller]
    pub(crate) fn next(&mut self, worker: &str, value: &'static str) {
        self.outcome(worker, Outcome::Next(value));
    }

    #[track_caller]
    pub(crate) fn goto(&mut self, worker: &str, target: &str, value: &'static str) {
        self.outcome(worker, Outcome::Goto { target: target.to_owned(), value });
    }

    #[track_caller]
    pub(crate) fn fail(&mut self, worker: &str, failure: Failure) {
        self.outcome(worker, Outcome::Fail(failure));
    }

    /// Brings an outcome under any name; false if it was refused.
    #[track_caller]
    pub(crate) fn bring(&mut self, held: Held, outcome: Outcome<&'static str>) -> bool {
        self.input(|core, now| core.outcome(now, held.worker, held.job, held.attempt, outcome))
    }

    #[track_caller]
    pub(crate) fn lose(&mut self, worker: &str) {
        let key = *self.workers.iter().find(|(_, name)| *name == worker).expect("such a worker").0;
        let loss = Loss { cause: "was killed by SIGKILL".to_owned(), certificate: "signal 9, peak 12 MiB".to_owned() };
        self.input(|core, now| core.worker_lost(now, key, loss));
    }

    #[track_caller]
    pub(crate) fn break_stage(&mut self, stage: u32) {
        self.input(|core, now| core.stage_broken(now, StageId(stage), "no module named numpy"));
    }

    #[track_caller]
    pub(crate) fn drain(&mut self, millis: u64) {
        self.input(|core, now| core.drain(now, now + Duration::from_millis(millis)));
    }

    /// Time passes, and the dispatcher is woken each time that it wanted to be.
    #[track_caller]
    pub(crate) fn wait(&mut self, millis: u64) {
        assert!(self.seen.is_empty(), "the test has not named these actions: {:#?}", self.seen);
        let until = self.now + Duration::from_millis(millis);
        while let Some(next) = self.core.next_timeout().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.core.timeout(self.now);
            self.record();
        }
        self.now = until;
        self.core.timeout(until);
        self.record();
    }

    /// The clock leaps: the dispatcher is woken only at the end.
    #[track_caller]
    pub(crate) fn leap(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.input(|core, now| core.timeout(now));
    }

    /// For actions that a test is not about.
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
    }

    /// Who was handed a job by the last input.
    #[track_caller]
    pub(crate) fn runner(&self) -> String {
        let run = self.seen.iter().find_map(|line| line.split_once(" runs ")).expect("a job was handed out");
        run.0.to_owned()
    }

    pub(crate) fn last_request(&self) -> u32 {
        self.requests
    }

    pub(crate) fn queued(&self, stage: u32) -> usize {
        self.core.counts(StageId(stage)).queued
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.seen.is_empty(), "the test has not named these actions: {:#?}", self.seen);
        }
    }
}

fn submission(number: u32, path: Path, payload: &'static str, now: Time, wish: Wish) -> Submission<&'static str, u32> {
    let Wish { timeout, fallback_on } = wish;
    Submission { id: request_id_of(number), path, payload, deadline: now + timeout, fallback_on, reply: number }
}

fn request_id_of(number: u32) -> RequestId {
    RequestId(u128::from(number) << RequestId::JOB_BITS)
}

/// `r1.2` is the second job of the first request.
fn job_name(id: JobId) -> String {
    format!("r{}.{}", id.0 >> RequestId::JOB_BITS, id.0 & ((1 << RequestId::JOB_BITS) - 1))
}

pub(crate) fn raised(name: &str) -> Failure {
    Failure::Error { name: name.to_owned(), message: "secret".to_owned(), traceback: "line 7".to_owned() }
}
