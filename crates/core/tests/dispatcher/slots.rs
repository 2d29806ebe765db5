//! Workers that do several jobs at the same time.

use std::time::Duration;

use evener_core::{Failure, Outcome, RetryOn, StageId, StageRules, Terms};

use crate::double::{Double, on, stage};

/// One worker with three slots, whose jobs may take a second, and have a second of grace.
fn three_slots() -> Double {
    let rules = StageRules { slots: 3, timeout: Duration::from_secs(1), grace: Duration::from_secs(1), ..stage("a") };
    let mut double = Double::new(vec![rules]);
    double.arrive(0);
    double
}

fn full() -> Double {
    let mut double = three_slots();
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("a", "y");
    double.expect(["a.0 gets r2.1 try 1: y"]);
    double.submit("a", "z");
    double.expect(["a.0 gets r3.1 try 1: z"]);
    double
}

#[test]
fn a_worker_gets_a_job_for_each_of_its_slots_and_ends_them_in_any_order() {
    let mut double = full();
    double.submit("a", "w");
    double.expect([]);
    assert_eq!(double.queued(0), 1);
    let [first, second, third] = double.hands("a.0")[..] else { panic!("it holds three") };
    assert!(double.bring(third, Outcome::Next("c")));
    double.expect(["r3 = value c", "a.0 gets r4.1 try 1: w"]);
    assert!(double.bring(first, Outcome::Next("a")));
    double.expect(["r1 = value a"]);
    assert!(!double.bring(first, Outcome::Next("again")), "it does not hold that any more");
    assert!(double.bring(second, Outcome::Next("b")));
    double.expect(["r2 = value b"]);
}

#[test]
fn all_that_a_dead_worker_was_at_is_tried_again() {
    let mut double = full();
    double.lose("a.0");
    let retries = &double.retried;
    assert_eq!(retries.len(), 3, "{retries:?}");
    double.arrive(0);
    assert_eq!(double.seen().len(), 3);
    double.clear();
}

/// A job that hangs has run into its timeout, and a second one, of this payload, has all the time it wants in the same worker.
fn beside_one_that_hangs(rules: StageRules, payload: &'static str) -> Double {
    let rules = StageRules { slots: 2, timeout: Duration::from_secs(1), grace: Duration::from_secs(1), ..rules };
    let mut double = Double::new(vec![rules]);
    double.arrive(0);
    double.submit("a", "hangs");
    double.expect(["a.0 runs r1.1 try 1: hangs"]);
    double.submit_with("a", payload, on(Terms { timeout: Some(Duration::from_secs(60)), ..Terms::default() }));
    double.expect([&format!("a.0 gets r2.1 try 1: {payload}")]);
    double.wait(1001);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout"]);
    double
}

#[test]
fn a_job_that_hangs_lets_its_neighbours_end_first_and_costs_them_no_try() {
    let mut double = beside_one_that_hangs(stage("a"), "y");
    // Its grace ends: no new jobs, and another grace for the one that is left.
    double.wait(1000);
    double.expect([]);
    double.submit("a", "next");
    double.wait(990);
    double.expect([]);
    assert_eq!(double.queued(0), 1);
    double.wait(11);
    double.expect(["a.0 gets SIGTERM"]);
    double.lose("a.0");
    assert!(double.retried.is_empty(), "{:?}", double.retried);
    double.arrive(0);
    double.expect(["a.1 runs r2.1 try 1: y", "a.1 gets r3.1 try 1: next"]);
}

#[test]
fn a_neighbour_whose_client_has_got_something_never_begins_again() {
    let mut double = beside_one_that_hangs(stage("a"), "streams");
    assert!(double.chunk("a.0", "piece"));
    double.expect(["r2 gets piece"]);
    double.wait(2001);
    double.expect(["a.0 gets SIGTERM"]);
    double.lose("a.0");
    double.expect(["r2 = 502 worker-died"]);
    double.arrive(0);
    double.expect([]);
}

#[test]
fn nor_does_one_of_a_stage_whose_jobs_begin_only_once() {
    let retry_on = RetryOn { lost: false, timeout: false, error: false };
    let mut double = beside_one_that_hangs(StageRules { retry_on, ..stage("a") }, "once");
    double.wait(2001);
    double.expect(["a.0 gets SIGTERM"]);
    double.lose("a.0");
    double.expect(["r2 = 502 worker-died"]);
    double.arrive(0);
    double.expect([]);
}

#[test]
fn a_worker_with_its_share_done_takes_no_more_and_leaves_when_the_last_job_is_done() {
    let rules = StageRules { slots: 2, max_jobs_per_worker: Some(1), ..stage("a") };
    let mut double = Double::new(vec![rules]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("a", "y");
    double.expect(["a.0 gets r2.1 try 1: y"]);
    double.submit("a", "z");
    double.expect([]);
    let [first, second] = double.hands("a.0")[..] else { panic!("it holds two") };
    assert!(double.bring(first, Outcome::Next("a")));
    double.expect(["r1 = value a"]);
    assert!(double.bring(second, Outcome::Next("b")));
    double.expect(["a.0 retires", "r2 = value b"]);
    double.lose("a.0");
    double.expect([]);
    double.arrive(0);
    double.expect(["a.1 runs r3.1 try 1: z"]);
}

#[test]
fn a_worker_that_runs_out_of_memory_and_then_dies_is_lost_once() {
    let mut double = full();
    double.several = true;
    let [first, second, _] = double.hands("a.0")[..] else { panic!("it holds three") };
    let out_of_memory = || Outcome::Fail(Failure::OutOfMemory { message: String::new() });
    assert!(double.bring(first, out_of_memory()));
    assert!(double.bring(second, out_of_memory()));
    double.lose("a.0");
    double.clear();
    assert_eq!(double.core.counts(StageId(0)).lost, 1);
}

#[test]
fn what_such_a_worker_says_of_jobs_ahead_is_of_no_account() {
    let mut double = Double::new(vec![StageRules { slots: 2, ..stage("a") }]);
    double.several = true;
    double.ran = Duration::from_micros(10);
    double.arrive(0);
    for _ in 0..20 {
        double.submit("a", "q");
        double.next("a.0", "v");
    }
    double.credit("a.0", 4);
    double.clear();
    (0..4).for_each(|_| _ = double.submit("a", "x"));
    double.expect(["a.0 runs r21.1 try 1: x", "a.0 gets r22.1 try 1: x"]);
    assert_eq!(double.queued(0), 2);
}
