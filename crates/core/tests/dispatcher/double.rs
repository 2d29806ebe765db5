//! A recording double of the dispatcher's owner: it carries nothing out, writes every action down as a sentence, and
//! insists that a test has named each of them, before the next input unless it says otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Assessment, Cover, Dispatcher, Failure, FallbackOn, FunctionId, JobId, JobKey, Landed, Loss,
    Outcome, Part, Path, Payloads, Problem, Reply, RequestId, RequestKey, StageId, StageRules, Step, Stop, Submission,
    Terms, Time, Topology, Withdrawal, WorkerKey,
};

pub(crate) const NO_FALLBACK: FallbackOn = FallbackOn { timeout: false, error: false, lost: false, unavailable: false };

/// What a request is to be, where a test does not say otherwise: due in an hour, without a fallback, by the stage's rules.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) timeout: Duration,
    pub(crate) fallback_on: FallbackOn,
    pub(crate) terms: Terms,
    pub(crate) on_error: Option<Path>,
}

impl Default for Wish {
    fn default() -> Self {
        Wish { timeout: Duration::from_secs(3600), fallback_on: NO_FALLBACK, terms: Terms::default(), on_error: None }
    }
}

pub(crate) fn within(millis: u64) -> Wish {
    Wish { timeout: Duration::from_millis(millis), ..Wish::default() }
}

pub(crate) fn on(terms: Terms) -> Wish {
    Wish { terms, ..Wish::default() }
}

pub(crate) fn priority(priority: i8) -> Terms {
    Terms { priority, ..Terms::default() }
}

pub(crate) fn stage(name: &str) -> StageRules {
    StageRules::named(name)
}

/// A stage whose workers call functions that clients send.
pub(crate) fn functions(name: &str) -> StageRules {
    StageRules { functions: true, ..stage(name) }
}

pub(crate) fn function(number: u32) -> FunctionId {
    FunctionId(NonZero::new(number).expect("functions are numbered from 1"))
}

/// The terms of a call of that function.
pub(crate) fn call_of(number: u32) -> Terms {
    Terms { function: Some(function(number)), ..Terms::default() }
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
    /// How long the function runs from now on. A second: too long for jobs ahead.
    pub(crate) ran: Duration,
    /// Whether a test names the actions of several inputs at once.
    pub(crate) several: bool,
    /// What was reported of tries that are followed by another.
    pub(crate) retried: Vec<Problem>,
    seen: Vec<String>,
    workers: BTreeMap<WorkerKey, String>,
    arrived: Vec<u32>,
    /// What each worker was handed last.
    held: BTreeMap<String, Held>,
    /// What each worker owes an outcome for, the oldest first.
    hands: BTreeMap<String, VecDeque<(Held, JobId)>>,
    keys: BTreeMap<u32, RequestKey>,
    /// The job of each request that was last asked for its key.
    assessed: BTreeMap<u32, JobKey>,
    /// Which function each request calls.
    calls: BTreeMap<u32, FunctionId>,
    requests: u32,
    problem: Option<Problem>,
}

/// What branches come to: `{a: x, b: y}`, or `[x, y]`; a problem stands there by its code. A value `bytes` cannot be
/// gathered.
const PAYLOADS: Payloads<&'static str> =
    Payloads { gather, constant: |json| Box::leak(json.to_owned().into_boxed_str()) };

fn gather(_: &Topology, parts: &[Part<'_, &'static str>], named: bool) -> Result<&'static str, String> {
    let part = |part: &Part<'_, &'static str>| {
        let value = match part.value {
            Ok(&"bytes") => return Err(format!("{} is bytes", part.name)),
            Ok(value) => (*value).to_owned(),
            Err(problem) => format!("!{}", problem.code.name()),
        };
        Ok(if named { format!("{}: {value}", part.name) } else { value })
    };
    let parts = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.join(", ");
    let whole = if named { format!("{{{parts}}}") } else { format!("[{parts}]") };
    Ok(Box::leak(whole.into_boxed_str()))
}

impl Double {
    /// A service of these stages, and one pipeline `all` through them in order.
    pub(crate) fn new(stages: Vec<StageRules>) -> Double {
        let all: Vec<StageId> = (0..stages.len() as u32).map(StageId).collect();
        Double::with(stages, vec![("all".to_owned(), all)], 64)
    }

    pub(crate) fn with<S: Into<Step>>(
        stages: Vec<StageRules>,
        pipelines: Vec<(String, Vec<S>)>,
        max_hops: u32,
    ) -> Double {
        let arrived = vec![0; stages.len()];
        Double {
            core: Dispatcher::new(Arc::new(Topology::new(stages, pipelines, max_hops)), PAYLOADS),
            now: Time::from_nanos(1_000_000_000),
            ran: Duration::from_secs(1),
            several: false,
            retried: Vec::new(),
            seen: Vec::new(),
            workers: BTreeMap::new(),
            arrived,
            held: BTreeMap::new(),
            hands: BTreeMap::new(),
            keys: BTreeMap::new(),
            assessed: BTreeMap::new(),
            calls: BTreeMap::new(),
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
    fn nothing_unnamed(&self) {
        if self.several {
            return;
        }
        assert!(self.seen.is_empty(), "the test has not named these actions: {:#?}", self.seen);
    }

    #[track_caller]
    fn input<T>(&mut self, input: impl FnOnce(&mut Dispatcher<&'static str, u32>, Time) -> T) -> T {
        self.nothing_unnamed();
        let result = input(&mut self.core, self.now);
        self.record();
        result
    }

    fn record(&mut self) {
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        if let Err(wrong) = self.core.verify() {
            panic!("the dispatcher contradicts itself: {wrong}; it put out {:#?} and {actions:#?}", self.seen);
        }
        for action in actions {
            let line = self.describe(action);
            self.seen.extend(line);
        }
    }

    fn describe(&mut self, action: Action<&'static str, u32>) -> Option<String> {
        let name = |worker| self.workers[&worker].clone();
        Some(match action {
            Action::Run {
                worker,
                job,
                attempt,
                tries,
                id,
                request,
                request_id,
                function,
                from_client,
                batch,
                payload,
                problem,
                ..
            } => {
                let name = name(worker);
                let reply = self.core.reply(request).expect("a job runs for somebody");
                assert_eq!(request_id, request_id_of(*reply));
                let call = self.calls.get(reply).filter(|_| from_client);
                assert_eq!(function.as_ref(), call, "the first job is a call, and no other");
                let held = Held { worker, job, attempt };
                let hands = self.hands.entry(name.clone()).or_default();
                hands.push_back((held, id));
                self.held.insert(name.clone(), held);
                if hands.len() > 1 {
                    assert_eq!(self.core.worker_job(worker), None, "it may be at the one or at the other");
                }
                let verb = if hands.len() == 1 { "runs" } else { "gets" };
                let rest = match (batch, problem) {
                    (true, _) => ", and".to_owned(),
                    (false, Some(problem)) => format!(" after {}", problem.code.name()),
                    (false, None) => String::new(),
                };
                format!("{name} {verb} {} try {tries}: {payload}{rest}", job_name(id))
            }
            Action::Cancel { worker, job, attempt } => {
                let name = name(worker);
                match self.owed(&name, job, attempt) {
                    (0, _) => format!("{name} is told"),
                    (_, id) => format!("{name} is told of {}", job_name(id)),
                }
            }
            Action::Recall { worker, job, attempt } => {
                let name = name(worker);
                let (at, id) = self.owed(&name, job, attempt);
                assert!(at > 0, "the job at hand is not called back");
                format!("{name} is to give {} back", job_name(id))
            }
            Action::Outdated => "the old plan is done".to_owned(),
            Action::Grow { stage } => format!("one more for {}", self.core.topology().stage(stage).name),
            Action::Shrink { worker } => format!("{} leaves for good", name(worker)),
            Action::Assess { job, request, payload, .. } => {
                let reply = *self.core.reply(request).expect("it waits");
                self.assessed.insert(reply, job);
                format!("which key has r{reply}: {payload}")
            }
            Action::Chunk { request, payload } => {
                let reply = self.core.reply(request).expect("it still waits");
                format!("r{reply} gets {payload}")
            }
            Action::Credit { worker, job, attempt, bytes } => {
                let name = name(worker);
                let (at, _) = self.owed(&name, job, attempt);
                assert_eq!(at, 0, "it is at that job");
                format!("{name} may send {bytes} more")
            }
            Action::AskCredit { worker } => format!("{} is asked for credit", name(worker)),
            Action::Stop { worker, signal: Stop::Terminate } => format!("{} gets SIGTERM", name(worker)),
            Action::Stop { worker, signal: Stop::Kill } => format!("{} gets SIGKILL", name(worker)),
            Action::GoingOn { request } => {
                let reply = self.core.reply(request).expect("it still waits");
                format!("r{reply} goes on")
            }
            Action::Retire { worker } => format!("{} retires", name(worker)),
            Action::Retried { request_id, problem } => {
                assert!(problem.stage.is_some() && problem.job.is_some(), "it has a place: {problem:?}");
                assert_eq!(
                    problem.job.map(|job| job.0 >> RequestId::JOB_BITS << RequestId::JOB_BITS),
                    Some(request_id.0)
                );
                self.retried.push(problem);
                return None;
            }
            Action::Covered { request_id, problem, by } => {
                let (request, code) = (request_id.0 >> RequestId::JOB_BITS, problem.code.name());
                match by {
                    Cover::OnError => format!("r{request} takes its other way for {code}"),
                    Cover::Collected => format!("r{request} collects {code}"),
                    Cover::Fallback => format!("r{request} has a fallback for {code}"),
                    Cover::AfterOnError => format!("r{request} fails there as well: {code}"),
                }
            }
            Action::Answer { reply, request_id, answer } => {
                assert_eq!(request_id, request_id_of(reply));
                format!("r{reply} = {}", self.answer(answer))
            }
        })
    }

    /// Which of its jobs that is, from 0, and the job's public id.
    #[track_caller]
    fn owed(&self, worker: &str, job: JobKey, attempt: u32) -> (usize, JobId) {
        let mut hands = self.hands[worker].iter().enumerate();
        let found = hands.find(|(_, (held, _))| held.job == job && held.attempt == attempt);
        found.map(|(at, (_, id))| (at, *id)).expect("it holds the job that it is told of")
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
            Answer::Ended => "ended".to_owned(),
            Answer::Raised(problem, exception) => {
                self.problem = Some(problem);
                format!("raised {exception}")
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
        self.nothing_unnamed();
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
        let topology = self.core.topology();
        let pool = topology.stages().iter().position(|stage| stage.functions && stage.name == to);
        let pool = pool.map(|number| Path::Stage(StageId(number as u32)));
        let path = pool.or_else(|| topology.find(to)).expect("such a stage or pipeline");
        wish.terms.function.map(|function| self.calls.insert(number, function));
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

    /// A client takes a request back, if it has not begun.
    #[track_caller]
    pub(crate) fn withdraw(&mut self, request: u32) -> Withdrawal {
        let key = self.keys[&request];
        self.input(|core, now| core.withdraw(now, key, false))
    }

    /// A client takes a request back, whether it has begun or not.
    #[track_caller]
    pub(crate) fn kill(&mut self, request: u32) -> Withdrawal {
        let key = self.keys[&request];
        self.input(|core, now| core.withdraw(now, key, true))
    }

    #[track_caller]
    pub(crate) fn forget(&mut self, number: u32) {
        self.input(|core, _| core.forget_function(function(number)));
    }

    /// What the named worker was handed last.
    #[track_caller]
    pub(crate) fn held(&self, worker: &str) -> Held {
        self.held[worker]
    }

    /// What the named worker owes an outcome for, the oldest first.
    pub(crate) fn hands(&self, worker: &str) -> Vec<Held> {
        self.hands.get(worker).into_iter().flatten().map(|(held, _)| *held).collect()
    }

    /// What went out since the last call of [`expect`](Double::expect).
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    /// The named worker brings an outcome for the oldest of its jobs.
    #[track_caller]
    pub(crate) fn outcome(&mut self, worker: &str, outcome: Outcome<&'static str>) {
        let held = self.hands[worker].front().expect("it has a job").0;
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
        let Held { worker, job, attempt } = held;
        let landed = Landed { job, attempt, ran: self.ran, outcome };
        self.nothing_unnamed();
        let taken = self.core.outcome(self.now, worker, landed);
        if let Some(hands) = self.workers.get(&worker).filter(|_| taken).and_then(|name| self.hands.get_mut(name)) {
            hands.retain(|(held, _)| held.job != job || held.attempt != attempt);
        }
        self.record();
        taken
    }

    /// A worker brings a piece of the answer. False if it may not.
    #[track_caller]
    pub(crate) fn chunk(&mut self, worker: &str, piece: &'static str) -> bool {
        let Held { worker, job, attempt } = self.held[worker];
        self.input(|core, now| core.chunk(now, worker, job, attempt, piece))
    }

    /// A worker is to go for good.
    #[track_caller]
    pub(crate) fn retire(&mut self, worker: &str) {
        let key = *self.workers.iter().find(|(_, name)| *name == worker).expect("there is such a worker").0;
        self.input(|core, now| core.retire(now, key));
    }

    /// A new plan takes over.
    #[track_caller]
    pub(crate) fn reload(&mut self, stages: Vec<StageRules>, pipelines: Vec<(String, Vec<Step>)>) {
        self.arrived.resize(stages.len(), 0);
        let topology = Arc::new(self.core.topology().followed_by(stages, pipelines, 64));
        self.input(|core, now| core.reload(now, topology));
    }

    /// The key of a request's job becomes known, or why it has none.
    #[track_caller]
    pub(crate) fn has_key(&mut self, request: u32, key: Result<u32, Failure>) {
        self.is_assessed(request, key.map(|key| Assessment { affinity: key.into(), weight: 1 }));
    }

    pub(crate) fn weighs(&mut self, request: u32, weight: u32) {
        self.is_assessed(request, Ok(Assessment { affinity: 0, weight }));
    }

    fn is_assessed(&mut self, request: u32, key: Result<Assessment, Failure>) {
        let job = self.assessed[&request];
        self.input(|core, now| core.assessed(now, job, key));
    }

    /// The client of a request took so many bytes of its chunks.
    #[track_caller]
    pub(crate) fn consumed(&mut self, request: u32, bytes: u64) {
        let key = self.keys[&request];
        self.input(|core, _| core.consumed(key, bytes));
    }

    /// A worker gives back a job that it was handed and has not begun.
    #[track_caller]
    pub(crate) fn give_back(&mut self, held: Held) {
        assert!(self.bring(held, Outcome::Returned), "it was called back");
    }

    /// The named worker says how many jobs it takes ahead.
    #[track_caller]
    pub(crate) fn credit(&mut self, worker: &str, credit: u32) {
        let key = self.key(worker);
        self.input(|core, now| core.credit(now, key, credit));
    }

    #[track_caller]
    pub(crate) fn prints(&mut self, worker: &str) {
        let key = self.key(worker);
        self.input(|core, _| core.printed(key));
    }

    #[track_caller]
    fn key(&self, worker: &str) -> WorkerKey {
        *self.workers.iter().find(|(_, name)| *name == worker).expect("such a worker").0
    }

    #[track_caller]
    pub(crate) fn lose(&mut self, worker: &str) {
        let key = self.key(worker);
        self.hands.remove(worker);
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
        self.nothing_unnamed();
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

    pub(crate) fn queued(&self, stage: u32) -> usize {
        self.core.counts(StageId(stage)).queued
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.several = false;
            self.nothing_unnamed();
        }
    }
}

fn submission(number: u32, path: Path, payload: &'static str, now: Time, wish: Wish) -> Submission<&'static str, u32> {
    let Wish { timeout, fallback_on, terms, on_error } = wish;
    Submission {
        id: request_id_of(number),
        path,
        payload,
        deadline: now + timeout,
        fallback_on,
        terms,
        streams: true,
        on_error,
        reply: number,
    }
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
