//! Plans and requests that multiply or nest without end: they take no more time and no more of the stack than they should. A test's
//! thread has a stack of 2 MiB, as those of a node have.

use std::sync::Arc;
use std::time::Duration;

use evener_core::{
    Action, Answer, Code, Dispatcher, FallbackOn, Landed, OnFailure, Outcome, Over, Path, Payloads, RequestId,
    RequestKey, Scatter, StageId, StageRules, Step, Submission, Terms, Time, Topology, WorkerKey,
};

use crate::double::{NO_FALLBACK, stage};

const NOW: Time = Time::from_nanos(1);
const ALL: FallbackOn = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };

type Core = Dispatcher<&'static str, u32>;
type Out = Vec<Action<&'static str, u32>>;

fn step(over: Over, on_failure: OnFailure, fallback: Option<&str>) -> Step {
    let (fallback, fallback_on) = match fallback {
        Some(json) => (Some(json.into()), ALL),
        None => (None, NO_FALLBACK),
    };
    Step::Scatter(Box::new(Scatter { over, timeout: None, on_failure, fallback, fallback_on }))
}

fn named(paths: &[Path]) -> Over {
    Over::Branches(paths.iter().zip(0..).map(|(path, number)| (format!("b{number}"), *path)).collect())
}

fn dispatcher(topology: Topology) -> Core {
    Dispatcher::new(Arc::new(topology), Payloads { gather: |_, _, _| Ok("gathered"), constant: |_| "constant" })
}

fn submit(core: &mut Core, path: Path) -> RequestKey {
    submit_on(core, path, Terms::default())
}

fn submit_on(core: &mut Core, path: Path, terms: Terms) -> RequestKey {
    let submission = Submission {
        id: RequestId(1 << RequestId::JOB_BITS),
        path,
        payload: "x",
        deadline: NOW + Duration::from_secs(30),
        fallback_on: NO_FALLBACK,
        terms,
        streams: false,
        on_error: None,
        reply: 1,
    };
    core.submit(NOW, submission).expect("it is let in")
}

fn actions(core: &mut Core) -> Out {
    let mut actions = Vec::new();
    core.take_actions(&mut actions);
    actions
}

/// The worker brings that for the job that it was handed in these actions.
fn bring(core: &mut Core, worker: WorkerKey, actions: &Out, outcome: Outcome<&'static str>) {
    let run = actions.iter().find_map(|action| match action {
        Action::Run { job, attempt, .. } => Some((*job, *attempt)),
        _ => None,
    });
    let (job, attempt) = run.expect("a job was handed out");
    assert!(core.outcome(NOW, worker, Landed { job, attempt, ran: Duration::from_secs(1), outcome }));
}

fn answer(actions: &Out) -> &Answer<&'static str> {
    let answer = actions.iter().find_map(|action| match action {
        Action::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    answer.expect("it is answered")
}

/// A request that is in a branch of a branch, and so on for so many: each job sends its value to the scatter that it is a branch of.
fn nested(depth: u32, on_failure: OnFailure, fallback: Option<&str>) -> (Core, RequestKey, WorkerKey) {
    let stages = vec![stage("a"), stage("b")];
    let path = [step(named(&[Path::Stage(StageId(0))]), on_failure, fallback), Step::Stage(StageId(1))];
    let mut core = dispatcher(Topology::new(stages, vec![("p".to_owned(), path.to_vec())], u32::MAX));
    let worker = core.worker_ready(NOW, StageId(0));
    let request = submit(&mut core, Path::Pipeline(0));
    for _ in 0..depth {
        let handed = actions(&mut core);
        bring(&mut core, worker, &handed, Outcome::Goto { target: "p".to_owned(), value: "x" });
    }
    (core, request, worker)
}

const DEEP: u32 = 20_000;

#[test]
fn branches_of_branches_without_end_fail_as_one() {
    let (mut core, _, worker) = nested(DEEP, OnFailure::Fail, None);
    let handed = actions(&mut core);
    let failure = evener_core::Failure::Abort { status: 418, detail: "enough".to_owned() };
    bring(&mut core, worker, &handed, Outcome::Fail(failure));
    assert!(matches!(answer(&actions(&mut core)), Answer::Problem(problem) if problem.status == 418));
    core.verify().expect("nothing is left");
}

/// The step behind each scatter fails at once, so that each fails as its branch has ended.
#[test]
fn branches_of_branches_without_end_end_one_after_another() {
    for (on_failure, fallback) in [(OnFailure::Collect, None), (OnFailure::Fail, Some("1"))] {
        let (mut core, _, worker) = nested(DEEP, on_failure, fallback);
        core.stage_broken(NOW, StageId(1), "no such module");
        let handed = actions(&mut core);
        bring(&mut core, worker, &handed, Outcome::Next("end"));
        let actions = actions(&mut core);
        assert!(matches!(answer(&actions), Answer::Problem(problem) if problem.code == Code::StageBroken));
        core.verify().expect("nothing is left");
    }
}

#[test]
fn branches_of_branches_without_end_are_late_and_are_dropped() {
    let (mut core, _, _) = nested(DEEP, OnFailure::Fail, None);
    core.verify().expect("it is in order");
    core.timeout(NOW + Duration::from_secs(31));
    assert!(matches!(answer(&actions(&mut core)), Answer::Problem(problem) if problem.code == Code::DeadlineExceeded));
    core.verify().expect("nothing is left");

    let (mut core, request, _) = nested(DEEP, OnFailure::Fail, None);
    assert!(core.cancel(NOW, request));
    core.verify().expect("nothing is left");
}

#[test]
fn a_long_way_of_steps_that_fail_at_once_is_gone_to_its_end() {
    let mut steps = vec![Step::Stage(StageId(0))];
    steps.extend((0..DEEP).map(|_| step(named(&[Path::Stage(StageId(1))]), OnFailure::Collect, None)));
    let stages = vec![stage("a"), stage("b")];
    let mut core = dispatcher(Topology::new(stages, vec![("p".to_owned(), steps)], 64));
    let worker = core.worker_ready(NOW, StageId(0));
    submit(&mut core, Path::Pipeline(0));
    core.stage_broken(NOW, StageId(1), "no such module");
    let handed = actions(&mut core);
    bring(&mut core, worker, &handed, Outcome::Next("x"));
    assert_eq!(answer(&actions(&mut core)), &Answer::Value("gathered"));
}

/// Each pipeline leads into the one before it, twice.
fn doubled(depth: u32) -> Vec<(String, Vec<Step>)> {
    let pipeline = |number: u32| match number {
        0 => vec![Step::Stage(StageId(0))],
        _ => vec![step(named(&[Path::Pipeline(number - 1); 2]), OnFailure::Collect, Some("1"))],
    };
    (0..=depth).map(|number| (format!("p{number}"), pipeline(number))).collect()
}

#[test]
fn pipelines_that_share_others_are_gone_through_once() {
    let topology = Topology::new(vec![stage("a"), stage("b")], doubled(5_000), 64);
    assert_eq!(topology.reach(Path::Pipeline(5_000)), [StageId(0)]);
}

#[test]
#[should_panic(expected = "no pipeline contains itself")]
fn a_pipeline_that_contains_itself_through_another_is_a_mistake() {
    let into = |number| vec![step(named(&[Path::Stage(StageId(0)), Path::Pipeline(number)]), OnFailure::Fail, None)];
    let pipelines = [1, 2, 0].map(into).into_iter().zip(0..).map(|(steps, number)| (format!("p{number}"), steps));
    Topology::new(vec![stage("a")], pipelines.collect(), 64);
}

/// Whatever collects failures or stands in for them on the way: or each of the others would fail as well.
#[test]
fn a_request_that_makes_too_many_jobs_ends() {
    let mut core = dispatcher(Topology::new(vec![stage("a")], doubled(20), 64));
    submit(&mut core, Path::Pipeline(20));
    assert!(matches!(answer(&actions(&mut core)), Answer::Problem(problem) if problem.code == Code::TooManyJobs));
    core.verify().expect("nothing is left");
}

/// In time that grows with their number: with its square, this would take minutes.
#[test]
fn as_many_flows_as_there_can_be_end_at_once() {
    let rules = StageRules { queue: 1_000_000, ..stage("a") };
    let mut core = dispatcher(Topology::new::<Step>(vec![rules], vec![], 64));
    for flow in 0..=u16::MAX {
        submit_on(&mut core, Path::Stage(StageId(0)), Terms { flow, ..Terms::default() });
    }
    core.timeout(NOW + Duration::from_secs(31));
    assert_eq!((core.pending(), core.counts(StageId(0)).queued), (0, 0));
}
