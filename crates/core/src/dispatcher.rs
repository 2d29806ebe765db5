//! The three machines joined: takes inputs and the time, and puts out actions.

mod ahead;
mod assess;
mod batch;
mod fate;
mod inspect;
mod pace;
mod recover;
mod reload;
mod scale;
mod scatter;
mod stream;
mod way;
mod withdraw;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::assess::Assessment;
use self::recover::Recovery;
use self::way::Load;
pub use self::withdraw::Withdrawal;
use crate::gather::{Cursor, Gathers, Payloads, Work};
use crate::job::{Due, FunctionId, JobId, JobKey, Place, RequestId, Terms};
use crate::outcome::{Answer, Failure, Outcome};
use crate::pool::{Flight, Landing, Pools, WorkerKey};
use crate::problem::{Code, Problem};
use crate::queue::{Jobs, Queue};
use crate::request::{FallbackOn, Request, RequestKey, Requests, Waiting};
use crate::rules::OnCancel;
use crate::time::Time;
use crate::timers::{TimerKey, Timers};
use crate::topology::{Path, StageId, Topology};

/// What a worker made of a job.
#[derive(Debug)]
pub struct Landed<P> {
    /// The job.
    pub job: JobKey,
    /// The fence.
    pub attempt: u32,
    /// How long the function ran.
    pub ran: Duration,
    /// What became of it.
    pub outcome: Outcome<P>,
}

/// What the dispatcher's owner must do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<P, R> {
    /// Hand a job to a worker.
    Run {
        /// To whom.
        worker: WorkerKey,
        /// The job; its outcome must name it.
        job: JobKey,
        /// The fence; the outcome must repeat it.
        attempt: u32,
        /// Executions, counting this one.
        tries: u32,
        /// The job's public id.
        id: JobId,
        /// The request that it serves.
        request: RequestKey,
        /// The request's public id.
        request_id: RequestId,
        /// Whether the payload is what the client sent.
        from_client: bool,
        /// Whether what the worker makes of it may go to the client in chunks.
        stream: bool,
        /// Whether the next job that goes to this worker belongs to the same batch.
        batch: bool,
        /// Which function it is a call of.
        function: Option<FunctionId>,
        /// When the request's answer is due.
        deadline: Time,
        /// The value.
        payload: P,
        /// What the request failed with, if this is the first job of its way on an error; the payload is then what the client
        /// sent.
        problem: Option<Box<Problem>>,
    },
    /// Ask a worker how many jobs it takes ahead.
    AskCredit {
        /// Whom.
        worker: WorkerKey,
    },
    /// Call a job back that its worker has not begun.
    Recall {
        /// From whom.
        worker: WorkerKey,
        /// The job.
        job: JobKey,
        /// Under this attempt.
        attempt: u32,
    },
    /// Tell a worker that nobody waits for its job.
    Cancel {
        /// Whom.
        worker: WorkerKey,
        /// The job that it holds.
        job: JobKey,
        /// Under this attempt.
        attempt: u32,
    },
    /// Send a worker's process group a signal.
    Stop {
        /// Whom.
        worker: WorkerKey,
        /// Which signal.
        signal: Stop,
    },
    /// No request is left that was let in under an older plan.
    Outdated,
    /// Start one more worker in a pool.
    Grow {
        /// Whose.
        stage: StageId,
    },
    /// Let a worker go, and start none in its place: it is idle and gets no more jobs.
    Shrink {
        /// Whom.
        worker: WorkerKey,
    },
    /// Let a worker go, and start another in its place: it is idle and gets no more jobs.
    Retire {
        /// Whom.
        worker: WorkerKey,
    },
    /// Pass a piece of an answer on.
    Chunk {
        /// To the client of this request.
        request: RequestKey,
        /// The piece.
        payload: P,
    },
    /// Say which key a job has, whose stage gives equal keys to the same worker, and which weight, if its batches are weighed.
    /// [`assessed`](Dispatcher::assessed) takes the answer.
    Assess {
        /// The job.
        job: JobKey,
        /// Its stage.
        stage: StageId,
        /// The request that it serves.
        request: RequestKey,
        /// Whether the payload is what the client sent.
        from_client: bool,
        /// Its value.
        payload: P,
    },
    /// Tell a worker that the client took so many bytes of the chunks of its job.
    Credit {
        /// Whom.
        worker: WorkerKey,
        /// The job that it holds.
        job: JobKey,
        /// Under this attempt.
        attempt: u32,
        /// How many.
        bytes: u64,
    },
    /// Tell the client that its request was to be withdrawn, and goes on, since its job had begun.
    GoingOn {
        /// Which.
        request: RequestKey,
    },
    /// Take note that a try failed, and that the job gets another.
    Retried {
        /// The request's public id.
        request_id: RequestId,
        /// What happened.
        problem: Problem,
    },
    /// Take note of a failure that the client will not see. (If a request's own fallback stands in, its answer says so.)
    Covered {
        /// The request's public id.
        request_id: RequestId,
        /// What happened.
        problem: Problem,
        /// What stands before it.
        by: Cover,
    },
    /// Answer a request.
    Answer {
        /// Where to.
        reply: R,
        /// The request's public id.
        request_id: RequestId,
        /// What.
        answer: Answer<P>,
    },
}

/// Why a client does not see a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Its request takes its other way because of it.
    OnError,
    /// The failure of a branch is gathered in place of a value. If several branches are late together, that is told once.
    Collected,
    /// The fallback of a step with branches stands in.
    Fallback,
    /// Its request was on its other way already, and its client is told what it had taken that for.
    AfterOnError,
}

/// How a worker is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A request that a client brings.
#[derive(Debug)]
pub struct Submission<P, R> {
    /// Its public id.
    pub id: RequestId,
    /// The way that it takes.
    pub path: Path,
    /// The value for the first stage.
    pub payload: P,
    /// When the answer is due.
    pub deadline: Time,
    /// Which problems its fallback stands in for.
    pub fallback_on: FallbackOn,
    /// What goes for its first job, beside the stage's rules.
    pub terms: Terms,
    /// Whether its client takes an answer in chunks.
    pub streams: bool,
    /// The way that it takes instead of failing, with the problem and the payload.
    pub on_error: Option<Path>,
    /// Where the answer goes, and whatever else the owner keeps with the request.
    pub reply: R,
}

/// A request that was not let in.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<P, R> {
    /// Where the answer goes.
    pub reply: R,
    /// The answer: a problem, or the fallback that stands in for it.
    pub answer: Answer<P>,
}

#[derive(Debug, Default)]
struct Stage {
    queue: Queue,
    /// How many jobs wait for their key or their weight to be known. They have a place in the queue already, as far as its limit goes.
    assessed: usize,
    /// When the first of those that wait beside an idle worker has waited long enough for others, where one takes several as one.
    batch: Option<(Time, TimerKey<Due>)>,
    size: scale::Size,
    broken: Option<String>,
    pace: pace::Pace,
    started: u64,
    done: u64,
    failed: u64,
    retried: u64,
    lost: u64,
}

/// How many requests came to what. `accepted` is always the sum of the other two and of those that still wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests let in.
    pub accepted: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests whose client went away.
    pub cancelled: u64,
}

/// Decides every fate of a job. `P` is the payload, which is never looked into; a copy stays here while a worker has one, so
/// that the job can be tried again. `R` is what the owner keeps with each request, the reply address above all.
#[derive(Debug)]
pub struct Dispatcher<P, R> {
    topology: Arc<Topology>,
    payloads: Payloads<P>,
    jobs: Jobs<P>,
    gathers: Gathers<P>,
    agenda: way::Agenda<P>,
    /// Of the requests that take another way instead of failing: which, and with what.
    recoveries: BTreeMap<RequestKey, Recovery<P>>,
    requests: Requests<R>,
    stages: Vec<Stage>,
    /// How quick each function is that stages are sent.
    functions: BTreeMap<FunctionId, pace::Pace>,
    pools: Pools,
    timers: Timers<Due>,
    /// Stages whose batches are to be handed out when the present input is over.
    gathered: Vec<batch::Gathered>,
    actions: Vec<Action<P, R>>,
    draining: bool,
    /// Ends of drains that are still to come.
    drain_ends: usize,
    totals: Totals,
    /// How many plans there were before this one.
    generation: u32,
    /// Requests that were let in under an older plan.
    old: usize,
}

impl<P: Clone, R> Dispatcher<P, R> {
    /// A dispatcher of that topology, with no workers yet.
    pub fn new(topology: Arc<Topology>, payloads: Payloads<P>) -> Dispatcher<P, R> {
        let stages = topology.stages().len();
        Dispatcher {
            topology,
            payloads,
            jobs: Jobs::default(),
            gathers: Gathers::default(),
            agenda: way::Agenda::default(),
            recoveries: BTreeMap::new(),
            requests: Requests::default(),
            stages: (0..stages).map(|_| Stage::default()).collect(),
            functions: BTreeMap::new(),
            pools: Pools::new(stages),
            timers: Timers::default(),
            gathered: Vec::new(),
            actions: Vec::new(),
            draining: false,
            drain_ends: 0,
            totals: Totals::default(),
            generation: 0,
            old: 0,
        }
    }

    /// Moves the actions that are due into `into`, behind what is there. To be called after each input.
    pub fn take_actions(&mut self, into: &mut Vec<Action<P, R>>) {
        self.hand_out_gathered();
        into.append(&mut self.actions);
    }

    /// When [`timeout`](Dispatcher::timeout) wants to be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// A client brings a request. It is let in, and will be answered by its deadline, or it is refused at once: because the
    /// node drains, because a stage of its pipeline is broken, or because the queue of one is full.
    pub fn submit(&mut self, now: Time, submission: Submission<P, R>) -> Result<RequestKey, Refused<P, R>> {
        let Submission { id, path, payload, deadline, fallback_on, terms, streams, on_error, reply } = submission;
        if let Some(problem) = self.refusal(now, path) {
            return Err(Refused { reply, answer: fallback_or(fallback_on, problem) });
        }
        let nobody = RequestKey::unpack(u64::MAX);
        let request = Request {
            id,
            jobs_made: 0,
            generation: self.generation,
            fallback_on,
            deadline: self.timers.set(deadline, Due::Deadline(nobody)),
            until: deadline,
            work: Work::Nothing,
            streams,
            streamed: false,
            withdrawn: false,
        };
        let timer = request.deadline;
        let key = self.requests.insert(Waiting { request, reply });
        self.timers.change(timer, Due::Deadline(key));
        self.totals.accepted += 1;
        // Here alone, so that what comes late of a function that was forgotten is not remembered.
        terms.function.map(|function| self.functions.entry(function).or_default());
        if let Some(path) = on_error {
            self.recoveries.insert(key, Recovery::new(path, payload.clone(), terms));
        }
        let cursor = Cursor { path, step: 0, hops: 0, within: None };
        self.go(now, key, cursor, Load { terms, payload, from_client: true });
        Ok(key)
    }

    /// A client went away. Its job is dropped where it waits; where it runs, its worker is told.
    /// False if its answer was on the way already.
    pub fn cancel(&mut self, now: Time, request: RequestKey) -> bool {
        let Some(waiting) = self.requests.remove(request) else { return false };
        self.ended(request, waiting.request.generation);
        self.timers.clear(waiting.request.deadline);
        self.totals.cancelled += 1;
        self.drop_work(now, waiting.request.work);
        true
    }

    /// A worker brings an outcome, after the function `ran` that long. False if it is stale: the worker does not hold that job
    /// under that attempt. An honest worker never brings a stale one.
    pub fn outcome(&mut self, now: Time, worker: WorkerKey, landed: Landed<P>) -> bool {
        let Landed { job, attempt, ran, outcome } = landed;
        let flight = Flight { job, attempt };
        // One with a single slot may hold the job behind another.
        let slot = if self.pools.is_shared(worker) { self.pools.holder(worker, flight) } else { Some(worker) };
        let Some((slot, holder)) = slot.and_then(|slot| Some((slot, self.pools.get(slot)?))) else { return false };
        let (stage, function, state) = (holder.stage, holder.function, holder.state);
        if !self.is_in_order(job, state, &outcome) {
            return false;
        }
        if matches!(outcome, Outcome::Returned) {
            return self.returned(now, worker, flight);
        }
        let cancelled = matches!(outcome, Outcome::Fail(Failure::Cancelled));
        if cancelled && self.dropped_ahead(now, worker, flight) {
            return true;
        }
        let most = self.topology.stage(stage).max_jobs_per_worker;
        let out_of_memory = matches!(outcome, Outcome::Fail(Failure::OutOfMemory { .. }));
        let landing = self.pools.land(slot, flight, most);
        let timer = match landing {
            Landing::Stale => return false,
            Landing::Doomed => {
                self.go_down(now, slot);
                return true;
            }
            Landing::Awaited(timer) | Landing::Unwanted(timer) => timer,
        };
        self.timers.clear(timer);
        // A function that stopped early, or was not begun, says nothing of how long it runs.
        if !cancelled && let Some(pace) = self.pace_mut(stage, function) {
            pace.ran(ran);
        }
        if out_of_memory {
            let first = self.pools.get_mut(worker);
            let known = first.is_some_and(|first| std::mem::replace(&mut first.lost, true));
            self.stages[stage.index()].lost += u64::from(!known);
            let ahead = self.pools.leave(slot);
            self.take_back(now, ahead, stage);
        } else if self.pools.has_left(worker) {
            self.let_go(worker);
        }
        self.begin_next(now, slot);
        if matches!(landing, Landing::Awaited(_)) {
            self.decide(now, job, outcome);
        }
        self.dispatch(now, stage);
        true
    }

    /// Time passed.
    pub fn timeout(&mut self, now: Time) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Deadline(request) => self.deadline_passed(now, request),
                Due::Try(worker) => self.try_timed_out(now, worker),
                Due::Patience(worker) => self.patience_ended(now, worker),
                Due::Overdue(worker) => self.overdue(now, worker),
                Due::Retry(job) => {
                    if let Some(stage) = self.jobs.get(job).map(|job| job.stage) {
                        self.requeue(now, job, stage);
                    }
                }
                Due::Batch(stage) => {
                    self.stages[stage.index()].batch = None;
                    self.hand_out(now, stage, true);
                }
                Due::Grow(stage) => {
                    self.stages[stage.index()].size.grow = None;
                    self.look_at_wait(now, stage);
                }
                Due::Shrink(stage) => self.shrink(now, stage),
                Due::Scatter(gather) => self.scatter_timed_out(now, gather),
                Due::DrainEnd => {
                    self.drain_ends -= 1;
                    self.end_drain(now);
                }
            }
        }
    }

    /// From now on new requests are refused; what was let in may finish until `until`, and is answered then.
    pub fn drain(&mut self, now: Time, until: Time) {
        self.draining = true;
        if until <= now {
            self.end_drain(now);
        } else {
            self.timers.set(until, Due::DrainEnd);
            self.drain_ends += 1;
        }
    }

    fn end_drain(&mut self, now: Time) {
        let waiting: Vec<RequestKey> = self.requests.iter().map(|(key, _)| key).collect();
        for key in waiting {
            let Some(work) = self.requests.get(key).map(|waiting| waiting.request.work) else { continue };
            let problem = Problem::new(Code::Draining, "the node shut down before the request was done");
            let problem = self.placed_in(work, problem);
            self.finish_now(now, key, Err(problem));
        }
    }

    fn refusal(&self, now: Time, path: Path) -> Option<Problem> {
        if self.draining {
            return Some(Problem::new(Code::Draining, "the node is shutting down and takes no new requests"));
        }
        let path = self.topology.reach(path);
        if let Some(stage) = path.iter().find(|stage| self.stages[stage.index()].broken.is_some()) {
            return Some(self.broken_problem(*stage));
        }
        let waiting = |stage: StageId| self.stages[stage.index()].queue.len() + self.stages[stage.index()].assessed;
        let full = |stage: &&StageId| waiting(**stage) >= self.topology.stage(**stage).queue;
        let stage = *path.iter().find(full)?;
        let name = self.topology.stage(stage).title();
        let detail = format!("{} jobs wait for {name}, which is as many as its queue takes", waiting(stage));
        let retry_after = self.stages[stage.index()].queue.retry_after(now);
        Some(Problem::new(Code::QueueFull, detail).in_stage(stage).retry_after(retry_after))
    }

    /// A worker of a stage may have become idle: it gets a job that waits.
    fn dispatch(&mut self, now: Time, stage: StageId) {
        self.hand_out(now, stage, true);
    }

    /// Hands out jobs of a stage for as long as there are jobs and workers for them.
    fn hand_out(&mut self, now: Time, stage: StageId, waited: bool) {
        if self.topology.stage(stage).batch.is_some() {
            return self.hand_out_together(now, stage, waited);
        }
        self.hand_out_what_waits(now, stage, waited);
        self.look_at_wait(now, stage);
    }

    fn hand_out_what_waits(&mut self, now: Time, stage: StageId, waited: bool) {
        if let Some(batch) = self.topology.stage(stage).batch {
            return self.hand_out_batches(now, stage, batch, waited);
        }
        while self.pools.has_idle(stage) {
            let first = self.stages[stage.index()].queue.first().and_then(|first| self.jobs.get(first));
            let Some((at, slot)) = first.and_then(|first| self.pools.choose_idle(stage, first.affinity)) else {
                return;
            };
            if self.hand_to(now, slot, stage, waited, 0).is_none() {
                return;
            }
            self.pools.take_idle_at(stage, at);
        }
        self.hand_out_ahead(now, stage);
    }

    /// Nobody waits for a job any more. If it was the first of those that wait, the next may be one that can be handed
    /// out ahead.
    fn drop_job(&mut self, now: Time, key: JobKey) {
        if let Some(stage) = self.abandon_first(now, key) {
            self.dispatch(now, stage);
        }
    }

    /// Nobody waits for a job any more. Its stage, if it was the first of those that wait there.
    fn abandon_first(&mut self, now: Time, key: JobKey) -> Option<StageId> {
        let stage = self.jobs.get(key)?.stage;
        let first = self.stages[stage.index()].queue.first() == Some(key);
        self.abandon(now, key);
        first.then_some(stage)
    }

    /// Nobody waits for a job any more.
    fn abandon(&mut self, now: Time, key: JobKey) {
        let Some(job) = self.jobs.get(key) else { return };
        let stage = job.stage;
        match job.place {
            Place::Assessed => self.stages[stage.index()].assessed -= 1,
            Place::Queued { .. } => self.stages[stage.index()].queue.remove(&mut self.jobs, key),
            Place::Delayed(timer) => {
                self.timers.clear(timer);
            }
            Place::Running(worker) => {
                let kill = self.topology.stage(stage).on_cancel == OnCancel::Kill;
                self.disown(now, worker, kill);
            }
            Place::Ahead(worker) => self.disown_ahead(worker, key, false),
        }
        self.jobs.remove(key);
    }
}

/// The answer for a problem: itself, or the fallback if that stands in for it.
pub fn fallback_or<P>(fallback_on: FallbackOn, problem: Problem) -> Answer<P> {
    if fallback_on.covers(problem.code) { Answer::Fallback(problem) } else { Answer::Problem(problem) }
}
