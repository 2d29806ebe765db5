//! Stands before the real dispatcher and spoils its work in one way, every now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Assessment, Code, Cover, Failure, FunctionId, JobKey, Landed, Loss, Outcome, Problem, Refused,
    RequestId, RequestKey, StageId, Submission, Time, Topology, Withdrawal, WorkerKey,
};
use evener_simulation::{Core, Machine};

use crate::way::Way;

pub(crate) struct Spoiled {
    core: Core,
    way: Way,
    /// Occasions to spoil something so far; each seventh is taken.
    occasions: u32,
    /// What each worker was handed last.
    held: BTreeMap<WorkerKey, (JobKey, u32)>,
    /// What each worker has, the oldest first.
    hands: BTreeMap<WorkerKey, Vec<JobKey>>,
    /// Jobs that were called back.
    recalled: BTreeSet<JobKey>,
    /// Jobs whose tries are told wrong from now on, and by how much.
    wrong_by: BTreeMap<JobKey, i32>,
    /// Which function each request calls.
    functions: BTreeMap<RequestId, FunctionId>,
    /// Whether the last input was a client that took its request back.
    withdrawn: bool,
    /// Workers that were told so by a client that insisted.
    spared: BTreeSet<WorkerKey>,
    /// What goes out beside what the dispatcher says.
    own: Vec<Action<u64, u32>>,
    /// How many keys of jobs were told.
    keys_told: u64,
    last_payload: u64,
    last_reply: u32,
}

impl Spoiled {
    pub(crate) fn new(core: Core, way: Way) -> Spoiled {
        Spoiled {
            core,
            way,
            occasions: 0,
            held: BTreeMap::new(),
            hands: BTreeMap::new(),
            recalled: BTreeSet::new(),
            wrong_by: BTreeMap::new(),
            functions: BTreeMap::new(),
            withdrawn: false,
            spared: BTreeSet::new(),
            own: Vec::new(),
            keys_told: 0,
            last_payload: 0,
            last_reply: u32::MAX,
        }
    }

    fn strikes(&mut self, way: Way) -> bool {
        if self.way != way {
            return false;
        }
        self.occasions += 1;
        self.occasions.is_multiple_of(7)
    }

    fn spoil(&mut self, mut action: Action<u64, u32>, into: &mut Vec<Action<u64, u32>>) {
        if matches!(action, Action::Run { .. }) && self.strikes(Way::DoubleRun) {
            into.extend(again(&action));
        }
        let lost = match &mut action {
            Action::Run { worker, job, attempt, tries, payload, request_id, from_client, function, batch, .. } => {
                *function = self.functions.get(request_id).copied().filter(|_| *from_client);
                let wrong_by = self.wrong_by.get(job).copied().unwrap_or_default();
                *tries = tries.saturating_add_signed(wrong_by);
                self.hands.entry(*worker).or_default().push(*job);
                let ahead = self.hands[worker].len() > 1;
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
                if ahead && self.strikes(Way::RecallEarly) {
                    let recall = Action::Recall { worker: *worker, job: *job, attempt: *attempt };
                    into.extend([action, recall]);
                    return;
                }
                if self.way == Way::CutBatch {
                    *batch = false;
                }
                self.strikes(Way::LoseRun)
            }
            Action::Outdated => self.way == Way::LoseOutdated,
            Action::Grow { stage } => {
                if self.way == Way::GrowTwice {
                    into.push(Action::Grow { stage: *stage });
                }
                self.way == Way::LoseGrow
            }
            Action::Shrink { .. } => self.way == Way::LoseShrink,
            Action::Covered { by, .. } => self.way == Way::LoseRecovery && *by == Cover::OnError,
            Action::Assess { .. } => self.strikes(Way::LoseAssess),
            Action::Chunk { request, payload } => {
                if self.strikes(Way::DoubleChunk) {
                    into.push(Action::Chunk { request: *request, payload: *payload });
                }
                self.strikes(Way::LoseChunk)
            }
            Action::Credit { .. } => self.strikes(Way::LoseCredit),
            Action::AskCredit { worker } => {
                if self.strikes(Way::AskTwice) {
                    into.push(Action::AskCredit { worker: *worker });
                }
                self.strikes(Way::LoseAsk)
            }
            Action::Recall { job, .. } => {
                self.recalled.insert(*job);
                (self.withdrawn && self.strikes(Way::LoseQuestion)) || self.strikes(Way::LoseRecall)
            }
            Action::Retried { .. } => self.strikes(Way::LoseRetried),
            Action::Cancel { worker, job, .. } => {
                let at = self.hands.get(worker).and_then(|hands| hands.iter().position(|held| held == job));
                if self.way == Way::SpareStuck && self.recalled.contains(job) && at.is_some_and(|at| at > 0) {
                    self.wrong_by.insert(*job, -1);
                }
                if self.withdrawn && self.way == Way::NeverKill {
                    self.spared.insert(*worker);
                }
                self.strikes(Way::LoseCancel)
            }
            Action::GoingOn { request } => {
                if self.strikes(Way::GoOnTwice) {
                    into.push(Action::GoingOn { request: *request });
                }
                self.strikes(Way::LoseGoingOn)
            }
            Action::Stop { worker, .. } => self.spared.contains(worker) || self.strikes(Way::LoseStop),
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
    fn submit(
        &mut self,
        now: Time,
        mut submission: Submission<u64, u32>,
    ) -> Result<RequestKey, Box<Refused<u64, u32>>> {
        let terms = &mut submission.terms;
        terms.function.map(|function| self.functions.insert(submission.id, function));
        match self.way {
            Way::InvertUrgency => terms.priority = terms.priority.saturating_neg(),
            Way::MixUpFlows => terms.flow = 0,
            Way::ForgetUrgency => terms.priority = 0,
            Way::MixUpFunctions => terms.function = terms.function.map(|_| FunctionId(NonZero::<u32>::MIN)),
            Way::ForgetOwnRetries => terms.retries = None,
            Way::ForgetOwnTimeouts => terms.timeout = None,
            _ => {}
        }
        Machine::submit(&mut self.core, now, submission)
    }

    fn cancel(&mut self, now: Time, request: RequestKey) {
        if !self.strikes(Way::IgnoreLeaving) {
            self.core.cancel(now, request);
        }
    }

    fn withdraw(&mut self, now: Time, request: RequestKey, kill: bool) -> Withdrawal {
        self.withdrawn = true;
        if self.strikes(Way::IgnoreWithdrawal) {
            return Withdrawal::GoesOn;
        }
        if let Some(reply) = self.core.reply(request).copied().filter(|_| kill && self.way == Way::CountAsLeft) {
            self.core.cancel(now, request);
            let request_id = RequestId(u128::from(reply) << RequestId::JOB_BITS);
            let answer = Answer::Problem(Problem::new(Code::Cancelled, ""));
            self.own.push(Action::Answer { reply, request_id, answer });
            return Withdrawal::Done;
        }
        let came = self.core.withdraw(now, request, kill);
        let may_have_begun = matches!(came, Withdrawal::GoesOn | Withdrawal::Asked);
        if may_have_begun && self.strikes(Way::CancelBegun) {
            self.core.withdraw(now, request, true);
        }
        came
    }

    fn worker_ready(&mut self, now: Time, stage: StageId) -> WorkerKey {
        let worker = self.core.worker_ready(now, stage);
        if self.way == Way::InventCredit {
            self.core.credit(now, worker, 16);
        }
        worker
    }

    fn worker_lost(&mut self, now: Time, worker: WorkerKey, loss: Loss) {
        let ahead = self.hands.remove(&worker).into_iter().flatten().skip(1);
        if self.way == Way::ChargeAhead {
            self.wrong_by.extend(ahead.map(|job| (job, 1)));
        }
        if !self.strikes(Way::OverlookDeath) {
            self.core.worker_lost(now, worker, loss);
        }
    }

    fn retire(&mut self, now: Time, worker: WorkerKey) {
        if self.way != Way::IgnoreRetirement {
            self.core.retire(now, worker);
        }
    }

    fn outcome(&mut self, now: Time, worker: WorkerKey, mut landed: Landed<u64>) -> bool {
        if self.way == Way::Unfence
            && let Some((job, attempt)) = self.held.get(&worker)
        {
            (landed.job, landed.attempt) = (*job, *attempt);
        }
        if self.way == Way::InventPace {
            landed.ran = Duration::from_micros(1);
        }
        if let Some(hands) = self.hands.get_mut(&worker) {
            hands.retain(|job| *job != landed.job);
        }
        if self.way == Way::SwallowException
            && let Outcome::Raised { name, message, traceback, .. } = landed.outcome
        {
            landed.outcome = Outcome::Fail(Failure::Error { name, message, traceback });
        }
        if matches!(landed.outcome, Outcome::Returned) && self.strikes(Way::LoseReturned) {
            return true;
        }
        self.strikes(Way::LoseOutcome) || self.core.outcome(now, worker, landed)
    }

    fn credit(&mut self, now: Time, worker: WorkerKey, credit: u32) {
        self.core.credit(now, worker, credit);
    }

    fn printed(&mut self, worker: WorkerKey) {
        if self.way != Way::OverlookPrint {
            self.core.printed(worker);
        }
    }

    fn forget_function(&mut self, function: FunctionId) {
        if self.way != Way::RememberFunctions {
            self.core.forget_function(function);
        }
    }

    fn stage_broken(&mut self, now: Time, stage: StageId, why: &str) {
        self.core.stage_broken(now, stage, why);
    }

    fn timeout(&mut self, now: Time) {
        match self.way {
            Way::StopClock => {}
            Way::FastClock => self.core.timeout(now + Duration::from_millis(20)),
            _ => self.core.timeout(now),
        }
    }

    fn drain(&mut self, now: Time, until: Time) {
        if self.way != Way::ForgetDrain {
            self.core.drain(now, until);
        }
    }

    fn chunk(&mut self, now: Time, worker: WorkerKey, job: JobKey, attempt: u32, payload: u64) -> bool {
        self.core.chunk(now, worker, job, attempt, payload)
    }

    fn consumed(&mut self, request: RequestKey, bytes: u64) {
        self.core.consumed(request, bytes);
    }

    fn assessed(&mut self, now: Time, job: JobKey, assessment: Result<Assessment, Failure>) {
        self.keys_told += 1;
        let told = self.keys_told;
        let assessment = assessment.map(|Assessment { affinity, weight }| match self.way {
            Way::ForgetKeys => Assessment { affinity: affinity + 1_000 * told, weight },
            Way::ForgetWeights => Assessment { affinity, weight: 1 },
            _ => Assessment { affinity, weight },
        });
        self.core.assessed(now, job, assessment);
    }

    fn reload(&mut self, now: Time, topology: Arc<Topology>) {
        if self.way != Way::IgnoreReload {
            self.core.reload(now, topology);
        }
    }

    fn next_timeout(&self) -> Option<Time> {
        self.core.next_timeout()
    }

    fn take_actions(&mut self, into: &mut Vec<Action<u64, u32>>) {
        let mut actions = std::mem::take(&mut self.own);
        self.core.take_actions(&mut actions);
        let is_run = |action: &Action<u64, u32>| matches!(action, Action::Run { .. });
        if let Some(at) = actions.windows(2).position(|two| two.iter().all(is_run))
            && self.strikes(Way::OutOfTurn)
        {
            actions.swap(at, at + 1);
        }
        for action in actions {
            self.spoil(action, into);
        }
        self.withdrawn = false;
    }

    fn core(&self) -> &Core {
        &self.core
    }
}

/// The same job for the same worker once more.
fn again(action: &Action<u64, u32>) -> Option<Action<u64, u32>> {
    let Action::Run { worker, job, attempt, tries, id, request, request_id, deadline, payload, .. } = *action else {
        return None;
    };
    let Action::Run { from_client, stream, batch, function, problem, .. } = action else { return None };
    let (from_client, stream, batch, function) = (*from_client, *stream, *batch, *function);
    Some(Action::Run {
        worker,
        job,
        attempt,
        tries,
        id,
        request,
        request_id,
        from_client,
        stream,
        batch,
        function,
        deadline,
        payload,
        problem: problem.clone(),
    })
}
