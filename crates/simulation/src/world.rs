//! A world: a virtual clock, clients and workers, and the events that they bring about.

mod work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Dispatcher, FunctionId, JobKey, Outcome, Path, RequestId, StageId, Submission, Time, Topology, Withdrawal,
    WorkerKey,
};
use fastrand::Rng;

use crate::checker::{Check, Checker, ensure};
use crate::habits::Actor;
use crate::machine::{Core, Machine, PAYLOADS};
use crate::plan::{self, Plan, happens, span};
use crate::tally::{Happening, Tally};
use crate::trail;

/// More steps than this, and the world does not come to rest.
const MOST_STEPS: u64 = 200_000;

#[derive(Debug)]
enum Event {
    /// A client brings a request.
    Submit,
    /// A client goes away.
    Leave(u32),
    /// A client takes its request back, and may insist.
    Withdraw(u32, bool),
    /// A function will not be called any more.
    Forget(FunctionId),
    /// A message comes to a worker.
    Receive(WorkerKey),
    /// A worker is at the end of the job that it has under this serial number.
    Finish(WorkerKey, u64, Outcome<u64>),
    /// A message of a worker comes to the dispatcher.
    Deliver(WorkerKey),
    /// An outcome comes that nobody in his right mind would send.
    Ghost(WorkerKey, JobKey, u32),
    Freeze(WorkerKey),
    Thaw(WorkerKey),
    /// A worker sends what it has still to say of jobs that it dropped.
    Speak(WorkerKey),
    Print(WorkerKey),
    Die(WorkerKey),
    Arrive(StageId),
    Break(StageId),
    Drain(Duration),
}

/// Everything that one seed makes.
pub(crate) struct World<M> {
    rng: Rng,
    plan: Plan,
    topology: Arc<Topology>,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    /// Events made so far; those for the same time happen in this order.
    made: u64,
    submitted: u32,
    drain_ends: Time,
    actors: BTreeMap<WorkerKey, Actor>,
    machine: M,
    checker: Checker,
    actions: Vec<Action<u64, u32>>,
    steps: Option<(usize, VecDeque<String>)>,
}

impl<M: Machine> World<M> {
    pub(crate) fn new(seed: u64, machine: &impl Fn(Core) -> M) -> World<M> {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::random(&mut rng);
        let topology = Arc::new(plan::topology(&mut rng, &plan));
        let now = Time::from_nanos(rng.u64(0..1_000_000_000_000));
        let mut world = World {
            machine: machine(Dispatcher::new(topology.clone(), PAYLOADS)),
            checker: Checker::new(topology.clone(), plan.shared),
            rng,
            plan,
            now,
            events: BTreeMap::new(),
            made: 0,
            submitted: 0,
            drain_ends: Time::NEVER,
            actors: BTreeMap::new(),
            actions: Vec::new(),
            steps: None,
            topology,
        };
        for number in 0..world.topology.stages().len() {
            let least = usize::from(world.rng.u8(0..6) > 0);
            for _ in 0..world.rng.usize(least..=world.plan.workers) {
                world.after(Duration::from_millis(300), Event::Arrive(StageId(number as u32)));
            }
        }
        world.after(Duration::from_millis(100), Event::Submit);
        world
    }

    /// Writes steps down from now on, and keeps the last so many.
    pub(crate) fn write_down(&mut self, most: usize) {
        self.steps = Some((most, VecDeque::new()));
    }

    pub(crate) fn into_steps(self) -> Vec<String> {
        self.steps.map(|(_, steps)| steps.into()).unwrap_or_default()
    }

    pub(crate) fn into_tally(self) -> Tally {
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

    /// Lets everything happen, until nothing is left to happen.
    pub(crate) fn run(&mut self) -> Check {
        while let Some(next) = self.next_time() {
            self.checker.tally.count(Happening::Step);
            ensure(self.checker.tally.of(Happening::Step) < MOST_STEPS, || "it does not come to rest".to_owned())?;
            self.now = self.now.max(next);
            if happens(&mut self.rng, self.plan.late_wakeups) {
                self.now = self.now + span(&mut self.rng, Duration::from_millis(10));
            }
            if happens(&mut self.rng, self.plan.leaps) {
                self.checker.tally.count(Happening::Leap);
                let most = [2, 60, 86_400][self.rng.usize(0..3)];
                self.now = self.now + span(&mut self.rng, Duration::from_secs(most));
                self.note(|_| "the clock leaps".to_owned());
            }
            self.step()?;
        }
        self.checker.at_rest(self.machine.core())
    }

    fn next_time(&self) -> Option<Time> {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        event.into_iter().chain(self.machine.next_timeout()).min()
    }

    /// An event that is due, or a wakeup; in any order if both are.
    fn step(&mut self) -> Check {
        let event_due = self.events.first_key_value().is_some_and(|((at, _), _)| *at <= self.now);
        let timer_due = self.machine.next_timeout().is_some_and(|next| next <= self.now);
        let wakeup = if event_due && timer_due { self.rng.bool() } else { timer_due || !event_due };
        if wakeup || happens(&mut self.rng, 10) {
            self.note(|_| "timeout".to_owned());
            self.machine.timeout(self.now);
            self.flush()?;
            return self.checker.overdue(self.now, self.machine.next_timeout());
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
                let Some(key) = self.checker.cancels(number) else { return Ok(()) };
                self.note(|_| format!("the client of request {number} goes away"));
                self.machine.cancel(self.now, key);
                self.flush()
            }
            Event::Withdraw(number, insists) => self.withdraw(number, insists),
            Event::Forget(function) => {
                self.note(|_| format!("function {function:?} is forgotten"));
                self.checker.forgets(function);
                self.machine.forget_function(function);
                self.flush()
            }
            Event::Receive(worker) => self.receive(worker),
            Event::Finish(worker, serial, outcome) => self.finish(worker, serial, outcome),
            Event::Deliver(worker) => self.deliver_next(worker),
            Event::Ghost(worker, job, attempt) => self.ghost(worker, job, attempt),
            Event::Freeze(worker) => {
                self.freeze(worker);
                Ok(())
            }
            Event::Thaw(worker) => self.thaw(worker),
            Event::Speak(worker) => {
                self.speak(worker);
                Ok(())
            }
            Event::Print(worker) => self.print(worker),
            Event::Die(worker) => self.die(worker),
            Event::Arrive(stage) => self.arrive(stage),
            Event::Break(stage) => {
                self.note(|_| format!("the workers of stage {} do not start", stage.0));
                self.checker.breaks(stage);
                self.machine.stage_broken(self.now, stage, "no such module");
                self.flush()
            }
            Event::Drain(span) => {
                self.note(|_| format!("drain within {span:?}"));
                self.drain_ends = self.now + span;
                self.checker.drains(self.drain_ends);
                self.machine.drain(self.now, self.drain_ends);
                self.flush()
            }
        }
    }

    fn submit(&mut self) -> Check {
        let number = self.submitted;
        self.submitted += 1;
        let drain_is_due = self.submitted * 4 >= self.plan.requests * 3;
        if drain_is_due && self.drain_ends == Time::NEVER {
            let most = [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(3)][self.rng.usize(0..3)];
            let drain = span(&mut self.rng, most);
            self.drain_ends = self.now + Duration::from_secs(5) + drain;
            self.after(Duration::from_secs(5), Event::Drain(drain));
        }
        if self.submitted < self.plan.requests {
            self.after(self.plan.pace, Event::Submit);
        }
        let topology = self.topology.clone();
        let names = topology.stages().len() + 3;
        let path = match self.rng.usize(0..names) {
            stage if stage < topology.stages().len() => Path::Stage(StageId(stage as u32)),
            _ => topology.find(&format!("p{}", self.rng.u8(0..3))).unwrap_or(Path::Pipeline(0)),
        };
        let deadline =
            if self.rng.u8(0..50) == 0 { Time::NEVER } else { self.now + span(&mut self.rng, self.plan.patience) };
        let fallback_on = plan::fallback_on(&mut self.rng);
        let id = RequestId(u128::from(number) << RequestId::JOB_BITS);
        let first = trail::stages(&topology, path)[0];
        let terms = plan::terms(&mut self.rng, &self.plan, first, topology.stage(first));
        let brought = || Submission {
            id,
            path,
            payload: (),
            deadline,
            fallback_on,
            terms,
            streams: false,
            on_error: None,
            reply: number,
        };
        let submission = Submission {
            id,
            path,
            payload: trail::start(number),
            deadline,
            fallback_on,
            terms,
            streams: false,
            on_error: None,
            reply: number,
        };
        self.note(|_| format!("request {number} for {path:?} until {} ms, {terms:?}", deadline.as_nanos() / 1_000_000));
        match self.machine.submit(self.now, submission) {
            Ok(key) => self.checker.accepted(key, brought(), self.machine.core())?,
            Err(refused) => {
                self.note(|_| format!("  refused: {:?}", refused.answer));
                self.checker.refused(&refused, brought(), self.machine.core())?;
            }
        }
        if happens(&mut self.rng, self.plan.leaves) {
            self.after(self.plan.stay(), Event::Leave(number));
        }
        while happens(&mut self.rng, self.plan.withdraws) {
            let insists = happens(&mut self.rng, self.plan.insists);
            self.after(self.plan.stay(), Event::Withdraw(number, insists));
        }
        if let Some(function) = terms.function.filter(|_| happens(&mut self.rng, self.plan.forgets)) {
            self.after(Duration::from_millis(200), Event::Forget(function));
        }
        self.flush()
    }

    fn withdraw(&mut self, number: u32, insists: bool) -> Check {
        let Some((key, expected)) = self.checker.withdraws(number, insists) else { return Ok(()) };
        self.note(|_| format!("the client of request {number} takes it back, and insists: {insists}"));
        let came = self.machine.withdraw(self.now, key, insists);
        ensure(came == expected, || format!("request {number} was taken back, and it is {came:?}, not {expected:?}"))?;
        // Some ask again while they wait.
        if came == Withdrawal::Asked && self.rng.bool() {
            let insists = self.rng.bool();
            self.after(2 * self.plan.quick_work, Event::Withdraw(number, insists));
        }
        self.flush()
    }

    /// Carries out what the dispatcher wants done.
    fn flush(&mut self) -> Check {
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.take_actions(&mut actions);
        for action in actions.drain(..) {
            self.note(|_| format!("  {action:?}"));
            self.checker.saw(self.now, &action)?;
            self.react(action);
        }
        self.actions = actions;
        self.checker.settle(self.now, self.machine.core())
    }
}
