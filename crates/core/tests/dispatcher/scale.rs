//! Pools that size themselves.

use std::time::Duration;

use evener_core::{Scale, StageId, StageRules};

use crate::double::{Double, stage};

/// One to three workers; one more where jobs wait for 100 ms, one less where one is idle for 10 s.
fn pool() -> Double {
    let scale = Scale { min: 1, max: 3, wait: Duration::from_millis(100), idle: Duration::from_secs(10) };
    let mut double = Double::new(vec![StageRules { scale: Some(scale), ..stage("a") }]);
    double.arrive(0);
    assert_eq!(double.core.wanted(StageId(0)), Some(1));
    double
}

#[test]
fn it_grows_by_one_at_a_time_while_jobs_wait_too_long() {
    let mut double = pool();
    double.submit("a", "1");
    double.expect(["a.0 runs r1.1 try 1: 1"]);
    for value in ["2", "3", "4", "5", "6"] {
        double.submit("a", value);
    }
    double.wait(99);
    double.expect([]);
    double.wait(2);
    double.expect(["one more for a"]);
    // It is not up yet: nobody asks for another meanwhile.
    double.wait(1000);
    double.expect([]);
    double.arrive(0);
    double.expect(["a.1 runs r2.1 try 1: 2", "one more for a"]);
    double.arrive(0);
    double.expect(["a.2 runs r3.1 try 1: 3"]);
    double.wait(1000);
    double.expect([]);
    assert_eq!(double.core.wanted(StageId(0)), Some(3), "that is the most");
}

#[test]
fn jobs_that_wait_only_a_little_need_nobody() {
    let mut double = pool();
    for _ in 0..10 {
        let first = double.submit("a", "1");
        double.clear();
        let second = double.submit("a", "2");
        double.wait(90);
        double.next("a.0", "v");
        double.expect([&format!("r{first} = value v"), &format!("a.0 runs r{second}.1 try 1: 2")]);
        double.wait(90);
        double.next("a.0", "v");
        double.expect([&format!("r{second} = value v")]);
    }
    assert_eq!(double.core.wanted(StageId(0)), Some(1));
}

/// Three workers, of which all are idle.
fn large() -> Double {
    let mut double = pool();
    double.several = true;
    for value in ["1", "2", "3"] {
        double.submit("a", value);
    }
    double.wait(101);
    double.arrive(0);
    double.arrive(0);
    for worker in ["a.0", "a.1", "a.2"] {
        double.next(worker, "v");
    }
    double.clear();
    double.several = false;
    double
}

#[test]
fn it_shrinks_by_what_nobody_needed_for_a_whole_span() {
    let mut double = large();
    // The span has begun with the second worker, while all were busy: nothing was idle all along.
    double.wait(10_000);
    double.expect([]);
    double.wait(10_000);
    double.expect(["a.0 leaves for good", "a.1 leaves for good"]);
    double.lose("a.0");
    double.lose("a.1");
    double.wait(60_000);
    double.expect([]);
    assert_eq!(double.core.wanted(StageId(0)), Some(1));
    double.submit("a", "x");
    double.expect(["a.2 runs r4.1 try 1: x"]);
}

#[test]
fn a_short_burst_keeps_what_it_needs() {
    let mut double = large();
    double.wait(10_000);
    double.expect([]);
    // Two at a time are needed once in this span.
    double.several = true;
    double.submit("a", "x");
    let first = double.runner();
    double.clear();
    double.submit("a", "y");
    let second = double.runner();
    double.next(&first, "v");
    double.next(&second, "v");
    double.clear();
    double.several = false;
    double.wait(10_000);
    assert_eq!(double.seen().len(), 1, "{:?}", double.seen());
    double.clear();
    assert_eq!(double.core.wanted(StageId(0)), Some(2));
}
