//! The workers of a world at work: messages on their way, and one job after the other.

use std::time::Duration;

use evener_core::{Action, Failure, JobId, JobKey, Landed, Loss, Outcome, RequestId, StageId, Stop, WorkerKey};

use super::{Event, World};
use crate::checker::{Check, ensure};
use crate::habits::{self, Actor, Intent, Said, Task, Told};
use crate::machine::Machine;
use crate::plan::{happens, span};
use crate::tally::Happening;

impl<M: Machine> World<M> {
    pub(super) fn arrive(&mut self, stage: StageId) -> Check {
        let worker = self.machine.worker_ready(self.now, stage);
        self.note(|_| format!("worker {worker:?} of stage {} is up", stage.0));
        let watches = happens(&mut self.rng, self.plan.watches);
        self.actors.insert(worker, Actor::new(stage, watches));
        if happens(&mut self.rng, self.plan.dies / 4) {
            self.after(Duration::from_secs(2), Event::Die(worker));
        }
        self.checker.arrived(worker, stage)?;
        self.flush()
    }

    /// Carries out what the dispatcher wants done.
    pub(super) fn react(&mut self, action: Action<u64, u32>) {
        match action {
            Action::Run { worker, job, attempt, tries, payload, id, function, .. } => {
                let JobId(id) = id;
                let ordinal = (id & ((1 << RequestId::JOB_BITS) - 1)) as u32;
                let request = (id >> RequestId::JOB_BITS) as u32;
                let timeout = self.checker.timeout_of(request).unwrap_or_default();
                let task = Task { request, ordinal, job, attempt, tries, payload, function, timeout, cancelled: false };
                self.tell(worker, Told::Job(task));
                // Clients that wait until just now: the job may begin at any time.
                if happens(&mut self.rng, self.plan.doubts) {
                    let insists = happens(&mut self.rng, self.plan.insists);
                    let goes_away = self.rng.u8(0..4) == 0;
                    let event = if goes_away { Event::Leave(request) } else { Event::Withdraw(request, insists) };
                    self.after(2 * self.plan.quick_work, event);
                }
            }
            Action::Cancel { worker, job, attempt } => self.tell(worker, Told::Cancel(job, attempt)),
            Action::Recall { worker, job, attempt } => self.tell(worker, Told::Recall(job, attempt)),
            // The checker has refused them.
            Action::Outdated
            | Action::Grow { .. }
            | Action::Shrink { .. }
            | Action::Assess { .. }
            | Action::Chunk { .. }
            | Action::Covered { .. }
            | Action::Credit { .. } => {}
            Action::AskCredit { worker } => self.tell(worker, Told::AskCredit),
            Action::Stop { worker, signal: Stop::Terminate } => {
                if let Some(wait) = habits::when_terminated(&mut self.rng, &self.plan) {
                    self.exactly_after(wait, Event::Die(worker));
                }
            }
            Action::Stop { worker, signal: Stop::Kill } | Action::Retire { worker } => {
                self.after(Duration::from_millis(100), Event::Die(worker));
            }
            Action::Retried { .. } | Action::GoingOn { .. } | Action::Answer { .. } => {}
        }
    }

    /// Sends a worker something. What was sent before arrives before.
    fn tell(&mut self, worker: WorkerKey, told: Told) {
        let at = self.now + span(&mut self.rng, self.plan.wire);
        let Some(actor) = self.actors.get_mut(&worker) else { return };
        actor.last_arrival = actor.last_arrival.max(at);
        actor.inbox.push_back(told);
        let wait = actor.last_arrival.since(self.now);
        self.exactly_after(wait, Event::Receive(worker));
    }

    /// A worker sends something. What it sent before arrives before.
    fn say(&mut self, worker: WorkerKey, said: Said) {
        let at = self.now + span(&mut self.rng, self.plan.wire);
        let Some(actor) = self.actors.get_mut(&worker) else { return };
        actor.last_delivery = actor.last_delivery.max(at);
        actor.outbox.push_back(said);
        let wait = actor.last_delivery.since(self.now);
        self.exactly_after(wait, Event::Deliver(worker));
    }

    fn answer(&mut self, worker: WorkerKey, task: (JobKey, u32), ran: Duration, outcome: Outcome<u64>) {
        let (job, attempt) = task;
        self.say(worker, Said::Outcome(Landed { job, attempt, ran, outcome }));
    }

    /// A message has come to a worker.
    pub(super) fn receive(&mut self, worker: WorkerKey) -> Check {
        let Some(actor) = self.actors.get_mut(&worker) else { return Ok(()) };
        actor.arrived += 1;
        self.read(worker)
    }

    /// A worker reads what it can, and goes to work.
    fn read(&mut self, worker: WorkerKey) -> Check {
        while let Some(told) = self.actors.get_mut(&worker).and_then(Actor::read) {
            self.note(|_| format!("  worker {worker:?} reads {told:?}"));
            self.heed(worker, told);
            self.begin_next(worker)?;
        }
        Ok(())
    }

    fn heed(&mut self, worker: WorkerKey, told: Told) {
        let Some(actor) = self.actors.get_mut(&worker) else { return };
        match told {
            Told::Job(task) => actor.in_hand.push_back(task),
            Told::Cancel(job, attempt) => {
                if actor.at_work.is_some_and(|(task, _)| task.is(job, attempt)) {
                    let serial = actor.serial;
                    if let Some((outcome, wait)) = habits::when_told(&mut self.rng, &self.plan) {
                        self.exactly_after(wait, Event::Finish(worker, serial, outcome));
                    }
                } else if self.rng.u8(0..4) == 0 {
                    let waiting = actor.in_hand.iter_mut().filter(|task| task.is(job, attempt));
                    waiting.for_each(|task| task.cancelled = true);
                } else {
                    self.drop_task(worker, job, attempt, Outcome::Fail(Failure::Cancelled));
                }
            }
            Told::Recall(job, attempt) => {
                if actor.at_work.is_some_and(|(task, _)| task.is(job, attempt)) {
                    self.checker.tally.count(Happening::BegunWhileRecalled);
                }
                self.drop_task(worker, job, attempt, Outcome::Returned);
            }
            Told::AskCredit => {
                if let Some(credit) = habits::when_asked(&mut self.rng, &self.plan) {
                    self.say(worker, Said::Credit(credit));
                }
            }
        }
    }

    /// A worker drops a job that it has not begun, and says so now, in a while, or around its next outcome.
    fn drop_task(&mut self, worker: WorkerKey, job: JobKey, attempt: u32, outcome: Outcome<u64>) {
        let Some(actor) = self.actors.get_mut(&worker) else { return };
        if actor.drop_task(job, attempt) {
            actor.unsaid.push(Landed { job, attempt, ran: Duration::ZERO, outcome });
            if actor.at_work.is_some() && self.rng.bool() {
                self.after(Duration::from_millis(20), Event::Speak(worker));
            } else {
                self.speak(worker);
            }
        }
    }

    pub(super) fn speak(&mut self, worker: WorkerKey) {
        let Some(actor) = self.actors.get_mut(&worker).filter(|actor| !actor.frozen && !actor.leaves) else { return };
        for landed in std::mem::take(&mut actor.unsaid) {
            self.say(worker, Said::Outcome(landed));
        }
    }

    /// A worker that has nothing in its hands begins the next job that it knows of.
    fn begin_next(&mut self, worker: WorkerKey) -> Check {
        loop {
            let Some(actor) = self.actors.get_mut(&worker) else { return Ok(()) };
            if actor.at_work.is_some() || actor.frozen || actor.leaves {
                return Ok(());
            }
            let Some(task) = actor.in_hand.pop_front() else { return Ok(()) };
            if task.cancelled {
                self.answer(worker, (task.job, task.attempt), Duration::ZERO, Outcome::Fail(Failure::Cancelled));
                continue;
            }
            actor.serial += 1;
            actor.at_work = Some((task, self.now));
            let (stage, serial) = (actor.stage, actor.serial);
            self.note(|_| format!("  worker {worker:?} begins job {:?} attempt {}", task.job, task.attempt));
            self.checker.begins(worker, &task)?;
            match habits::intent(&mut self.rng, &self.plan, &self.topology, stage, &task) {
                Intent::Bring(outcome, wait) => self.exactly_after(wait, Event::Finish(worker, serial, outcome)),
                Intent::Die(wait) => self.exactly_after(wait, Event::Die(worker)),
                Intent::Hang => {}
            }
            if happens(&mut self.rng, self.plan.freezes) {
                self.after(Duration::from_millis(3), Event::Freeze(worker));
            }
            if serial <= self.plan.prints_at_first && happens(&mut self.rng, self.plan.prints) {
                self.after(Duration::from_millis(1), Event::Print(worker));
            }
        }
    }

    /// A worker is at the end of the job that it had under this serial number, unless it has been already.
    pub(super) fn finish(&mut self, worker: WorkerKey, serial: u64, outcome: Outcome<u64>) -> Check {
        let Some(actor) = self.actors.get_mut(&worker).filter(|actor| actor.serial == serial) else { return Ok(()) };
        if actor.frozen {
            actor.ripe.get_or_insert((serial, outcome));
            return Ok(());
        }
        let Some((task, since)) = actor.at_work.take() else { return Ok(()) };
        if matches!(outcome, Outcome::Fail(Failure::OutOfMemory { .. })) {
            actor.leaves = true;
            self.after(Duration::from_millis(1_500), Event::Die(worker));
        }
        self.haunt(worker, task.job, task.attempt);
        let ran = self.now.since(since);
        if self.rng.bool() {
            self.speak(worker);
        }
        self.answer(worker, (task.job, task.attempt), ran, outcome);
        self.speak(worker);
        self.begin_next(worker)?;
        self.read(worker)
    }

    /// A message of a worker has come to the dispatcher.
    pub(super) fn deliver_next(&mut self, worker: WorkerKey) -> Check {
        let said = self.actors.get_mut(&worker).and_then(|actor| actor.outbox.pop_front());
        match said {
            Some(Said::Outcome(landed)) => self.deliver(worker, landed, true),
            Some(Said::Credit(credit)) => {
                self.note(|_| format!("worker {worker:?} takes {credit} jobs ahead"));
                self.checker.credits(worker, credit);
                self.machine.credit(self.now, worker, credit);
                self.flush()
            }
            None => Ok(()),
        }
    }

    pub(super) fn deliver(&mut self, worker: WorkerKey, landed: Landed<u64>, honest: bool) -> Check {
        let Landed { job, attempt, ran, .. } = landed;
        self.note(|_| {
            format!("worker {worker:?} brings {:?} for job {job:?} attempt {attempt} after {ran:?}", landed.outcome)
        });
        let expected = self.checker.brings(self.now, worker, &landed);
        ensure(expected || !honest, || format!("the world is wrong about worker {worker:?}"))?;
        let taken = self.machine.outcome(self.now, worker, landed);
        ensure(taken == expected, || match taken {
            true => format!("a stale outcome of worker {worker:?} was taken"),
            false => format!("an honest outcome of worker {worker:?} was refused"),
        })?;
        self.flush()
    }

    /// Makes outcomes that come again later, or under a number that they should not have.
    fn haunt(&mut self, worker: WorkerKey, job: JobKey, attempt: u32) {
        if happens(&mut self.rng, self.plan.ghosts) {
            let attempt = (attempt + 2).saturating_sub(self.rng.u32(1..4));
            let keys: Vec<WorkerKey> = self.actors.keys().copied().collect();
            let anyone = self.rng.choice(keys).filter(|_| self.rng.bool());
            self.after(Duration::from_secs(1), Event::Ghost(anyone.unwrap_or(worker), job, attempt));
        }
    }

    /// An outcome comes that no honest worker sends: for a job that it does not hold, or out of turn.
    pub(super) fn ghost(&mut self, worker: WorkerKey, job: JobKey, attempt: u32) -> Check {
        let outcome = match self.rng.u8(0..4) {
            0 => Outcome::Returned,
            1 => Outcome::Fail(Failure::Cancelled),
            _ => Outcome::Next(self.rng.u64(..)),
        };
        let mut landed = Landed { job, attempt, ran: Duration::ZERO, outcome };
        if let Some((job, attempt)) = self.checker.any_ahead(worker).filter(|_| self.rng.bool()) {
            (landed.job, landed.attempt) = (job, attempt);
        }
        if self.checker.may_come(worker, &landed) {
            return Ok(());
        }
        self.deliver(worker, landed, false)
    }

    pub(super) fn freeze(&mut self, worker: WorkerKey) {
        let wait = span(&mut self.rng, self.plan.freeze);
        let Some(actor) = self.actors.get_mut(&worker).filter(|actor| !actor.frozen) else { return };
        actor.frozen = true;
        self.checker.tally.count(Happening::Froze);
        self.note(|_| format!("worker {worker:?} freezes for {wait:?}"));
        self.exactly_after(wait, Event::Thaw(worker));
    }

    /// A frozen worker goes on: it may be done with its job before it reads, or read before it is done.
    pub(super) fn thaw(&mut self, worker: WorkerKey) -> Check {
        self.note(|_| format!("worker {worker:?} thaws"));
        let Some(actor) = self.actors.get_mut(&worker) else { return Ok(()) };
        actor.frozen = false;
        let ripe = actor.ripe.take();
        if !actor.unsaid.is_empty() {
            self.after(Duration::from_millis(1), Event::Speak(worker));
        }
        if self.rng.bool() {
            self.read(worker)?;
        }
        if let Some((serial, outcome)) = ripe {
            self.finish(worker, serial, outcome)?;
        }
        self.begin_next(worker)?;
        self.read(worker)
    }

    pub(super) fn print(&mut self, worker: WorkerKey) -> Check {
        if self.actors.contains_key(&worker) {
            self.note(|_| format!("worker {worker:?} prints"));
            self.checker.prints(worker);
            self.machine.printed(worker);
        }
        Ok(())
    }

    /// A worker dies. What it had sent still arrives.
    pub(super) fn die(&mut self, worker: WorkerKey) -> Check {
        while self.actors.get(&worker).is_some_and(|actor| !actor.outbox.is_empty()) {
            self.deliver_next(worker)?;
        }
        let Some(actor) = self.actors.remove(&worker) else { return Ok(()) };
        self.note(|_| format!("worker {worker:?} dies"));
        if let Some((task, _)) = actor.at_work {
            self.haunt(worker, task.job, task.attempt);
        }
        if self.now < self.drain_ends {
            if happens(&mut self.rng, self.plan.breaks) {
                self.after(Duration::from_millis(200), Event::Break(actor.stage));
            }
            self.after(Duration::from_millis(500), Event::Arrive(actor.stage));
        }
        self.checker.dies(self.now, worker);
        let loss = Loss { cause: "was killed".to_owned(), certificate: String::new() };
        self.machine.worker_lost(self.now, worker, loss);
        self.flush()
    }
}
