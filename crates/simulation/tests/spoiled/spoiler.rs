//! Stands before the real dispatcher and spoils its work in one way, every now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::time::Duration;

use evener_core::{
    Action, Answer, Code, Failure, FunctionId, JobKey, Landed, Loss, Outcome, Problem, Refused, RequestId, RequestKey,
    StageId, Submission, Time, Withdrawal, WorkerKey,
};
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
    LoseRetried,
    /// The order of two jobs that go out at once is turned round.
    OutOfTurn,
    /// Workers are taken to have given credit that they have not given.
    InventCredit,
    LoseAsk,
    AskTwice,
    /// All functions are taken to be quick.
    InventPace,
    OverlookPrint,
    LoseRecall,
    RecallEarly,
    LoseReturned,
    /// What did not begin on a worker that died counts as a try.
    ChargeAhead,
    /// What may begin on a stuck worker after all does not count as a try.
    SpareStuck,
    LoseGoingOn,
    GoOnTwice,
    /// What has begun, or may have, is cancelled all the same.
    CancelBegun,
    IgnoreWithdrawal,
    /// A worker is not asked whether the job has begun that is to be withdrawn.
    LoseQuestion,
    /// Whoever insists is answered, and the worker is left in peace.
    NeverKill,
    /// Whoever insists is answered, and counted as one that went away.
    CountAsLeft,
    InvertUrgency,
    ForgetUrgency,
    /// All functions are taken for one.
    MixUpFunctions,
    RememberFunctions,
    ForgetOwnRetries,
    ForgetOwnTimeouts,
    SwallowException,
}

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
        let lost = match &mut action {
            Action::Run { worker, job, attempt, tries, payload, request_id, from_client, function, .. } => {
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
                self.strikes(Way::LoseRun)
            }
            Action::Outdated
            | Action::Grow { .. }
            | Action::Shrink { .. }
            | Action::Assess { .. }
            | Action::Chunk { .. }
            | Action::Credit { .. } => false,
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
