//! The workers of a world at work.

use std::time::Duration;

use evener_core::{Action, Assessment, Failure, JobKey, Landed, Loss, Outcome, Reply, StageId, Stop, WorkerKey};

use super::{Event, World};
use crate::checker::{Check, ensure};
use crate::graph::plan::{self, Intent};
use crate::graph::tally::Happening;
use crate::machine::Machine;
use crate::plan::{happens, span};
use crate::trail;

impl<M: Machine> World<M> {
    /// Carries out what the dispatcher wants done.
    pub(super) fn react(&mut self, action: Action<u64, u32>) {
        match action {
            Action::Run { worker, job, attempt, payload, stream, .. } => {
                self.begin(worker, job, attempt, payload, stream);
            }
            Action::Assess { job, .. } => {
                let key = match happens(&mut self.rng, self.plan.raises / 4) {
                    true => Err(Failure::Filter { detail: String::new() }),
                    false => {
                        let weight = [1, self.rng.u32(0..4), self.rng.u32(..)][self.rng.usize(0..3)];
                        Ok(Assessment { affinity: self.rng.u64(0..=self.plan.keys), weight })
                    }
                };
                self.after(Duration::from_millis(5), Event::Assessed(job, key));
            }
            Action::Cancel { worker, job, attempt } => {
                if !happens(&mut self.rng, self.plan.ignores) {
                    let outcome = Outcome::Fail(Failure::Cancelled);
                    self.after(Duration::from_millis(20), Event::Finish(worker, job, attempt, outcome));
                }
            }
            Action::Stop { worker, signal: Stop::Terminate } => {
                if !happens(&mut self.rng, self.plan.ignores) {
                    self.after(Duration::from_millis(1_500), Event::Die(worker));
                }
            }
            Action::Stop { worker, .. } | Action::Retire { worker } | Action::Shrink { worker } => {
                self.after(Duration::from_millis(50), Event::Die(worker));
            }
            Action::Grow { stage } => self.comes(stage, Duration::from_millis(100)),
            Action::Chunk { request, .. } => {
                if let Some(number) = self.machine.core().reply(request).copied() {
                    self.after(Duration::from_millis(10), Event::Consume(number));
                }
            }
            Action::Outdated
            | Action::AskCredit { .. }
            | Action::Recall { .. }
            | Action::Credit { .. }
            | Action::GoingOn { .. }
            | Action::Retried { .. }
            | Action::Covered { .. }
            | Action::Answer { .. } => {}
        }
    }

    fn begin(&mut self, worker: WorkerKey, job: JobKey, attempt: u32, payload: u64, stream: bool) {
        let Some((stage, at_work)) = self.workers.get_mut(&worker) else { return };
        let stage = *stage;
        at_work.insert((job, attempt));
        match plan::intent(&mut self.rng, &self.plan) {
            Intent::Hang => {}
            Intent::Die(wait) => self.exactly_after(wait, Event::Die(worker)),
            Intent::Bring(wait) => {
                let mut outcome = self.outcome(stage, payload);
                if stream && self.rng.bool() {
                    let pieces = self.rng.u32(0..4);
                    for at in 0..pieces {
                        let piece = trail::piece(payload, at);
                        self.exactly_after(wait * at / 4, Event::Piece(worker, job, attempt, piece));
                    }
                    if !matches!(outcome, Outcome::Fail(_)) || pieces == 0 {
                        outcome = Outcome::Ended;
                    }
                }
                self.exactly_after(wait, Event::Finish(worker, job, attempt, outcome));
            }
        }
    }

    fn outcome(&mut self, stage: StageId, payload: u64) -> Outcome<u64> {
        if happens(&mut self.rng, self.plan.raises) {
            return Outcome::Fail(self.failure());
        }
        if happens(&mut self.rng, self.plan.gotos) {
            let target = match self.rng.u8(0..10) {
                0 => "nowhere".to_owned(),
                _ => plan::name(&mut self.rng, &self.topology),
            };
            return Outcome::Goto { target, value: trail::goto(payload, stage) };
        }
        if happens(&mut self.rng, self.plan.responds) {
            return Outcome::Respond(Reply { status: 200, headers: Vec::new(), body: trail::reply(payload, stage) });
        }
        if self.topology.stage(stage).hidden {
            let count = self.rng.usize(0..6);
            return Outcome::Split((0..count).map(|at| trail::element(payload, at)).collect());
        }
        Outcome::Next(trail::next(payload, stage))
    }

    fn failure(&mut self) -> Failure {
        let detail = String::new();
        match self.rng.u8(0..8) {
            0 => Failure::Abort { status: 422, detail },
            1 => Failure::Decode { detail },
            2 => Failure::Filter { detail },
            3 => Failure::OutOfMemory { message: detail },
            4 => Failure::Cancelled,
            _ => Failure::Error { name: "ValueError".to_owned(), message: String::new(), traceback: String::new() },
        }
    }

    pub(super) fn arrive(&mut self, stage: StageId) -> Check {
        if let Some(coming) = self.coming.get_mut(&stage) {
            *coming -= 1;
        }
        let worker = self.machine.worker_ready(self.now, stage);
        self.note(|_| format!("worker {worker:?} of stage {} is up", stage.0));
        self.workers.insert(worker, (stage, Default::default()));
        self.checker.arrives(worker, stage)?;
        if happens(&mut self.rng, self.plan.retires) {
            self.after(Duration::from_millis(300), Event::Retire(worker));
        }
        self.flush()
    }

    pub(super) fn retire(&mut self, worker: WorkerKey) -> Check {
        if !self.checker.retires(worker) {
            return Ok(());
        }
        self.note(|_| format!("worker {worker:?} is to leave for good"));
        self.retired.insert(worker);
        self.machine.retire(self.now, worker);
        self.flush()
    }

    /// A worker brings what it made of a job, unless it has already.
    pub(super) fn finish(&mut self, worker: WorkerKey, job: JobKey, attempt: u32, outcome: Outcome<u64>) -> Check {
        let Some((_, at_work)) = self.workers.get_mut(&worker) else { return Ok(()) };
        if !at_work.remove(&(job, attempt)) {
            return Ok(());
        }
        if matches!(outcome, Outcome::Fail(Failure::OutOfMemory { .. })) {
            self.after(Duration::from_millis(500), Event::Die(worker));
        }
        if happens(&mut self.rng, self.plan.ghosts) {
            let attempt = (attempt + 2).saturating_sub(self.rng.u32(1..4));
            self.after(Duration::from_millis(100), Event::Ghost(worker, job, attempt));
        }
        self.deliver(worker, job, attempt, outcome)
    }

    fn deliver(&mut self, worker: WorkerKey, job: JobKey, attempt: u32, outcome: Outcome<u64>) -> Check {
        self.note(|_| format!("worker {worker:?} brings {outcome:?} for job {job:?} attempt {attempt}"));
        let landed = Landed { job, attempt, ran: Duration::from_secs(1), outcome };
        let expected = self.checker.brings(self.now, worker, &landed);
        let taken = self.machine.outcome(self.now, worker, landed);
        ensure(taken == expected, || match taken {
            true => format!("an outcome of worker {worker:?} was taken that should have been refused"),
            false => format!("an outcome of worker {worker:?} was refused that should have been taken"),
        })?;
        self.flush()
    }

    /// A worker brings a piece of an answer.
    pub(super) fn piece(&mut self, worker: WorkerKey, job: JobKey, attempt: u32, piece: u64) -> Check {
        let at_it = self.workers.get(&worker).is_some_and(|(_, at_work)| at_work.contains(&(job, attempt)));
        if !at_it {
            return Ok(());
        }
        self.note(|_| format!("worker {worker:?} brings a piece for job {job:?} attempt {attempt}"));
        let expected = self.checker.streams(worker, job, attempt, piece);
        let taken = self.machine.chunk(self.now, worker, job, attempt, piece);
        ensure(taken == expected, || format!("a piece of worker {worker:?} was taken: {taken}, not {expected}"))?;
        self.flush()
    }

    /// An outcome comes that no honest worker brings.
    pub(super) fn ghost(&mut self, worker: WorkerKey, job: JobKey, attempt: u32) -> Check {
        if self.checker.may_come(worker, job, attempt) {
            return Ok(());
        }
        self.checker.tally.count(Happening::Ghost);
        let value = self.rng.u64(..);
        self.deliver(worker, job, attempt, Outcome::Next(value))
    }

    pub(super) fn die(&mut self, worker: WorkerKey) -> Check {
        let Some((stage, _)) = self.workers.remove(&worker) else { return Ok(()) };
        self.note(|_| format!("worker {worker:?} of stage {} dies", stage.0));
        let loss = Loss { cause: "was killed".to_owned(), certificate: String::new() };
        self.checker.dies(self.now, worker);
        self.machine.worker_lost(self.now, worker, loss);
        self.flush()?;
        // Another comes in its place, unless enough are up; at times only after it was found broken.
        let up = self.workers.values().filter(|(of, _)| *of == stage).count();
        let (present, wanted) = (self.present(stage), self.checker.wanted(stage));
        if up == 0 && happens(&mut self.rng, 10 * self.plan.breaks) {
            self.after(Duration::from_millis(20), Event::Break(stage));
        }
        // One stays at least. Who keeps a worker alive may not have heard yet that it is to go for good.
        let for_good = self.retired.remove(&worker) && present > 0;
        let unheard = wanted.is_some() && self.rng.u8(0..16) == 0;
        if unheard || wanted.map_or(!for_good, |wanted| present < wanted) {
            let wait = span(&mut self.rng, Duration::from_millis(60));
            *self.coming.entry(stage).or_default() += 1;
            self.exactly_after(wait, Event::Arrive(stage));
        }
        Ok(())
    }
}
