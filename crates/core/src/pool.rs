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

use crate::dispatcher::Stop;
use crate::job::{Due, FunctionId, JobId, JobKey, Terms};
use crate::slab::{Key, Slab};
use crate::time::Time;
use crate::timers::TimerKey;
use crate::topology::StageId;

/// Names a worker, for as long as it lives.
pub type WorkerKey = Key<Worker>;

/// One worker that is up, or one of the slots of a worker that does several jobs at the same time.
///
/// Such a worker has a slot for each. The first of them stands for all: its key is the worker's.
#[derive(Debug)]
pub struct Worker {
    pub(crate) stage: StageId,
    /// The first slot of the worker; its own key, where it is that.
    pub(crate) first: WorkerKey,
    /// Of a first slot: the others.
    pub(crate) others: Vec<WorkerKey>,
    /// Of a first slot: how many slots are idle.
    pub(crate) free: usize,
    /// Whether the worker takes several jobs as one, and so is idle only as a whole.
    pub(crate) batched: bool,
    /// Of a first slot: whether the worker gets no more jobs, and leaves when the last is done.
    pub(crate) retiring: bool,
    /// Of a first slot: whether no other takes its place then.
    pub(crate) for_good: bool,
    /// Of a first slot: whether it counts as lost already.
    pub(crate) lost: bool,
    /// Of a first slot: whether it is stopped for the sake of one job. What else it does then costs no try.
    pub(crate) stopped: Option<Stop>,
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
    /// Until its neighbours' grace ends, which do their jobs in the same worker; then SIGTERM.
    Neighbours(TimerKey<Due>),
    /// It got SIGTERM; SIGKILL when the timer ends.
    Terminated(TimerKey<Due>),
    /// It got SIGKILL.
    Killed,
}

impl Patience {
    pub(crate) fn timer(self) -> Option<TimerKey<Due>> {
        match self {
            Patience::UntilTimeout(timer)
            | Patience::Grace(timer)
            | Patience::Neighbours(timer)
            | Patience::Terminated(timer) => Some(timer),
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
    /// Slots of workers that are up and wait for a job; mostly a worker has one.
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
    /// The fewest that were idle since the span began.
    fewest_idle: usize,
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

    /// There are so many stages now.
    pub(crate) fn extend(&mut self, stages: usize) {
        self.pools.resize_with(stages, Pool::default);
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

    /// A new worker is up, and idle, with so many slots. If it takes jobs as `batched` together, it is idle only as a whole.
    pub(crate) fn arrive(&mut self, stage: StageId, slots: u32, batched: bool) -> WorkerKey {
        let first = self.slot(stage, None, batched);
        let others: Vec<WorkerKey> = (1..slots).map(|_| self.slot(stage, Some(first), batched)).collect();
        let pool = &mut self.pools[stage.index()];
        pool.members.push(first);
        if slots <= 1 {
            pool.unasked.push(first);
        }
        pool.idle.push(first);
        if !batched {
            pool.idle.extend(others.iter().rev());
        }
        if let Some(worker) = self.workers.get_mut(first) {
            worker.free = slots.max(1) as usize;
            worker.others = others;
        }
        first
    }

    fn slot(&mut self, stage: StageId, first: Option<WorkerKey>, batched: bool) -> WorkerKey {
        let key = self.workers.insert(Worker {
            stage,
            first: first.unwrap_or(WorkerKey::unpack(u64::MAX)),
            others: Vec::new(),
            free: 0,
            batched,
            retiring: false,
            for_good: false,
            lost: false,
            stopped: None,
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
        if let Some(worker) = self.workers.get_mut(key).filter(|_| first.is_none()) {
            worker.first = key;
        }
        key
    }

    /// The worker that a slot belongs to.
    pub(crate) fn of_slot(&self, slot: WorkerKey) -> WorkerKey {
        self.workers.get(slot).map_or(slot, |worker| worker.first)
    }

    /// All slots of a worker, the first of them first.
    pub(crate) fn slots(&self, worker: WorkerKey) -> impl Iterator<Item = WorkerKey> {
        let first = self.workers.get(worker);
        let others = first.map_or(&[][..], |first| &first.others);
        first.map(|first| first.first).into_iter().chain(others.iter().copied())
    }

    /// The slot of a worker that holds a job under an attempt.
    pub(crate) fn holder(&self, worker: WorkerKey, flight: Flight) -> Option<WorkerKey> {
        self.slots(worker).find(|slot| {
            let state = self.workers.get(*slot).map(|slot| slot.state);
            matches!(state, Some(State::Busy(held, _) | State::Told(held, _)) if held == flight)
        })
    }

    /// Whether a worker does several jobs at the same time.
    pub(crate) fn is_shared(&self, worker: WorkerKey) -> bool {
        self.workers.get(self.of_slot(worker)).is_some_and(|first| !first.others.is_empty())
    }

    /// The worker gets no more jobs. Its idle slots leave, and so does each of the others when its job is done.
    pub(crate) fn retire(&mut self, worker: WorkerKey) {
        let slots: Vec<WorkerKey> = self.slots(worker).collect();
        let Some(first) = self.workers.get_mut(worker) else { return };
        first.retiring = true;
        let pool = &mut self.pools[first.stage.index()];
        pool.unasked.retain(|unasked| *unasked != worker);
        pool.idle.retain(|idle| !slots.contains(idle));
        pool.fewest_idle = pool.fewest_idle.min(pool.idle.len());
        for slot in slots {
            if let Some(slot) = self.workers.get_mut(slot).filter(|slot| slot.state == State::Idle) {
                slot.state = State::Leaving;
            }
        }
    }

    /// The same, and no other takes its place.
    pub(crate) fn retire_for_good(&mut self, worker: WorkerKey) {
        self.retire(worker);
        if let Some(first) = self.workers.get_mut(worker) {
            first.for_good = true;
        }
    }

    /// Workers of a stage that are up, and get more jobs when they are free.
    pub(crate) fn staying(&self, stage: StageId) -> impl Iterator<Item = WorkerKey> {
        let members = self.pools[stage.index()].members.iter().copied();
        members.filter(|member| self.workers.get(*member).is_some_and(|worker| !worker.retiring))
    }

    /// Whether all slots of a worker are on their way out.
    pub(crate) fn has_left(&self, worker: WorkerKey) -> bool {
        self.slots(worker).all(|slot| self.workers.get(slot).is_some_and(|slot| slot.state == State::Leaving))
    }

    pub(crate) fn has_idle(&self, stage: StageId) -> bool {
        !self.pools[stage.index()].idle.is_empty()
    }

    /// The idle slot that gets the next job, and where it is among them. Of a job with a key, it is always the same one while that is
    /// free: the worker that comes first in an order of the key's own (rendezvous hashing; Thaler and Ravishankar, 1996).
    pub(crate) fn choose_idle(&self, stage: StageId, affinity: u32) -> Option<(usize, WorkerKey)> {
        let idle = &self.pools[stage.index()].idle;
        if affinity == 0 {
            return Some((idle.len().checked_sub(1)?, *idle.last()?));
        }
        let rank = |slot: &WorkerKey| mix(self.of_slot(*slot).pack() ^ u64::from(affinity) << 32);
        idle.iter().copied().enumerate().max_by_key(|(_, slot)| rank(slot))
    }

    /// Takes the idle slot at that place, which has been made busy.
    pub(crate) fn take_idle_at(&mut self, stage: StageId, at: usize) {
        let pool = &mut self.pools[stage.index()];
        pool.idle.remove(at);
        pool.fewest_idle = pool.fewest_idle.min(pool.idle.len());
    }

    /// From now on it counts how many are idle all along.
    pub(crate) fn begin_span(&mut self, stage: StageId) {
        let pool = &mut self.pools[stage.index()];
        pool.fewest_idle = pool.idle.len();
    }

    /// Workers that are idle as a whole, and no more of them than were idle since the span began: at most `most`, those first that have
    /// been idle longest.
    pub(crate) fn spare(&self, stage: StageId, most: usize) -> Vec<WorkerKey> {
        let pool = &self.pools[stage.index()];
        let idle_slots = |worker: &Worker| if worker.batched { 1 } else { worker.others.len() + 1 };
        let whole = |slot: &&WorkerKey| {
            self.workers.get(**slot).is_some_and(|worker| worker.first == **slot && worker.free > worker.others.len())
        };
        let per_worker = pool.members.last().and_then(|worker| self.workers.get(*worker)).map_or(1, idle_slots);
        pool.idle.iter().filter(whole).take(most.min(pool.fewest_idle / per_worker)).copied().collect()
    }

    /// The worker that gets the next jobs, which must be made busy at once.
    pub(crate) fn take_idle(&mut self, stage: StageId) -> Option<WorkerKey> {
        let pool = &mut self.pools[stage.index()];
        let worker = pool.idle.pop();
        pool.fewest_idle = pool.fewest_idle.min(pool.idle.len());
        worker
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
                && !worker.retiring
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
            State::Told(held, Patience::UntilTimeout(timer) | Patience::Grace(timer) | Patience::Neighbours(timer))
                if held == flight =>
            {
                Landing::Unwanted(timer)
            }
            State::Told(held, _) if held == flight => return Landing::Doomed,
            State::Idle | State::Busy(..) | State::Told(..) | State::Leaving => return Landing::Stale,
        };
        let first = worker.first;
        let done = self.workers.get_mut(first).map_or(0, |first| {
            first.done += 1;
            first.done
        });
        if most.is_some_and(|most| done >= most) {
            self.retire(first);
        }
        self.set_idle(key);
        landing
    }

    /// A slot's hands are empty, but for the jobs ahead. It leaves, if its worker does.
    pub(crate) fn set_idle(&mut self, key: WorkerKey) {
        let Some(slot) = self.workers.get_mut(key) else { return };
        let (stage, first, none_ahead) = (slot.stage, slot.first, slot.ahead.is_empty());
        slot.state = State::Idle;
        let Some(worker) = self.workers.get_mut(first) else { return };
        if worker.retiring {
            // What it holds behind the one that it was at, it does first.
            if let Some(slot) = self.workers.get_mut(key).filter(|_| none_ahead) {
                slot.state = State::Leaving;
            }
            return;
        }
        worker.free += 1;
        let (whole, pool) = (worker.free > worker.others.len(), &mut self.pools[stage.index()]);
        match worker.batched {
            true if whole => pool.idle.push(first),
            false if none_ahead => pool.idle.push(key),
            true | false => {}
        }
    }

    /// A slot gets a job.
    pub(crate) fn occupy(&mut self, key: WorkerKey) {
        let first = self.of_slot(key);
        if let Some(worker) = self.workers.get_mut(first) {
            worker.free = worker.free.saturating_sub(1);
        }
    }

    /// A worker that gets no more jobs, and comes to none of those that it has ahead.
    pub(crate) fn leave(&mut self, key: WorkerKey) -> VecDeque<Ahead> {
        let first = self.of_slot(key);
        self.retire(first);
        let Some(worker) = self.workers.get_mut(key) else { return VecDeque::new() };
        worker.state = State::Leaving;
        std::mem::take(&mut worker.ahead)
    }

    /// A worker is gone, with all its slots.
    pub(crate) fn remove(&mut self, key: WorkerKey) -> Vec<Worker> {
        let slots: Vec<WorkerKey> = self.slots(key).collect();
        let gone: Vec<Worker> = slots.iter().filter_map(|slot| self.workers.remove(*slot)).collect();
        if let Some(first) = gone.first() {
            let pool = &mut self.pools[first.stage.index()];
            pool.members.retain(|member| *member != key);
            pool.unasked.retain(|member| *member != key);
            pool.idle.retain(|idle| !slots.contains(idle));
            pool.fewest_idle = pool.fewest_idle.min(pool.idle.len());
        }
        gone
    }
}

/// Spreads numbers that differ a little all over (the finalizer of SplitMix64; Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
