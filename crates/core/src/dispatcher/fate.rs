//! What becomes of a job: on to the next stage, tried again, or given up.

use std::time::Duration;

use super::way::Load;
use super::{Action, Dispatcher, fallback_or};
use crate::gather::{Cursor, Work};
use crate::job::{Due, Job, JobKey, Place};
use crate::outcome::{Answer, Failure, Loss, Outcome};
use crate::pool::{Flight, Patience, State, Worker, WorkerKey};
use crate::problem::{Cause, Code, Problem};
use crate::request::{RequestKey, Waiting};
use crate::time::Time;
use crate::topology::{Path, StageId, Step};

/// The most jobs of one request: as many as its ids have numbers for, and an end to what multiplies.
const MOST_JOBS: u32 = 1_000_000;

/// What took a try away from a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mishap {
    Lost,
    Timeout,
    Error,
}

/// How long a client waits before it comes again to a node that was full.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// The node has no room for what a job came to. To do it again would fill the node again: so the client is told.
pub(super) fn no_room(detail: String) -> Problem {
    Problem::new(Code::MemoryFull, detail).retry_after(ROOM_AGAIN)
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// A running job has come to an outcome.
    pub(super) fn decide(&mut self, now: Time, key: JobKey, outcome: Outcome<P>) {
        let Some(job) = self.jobs.get(key) else { return };
        let stage = job.stage;
        match outcome {
            Outcome::Next(value) => {
                self.done(stage);
                self.advance(now, key, value);
            }
            Outcome::Respond(reply) => {
                self.done(stage);
                if let Some(job) = self.jobs.remove(key) {
                    self.finish_now(now, job.request, Ok(Answer::Reply(reply)));
                }
            }
            Outcome::Split(values) => {
                self.done(stage);
                self.split(now, key, values);
            }
            Outcome::Goto { target, value } => self.goto(now, key, &target, value),
            Outcome::Fail(failure) => self.failed(now, key, failure),
            Outcome::Raised { name, message, traceback, exception } => {
                self.raised(now, key, Cause::Raised { name, message, traceback }, exception);
            }
            Outcome::Ended => {
                self.done(stage);
                if let Some(job) = self.jobs.remove(key) {
                    self.finish_now(now, job.request, Ok(Answer::Ended));
                }
            }
            // Told apart before it comes here.
            Outcome::Returned => {}
        }
    }

    fn done(&mut self, stage: StageId) {
        self.stages[stage.index()].done += 1;
    }

    /// One step along the path: the value goes to the next stage, or is what the path came to.
    fn advance(&mut self, now: Time, key: JobKey, value: P) {
        let Some(job) = self.jobs.remove(key) else { return };
        let load = Load { terms: job.terms.of_next(), payload: value, from_client: false };
        self.go(now, job.request, job.cursor.next(), load);
    }

    /// A stage of the current path moves the cursor; anything else becomes the path, and its result the answer.
    fn goto(&mut self, now: Time, key: JobKey, target: &str, value: P) {
        let Some(job) = self.jobs.get(key) else { return };
        let (from, request, cursor, terms) = (job.stage, job.request, job.cursor, job.terms.of_next());
        let from_name = &self.topology.stage(from).name;
        let path = match self.target(from, target) {
            Ok(path) => path,
            Err(detail) => return self.give_up(now, key, Problem::new(Code::UnknownTarget, detail)),
        };
        let hops = cursor.hops + 1;
        if hops > self.topology.max_hops() {
            let (hops, most) = (cursor.hops, self.topology.max_hops());
            let detail = format!(
                "stage `{from_name}` sent the request on once more, after {hops} gotos; limits.max_hops allows {most}"
            );
            return self.give_up(now, key, Problem::new(Code::TooManyHops, detail));
        }
        let steps = self.topology.path(cursor.path);
        // The next place of that stage on the path, or else its first.
        let place = |wanted: StageId| {
            let is_wanted = |step: &Step| *step == Step::Stage(wanted);
            let ahead = cursor.step as usize + 1;
            let next = steps.iter().skip(ahead).position(is_wanted).map(|offset| ahead + offset);
            next.or_else(|| steps.iter().position(is_wanted))
        };
        let here = match path {
            Path::Stage(stage) => place(stage),
            Path::Pipeline(_) => None,
        };
        let cursor = match here {
            Some(step) => Cursor { step: step as u32, hops, ..cursor },
            None => Cursor { path, step: 0, hops, ..cursor },
        };
        self.jobs.remove(key);
        self.done(from);
        self.go(now, request, cursor, Load { terms, payload: value, from_client: false });
    }

    /// Where a goto to that name leads, or why nowhere.
    fn target(&self, from: StageId, target: &str) -> Result<Path, String> {
        let rules = self.topology.stage(from);
        let sent = format!("stage `{}` sent a value to `{target}`", rules.name);
        if let Some(declared) = rules.goto.as_ref().filter(|declared| !declared.iter().any(|name| name == target)) {
            let names: Vec<String> = declared.iter().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            return Err(format!("{sent}, and its `goto` declares {names}"));
        }
        self.topology.find(target).ok_or_else(|| format!("{sent}, which is no stage or pipeline"))
    }

    /// A job begins in `stage`. Inner hops are never refused; only a broken stage ends them.
    pub(super) fn enter(&mut self, now: Time, request_key: RequestKey, cursor: Cursor, stage: StageId, load: Load<P>) {
        let Some(waiting) = self.requests.get_mut(request_key) else { return };
        waiting.request.jobs_made += 1;
        let ordinal = waiting.request.jobs_made;
        let Load { terms, payload, from_client } = load;
        let key = self.jobs.insert(Job {
            request: request_key,
            payload,
            stage,
            ordinal,
            attempt: 0,
            tries: 0,
            from_client,
            affinity: 0,
            weight: 1,
            terms,
            entered: now,
            cursor,
            place: Place::Queued { previous: None, next: None },
        });
        self.set_work(request_key, cursor, Work::Job(key));
        if ordinal > MOST_JOBS {
            let detail = format!("the request made more than {MOST_JOBS} jobs");
            return self.give_up(now, key, Problem::new(Code::TooManyJobs, detail));
        }
        if self.stages[stage.index()].broken.is_some() {
            let problem = self.broken_problem(stage);
            return self.give_up(now, key, problem);
        }
        if self.topology.stage(stage).assesses() {
            return self.assess(key);
        }
        self.stages[stage.index()].queue.push_back(&mut self.jobs, key);
        self.hand_out(now, stage, false);
    }

    pub(super) fn failed(&mut self, now: Time, key: JobKey, failure: Failure) {
        let Some(job) = self.jobs.get(key) else { return };
        let name = self.topology.stage(job.stage).title();
        let problem = match failure {
            Failure::Error { name: raised, message, traceback } => {
                let detail = format!("{name} raised {raised}");
                let problem = Problem::new(Code::FunctionFailed, detail);
                let problem = problem.because(Cause::Raised { name: raised, message, traceback });
                return self.retry_or_give_up(now, key, Mishap::Error, problem);
            }
            Failure::Command { detail, stderr } => {
                let detail = format!("the command of {name} {detail} (try {})", job.tries);
                let problem = Problem::new(Code::CommandFailed, detail).because(Cause::Said(stderr));
                return self.retry_or_give_up(now, key, Mishap::Error, problem);
            }
            Failure::OutOfMemory { message } => {
                let cause = "ran out of memory".to_owned();
                return self.lost(now, key, Loss { certificate: format!("{cause}: {message}"), cause });
            }
            Failure::Abort { status, detail } => Problem { status, ..Problem::new(Code::Aborted, detail) },
            Failure::Decode { detail } if job.from_client => Problem::new(Code::BadBody, detail),
            Failure::Decode { detail } => {
                Problem::new(Code::ValueNotDecodable, format!("{name} got a value that does not decode: {detail}"))
            }
            Failure::Encode { detail } => Problem::new(Code::ResultNotEncodable, format!("{name}: {detail}")),
            Failure::Filter { detail } => Problem::new(Code::FilterFailed, format!("{name}: {detail}")),
            Failure::TooLarge { detail } => Problem::new(Code::ResultTooLarge, format!("{name}: {detail}")),
            Failure::NoRoom { detail } => no_room(format!("{name} came to a result: {detail}")),
            Failure::Cancelled => {
                let detail = format!("{name} stopped as if it had been cancelled, but it had not");
                Problem::new(Code::FunctionFailed, detail)
            }
        };
        self.give_up(now, key, problem);
    }

    /// A function that was sent here raised: that is the client's affair, and never tried again.
    fn raised(&mut self, now: Time, key: JobKey, cause: Cause, exception: P) {
        let Some(job) = self.jobs.get(key) else { return };
        let (stage, request) = (job.stage, job.request);
        let name = match &cause {
            Cause::Raised { name, .. } => name.as_str(),
            Cause::Died(_) | Cause::Said(_) => "",
        };
        let problem = Problem::new(Code::FunctionFailed, format!("the function raised {name}")).because(cause);
        let problem = self.placed(key, problem);
        self.jobs.remove(key);
        self.stages[stage.index()].failed += 1;
        self.finish_now(now, request, Ok(Answer::Raised(problem, exception)));
    }

    /// The worker died with this job.
    pub(super) fn lost(&mut self, now: Time, key: JobKey, loss: Loss) {
        let Some(job) = self.jobs.get(key) else { return };
        let rules = self.topology.stage(job.stage);
        let detail = format!("the worker of {} {} (try {})", rules.title(), loss.cause, job.tries);
        let problem = Problem::new(Code::WorkerDied, detail).because(Cause::Died(loss.certificate));
        self.retry_or_give_up(now, key, Mishap::Lost, problem);
    }

    /// The try that a worker is at took longer than its stage allows. What becomes of the job does not wait for the worker,
    /// which is told, and killed if it does not come back.
    pub(super) fn try_timed_out(&mut self, now: Time, worker: WorkerKey) {
        let Some(&Worker { stage, first, state, .. }) = self.pools.get(worker) else { return };
        let flight = match state {
            State::Busy(flight, _) => {
                self.actions.push(Action::Cancel { worker: first, job: flight.job, attempt: flight.attempt });
                flight
            }
            State::Told(flight, Patience::UntilTimeout(_)) => flight,
            State::Told(..) | State::Idle | State::Leaving => return,
        };
        let grace = self.topology.stage(stage).grace;
        let timer = self.timers.set(now + grace, Due::Patience(worker));
        self.pools.set(worker, State::Told(flight, Patience::Grace(timer)));
        if matches!(state, State::Busy(..)) {
            self.job_timed_out(now, flight);
        }
    }

    fn job_timed_out(&mut self, now: Time, flight: Flight) {
        let Some(job) = self.jobs.get(flight.job) else { return };
        let rules = self.topology.stage(job.stage);
        let timeout = job.terms.timeout(rules);
        let detail = format!("{} took longer than its timeout of {timeout:?} (try {})", rules.title(), job.tries);
        self.retry_or_give_up(now, flight.job, Mishap::Timeout, Problem::new(Code::StageTimeout, detail));
    }

    /// A request's deadline passed: it is answered now, whatever its job is at.
    pub(super) fn deadline_passed(&mut self, now: Time, key: RequestKey) {
        let Some(work) = self.requests.get(key).map(|waiting| waiting.request.work) else { return };
        let mut jobs = Vec::new();
        self.jobs_of(work, &mut jobs);
        let detail = match jobs[..] {
            [job] => self.where_it_was(job),
            _ => format!("the deadline passed while {}", self.where_they_were(&jobs)),
        };
        let problem = self.placed_in(work, Problem::new(Code::DeadlineExceeded, detail));
        self.finish_now(now, key, Err(problem));
    }

    /// Where the one job of a request was when its deadline passed.
    fn where_it_was(&self, key: JobKey) -> String {
        let Some(job) = self.jobs.get(key) else { return "the deadline passed".to_owned() };
        let name = self.topology.stage(job.stage).title();
        match job.place {
            Place::Running(_) => format!("the deadline passed while {name} was at work"),
            Place::Queued { .. } if self.pools.size(job.stage).0 == 0 => {
                format!("the deadline passed while {name} had no workers")
            }
            Place::Assessed | Place::Queued { .. } | Place::Ahead(_) => {
                format!("the deadline passed while the request waited for {name}")
            }
            Place::Delayed(_) => format!("the deadline passed before {name} could be tried again"),
        }
    }

    fn retry_or_give_up(&mut self, now: Time, key: JobKey, mishap: Mishap, problem: Problem) {
        let Some(job) = self.jobs.get(key) else { return };
        let (stage, tries) = (job.stage, job.tries);
        let rules = self.topology.stage(stage);
        let worth_it = match mishap {
            Mishap::Lost => rules.retry_on.lost,
            Mishap::Timeout => rules.retry_on.timeout,
            Mishap::Error => rules.retry_on.error,
        };
        if !worth_it || tries > job.terms.retries(rules) || self.has_streamed(job.request) {
            return self.give_up(now, key, problem);
        }
        if self.stages[stage.index()].broken.is_some() {
            let problem = self.broken_problem(stage);
            return self.give_up(now, key, problem);
        }
        self.stages[stage.index()].retried += 1;
        if let Some(request) = self.requests.get(job.request) {
            let request_id = request.request.id;
            let problem = self.placed(key, problem);
            self.actions.push(Action::Retried { request_id, problem });
        }
        let Some(job) = self.jobs.get_mut(key) else { return };
        let wait = rules.wait_before(tries, mishap == Mishap::Lost);
        if wait.is_zero() {
            self.requeue(now, key, stage);
        } else {
            let timer = self.timers.set(now + wait, Due::Retry(key));
            job.place = Place::Delayed(timer);
        }
    }

    /// A job that has waited its turn before goes in front.
    pub(super) fn requeue(&mut self, now: Time, key: JobKey, stage: StageId) {
        self.put_in_front(now, key, stage);
        self.hand_out(now, stage, false);
    }

    /// The same, for a job of several: they are handed out when all of them are there.
    pub(super) fn put_in_front(&mut self, now: Time, key: JobKey, stage: StageId) {
        if self.is_withdrawn(key) {
            return self.came_back_withdrawn(key);
        }
        if self.stages[stage.index()].broken.is_some() {
            let problem = self.broken_problem(stage);
            return self.give_up(now, key, problem);
        }
        self.stages[stage.index()].queue.push_front(&mut self.jobs, key);
    }

    /// A job that is in nobody's hands ends without a value, and what it was part of with `problem`.
    pub(super) fn give_up(&mut self, now: Time, key: JobKey, problem: Problem) {
        let problem = self.placed(key, problem);
        let Some(job) = self.jobs.remove(key) else { return };
        self.stages[job.stage.index()].failed += 1;
        self.fail_path(now, job.request, job.cursor, problem);
    }

    /// The problem with its place: which stage, which job, how many tries.
    pub(super) fn placed(&self, key: JobKey, problem: Problem) -> Problem {
        let Some(job) = self.jobs.get(key) else { return problem };
        let id = self.requests.get(job.request).map(|waiting| waiting.request.id.job(job.ordinal));
        Problem { stage: Some(job.stage), job: id, tries: job.tries, ..problem }
    }

    /// A request gets its one answer, and nobody waits any more for what still served it.
    pub(super) fn finish_now(&mut self, now: Time, key: RequestKey, result: Result<Answer<P>, Problem>) {
        let result = match result {
            Err(problem) => match self.recover(now, key, problem) {
                Some(problem) => Err(problem),
                None => return,
            },
            answer => answer,
        };
        if let Some(work) = self.finish(key, result) {
            self.drop_work(now, work);
        }
    }

    /// A request gets its one answer. Returns what served it.
    pub(super) fn finish(&mut self, key: RequestKey, result: Result<Answer<P>, Problem>) -> Option<Work> {
        let Waiting { request, reply } = self.requests.remove(key)?;
        self.ended(key, request.generation);
        self.timers.clear(request.deadline);
        self.totals.answered += 1;
        let answer = result.unwrap_or_else(|problem| match request.streamed {
            true => Answer::Problem(problem),
            false => fallback_or(request.fallback_on, problem),
        });
        self.actions.push(Action::Answer { reply, request_id: request.id, answer });
        Some(request.work)
    }
}
