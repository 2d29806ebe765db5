//! Answers by the deadline, wherever the job is.

use std::time::Duration;

use evener_core::{FallbackOn, StageId, StageRules, Time};

use crate::double::{Double, NO_FALLBACK, Wish, stage, within};

#[test]
fn in_the_queue_of_a_busy_stage() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.submit("a", "long");
    double.expect(["a.0 runs r1.1 try 1: long"]);
    double.submit_with("a", "x", within(100));
    double.wait(99);
    double.expect([]);
    double.wait(1);
    double.expect(["r2 = 504 deadline-exceeded"]);
    let problem = double.problem();
    assert!(problem.detail.contains("waited for stage `a`"), "{}", problem.detail);
    assert_eq!((problem.stage, problem.tries), (Some(StageId(0)), 0));
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
}

#[test]
fn in_the_queue_of_a_stage_without_workers() {
    let mut double = Double::new(vec![stage("a")]);
    double.submit_with("a", "x", within(100));
    double.wait(100);
    double.expect(["r1 = 504 deadline-exceeded"]);
    assert!(double.problem().detail.contains("had no workers"), "{}", double.problem().detail);
    double.arrive(0);
    double.expect([]);
}

#[test]
fn between_two_tries() {
    let mut double = Double::new(vec![StageRules { backoff: Some(Duration::from_secs(5)), ..stage("a") }]);
    double.arrive(0);
    double.arrive(0);
    double.submit_with("a", "x", within(100));
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.lose("a.1");
    double.wait(100);
    double.expect(["r1 = 504 deadline-exceeded"]);
    assert!(double.problem().detail.contains("tried again"), "{}", double.problem().detail);
    double.wait(10_000);
    double.expect([]);
}

#[test]
fn at_work() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.submit_with("a", "x", within(100));
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.wait(100);
    double.expect(["r1 = 504 deadline-exceeded", "a.0 is told"]);
    assert!(double.problem().detail.contains("at work"), "{}", double.problem().detail);
    assert_eq!(double.problem().tries, 1);
    double.next("a.0", "late");
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).idle, 1);
}

#[test]
fn counts_from_the_start_of_the_request_through_all_stages() {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.arrive(1);
    double.submit_with("all", "x", within(100));
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.wait(60);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y"]);
    double.wait(40);
    double.expect(["r1 = 504 deadline-exceeded", "b.0 is told"]);
}

#[test]
fn with_a_fallback() {
    let fallback_on = FallbackOn { timeout: true, ..NO_FALLBACK };
    let mut double = Double::new(vec![stage("a")]);
    double.submit_with("a", "x", Wish { fallback_on, ..within(100) });
    double.wait(100);
    double.expect(["r1 = fallback for deadline-exceeded"]);
}

#[test]
fn a_deadline_that_has_passed_already_is_told_at_the_next_tick() {
    let mut double = Double::new(vec![stage("a")]);
    double.submit_with("a", "x", within(0));
    double.expect([]);
    double.wait(1);
    double.expect(["r1 = 504 deadline-exceeded"]);
}

#[test]
fn a_deadline_that_never_comes_never_comes() {
    let mut double = Double::new(vec![stage("a")]);
    double.submit_with("a", "x", Wish { timeout: Time::NEVER.since(Time::ZERO), ..Wish::default() });
    double.leap(1_000_000_000_000);
    double.expect([]);
    double.arrive(0);
    double.expect(["a.0 runs r1.1 try 1: x"]);
}

#[test]
fn a_leap_of_the_clock_ends_what_is_due_and_nothing_else() {
    let mut double = Double::new(vec![stage("a")]);
    double.submit_with("a", "1", within(1_000));
    double.submit_with("a", "2", within(3_600_000));
    double.submit_with("a", "3", within(2_000));
    double.leap(1_800_000);
    double.expect(["r1 = 504 deadline-exceeded", "r3 = 504 deadline-exceeded"]);
    assert_eq!(double.core.pending(), 1);
}
