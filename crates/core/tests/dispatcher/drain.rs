//! The end of a node.

use evener_core::{FallbackOn, Totals};

use crate::double::{Double, NO_FALLBACK, Wish, stage};

fn at_work() -> Double {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.arrive(1);
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("all", "y");
    double
}

#[test]
fn new_requests_are_refused_and_old_ones_finish() {
    let mut double = at_work();
    double.drain(1_000);
    assert!(double.core.is_draining());
    double.submit("all", "z");
    double.expect(["r3 refused: 503 draining"]);
    double.next("a.0", "x");
    double.expect(["b.0 runs r1.2 try 1: x", "a.0 runs r2.1 try 1: y"]);
    double.next("b.0", "x");
    double.expect(["r1 = value x"]);
    double.next("a.0", "y");
    double.expect(["b.0 runs r2.2 try 1: y"]);
    double.next("b.0", "y");
    double.expect(["r2 = value y"]);
    assert_eq!(double.core.totals(), Totals { accepted: 2, answered: 2, cancelled: 0 });
    double.wait(10_000);
    double.expect([]);
}

#[test]
fn what_is_not_done_in_time_is_answered_at_the_end() {
    let mut double = at_work();
    double.drain(1_000);
    double.wait(999);
    double.expect([]);
    double.wait(1);
    double.expect(["r1 = 503 draining", "a.0 is told", "r2 = 503 draining"]);
    assert_eq!(double.core.pending(), 0);
    double.next("a.0", "late");
    double.expect([]);
}

#[test]
fn a_drain_without_time_answers_at_once() {
    let mut double = at_work();
    double.drain(0);
    double.expect(["r1 = 503 draining", "a.0 is told", "r2 = 503 draining"]);
}

#[test]
fn a_second_drain_may_end_sooner() {
    let mut double = at_work();
    double.drain(60_000);
    double.wait(10);
    double.drain(100);
    double.wait(100);
    double.expect(["r1 = 503 draining", "a.0 is told", "r2 = 503 draining"]);
    double.next("a.0", "late");
    double.wait(60_000);
    double.expect([]);
}

#[test]
fn a_lost_job_is_retried_during_a_drain() {
    let mut double = at_work();
    double.drain(1_000);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: x"]);
}

#[test]
fn a_fallback_stands_in_at_the_end_too() {
    let mut double = Double::new(vec![stage("a")]);
    let fallback_on = FallbackOn { unavailable: true, ..NO_FALLBACK };
    double.submit_with("a", "x", Wish { fallback_on, ..Wish::default() });
    double.drain(5);
    double.wait(5);
    double.expect(["r1 = fallback for draining"]);
}
