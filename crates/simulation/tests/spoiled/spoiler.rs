//! Stands before the real dispatcher and spoils its work in one way, every now and then.

use std::collections::BTreeMap;

use evener_core::{Action, JobKey, Loss, Outcome, Refused, RequestKey, StageId, Submission, Time, WorkerKey};
use evener_simulation::{Core, Machine};

/// How the work is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Not,
    LoseRun,
    Misdirect,
    MixUpPayloads,
    LoseAnswer,
    DoubleAnswer,
    MixUpAnswers,
    IgnoreLeaving,
    LoseCancel,
    LoseStop,
    LoseRetire,
    Unfence,
    LoseOutcome,
    OverlookDeath,
    StopClock,
    FastClock,
    ForgetDrain,
}

pub(crate) struct Spoiled {
    core: Core,
    way: Way,
    /// Occasions to spoil something so far; each seventh is taken.
    occasions: u32,
    /// What each worker was handed last.
    held: BTreeMap<WorkerKey, (JobKey, u32)>,
    last_payload: u64,
    last_reply: u32,
}

impl Spoiled {
    pub(crate) fn new(core: Core, way: Way) -> Spoiled {
        Spoiled { core, way, occasions: 0, held: BTreeMap::new(), last_payload: 0, last_reply: u32::MAX }
    }

    fn strikes(&mut self, way: Way) -> bool {
        if self.way != way {
            return false;
        }
        self.occasions += 1;
        self.occasions.is_multiple_of(7)
    }

    fn spoil(&mut self, mut action: Action<u64, u32>, into: &mut Vec<Action<u64, u32>>) {
        let lost = match &mut action {
            Action::Run { worker, job, attempt, payload, .. } => {
                if self.strikes(Way::MixUpPayloads) {
                    *payload = self.last_payload;
                }
                self.last_payload = *payload;
                if self.strikes(Way::Misdirect)
                    && let Some(other) = self.held.keys().find(|other| *other != worker)
                {
                    *worker = *other;
                }
                self.held.insert(*worker, (*job, *attempt));
                self.strikes(Way::LoseRun)
            }
            Action::Cancel { .. } => self.strikes(Way::LoseCancel),
            Action::Stop { .. } => self.strikes(Way::LoseStop),
            Action::Retire { .. } => self.strikes(Way::LoseRetire),
            Action::Answer { reply, request_id, answer } => {
                if self.strikes(Way::DoubleAnswer) {
                    let (reply, request_id, answer) = (*reply, *request_id, answer.clone());
                    into.push(Action::Answer { reply, request_id, answer });
                }
                let own = *reply;
                if self.strikes(Way::MixUpAnswers) && self.last_reply != u32::MAX {
                    *reply = self.last_reply;
                }
                self.last_reply = own;
                self.strikes(Way::LoseAnswer)
            }
        };
        if !lost {
            into.push(action);
        }
    }
}

impl Machine for Spoiled {
    fn submit(&mut self, now: Time, submission: Submission<u64, u32>) -> Result<RequestKey, Box<Refused<u64, u32>>> {
        Machine::submit(&mut self.core, now, submission)
    }

    fn cancel(&mut self, now: Time, request: RequestKey) {
        if !self.strikes(Way::IgnoreLeaving) {
            self.core.cancel(now, request);
        }
    }

    fn worker_ready(&mut self, now: Time, stage: StageId) -> WorkerKey {
        self.core.worker_ready(now, stage)
    }

    fn worker_lost(&mut self, now: Time, worker: WorkerKey, loss: Loss) {
        if !self.strikes(Way::OverlookDeath) {
            self.core.worker_lost(now, worker, loss);
        }
    }

    fn outcome(&mut self, now: Time, worker: WorkerKey, job: JobKey, attempt: u32, outcome: Outcome<u64>) -> bool {
        if self.way == Way::Unfence
            && let Some((job, attempt)) = self.held.get(&worker)
        {
            return self.core.outcome(now, worker, *job, *attempt, outcome);
        }
        self.strikes(Way::LoseOutcome) || self.core.outcome(now, worker, job, attempt, outcome)
    }

    fn stage_broken(&mut self, now: Time, stage: StageId, why: &str) {
        self.core.stage_broken(now, stage, why);
    }

    fn timeout(&mut self, now: Time) {
        match self.way {
            Way::StopClock => {}
            Way::FastClock => self.core.timeout(now + std::time::Duration::from_millis(20)),
            _ => self.core.timeout(now),
        }
    }

    fn drain(&mut self, now: Time, until: Time) {
        if self.way != Way::ForgetDrain {
            self.core.drain(now, until);
        }
    }

    fn next_timeout(&self) -> Option<Time> {
        self.core.next_timeout()
    }

    fn take_actions(&mut self, into: &mut Vec<Action<u64, u32>>) {
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        for action in actions {
            self.spoil(action, into);
        }
    }

    fn core(&self) -> &Core {
        &self.core
    }
}
