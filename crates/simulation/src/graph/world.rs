//! A world: a virtual clock, clients and workers, and the events that they bring about.

mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Assessment, Dispatcher, Failure, JobKey, Outcome, RequestId, StageId, Submission, Time, Topology, WorkerKey,
};
use fastrand::Rng;

use super::checker::Checker;
use super::plan::{self, Plan};
use super::tally::Happening;
use super::{PAYLOADS, TICK};
use crate::checker::{Check, ensure};
use crate::machine::{Core, Machine};
use crate::plan::{happens, span};
use crate::tally::Tally;
use crate::trail;

/// More steps than this, and the world does not come to rest.
const MOST_STEPS: u64 = 100_000;

#[derive(Debug)]
enum Event {
    Submit,
    /// A client goes away.
    Leave(u32),
    /// A client takes pieces of its answer.
    Consume(u32),
    /// A worker is at the end of a job.
    Finish(WorkerKey, JobKey, u32, Outcome<u64>),
    /// A worker brings a piece of an answer.
    Piece(WorkerKey, JobKey, u32, u64),
    /// The key of a job becomes known.
    Assessed(JobKey, Result<Assessment, Failure>),
    /// An outcome comes that nobody should bring.
    Ghost(WorkerKey, JobKey, u32),
    Die(WorkerKey),
    /// A worker is to leave for good.
    Retire(WorkerKey),
    Arrive(StageId),
    Break(StageId),
    Reload,
    Drain(Duration),
}

/// Everything that one seed makes.
pub(super) struct World<M> {
    rng: Rng,
    plan: Plan,
    topology: Arc<Topology>,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    /// Events made so far; those for the same time happen in this order.
    made: u64,
    submitted: u32,
    /// Workers that are up, and the jobs that they are at.
    workers: BTreeMap<WorkerKey, (StageId, BTreeSet<(JobKey, u32)>)>,
    /// Those of them that are to leave for good.
    retired: BTreeSet<WorkerKey>,
    /// How many workers of each stage are on their way up.
    coming: BTreeMap<StageId, u32>,
    machine: M,
    checker: Checker,
    actions: Vec<Action<u64, u32>>,
    steps: Option<(usize, VecDeque<String>)>,
}

impl<M: Machine> World<M> {
    pub(super) fn new(seed: u64, machine: &impl Fn(Core) -> M) -> World<M> {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::random(&mut rng);
        let topology = Arc::new(plan::topology(&mut rng, &plan));
        let mut world = World {
            machine: machine(Dispatcher::new(topology.clone(), PAYLOADS)),
            checker: Checker::new(topology.clone()),
            rng,
            plan,
            now: Time::from_nanos(1),
            events: BTreeMap::new(),
            made: 0,
            submitted: 0,
            workers: BTreeMap::new(),
            retired: BTreeSet::new(),
            coming: BTreeMap::new(),
            actions: Vec::new(),
            steps: None,
            topology,
        };
        for number in 0..world.topology.stages().len() {
            world.staff(StageId(number as u32));
        }
        world.after(Duration::from_millis(50), Event::Submit);
        let most = world.plan.pace * world.plan.requests;
        for _ in 0..4 {
            if happens(&mut world.rng, 4 * world.plan.reloads) {
                world.after(most, Event::Reload);
            }
        }
        world
    }

    /// Workers of a stage are on their way.
    fn staff(&mut self, stage: StageId) {
        let count = match self.topology.stage(stage).scale {
            Some(scale) => scale.min,
            None => {
                let least = usize::from(self.rng.u8(0..8) > 0);
                self.rng.usize(least..=self.plan.workers) as u32
            }
        };
        for _ in 0..count {
            self.comes(stage, Duration::from_millis(60));
        }
    }

    /// Workers of a stage that are up or on their way.
    fn present(&self, stage: StageId) -> u32 {
        let up = self.workers.values().filter(|(of, _)| *of == stage).count() as u32;
        up + self.coming.get(&stage).copied().unwrap_or_default()
    }

    fn comes(&mut self, stage: StageId, within: Duration) {
        *self.coming.entry(stage).or_default() += 1;
        self.after(within, Event::Arrive(stage));
    }

    /// Writes steps down from now on, and keeps the last so many.
    pub(super) fn write_down(&mut self, most: usize) {
        self.steps = Some((most, VecDeque::new()));
    }

    pub(super) fn into_steps(self) -> Vec<String> {
        self.steps.map(|(_, steps)| steps.into()).unwrap_or_default()
    }

    pub(super) fn into_tally(self) -> Tally<Happening> {
        self.checker.tally
    }

    fn note(&mut self, what: impl FnOnce(&Topology) -> String) {
        let Some((most, steps)) = &mut self.steps else { return };
        if steps.len() == *most {
            steps.pop_front();
        }
        let nanos = self.now.as_nanos();
        steps.push_back(format!("{:>8}.{:06} ms  {}", nanos / 1_000_000, nanos % 1_000_000, what(&self.topology)));
    }

    /// Something happens within that time.
    fn after(&mut self, most: Duration, event: Event) {
        let wait = span(&mut self.rng, most);
        self.exactly_after(wait, event);
    }

    fn exactly_after(&mut self, wait: Duration, event: Event) {
        self.made += 1;
        self.events.insert((self.now + wait, self.made), event);
    }

    /// Lets everything happen, until nothing is left to happen, or nobody can say any more what has to.
    pub(super) fn run(&mut self) -> Check {
        while let Some(next) = self.next_time() {
            self.checker.tally.count(Happening::Step);
            ensure(self.checker.tally.of(Happening::Step) < MOST_STEPS, || "it does not come to rest".to_owned())?;
            self.pass_time(next);
            self.step()?;
            if self.checker.blurred {
                self.checker.tally.count(Happening::Blurred);
                return Ok(());
            }
        }
        self.checker.at_rest(self.machine.core())
    }

    fn next_time(&self) -> Option<Time> {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        event.into_iter().chain(self.machine.next_timeout()).min()
    }

    fn pass_time(&mut self, next: Time) {
        self.now = self.now.max(next);
        if happens(&mut self.rng, 20) {
            self.now = self.now + span(&mut self.rng, Duration::from_millis(5));
        }
        if happens(&mut self.rng, self.plan.leaps) {
            self.checker.tally.count(Happening::Leap);
            self.now = self.now + span(&mut self.rng, Duration::from_secs(2));
            self.note(|_| "the clock leaps".to_owned());
        }
        // Never at the very moment of a tick, or it would be a matter of rounding what is due.
        if self.now.as_nanos().is_multiple_of(TICK) {
            self.now = self.now + Duration::from_nanos(1);
        }
    }

    /// An event that is due, or a wakeup; in any order if both are.
    fn step(&mut self) -> Check {
        let event_due = self.events.first_key_value().is_some_and(|((at, _), _)| *at <= self.now);
        let timer_due = self.machine.next_timeout().is_some_and(|next| next <= self.now);
        let wakeup = if event_due && timer_due { self.rng.bool() } else { timer_due || !event_due };
        if wakeup {
            self.note(|_| "timeout".to_owned());
            self.checker.time_passes(self.now);
            self.machine.timeout(self.now);
            return match self.checker.blurred {
                true => Ok(()),
                false => self.flush(),
            };
        }
        match self.events.pop_first() {
            Some((_, event)) => self.happen(event),
            None => Ok(()),
        }
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::Submit => self.submit(),
            Event::Leave(number) => {
                let Some(key) = self.checker.leaves(self.now, number) else { return Ok(()) };
                self.note(|_| format!("the client of request {number} goes away"));
                self.machine.cancel(self.now, key);
                self.flush()
            }
            Event::Consume(number) => {
                let bytes = self.rng.u64(1..1_000);
                let Some(key) = self.checker.consumes(number, bytes) else { return Ok(()) };
                self.checker.tally.count(Happening::Consumed);
                self.machine.consumed(key, bytes);
                self.flush()
            }
            Event::Finish(worker, job, attempt, outcome) => self.finish(worker, job, attempt, outcome),
            Event::Piece(worker, job, attempt, piece) => self.piece(worker, job, attempt, piece),
            Event::Assessed(job, key) => {
                self.note(|_| format!("job {job:?} is assessed: {key:?}"));
                self.checker.is_assessed(self.now, job, &key);
                self.machine.assessed(self.now, job, key);
                self.flush()
            }
            Event::Ghost(worker, job, attempt) => self.ghost(worker, job, attempt),
            Event::Die(worker) => self.die(worker),
            Event::Retire(worker) => self.retire(worker),
            Event::Arrive(stage) => self.arrive(stage),
            Event::Break(stage) => {
                self.note(|_| format!("the workers of stage {} do not start", stage.0));
                self.checker.breaks(self.now, stage);
                self.machine.stage_broken(self.now, stage, "no such module");
                self.flush()
            }
            Event::Reload => self.reload(),
            Event::Drain(span) => {
                self.note(|_| format!("drain within {span:?}"));
                self.checker.drains(self.now, self.now + span);
                self.machine.drain(self.now, self.now + span);
                self.flush()
            }
        }
    }

    fn submit(&mut self) -> Check {
        let number = self.submitted;
        self.submitted += 1;
        if self.submitted < self.plan.requests {
            self.after(self.plan.pace, Event::Submit);
        } else if self.rng.u8(0..3) == 0 {
            let most = [Duration::ZERO, Duration::from_millis(300)][self.rng.usize(0..2)];
            let drain = span(&mut self.rng, most);
            self.after(Duration::from_millis(300), Event::Drain(drain));
        }
        let topology = self.topology.clone();
        let brought = |rng: &mut Rng, plan: &Plan, now: Time| Submission {
            id: RequestId(u128::from(number) << RequestId::JOB_BITS),
            path: plan::path(rng, &topology),
            payload: trail::start(number),
            deadline: now + span(rng, plan.patience),
            fallback_on: plan::fallback_on(rng),
            terms: plan::terms(rng, plan),
            streams: happens(rng, plan.streams),
            on_error: happens(rng, plan.recovers).then(|| plan::path(rng, &topology)),
            reply: number,
        };
        let twin = self.rng.clone();
        let submission = brought(&mut self.rng, &self.plan, self.now);
        let copy = brought(&mut twin.clone(), &self.plan, self.now);
        self.note(|_| format!("request {submission:?}"));
        let result = self.machine.submit(self.now, submission);
        self.checker.submits(self.now, &copy, &result)?;
        if happens(&mut self.rng, self.plan.leaves) {
            self.after(4 * self.plan.work, Event::Leave(number));
        }
        self.flush()
    }

    fn reload(&mut self) -> Check {
        let topology = Arc::new(plan::next_topology(&mut self.rng, &self.plan, &self.topology));
        self.note(|_| format!("reload: {topology:?}"));
        let before = self.topology.stages().len();
        self.topology = topology.clone();
        for stage in (0..before as u32).map(StageId) {
            let least = topology.stage(stage).scale.map_or(0, |scale| scale.min);
            (self.present(stage)..least).for_each(|_| self.comes(stage, Duration::from_millis(60)));
        }
        for number in before..topology.stages().len() {
            self.staff(StageId(number as u32));
        }
        self.checker.reloads(topology.clone());
        self.machine.reload(self.now, topology);
        self.flush()
    }

    /// Carries out what the dispatcher wants done.
    fn flush(&mut self) -> Check {
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.take_actions(&mut actions);
        for action in actions.drain(..) {
            self.note(|_| format!("  {action:?}"));
            self.checker.saw(self.now, &action)?;
            if self.checker.blurred {
                return Ok(());
            }
            self.react(action);
        }
        self.actions = actions;
        self.checker.settle(self.now, self.machine.core())
    }
}
