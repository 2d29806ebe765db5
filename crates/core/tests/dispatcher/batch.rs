//! Workers that take several jobs as one.

use std::time::Duration;

use evener_core::{
    Batch, Failure, FallbackOn, OnCancel, OnFailure, Outcome, Over, Path, Scale, Scatter, StageId, StageRules, Step,
};

use crate::double::{Double, stage};

/// One worker that takes up to three jobs at once. While it is idle each of them waits up to 50 ms for others.
fn batches() -> Double {
    let batch = Some(Batch { wait: Duration::ZERO, idle: Duration::from_millis(50), weighed: false });
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
fn after_a_death_each_job_of_the_batch_is_tried_alone() {
    let mut double = batches();
    for value in ["x", "y", "z"] {
        double.submit("a", value);
    }
    double.clear();
    double.lose("a.0");
    assert_eq!(double.retried.len(), 3);
    double.submit("a", "w");
    double.arrive(0);
    double.expect(["a.1 runs r3.1 try 2: z"]);
    double.next("a.1", "Z");
    double.expect(["r3 = value Z", "a.1 runs r2.1 try 2: y"]);
    // It is the one: the others lose nothing more by it.
    double.lose("a.1");
    double.expect([]);
    double.arrive(0);
    double.expect(["a.2 runs r1.1 try 2: x"]);
    double.next("a.2", "X");
    double.expect(["r1 = value X"]);
    // The one that came later waits for others, and takes none of those with it that lost a try.
    double.wait(51);
    double.expect(["a.2 runs r4.1 try 1: w"]);
    double.wait(51);
    double.next("a.2", "W");
    double.expect(["r4 = value W", "a.2 runs r2.1 try 3: y"]);
    double.lose("a.2");
    double.expect(["r2 = 502 worker-died"]);
}

#[test]
fn what_hangs_and_what_raises_is_found_out_as_well() {
    for hangs in [true, false] {
        let batch = Some(Batch { wait: Duration::ZERO, idle: Duration::from_millis(50), weighed: false });
        let retry_on = evener_core::RetryOn { lost: true, timeout: true, error: true };
        let mut double = Double::new(vec![StageRules { slots: 2, batch, retry_on, retries: 1, ..stage("a") }]);
        double.arrive(0);
        double.arrive(0);
        double.submit("a", "x");
        double.submit("a", "y");
        double.expect(["a.1 runs r1.1 try 1: x, and", "a.1 gets r2.1 try 1: y"]);
        if hangs {
            double.wait(60_001);
            double.expect(["a.1 is told", "a.1 is told of r2.1"]);
        } else {
            for held in double.hands("a.1") {
                assert!(double.bring(held, Outcome::Fail(crate::double::raised("ValueError"))));
            }
        }
        double.wait(101);
        assert!(double.seen().iter().all(|line| line.ends_with("x") || line.ends_with("y")), "{:?}", double.seen());
        assert!(!double.seen().is_empty());
        double.clear();
    }
}

/// One worker that takes up to three jobs at once, and never waits for more.
fn at_once() -> Double {
    let batch = Some(Batch { wait: Duration::from_secs(10), idle: Duration::ZERO, weighed: false });
    let mut double = Double::new(vec![StageRules { slots: 3, batch, ..stage("a") }]);
    double.arrive(0);
    double
}

#[test]
fn an_idle_worker_waits_for_nobody() {
    let mut double = at_once();
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    for value in ["1", "2"] {
        double.submit("a", value);
        double.expect([]);
    }
    // They have gathered, and go as soon as there is a worker, however long that took.
    double.arrive(0);
    double.expect(["a.1 runs r2.1 try 1: 1, and", "a.1 gets r3.1 try 1: 2"]);
    for value in ["3", "4", "5", "6"] {
        double.submit("a", value);
        double.expect([]);
    }
    double.next("a.0", "X");
    double.expect([
        "r1 = value X",
        "a.0 runs r4.1 try 1: 3, and",
        "a.0 gets r5.1 try 1: 4, and",
        "a.0 gets r6.1 try 1: 5",
    ]);
}

#[test]
fn what_comes_together_goes_together() {
    let batch = Some(Batch { wait: Duration::ZERO, idle: Duration::ZERO, weighed: false });
    let rules = StageRules { slots: 3, batch, ..stage("a") };
    let named = (0..4).map(|at| (format!("b{at}"), Path::Stage(StageId(0)))).collect();
    let scatter = Scatter {
        over: Over::Branches(named),
        timeout: None,
        on_failure: OnFailure::Fail,
        fallback: None,
        fallback_on: FallbackOn::default(),
    };
    let steps = vec![Step::Scatter(Box::new(scatter))];
    let mut double = Double::with(vec![rules], vec![("all".to_owned(), steps)], 64);
    double.arrive(0);
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x, and", "a.0 gets r1.2 try 1: x, and", "a.0 gets r1.3 try 1: x"]);
}

#[test]
fn gathering_for_a_batch_is_no_reason_to_grow() {
    let millis = Duration::from_millis;
    let batch = Some(Batch { wait: millis(500), idle: Duration::ZERO, weighed: false });
    let scale = Some(Scale { min: 1, max: 2, wait: millis(100), idle: Duration::from_secs(30) });
    let mut double = Double::new(vec![StageRules { slots: 3, batch, scale, ..stage("a") }]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("a", "y");
    double.wait(499);
    double.expect([]);
    double.wait(2);
    double.expect(["one more for a"]);
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
    let batch = Some(Batch { wait: Duration::ZERO, idle: Duration::from_millis(50), weighed: true });
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
