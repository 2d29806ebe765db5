//! A node without its outside: workers that finish at once, and clients that take no notice of their answers. Shared by the
//! benchmarks, the memory test and the instruction count.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Dispatcher, FallbackOn, JobKey, Landed, Outcome, Path, Payloads, RequestId, RequestKey, StageId,
    StageRules, Submission, Terms, Time, Topology, WorkerKey,
};

/// As large as what the node keeps of a body.
pub type Payload = [u64; 6];

/// Too long for jobs ahead.
const SLOW: Duration = Duration::from_secs(1);

pub struct Service {
    pub core: Dispatcher<Payload, u64>,
    pub now: Time,
    actions: Vec<Action<Payload, u64>>,
    /// What each stage's workers hold, in the order in which it was handed out.
    held: Vec<VecDeque<(WorkerKey, JobKey, u32)>>,
    /// How long a function runs.
    ran: Duration,
    /// How much time passes from one request to the next.
    step: Duration,
    requests: u128,
    pub answers: u64,
}

impl Service {
    /// A pipeline of so many stages, with no workers yet.
    pub fn of(stages: usize) -> Service {
        let rules = |number| StageRules { queue: usize::MAX, ..StageRules::named(format!("s{number}")) };
        let all: Vec<StageId> = (0..stages as u32).map(StageId).collect();
        let topology = Topology::new((0..stages).map(rules).collect(), vec![("all".to_owned(), all)], 64);
        Service {
            core: Dispatcher::new(Arc::new(topology), Payloads { gather: |_, _, _| Ok([0; 6]), constant: |_| [0; 6] }),
            now: Time::ZERO,
            actions: Vec::new(),
            held: vec![VecDeque::new(); stages],
            ran: SLOW,
            step: Duration::from_micros(1),
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

    /// So many workers for the one stage, of which as many requests as are `in_flight` keep them busy. The function is quick,
    /// and each worker takes 16 jobs ahead.
    pub fn quick(workers: u32, in_flight: usize) -> Service {
        let mut service = Service::of(1).with_workers();
        (service.ran, service.step) = (Duration::from_micros(50), Duration::from_nanos(100));
        for _ in 0..16 {
            service.submit();
            service.work();
        }
        (1..workers).for_each(|_| _ = service.core.worker_ready(service.now, StageId(0)));
        (0..workers).for_each(|_| _ = service.submit());
        for (worker, ..) in service.held[0].clone() {
            service.core.credit(service.now, worker, 16);
        }
        (workers as usize..in_flight).for_each(|_| _ = service.submit());
        service
    }

    /// Jobs that workers have.
    pub fn handed_out(&self) -> usize {
        self.held.iter().map(VecDeque::len).sum()
    }

    pub fn submit(&mut self) -> RequestKey {
        self.requests += 1;
        self.now = self.now + self.step;
        if self.requests.is_multiple_of(1000) {
            self.core.timeout(self.now);
        }
        let submission = Submission {
            id: RequestId(self.requests << RequestId::JOB_BITS),
            path: Path::Pipeline(0),
            payload: [self.requests as u64; 6],
            deadline: self.now + Duration::from_secs(30),
            fallback_on: FallbackOn::default(),
            terms: Terms::default(),
            streams: true,
            on_error: None,
            reply: self.requests as u64,
        };
        let Ok(key) = self.core.submit(self.now, submission) else { panic!("there is always room") };
        self.carry_out();
        key
    }

    /// At each stage in turn the oldest job is done, so that one request comes to its end.
    pub fn work(&mut self) {
        for stage in 0..self.held.len() {
            if let Some((worker, job, attempt)) = self.held[stage].pop_front() {
                let landed = Landed { job, attempt, ran: self.ran, outcome: Outcome::Next([1; 6]) };
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
                    self.held[stage].push_back((worker, job, attempt));
                }
                Action::Answer { .. } => self.answers += 1,
                Action::Outdated
                | Action::Grow { .. }
                | Action::Shrink { .. }
                | Action::Assess { .. }
                | Action::Chunk { .. }
                | Action::Credit { .. }
                | Action::AskCredit { .. }
                | Action::Recall { .. }
                | Action::Cancel { .. }
                | Action::Stop { .. }
                | Action::Retire { .. }
                | Action::GoingOn { .. }
                | Action::Retried { .. }
                | Action::Covered { .. } => {}
            }
        }
    }
}
