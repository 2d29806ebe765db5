//! What serves a request, as a tree that is worked off from the leaves: a way is at a job or at a step with branches, and each
//! branch is a way. Nothing is told upwards; after each event the tree is looked at anew, and what has come to its end is
//! replaced by what it came to.

use evener_core::{Code, OnFailure, Over, Path, Scatter, StageId, Step, Time, Topology};

use super::book::{Book, JobName};
use crate::record::covers;
use crate::trail;

/// What a way came to.
pub(super) type End = Result<u64, Code>;

/// Something that happens to a tree.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The job of that number has a value for the next step.
    Value(u32, u64),
    /// The job of that number took a list apart.
    Split(u32, Vec<u64>),
    /// The job of that number sends a value elsewhere.
    Goto(u32, String, u64),
    /// The job of that number is given up.
    Failed(u32, Code),
    /// The time of that gather is over.
    Expired(u32),
}

impl Event {
    fn job(&self) -> Option<u32> {
        match self {
            Event::Value(job, _) | Event::Split(job, _) | Event::Goto(job, ..) | Event::Failed(job, _) => Some(*job),
            Event::Expired(_) => None,
        }
    }
}

/// What a tree needs of the world around it.
pub(super) struct Desk<'a> {
    pub(super) topology: &'a Topology,
    pub(super) book: &'a mut Book,
    pub(super) broken: &'a [bool],
    pub(super) now: Time,
    pub(super) request: u32,
    /// Whether the client takes chunks.
    pub(super) streams: bool,
    /// Why it is on its other way, if it is.
    pub(super) problem: Option<Code>,
}

#[derive(Debug)]
pub(super) struct Way {
    path: Path,
    at: usize,
    hops: u32,
    /// Whether the client waits for its end.
    is_root: bool,
    node: Node,
}

#[derive(Debug)]
enum Node {
    Nothing,
    Job(u32),
    Gather(Gather),
}

#[derive(Debug)]
struct Gather {
    number: u32,
    scatter: Scatter,
    branches: Vec<(String, Branch)>,
}

#[derive(Debug)]
enum Branch {
    Waiting { path: Path, value: u64, from_client: bool },
    Open(Way),
    Done(End),
}

/// How a gather stands.
enum Stand {
    On,
    /// That branch is to begin.
    Begin(usize),
    /// It has come to a value for the next step.
    Value(u64),
    Failed(Code),
    /// All branches have ended, and what they came to cannot be put together.
    Unfit,
}

impl Way {
    pub(super) fn new(path: Path) -> Way {
        Way { path, at: 0, hops: 0, is_root: true, node: Node::Nothing }
    }

    /// A value comes to the step at hand. What the way came to, if that is its end.
    pub(super) fn enter(&mut self, value: u64, from_client: bool, desk: &mut Desk<'_>) -> Option<End> {
        let steps = desk.topology.path(self.path);
        match steps.get(self.at) {
            None => Some(Ok(value)),
            Some(Step::Stage(stage)) => {
                let last = self.is_root && self.at + 1 == steps.len();
                self.begin(*stage, value, from_client, last && desk.streams, desk)
            }
            Some(Step::Scatter(scatter)) => match &scatter.over {
                Over::Each { split, .. } => self.begin(*split, value, from_client, false, desk),
                Over::Branches(named) => {
                    let branch = |path| Branch::Waiting { path, value, from_client };
                    let branches = named.iter().map(|(name, path)| (name.clone(), branch(*path))).collect();
                    self.open(scatter, branches, desk)
                }
            },
        }
    }

    fn begin(
        &mut self,
        stage: StageId,
        value: u64,
        from_client: bool,
        stream: bool,
        desk: &mut Desk<'_>,
    ) -> Option<End> {
        let problem = desk.problem.filter(|_| from_client);
        let JobName(_, number) = desk.book.begin(desk.now, desk.request, stage, value);
        let job = desk.book.job_mut(JobName(desk.request, number));
        (job.from_client, job.stream, job.problem) = (from_client, stream, problem);
        self.node = Node::Job(number);
        if desk.broken[stage.0 as usize] {
            desk.book.failed_at_once = true;
            desk.book.end(JobName(desk.request, number));
            return Some(Err(Code::StageBroken));
        }
        let rules = desk.topology.stage(stage);
        let asks = rules.affinity || rules.batch.is_some_and(|batch| batch.weighed);
        desk.book.stand_in_line(JobName(desk.request, number), asks);
        None
    }

    fn open(&mut self, scatter: &Scatter, branches: Vec<(String, Branch)>, desk: &mut Desk<'_>) -> Option<End> {
        let number = desk.book.next_gather();
        if let Some(timeout) = scatter.timeout {
            desk.book.expiries.push((desk.now + timeout, desk.request, number));
        }
        self.node = Node::Gather(Gather { number, scatter: scatter.clone(), branches });
        self.look(desk)
    }

    /// Something happens, here or in a branch. What the way came to, if that is its end.
    pub(super) fn apply(&mut self, event: &Event, desk: &mut Desk<'_>) -> Option<End> {
        match &mut self.node {
            Node::Nothing => None,
            Node::Job(number) if event.job() == Some(*number) => {
                let name = JobName(desk.request, *number);
                let stage = desk.book.get(name).map(|job| job.stage);
                desk.book.end(name);
                self.job_ended(event, stage, desk)
            }
            Node::Job(_) => None,
            Node::Gather(gather) if matches!(event, Event::Expired(number) if *number == gather.number) => {
                if gather.scatter.on_failure == OnFailure::Fail {
                    return self.fail(Code::ScatterTimeout, desk);
                }
                for (_, branch) in &mut gather.branches {
                    if !matches!(branch, Branch::Done(_)) {
                        branch.drop_jobs(desk);
                        *branch = Branch::Done(Err(Code::ScatterTimeout));
                    }
                }
                self.look(desk)
            }
            Node::Gather(gather) => {
                for (_, branch) in &mut gather.branches {
                    if let Branch::Open(way) = branch
                        && let Some(end) = way.apply(event, desk)
                    {
                        *branch = Branch::Done(end);
                    }
                }
                self.look(desk)
            }
        }
    }

    fn job_ended(&mut self, event: &Event, stage: Option<StageId>, desk: &mut Desk<'_>) -> Option<End> {
        match event {
            Event::Value(_, value) => self.step_on(*value, desk),
            Event::Failed(_, code) => Some(Err(*code)),
            Event::Split(_, values) => {
                let topology = desk.topology;
                let Some(Step::Scatter(scatter)) = topology.path(self.path).get(self.at) else {
                    return Some(Err(Code::FunctionFailed));
                };
                let Over::Each { branch: path, .. } = scatter.over else { return Some(Err(Code::FunctionFailed)) };
                let element =
                    |value: &u64| (String::new(), Branch::Waiting { path, value: *value, from_client: false });
                self.open(scatter, values.iter().map(element).collect(), desk)
            }
            Event::Goto(_, target, value) => {
                let declared = stage.and_then(|stage| desk.topology.stage(stage).goto.as_ref());
                match declared.is_none_or(|declared| declared.contains(target)) {
                    true => self.goto(target, *value, desk),
                    false => Some(Err(Code::UnknownTarget)),
                }
            }
            Event::Expired(_) => None,
        }
    }

    fn step_on(&mut self, value: u64, desk: &mut Desk<'_>) -> Option<End> {
        self.at += 1;
        self.node = Node::Nothing;
        self.enter(value, false, desk)
    }

    /// To the next such stage of this way, or else to its first one, or else to the start of what is named.
    fn goto(&mut self, target: &str, value: u64, desk: &mut Desk<'_>) -> Option<End> {
        let Some(path) = desk.topology.find(target) else { return Some(Err(Code::UnknownTarget)) };
        self.hops += 1;
        if self.hops > desk.topology.max_hops() {
            return Some(Err(Code::TooManyHops));
        }
        let steps = desk.topology.path(self.path);
        let mut round = (self.at + 1..steps.len()).chain(0..steps.len().min(self.at + 1));
        let here = match path {
            Path::Stage(stage) => round.find(|at| steps[*at] == Step::Stage(stage)),
            Path::Pipeline(_) => None,
        };
        (self.path, self.at) = here.map_or((path, 0), |at| (self.path, at));
        self.node = Node::Nothing;
        self.enter(value, false, desk)
    }

    /// Looks at the gather that the way is at, and does what is to be done next, until there is nothing.
    fn look(&mut self, desk: &mut Desk<'_>) -> Option<End> {
        loop {
            let Node::Gather(gather) = &mut self.node else { return None };
            match gather.stand() {
                Stand::On => return None,
                Stand::Begin(at) => {
                    let Branch::Waiting { path, value, from_client } = gather.branches[at].1 else { return None };
                    let mut way = Way { path, at: 0, hops: self.hops, is_root: false, node: Node::Nothing };
                    let end = way.enter(value, from_client, desk);
                    gather.branches[at].1 = end.map_or(Branch::Open(way), Branch::Done);
                }
                Stand::Value(value) => return self.step_on(value, desk),
                // All branches have ended: nothing stands in for what they came to.
                Stand::Unfit => return Some(Err(Code::ResultNotEncodable)),
                Stand::Failed(code) => return self.fail(code, desk),
            }
        }
    }

    /// The step fails, unless something stands in for what it should have come to.
    fn fail(&mut self, code: Code, desk: &mut Desk<'_>) -> Option<End> {
        self.drop_jobs(desk);
        let Node::Gather(gather) = &self.node else { return Some(Err(code)) };
        let stands_in = gather.scatter.fallback.as_deref().filter(|_| covers(gather.scatter.fallback_on, code));
        match stands_in.map(trail::constant) {
            Some(value) => self.step_on(value, desk),
            None => Some(Err(code)),
        }
    }

    /// Nobody waits any more for what the way is at.
    pub(super) fn drop_jobs(&mut self, desk: &mut Desk<'_>) {
        match &mut self.node {
            Node::Nothing => {}
            Node::Job(number) => desk.book.end(JobName(desk.request, *number)),
            Node::Gather(gather) => gather.branches.iter_mut().for_each(|(_, branch)| branch.drop_jobs(desk)),
        }
    }

    /// Whether the gather of that number is on its way.
    pub(super) fn waits_for(&self, number: u32) -> bool {
        let Node::Gather(gather) = &self.node else { return false };
        let within = |branch: &Branch| matches!(branch, Branch::Open(way) if way.waits_for(number));
        gather.number == number || gather.branches.iter().any(|(_, branch)| within(branch))
    }

    /// The one job that the way is at, if it is at one.
    pub(super) fn job(&self) -> Option<u32> {
        match self.node {
            Node::Job(number) => Some(number),
            Node::Nothing | Node::Gather(_) => None,
        }
    }
}

impl Branch {
    fn drop_jobs(&mut self, desk: &mut Desk<'_>) {
        if let Branch::Open(way) = self {
            way.drop_jobs(desk);
        }
    }
}

impl Gather {
    fn stand(&self) -> Stand {
        let mut parts = Vec::new();
        let (mut open, mut first_waiting) = (0, None);
        for (at, (name, branch)) in self.branches.iter().enumerate() {
            match branch {
                Branch::Waiting { .. } => first_waiting = first_waiting.or(Some(at)),
                Branch::Open(_) => open += 1,
                Branch::Done(Err(code)) if self.scatter.on_failure == OnFailure::Fail => return Stand::Failed(*code),
                Branch::Done(end) => parts.push((name.as_str(), *end)),
            }
        }
        let most = match self.scatter.over {
            Over::Each { max_in_flight, .. } => max_in_flight,
            Over::Branches(_) => u32::MAX,
        };
        match first_waiting {
            Some(at) if open < most => Stand::Begin(at),
            None if open == 0 => trail::gathered(&parts).map_or(Stand::Unfit, Stand::Value),
            Some(_) | None => Stand::On,
        }
    }
}
