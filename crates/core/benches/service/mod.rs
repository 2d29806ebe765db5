//! A node without its outside: workers that finish at once, and clients that take no notice of their answers. Shared by the
//! benchmarks, the memory test and the instruction count.

use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Dispatcher, FallbackOn, JobKey, Landed, Outcome, Path, RequestId, RequestKey, StageId, StageRules,
    Submission, Time, Topology, WorkerKey,
};

/// As large as what the node keeps of a body.
pub type Payload = [u64; 6];

/// Too long for jobs ahead.
const SLOW: Duration = Duration::from_secs(1);

pub struct Service {
    pub core: Dispatcher<Payload, u64>,
    pub now: Time,
    actions: Vec<Action<Payload, u64>>,
    /// What each stage's worker holds.
    held: Vec<Option<(WorkerKey, JobKey, u32)>>,
    requests: u128,
    pub answers: u64,
}

impl Service {
    /// A pipeline of so many stages, with no workers yet.
    pub fn of(stages: usize) -> Service {
        let rules = |number| StageRules { queue: usize::MAX, ..StageRules::named(format!("s{number}")) };
        let all = (0..stages as u32).map(StageId).collect();
        let topology = Topology::new((0..stages).map(rules).collect(), vec![("all".to_owned(), all)], 64);
        Service {
            core: Dispatcher::new(Arc::new(topology)),
            now: Time::ZERO,
            actions: Vec::new(),
            held: vec![None; stages],
            requests: 0,
            answers: 0,
        }
    }

    /// One worker for each stage.
    pub fn with_workers(mut self) -> Service {
        for stage in 0..self.held.len() as u32 {
            self.core.worker_ready(self.now, StageId(stage));
        }
        self.carry_out();
        self
    }

    pub fn submit(&mut self) -> RequestKey {
        self.requests += 1;
        self.now = self.now + Duration::from_micros(1);
        if self.requests.is_multiple_of(1000) {
            self.core.timeout(self.now);
        }
        let submission = Submission {
            id: RequestId(self.requests << RequestId::JOB_BITS),
            path: Path::Pipeline(0),
            payload: [self.requests as u64; 6],
            deadline: self.now + Duration::from_secs(30),
            fallback_on: FallbackOn::default(),
            reply: self.requests as u64,
        };
        let Ok(key) = self.core.submit(self.now, submission) else { panic!("there is always room") };
        self.carry_out();
        key
    }

    /// The worker of each stage in turn brings what it holds, so that one request comes to its end.
    pub fn work(&mut self) {
        for stage in 0..self.held.len() {
            if let Some((worker, job, attempt)) = self.held[stage].take() {
                let landed = Landed { job, attempt, ran: SLOW, outcome: Outcome::Next([1; 6]) };
                self.core.outcome(self.now, worker, landed);
                self.carry_out();
            }
        }
    }

    pub fn cancel(&mut self, request: RequestKey) {
        self.core.cancel(self.now, request);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        self.core.take_actions(&mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Run { worker, job, attempt, id, .. } => {
                    let stage = (id.0 as usize & 0xff) - 1;
                    self.held[stage] = Some((worker, job, attempt));
                }
                Action::Answer { .. } => self.answers += 1,
                Action::AskCredit { .. }
                | Action::Recall { .. }
                | Action::Cancel { .. }
                | Action::Stop { .. }
                | Action::Retire { .. }
                | Action::Retried { .. } => {}
            }
        }
    }
}
