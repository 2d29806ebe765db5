//! The way of a request through its stages.

use std::time::Duration;

use evener_core::{Action, Answer, Landed, Outcome, Reply, StageId, StageRules};

use crate::double::{Double, stage};

fn three() -> Double {
    let mut double = Double::new(vec![stage("a"), stage("b"), stage("c")]);
    (0..3).for_each(|stage| double.arrive(stage));
    double
}

fn reply(status: u16, body: &'static str) -> Outcome<&'static str> {
    Outcome::Respond(Reply { status, headers: vec![], body })
}

#[test]
fn a_value_goes_from_stage_to_stage_and_comes_back() {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.arrive(1);
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y"]);
    double.next("b.0", "z");
    double.expect(["r1 = value z"]);
    assert_eq!(double.core.pending(), 0);
    assert_eq!(double.core.next_timeout(), None, "no timer stays behind");
}

#[test]
fn a_lone_stage_is_a_path_of_one() {
    let mut double = three();
    double.submit("b", "x");
    double.expect(["b.0 runs r1.1 try 1: x"]);
    double.next("b.0", "y");
    double.expect(["r1 = value y"]);
}

#[test]
fn any_stage_may_answer_early() {
    for at in 0..3 {
        let mut double = three();
        double.submit("all", "x");
        double.expect(["a.0 runs r1.1 try 1: x"]);
        if at > 0 {
            double.next("a.0", "y");
            double.expect(["b.0 runs r1.2 try 1: y"]);
        }
        if at > 1 {
            double.next("b.0", "z");
            double.expect(["c.0 runs r1.3 try 1: z"]);
        }
        double.outcome(["a.0", "b.0", "c.0"][at], reply(203, "early"));
        double.expect(["r1 = reply 203 early"]);
    }
}

#[test]
fn the_headers_of_an_early_answer_arrive() {
    let mut double = three();
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    let held = double.held("a.0");
    let made = Reply { status: 200, headers: vec![("X-Cache".to_owned(), "hit".to_owned())], body: "b" };
    let landed =
        Landed { job: held.job, attempt: held.attempt, ran: Duration::ZERO, outcome: Outcome::Respond(made.clone()) };
    assert!(double.core.outcome(double.now, held.worker, landed));
    let mut actions = Vec::new();
    double.core.take_actions(&mut actions);
    assert!(matches!(&actions[..], [Action::Answer { answer: Answer::Reply(reply), .. }] if *reply == made));
}

#[test]
fn a_goto_inside_the_path_moves_the_cursor_ahead() {
    let mut double = three();
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.goto("a.0", "c", "y");
    double.expect(["c.0 runs r1.2 try 1: y"]);
    double.next("c.0", "z");
    double.expect(["r1 = value z"]);
}

#[test]
fn a_goto_inside_the_path_moves_the_cursor_back() {
    let mut double = three();
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y"]);
    double.goto("b.0", "a", "again");
    double.expect(["a.0 runs r1.3 try 1: again"]);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.4 try 1: y"]);
    double.next("b.0", "z");
    double.expect(["c.0 runs r1.5 try 1: z"]);
    double.next("c.0", "end");
    double.expect(["r1 = value end"]);
}

#[test]
fn a_goto_to_a_stage_that_the_path_has_twice_takes_the_next_one() {
    let path = [0, 1, 0, 2].map(StageId).to_vec();
    let mut double = Double::with(vec![stage("a"), stage("b"), stage("c")], vec![("p".to_owned(), path)], 64);
    (0..3).for_each(|stage| double.arrive(stage));
    double.submit("p", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.goto("a.0", "a", "y");
    double.expect(["a.0 runs r1.2 try 1: y"]);
    double.next("a.0", "z");
    double.expect(["c.0 runs r1.3 try 1: z"]);
    double.next("c.0", "end");
    double.expect(["r1 = value end"]);
}

#[test]
fn the_result_of_a_goto_elsewhere_ends_the_path() {
    let pipelines = vec![("first".to_owned(), vec![StageId(0), StageId(1)]), ("other".to_owned(), vec![StageId(2)])];
    for target in ["c", "other"] {
        let mut double = Double::with(vec![stage("a"), stage("b"), stage("c")], pipelines.clone(), 64);
        (0..3).for_each(|stage| double.arrive(stage));
        double.submit("first", "x");
        double.expect(["a.0 runs r1.1 try 1: x"]);
        double.goto("a.0", target, "y");
        double.expect(["c.0 runs r1.2 try 1: y"]);
        double.next("c.0", "z");
        double.expect(["r1 = value z"]);
    }
}

#[test]
fn a_goto_to_a_pipeline_takes_it_from_its_start() {
    let mut double = three();
    double.submit("c", "x");
    double.expect(["c.0 runs r1.1 try 1: x"]);
    double.goto("c.0", "all", "y");
    double.expect(["a.0 runs r1.2 try 1: y"]);
    double.next("a.0", "z");
    double.expect(["b.0 runs r1.3 try 1: z"]);
    double.next("b.0", "w");
    double.expect(["c.0 runs r1.4 try 1: w"]);
    double.next("c.0", "end");
    double.expect(["r1 = value end"]);
}

#[test]
fn a_goto_to_nowhere_is_a_500_that_names_the_target() {
    let mut double = three();
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.goto("a.0", "nowhere", "y");
    double.expect(["r1 = 500 unknown-target"]);
    let problem = double.problem();
    assert!(problem.detail.contains("`nowhere`") && problem.detail.contains("`a`"), "{}", problem.detail);
    assert_eq!(problem.stage, Some(StageId(0)));
    let counts = double.core.counts(StageId(0));
    assert_eq!((counts.done, counts.failed), (0, 1), "such a job failed, and did not end well too");
}

#[test]
fn a_request_takes_max_hops_gotos_and_not_one_more() {
    let mut double = Double::with::<StageId>(vec![stage("a")], vec![], 3);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    for run in ["a.0 runs r1.2 try 1: x", "a.0 runs r1.3 try 1: x", "a.0 runs r1.4 try 1: x"] {
        double.goto("a.0", "a", "x");
        double.expect([run]);
    }
    double.goto("a.0", "a", "x");
    double.expect(["r1 = 500 too-many-hops"]);
    let told = "stage `a` sent the request on once more, after 3 gotos; limits.max_hops allows 3";
    assert_eq!(double.problem().detail, told);
    let counts = double.core.counts(StageId(0));
    assert_eq!((counts.started, counts.done, counts.failed), (4, 3, 1));
}

#[test]
fn each_request_gets_its_own_answer_whatever_the_order() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.arrive(0);
    double.submit("a", "one");
    double.expect(["a.1 runs r1.1 try 1: one"]);
    double.submit("a", "two");
    double.expect(["a.0 runs r2.1 try 1: two"]);
    double.submit("a", "three");
    double.next("a.0", "TWO");
    double.expect(["r2 = value TWO", "a.0 runs r3.1 try 1: three"]);
    double.next("a.0", "THREE");
    double.expect(["r3 = value THREE"]);
    double.next("a.1", "ONE");
    double.expect(["r1 = value ONE"]);
}

#[test]
fn who_came_first_is_served_first() {
    let mut double = Double::new(vec![stage("a")]);
    for payload in ["1", "2", "3"] {
        double.submit("a", payload);
    }
    double.arrive(0);
    double.expect(["a.0 runs r1.1 try 1: 1"]);
    double.next("a.0", "");
    double.expect(["r1 = value ", "a.0 runs r2.1 try 1: 2"]);
    double.next("a.0", "");
    double.expect(["r2 = value ", "a.0 runs r3.1 try 1: 3"]);
}

/// The first stage declares that it goes to those names.
fn declared(names: &[&str]) -> Double {
    let goto = Some(names.iter().map(|name| (*name).to_owned()).collect());
    let mut double = Double::new(vec![StageRules { goto, ..stage("a") }, stage("b"), stage("c")]);
    (0..3).for_each(|stage| double.arrive(stage));
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double
}

#[test]
fn a_goto_that_is_declared_is_one_like_any_other() {
    let mut double = declared(&["b", "c"]);
    double.goto("a.0", "c", "y");
    double.expect(["c.0 runs r1.2 try 1: y"]);
    double.goto("c.0", "all", "z");
    double.expect(["a.0 runs r1.3 try 1: z"]);
}

#[test]
fn a_goto_that_is_not_declared_fails() {
    for (names, said) in [(&["b", "all"][..], "declares `b`, `all`"), (&[][..], "declares nothing")] {
        let mut double = declared(names);
        double.goto("a.0", "c", "y");
        double.expect(["r1 = 500 unknown-target"]);
        assert!(double.problem().detail.contains("stage `a` sent a value to `c`"), "{}", double.problem().detail);
        assert!(double.problem().detail.contains(said), "{}", double.problem().detail);
    }
}

#[test]
fn a_goto_that_is_declared_may_still_lead_nowhere() {
    let mut double = declared(&["nowhere"]);
    double.goto("a.0", "nowhere", "y");
    double.expect(["r1 = 500 unknown-target"]);
    assert!(double.problem().detail.contains("which is no stage or pipeline"), "{}", double.problem().detail);
}
