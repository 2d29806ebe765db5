//! A new plan takes over, while requests of the old one go on.

use std::time::Duration;

use evener_core::{StageId, StageRules, Step};

use crate::double::{Double, stage};

fn path(stages: &[u32]) -> Vec<Step> {
    stages.iter().map(|stage| Step::Stage(StageId(*stage))).collect()
}

/// Stages `a` and `b`, and a pipeline `p` through both.
fn old() -> Double {
    let pipelines = vec![("p".to_owned(), path(&[0, 1]))];
    let mut double = Double::with(vec![stage("a"), stage("b")], pipelines, 64);
    (0..2).for_each(|stage| double.arrive(stage));
    double
}

#[test]
fn what_is_on_its_way_goes_on_by_the_old_plan_and_what_comes_by_the_new() {
    let mut double = old();
    double.submit("p", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    // `p` now leads to a new stage, and no longer to `b`.
    double.reload(vec![stage("a"), stage("b"), stage("c")], vec![("p".to_owned(), path(&[0, 2]))]);
    double.expect([]);
    double.arrive(2);
    double.submit("p", "new");
    double.expect([]);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y", "a.0 runs r2.1 try 1: new"]);
    double.next("a.0", "newer");
    double.expect(["c.0 runs r2.2 try 1: newer"]);
    double.next("c.0", "newest");
    double.expect(["r2 = value newest"]);
    double.next("b.0", "z");
    double.expect(["the old plan is done", "r1 = value z"]);
}

#[test]
fn an_old_plan_without_requests_is_done_at_once() {
    let mut double = old();
    double.reload(vec![stage("a"), stage("b")], vec![("p".to_owned(), path(&[0, 1]))]);
    double.expect(["the old plan is done"]);
}

#[test]
fn a_client_that_leaves_counts_as_well() {
    let mut double = old();
    double.submit("p", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.reload(vec![stage("a"), stage("b")], vec![("p".to_owned(), path(&[1]))]);
    double.submit("p", "new");
    double.expect(["b.0 runs r2.1 try 1: new"]);
    double.cancel(1);
    double.expect(["the old plan is done", "a.0 is told"]);
    double.next("b.0", "v");
    double.expect(["r2 = value v"]);
}

#[test]
fn rules_change_at_once() {
    let mut double = old();
    let quick = StageRules { timeout: Duration::from_millis(50), ..stage("a") };
    double.reload(vec![quick, stage("b")], vec![("p".to_owned(), path(&[0, 1]))]);
    double.expect(["the old plan is done"]);
    double.submit("p", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.wait(51);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout"]);
}

#[test]
fn many_plans_may_follow_while_one_request_lives() {
    let mut double = old();
    double.submit("p", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    for turn in 0..5 {
        let way = if turn % 2 == 0 { path(&[1]) } else { path(&[1, 0]) };
        double.reload(vec![stage("a"), stage("b")], vec![("p".to_owned(), way)]);
        double.expect([]);
    }
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y"]);
    double.next("b.0", "z");
    double.expect(["the old plan is done", "r1 = value z"]);
}
