//! Workers that take several jobs as one.

use std::time::Duration;

use evener_core::{Batch, Failure, OnCancel, Outcome, StageRules};

use crate::double::{Double, stage};

/// One worker that takes up to three jobs at once, each of which waits up to 50 ms for others.
fn batches() -> Double {
    let batch = Some(Batch { wait: Duration::from_millis(50), weighed: false });
    let rules = StageRules { slots: 3, batch, on_cancel: OnCancel::Kill, ..stage("a") };
    let mut double = Double::new(vec![rules]);
    double.arrive(0);
    double
}

#[test]
fn a_full_batch_goes_at_once() {
    let mut double = batches();
    double.submit("a", "x");
    double.expect([]);
    double.submit("a", "y");
    double.expect([]);
    double.submit("a", "z");
    double.expect(["a.0 runs r1.1 try 1: x, and", "a.0 gets r2.1 try 1: y, and", "a.0 gets r3.1 try 1: z"]);
    assert_eq!(double.queued(0), 0);
}

#[test]
fn fewer_go_when_the_first_has_waited_long_enough() {
    let mut double = batches();
    double.submit("a", "x");
    double.expect([]);
    double.wait(30);
    double.submit("a", "y");
    double.expect([]);
    double.wait(19);
    double.expect([]);
    double.wait(2);
    double.expect(["a.0 runs r1.1 try 1: x, and", "a.0 gets r2.1 try 1: y"]);
}

#[test]
fn the_next_batch_waits_until_the_worker_has_brought_all() {
    let mut double = batches();
    double.submit("a", "x");
    double.wait(51);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    for value in ["1", "2", "3", "4"] {
        double.submit("a", value);
        double.expect([]);
    }
    double.next("a.0", "X");
    double.expect([
        "r1 = value X",
        "a.0 runs r2.1 try 1: 1, and",
        "a.0 gets r3.1 try 1: 2, and",
        "a.0 gets r4.1 try 1: 3",
    ]);
    let [first, second, third] = double.hands("a.0")[..] else { panic!("it holds three") };
    double.wait(60);
    double.expect([]);
    assert!(double.bring(first, Outcome::Next("a")));
    double.expect(["r2 = value a"]);
    assert!(double.bring(second, Outcome::Fail(Failure::Abort { status: 400, detail: "no".into() })));
    double.expect(["r3 = 400 aborted"]);
    assert!(double.bring(third, Outcome::Next("c")));
    double.expect(["r4 = value c", "a.0 runs r5.1 try 1: 4"]);
}

#[test]
fn a_cancelled_item_only_leaves_its_batch() {
    let mut double = batches();
    double.submit("a", "x");
    double.submit("a", "y");
    double.wait(51);
    double.expect(["a.0 runs r1.1 try 1: x, and", "a.0 gets r2.1 try 1: y"]);
    double.cancel(1);
    double.expect(["a.0 is told"]);
    double.wait(10_000);
    double.expect([]);
    let [first, second] = double.hands("a.0")[..] else { panic!("it holds two") };
    assert!(double.bring(first, Outcome::Fail(Failure::Cancelled)));
    assert!(double.bring(second, Outcome::Next("b")));
    double.expect(["r2 = value b"]);
}

#[test]
fn a_batch_that_dies_is_tried_again() {
    let mut double = batches();
    double.submit("a", "x");
    double.submit("a", "y");
    double.wait(51);
    double.expect(["a.0 runs r1.1 try 1: x, and", "a.0 gets r2.1 try 1: y"]);
    double.lose("a.0");
    assert_eq!(double.retried.len(), 2);
    double.arrive(0);
    assert_eq!(double.seen().len(), 2, "they have waited long enough: {:?}", double.seen());
    double.clear();
}

#[test]
fn one_that_is_cancelled_while_it_waits_makes_nobody_wait_longer() {
    let mut double = batches();
    double.submit("a", "x");
    double.wait(20);
    double.submit("a", "y");
    double.cancel(1);
    double.expect([]);
    double.wait(31);
    double.expect([]);
    double.wait(20);
    double.expect(["a.0 runs r2.1 try 1: y"]);
}

/// The same with weights, and up to ten together.
fn weighed() -> Double {
    let batch = Some(Batch { wait: Duration::from_millis(50), weighed: true });
    let mut double = Double::new(vec![StageRules { slots: 10, batch, ..stage("a") }]);
    double.arrive(0);
    double
}

/// A job of that weight comes.
fn comes(double: &mut Double, value: &'static str, weight: u32) {
    let request = double.submit("a", value);
    double.expect([&format!("which key has r{request}: {value}")]);
    double.weighs(request, weight);
}

#[test]
fn a_batch_goes_when_it_weighs_as_much_as_it_may() {
    let mut double = weighed();
    comes(&mut double, "x", 4);
    double.expect([]);
    comes(&mut double, "y", 5);
    double.expect([]);
    comes(&mut double, "z", 1);
    double.expect(["a.0 runs r1.1 try 1: x, and", "a.0 gets r2.1 try 1: y, and", "a.0 gets r3.1 try 1: z"]);
}

#[test]
fn a_batch_goes_when_the_next_does_not_fit() {
    let mut double = weighed();
    comes(&mut double, "x", 4);
    comes(&mut double, "y", 5);
    double.expect([]);
    comes(&mut double, "z", 2);
    double.expect(["a.0 runs r1.1 try 1: x, and", "a.0 gets r2.1 try 1: y"]);
    assert_eq!(double.queued(0), 1);
    double.arrive(0);
    double.expect([]);
    double.wait(49);
    double.expect([]);
    double.wait(2);
    double.expect(["a.1 runs r3.1 try 1: z"]);
}

#[test]
fn nothing_overtakes_what_does_not_fit() {
    let mut double = weighed();
    comes(&mut double, "x", 6);
    comes(&mut double, "y", 5);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    comes(&mut double, "z", 1);
    double.expect([]);
    double.arrive(0);
    double.expect([]);
    comes(&mut double, "w", 4);
    double.expect(["a.1 runs r2.1 try 1: y, and", "a.1 gets r3.1 try 1: z, and", "a.1 gets r4.1 try 1: w"]);
}

#[test]
fn one_that_is_too_heavy_goes_alone() {
    let mut double = weighed();
    comes(&mut double, "x", 70_000);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    comes(&mut double, "y", 1);
    comes(&mut double, "z", u32::MAX);
    double.expect([]);
    double.arrive(0);
    double.expect(["a.1 runs r2.1 try 1: y"]);
    double.arrive(0);
    double.expect(["a.2 runs r3.1 try 1: z"]);
}

#[test]
fn what_weighs_nothing_weighs_one() {
    let mut double = weighed();
    for _ in 0..9 {
        comes(&mut double, "x", 0);
        double.expect([]);
    }
    comes(&mut double, "x", 0);
    assert_eq!(double.seen().len(), 10, "{:?}", double.seen());
    double.clear();
}

#[test]
fn a_job_keeps_its_weight_for_its_next_try() {
    let mut double = weighed();
    comes(&mut double, "x", 7);
    double.wait(51);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.lose("a.0");
    assert_eq!(double.retried.len(), 1);
    double.clear();
    comes(&mut double, "y", 4);
    double.expect([]);
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: x"]);
}

#[test]
fn a_weight_that_cannot_be_told_fails_the_job() {
    let mut double = weighed();
    double.submit("a", "x");
    double.expect(["which key has r1: x"]);
    double.has_key(1, Err(Failure::Filter { detail: "cannot index".into() }));
    double.expect(["r1 = 500 filter-failed"]);
}
