//! The workers of every stage: who is idle, and all that is in flight.
//!
//! A worker's life, as far as jobs are concerned:
//!
//! ```text
//! arrive -> Idle -> Busy -> Idle                        its outcome came
//!                   Busy -> Told -> Idle                its job went another way; the outcome is not used
//!                           Told -> (SIGTERM, SIGKILL)  it did not come back in time
//!           Idle -> Leaving                             it did its share; it is replaced
//! any   -> gone                                         it died
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::job::{Due, FunctionId, JobId, JobKey, Terms};
use crate::slab::{Key, Slab};
use crate::time::Time;
use crate::timers::TimerKey;
use crate::topology::StageId;

/// Names a worker, for as long as it lives.
pub type WorkerKey = Key<Worker>;

/// One worker that is up.
#[derive(Debug)]
pub struct Worker {
    pub(crate) stage: StageId,
    /// What the oldest job in its hands is at; the only one that can have begun.
    pub(crate) state: State,
    /// Jobs that it brought an outcome for.
    pub(crate) done: u64,
    /// The jobs behind the oldest, in the order in which it will do them.
    pub(crate) ahead: VecDeque<Ahead>,
    /// How many jobs it takes ahead.
    pub(crate) credit: u32,
    /// Since when the oldest job has been the oldest.
    pub(crate) since: Time,
    /// The public id of the oldest job.
    pub(crate) oldest: JobId,
    /// Whether the oldest job was called back before it became the oldest.
    pub(crate) oldest_recalled: bool,
    /// Which function the oldest job is a call of.
    pub(crate) function: Option<FunctionId>,
    /// Whether it has printed something while at the oldest job.
    pub(crate) printed: bool,
    /// Set while there are jobs ahead.
    pub(crate) overdue: Option<(Time, TimerKey<Due>)>,
}

/// A job that was handed out and has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) flight: Flight,
    /// The job's public id.
    pub(crate) id: JobId,
    /// Whether its job waits for it.
    pub(crate) wanted: bool,
    /// Whether it was called back.
    pub(crate) recalled: bool,
    /// What goes for it. The job itself may be gone when it begins.
    pub(crate) terms: Terms,
    /// Whether its worker is killed if it comes to it and does not come back.
    pub(crate) kill: bool,
}

/// Jobs are handed out ahead only where they wait about this long at most; one that waits longer is called back.
pub(crate) const AHEAD_WAIT: Duration = Duration::from_millis(1);
/// So many workers are looked at for room at a time.
const SEARCHED_AT_ONCE: usize = 32;

/// A job in a worker's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) job: JobKey,
    pub(crate) attempt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    /// Its job waits for its outcome, until the timer.
    Busy(Flight, TimerKey<Due>),
    /// Its job has gone another way, and it was told. It is free again when its outcome comes.
    Told(Flight, Patience),
    /// It gets no more jobs, and is on its way out.
    Leaving,
}

/// How long a worker that was told may still go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until the timeout of its try.
    UntilTimeout(TimerKey<Due>),
    /// Until its grace ends; then SIGTERM.
    Grace(TimerKey<Due>),
    /// It got SIGTERM; SIGKILL when the timer ends.
    Terminated(TimerKey<Due>),
    /// It got SIGKILL.
    Killed,
}

impl Patience {
    pub(crate) fn timer(self) -> Option<TimerKey<Due>> {
        match self {
            Patience::UntilTimeout(timer) | Patience::Grace(timer) | Patience::Terminated(timer) => Some(timer),
            Patience::Killed => None,
        }
    }
}

/// What an outcome means to the pool.
pub(crate) enum Landing {
    /// The job waits for it; clear the timer.
    Awaited(TimerKey<Due>),
    /// The job has gone another way; clear the timer.
    Unwanted(TimerKey<Due>),
    /// The job has gone another way, and the worker was sent a signal: it stays on its way out.
    Doomed,
    /// The worker does not hold that job, or held it under another attempt.
    Stale,
}

/// How a stage stands. Counters go up from the node's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageCounts {
    /// Jobs that wait.
    pub queued: usize,
    /// Workers that are up and wait for a job.
    pub idle: usize,
    /// Workers that are up.
    pub workers: usize,
    /// Jobs that workers have begun, as far as is known; each try counts.
    pub started: u64,
    /// Jobs that ended with a value, an answer or a goto.
    pub done: u64,
    /// Jobs that ended without one.
    pub failed: u64,
    /// Tries that were followed by another.
    pub retried: u64,
    /// Workers that died.
    pub lost: u64,
    /// Why the stage is broken, if it is.
    pub broken: Option<String>,
}

#[derive(Debug, Default)]
struct Pool {
    /// The one that got idle last is at the back and works next: its memory is still warm, which at light load halves what a
    /// job takes. Under load all are busy, and the work is even by itself.
    idle: Vec<WorkerKey>,
    /// All that are up.
    members: Vec<WorkerKey>,
    /// Those that were not asked how many jobs they take ahead.
    unasked: Vec<WorkerKey>,
    /// The member from which the next search for room begins.
    search_from: usize,
}

/// The pools of all stages.
#[derive(Debug)]
pub(crate) struct Pools {
    workers: Slab<Worker>,
    pools: Vec<Pool>,
}

impl Pools {
    pub(crate) fn new(stages: usize) -> Pools {
        Pools { workers: Slab::default(), pools: (0..stages).map(|_| Pool::default()).collect() }
    }

    pub(crate) fn get(&self, key: WorkerKey) -> Option<&Worker> {
        self.workers.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: WorkerKey) -> Option<&mut Worker> {
        self.workers.get_mut(key)
    }

    /// Those that were not asked how many jobs they take ahead; from now on they were.
    pub(crate) fn take_unasked(&mut self, stage: StageId) -> Vec<WorkerKey> {
        std::mem::take(&mut self.pools[stage.index()].unasked)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerKey, &Worker)> {
        self.workers.iter()
    }

    /// Workers that are up, and how many of them are idle.
    pub(crate) fn size(&self, stage: StageId) -> (usize, usize) {
        let pool = &self.pools[stage.index()];
        (pool.members.len(), pool.idle.len())
    }

    /// A new worker is up, and idle.
    pub(crate) fn arrive(&mut self, stage: StageId) -> WorkerKey {
        let key = self.workers.insert(Worker {
            stage,
            state: State::Idle,
            done: 0,
            ahead: VecDeque::new(),
            credit: 0,
            since: Time::ZERO,
            oldest: JobId(0),
            oldest_recalled: false,
            function: None,
            printed: false,
            overdue: None,
        });
        let pool = &mut self.pools[stage.index()];
        pool.members.push(key);
        pool.unasked.push(key);
        pool.idle.push(key);
        key
    }

    pub(crate) fn has_idle(&self, stage: StageId) -> bool {
        !self.pools[stage.index()].idle.is_empty()
    }

    /// The worker that gets the next job; it must be made busy at once.
    pub(crate) fn take_idle(&mut self, stage: StageId) -> Option<WorkerKey> {
        self.pools[stage.index()].idle.pop()
    }

    /// The worker that holds the fewest jobs, among those that take another ahead: fewer than `depth` says for the
    /// function of its oldest job, and none that has kept that job for longer than it should, or has printed something
    /// meanwhile. A large pool is searched in parts, one at a time: if nobody in this part has room, the job goes on
    /// waiting for the first that comes to have some.
    pub(crate) fn with_room(
        &mut self,
        stage: StageId,
        now: Time,
        depth: impl Fn(Option<FunctionId>) -> usize,
    ) -> Option<WorkerKey> {
        let pool = &mut self.pools[stage.index()];
        let all = pool.members.len();
        let first = if all > SEARCHED_AT_ONCE { pool.search_from % all } else { 0 };
        pool.search_from = first + SEARCHED_AT_ONCE;
        let (before, from) = pool.members.split_at(first);
        let mut best = None;
        for key in from.iter().chain(before).take(SEARCHED_AT_ONCE) {
            let Some(worker) = self.workers.get(*key) else { continue };
            let held = worker.ahead.len();
            let open = matches!(worker.state, State::Busy(..))
                && held < depth(worker.function).min(worker.credit as usize)
                && !worker.printed
                && now.since(worker.since) <= AHEAD_WAIT
                && worker.ahead.front().is_none_or(|next| !next.recalled);
            if open && best.is_none_or(|(fewest, _)| held < fewest) {
                best = Some((held, *key));
                if held == 0 {
                    break;
                }
            }
        }
        best.map(|(_, key)| key)
    }

    pub(crate) fn set(&mut self, key: WorkerKey, state: State) {
        if let Some(worker) = self.workers.get_mut(key) {
            worker.state = state;
        }
    }

    /// An outcome came from a worker: what does it mean? A worker that is free again is idle, or leaves if it has done `most`
    /// jobs; one that was sent a signal stays as it is. One with jobs ahead is to begin the next.
    pub(crate) fn land(&mut self, key: WorkerKey, flight: Flight, most: Option<u64>) -> Landing {
        let Some(worker) = self.workers.get_mut(key) else { return Landing::Stale };
        let landing = match worker.state {
            State::Busy(held, timer) if held == flight => Landing::Awaited(timer),
            State::Told(held, Patience::UntilTimeout(timer) | Patience::Grace(timer)) if held == flight => {
                Landing::Unwanted(timer)
            }
            State::Told(held, _) if held == flight => return Landing::Doomed,
            State::Idle | State::Busy(..) | State::Told(..) | State::Leaving => return Landing::Stale,
        };
        worker.done += 1;
        if most.is_some_and(|most| worker.done >= most) {
            worker.state = State::Leaving;
        } else {
            self.set_idle(key);
        }
        landing
    }

    /// A worker's hands are empty, but for the jobs ahead.
    pub(crate) fn set_idle(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.state = State::Idle;
        if worker.ahead.is_empty() {
            self.pools[worker.stage.index()].idle.push(key);
        }
    }

    /// A worker that gets no more jobs, and comes to none of those that it has ahead.
    pub(crate) fn leave(&mut self, key: WorkerKey) -> VecDeque<Ahead> {
        let Some(worker) = self.workers.get_mut(key) else { return VecDeque::new() };
        let pool = &mut self.pools[worker.stage.index()];
        pool.unasked.retain(|unasked| *unasked != key);
        if worker.state == State::Idle {
            pool.idle.retain(|idle| *idle != key);
        }
        worker.state = State::Leaving;
        std::mem::take(&mut worker.ahead)
    }

    /// A worker is gone.
    pub(crate) fn remove(&mut self, key: WorkerKey) -> Option<Worker> {
        let worker = self.workers.remove(key)?;
        let pool = &mut self.pools[worker.stage.index()];
        pool.members.retain(|member| *member != key);
        pool.unasked.retain(|member| *member != key);
        if worker.state == State::Idle {
            pool.idle.retain(|idle| *idle != key);
        }
        Some(worker)
    }
}
