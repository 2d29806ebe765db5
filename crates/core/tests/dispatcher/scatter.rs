//! Steps with branches: what begins, what is gathered, and what becomes of the rest when one fails.

use std::time::Duration;

use evener_core::{Failure, FallbackOn, OnFailure, Outcome, Over, Path, Reply, Scatter, StageId, StageRules, Step};

use crate::double::{Double, NO_FALLBACK, raised, stage, within};

fn branches(names: &[(&str, Path)]) -> Scatter {
    Scatter {
        over: Over::Branches(names.iter().map(|(name, path)| ((*name).to_owned(), *path)).collect()),
        timeout: None,
        on_failure: OnFailure::Fail,
        fallback: None,
        fallback_on: NO_FALLBACK,
    }
}

fn step(scatter: Scatter) -> Step {
    Step::Scatter(Box::new(scatter))
}

const A: Path = Path::Stage(StageId(0));
const B: Path = Path::Stage(StageId(1));

/// Stages `a`, `b` and `c`, a worker each, and a pipeline `all`: scatter to `a` and `b`, then `c`.
fn fork(change: impl FnOnce(&mut Scatter)) -> Double {
    let mut scatter = branches(&[("x", A), ("y", B)]);
    change(&mut scatter);
    let steps = vec![step(scatter), Step::Stage(StageId(2))];
    let stages = ["a", "b", "c"].map(stage).to_vec();
    let mut double = Double::with(stages, vec![("all".to_owned(), steps)], 64);
    (0..3).for_each(|stage| double.arrive(stage));
    double
}

/// A hidden stage `split`, a stage `a` with two workers, and a pipeline `all`: each, at most `most` at a time.
fn each(most: u32, on_failure: OnFailure) -> Double {
    let over = Over::Each { split: StageId(0), branch: Path::Stage(StageId(1)), max_in_flight: most };
    let scatter = Scatter { over, timeout: None, on_failure, fallback: None, fallback_on: NO_FALLBACK };
    let stages = vec![StageRules { hidden: true, ..stage("split") }, stage("a")];
    let mut double = Double::with(stages, vec![("all".to_owned(), vec![step(scatter)])], 64);
    double.arrive(0);
    double.arrive(1);
    double.arrive(1);
    double
}

fn begun(double: &mut Double) {
    double.submit("all", "v");
    double.expect(["a.0 runs r1.1 try 1: v", "b.0 runs r1.2 try 1: v"]);
}

#[test]
fn all_branches_begin_with_the_value_and_are_gathered_by_name() {
    let mut double = fork(|_| {});
    begun(&mut double);
    double.next("b.0", "q");
    double.expect([]);
    double.next("a.0", "p");
    double.expect(["c.0 runs r1.3 try 1: {x: p, y: q}"]);
    double.next("c.0", "end");
    double.expect(["r1 = value end"]);
    assert_eq!((double.core.pending(), double.core.next_timeout()), (0, None), "nothing stays behind");
}

#[test]
fn a_branch_that_fails_fails_the_request_and_cancels_the_others() {
    let mut double = fork(|_| {});
    begun(&mut double);
    double.fail("a.0", Failure::Abort { status: 418, detail: "no".to_owned() });
    double.expect(["r1 = 418 aborted", "b.0 is told"]);
    assert_eq!(double.problem().status, 418);
    double.next("b.0", "late");
    double.expect([]);
}

#[test]
fn a_branch_is_tried_again_like_any_job() {
    let mut double = fork(|_| {});
    begun(&mut double);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: v"]);
    double.next("a.1", "p");
    double.next("b.0", "q");
    double.expect(["c.0 runs r1.3 try 1: {x: p, y: q}"]);
}

#[test]
fn failures_are_collected_if_the_step_says_so() {
    let mut double = fork(|scatter| scatter.on_failure = OnFailure::Collect);
    begun(&mut double);
    double.fail("a.0", raised("ValueError"));
    double.expect(["r1 collects function-failed"]);
    double.next("b.0", "q");
    double.expect(["c.0 runs r1.3 try 1: {x: !function-failed, y: q}"]);
}

#[test]
fn an_early_answer_in_a_branch_answers_the_request() {
    let mut double = fork(|_| {});
    begun(&mut double);
    double.outcome("b.0", Outcome::Respond(Reply { status: 203, headers: vec![], body: "early" }));
    double.expect(["r1 = reply 203 early", "a.0 is told"]);
}

#[test]
fn the_timeout_of_a_scatter_names_who_is_late() {
    let mut double = fork(|scatter| scatter.timeout = Some(Duration::from_millis(200)));
    begun(&mut double);
    double.next("a.0", "p");
    double.wait(199);
    double.expect([]);
    double.wait(2);
    double.expect(["r1 = 504 scatter-timeout", "b.0 is told"]);
    assert_eq!(double.problem().status, 504);
    assert!(double.problem().detail.contains("stage `b`"), "{}", double.problem().detail);
}

#[test]
fn what_is_late_is_collected_too() {
    let mut double = fork(|scatter| {
        scatter.timeout = Some(Duration::from_millis(200));
        scatter.on_failure = OnFailure::Collect;
    });
    begun(&mut double);
    double.next("a.0", "p");
    double.wait(201);
    double.expect(["r1 collects scatter-timeout", "b.0 is told", "c.0 runs r1.3 try 1: {x: p, y: !scatter-timeout}"]);
}

#[test]
fn a_fallback_stands_in_for_the_gathered_value() {
    let mut double = fork(|scatter| {
        scatter.timeout = Some(Duration::from_millis(200));
        scatter.fallback = Some("{}".into());
        scatter.fallback_on = FallbackOn { timeout: true, ..NO_FALLBACK };
    });
    begun(&mut double);
    double.wait(201);
    double.expect(["r1 has a fallback for scatter-timeout", "a.0 is told", "b.0 is told", "c.0 runs r1.3 try 1: {}"]);
    double.next("c.0", "end");
    double.expect(["r1 = value end"]);
}

#[test]
fn what_cannot_be_gathered_is_said() {
    let mut double = fork(|_| {});
    begun(&mut double);
    double.next("a.0", "bytes");
    double.next("b.0", "q");
    double.expect(["r1 = 500 result-not-encodable"]);
    assert!(double.problem().detail.contains("x is bytes"), "{}", double.problem().detail);
}

#[test]
fn a_deadline_and_a_client_that_leaves_end_all_branches() {
    let mut double = fork(|_| {});
    double.submit_with("all", "v", within(100));
    double.expect(["a.0 runs r1.1 try 1: v", "b.0 runs r1.2 try 1: v"]);
    double.wait(101);
    double.expect(["r1 = 504 deadline-exceeded", "a.0 is told", "b.0 is told"]);
    assert!(double.problem().detail.contains("stage `a`, stage `b`"), "{}", double.problem().detail);

    let mut double = fork(|_| {});
    begun(&mut double);
    double.cancel(1);
    double.expect(["a.0 is told", "b.0 is told"]);
    assert_eq!((double.core.pending(), double.queued(0)), (0, 0));
}

#[test]
fn each_element_takes_a_branch_and_the_order_is_kept() {
    let mut double = each(2, OnFailure::Fail);
    double.submit("all", "list");
    double.expect(["split.0 runs r1.1 try 1: list"]);
    double.outcome("split.0", Outcome::Split(vec!["1", "2", "3"]));
    double.expect(["a.1 runs r1.2 try 1: 1", "a.0 runs r1.3 try 1: 2"]);
    double.next("a.0", "two");
    double.expect(["a.0 runs r1.4 try 1: 3"]);
    double.next("a.0", "three");
    double.next("a.1", "one");
    double.expect(["r1 = value [one, two, three]"]);
}

#[test]
fn no_more_are_on_their_way_than_the_step_allows() {
    let mut double = each(1, OnFailure::Fail);
    double.submit("all", "list");
    double.expect(["split.0 runs r1.1 try 1: list"]);
    double.outcome("split.0", Outcome::Split(vec!["1", "2"]));
    double.expect(["a.1 runs r1.2 try 1: 1"]);
    assert_eq!(double.queued(1), 0, "the second does not wait in the queue");
    double.next("a.1", "one");
    double.expect(["a.1 runs r1.3 try 1: 2"]);
    double.next("a.1", "two");
    double.expect(["r1 = value [one, two]"]);
}

#[test]
fn an_empty_list_is_gathered_at_once() {
    let mut double = each(2, OnFailure::Fail);
    double.submit("all", "list");
    double.expect(["split.0 runs r1.1 try 1: list"]);
    double.outcome("split.0", Outcome::Split(vec![]));
    double.expect(["r1 = value []"]);
}

#[test]
fn elements_that_wait_never_begin_once_one_has_failed() {
    let mut double = each(2, OnFailure::Fail);
    double.submit("all", "list");
    double.expect(["split.0 runs r1.1 try 1: list"]);
    double.outcome("split.0", Outcome::Split(vec!["1", "2", "3", "4"]));
    double.expect(["a.1 runs r1.2 try 1: 1", "a.0 runs r1.3 try 1: 2"]);
    double.fail("a.0", raised("ValueError"));
    double.expect(["r1 = 500 function-failed", "a.1 is told"]);
    double.next("a.1", "late");
    double.expect([]);
}

#[test]
fn scatters_stand_within_scatters() {
    let inner = vec![step(branches(&[("p", A), ("q", B)]))];
    let outer = vec![step(branches(&[("in", Path::Pipeline(0)), ("c", Path::Stage(StageId(2)))]))];
    let pipelines = vec![("inner".to_owned(), inner), ("all".to_owned(), outer)];
    let mut double = Double::with(["a", "b", "c"].map(stage).to_vec(), pipelines, 64);
    (0..3).for_each(|stage| double.arrive(stage));
    double.submit("all", "v");
    double.expect(["a.0 runs r1.1 try 1: v", "b.0 runs r1.2 try 1: v", "c.0 runs r1.3 try 1: v"]);
    double.next("a.0", "1");
    double.next("c.0", "3");
    double.next("b.0", "2");
    double.expect(["r1 = value {in: {p: 1, q: 2}, c: 3}"]);
}

#[test]
fn a_goto_in_a_branch_leads_to_the_end_of_that_branch() {
    let mut double = fork(|_| {});
    begun(&mut double);
    double.goto("a.0", "c", "g");
    double.expect(["c.0 runs r1.3 try 1: g"]);
    double.next("b.0", "q");
    double.next("c.0", "p");
    double.expect(["c.0 runs r1.4 try 1: {x: p, y: q}"]);
}

#[test]
fn what_multiplies_without_end_is_stopped_by_its_hops() {
    let scatter = branches(&[("x", A), ("y", A)]);
    let mut double = Double::with(vec![stage("a")], vec![("all".to_owned(), vec![step(scatter)])], 2);
    double.arrive(0);
    double.submit("all", "v");
    double.expect(["a.0 runs r1.1 try 1: v"]);
    // Two of no hop, four of one; the first of those with two may not go on.
    for next in 2..=7 {
        double.goto("a.0", "all", "v");
        double.expect([&format!("a.0 runs r1.{next} try 1: v")]);
    }
    double.goto("a.0", "all", "v");
    double.expect(["r1 = 500 too-many-hops"]);
}

#[test]
fn a_scatter_whose_stage_is_full_or_broken_is_refused_at_the_door() {
    let mut double = fork(|_| {});
    double.lose("b.0");
    double.break_stage(1);
    double.expect([]);
    double.submit("all", "v");
    double.expect(["r1 refused: 503 stage-broken"]);
}
