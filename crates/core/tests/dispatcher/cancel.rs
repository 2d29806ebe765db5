//! Clients that go away, wherever their job is.

use std::time::Duration;

use evener_core::{StageId, StageRules};

use crate::double::{Double, stage};

#[test]
fn a_queued_job_is_dropped_and_never_runs() {
    let mut double = Double::new(vec![stage("a")]);
    for payload in ["1", "2", "3"] {
        double.submit("a", payload);
    }
    double.cancel(2);
    double.expect([]);
    assert_eq!(double.queued(0), 2);
    double.arrive(0);
    double.expect(["a.0 runs r1.1 try 1: 1"]);
    double.next("a.0", "");
    double.expect(["r1 = value ", "a.0 runs r3.1 try 1: 3"]);
    assert_eq!(double.core.totals().cancelled, 1);
}

#[test]
fn the_first_and_the_last_in_a_queue_can_go() {
    let mut double = Double::new(vec![stage("a")]);
    for payload in ["1", "2", "3"] {
        double.submit("a", payload);
    }
    double.cancel(1);
    double.cancel(3);
    double.submit("a", "4");
    double.arrive(0);
    double.expect(["a.0 runs r2.1 try 1: 2"]);
    double.arrive(0);
    double.expect(["a.1 runs r4.1 try 1: 4"]);
}

#[test]
fn a_delayed_job_is_dropped() {
    let mut double = Double::new(vec![StageRules { backoff: Some(Duration::from_millis(50)), ..stage("a") }]);
    double.arrive(0);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.lose("a.1");
    double.cancel(1);
    assert_eq!((double.core.pending(), double.core.next_timeout()), (0, None), "no timer stays behind");
    double.wait(60_000);
    double.expect([]);
}

#[test]
fn a_running_job_is_told_once_and_its_value_is_not_used() {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.arrive(1);
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.cancel(1);
    double.expect(["a.0 is told"]);
    double.cancel(1);
    double.expect([]);
    double.next("a.0", "y");
    double.expect([]);
    let totals = double.core.totals();
    assert_eq!((totals.accepted, totals.answered, totals.cancelled), (1, 0, 1));
    assert_eq!(double.core.next_timeout(), None);
}

#[test]
fn a_request_can_be_cancelled_at_its_second_stage() {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.arrive(1);
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y"]);
    double.cancel(1);
    double.expect(["b.0 is told"]);
    assert_eq!(double.core.counts(StageId(0)).idle, 1);
}

#[test]
fn a_worker_that_dies_with_a_cancelled_job_takes_nothing_along() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.cancel(1);
    double.expect(["a.1 is told"]);
    double.lose("a.1");
    double.wait(3_600_000);
    double.expect([]);
}

#[test]
fn a_cancelled_request_makes_room_for_another() {
    let mut double = Double::new(vec![StageRules { queue: 1, ..stage("a") }]);
    double.submit("a", "1");
    double.submit("a", "2");
    double.expect(["r2 refused: 429 queue-full"]);
    double.cancel(1);
    double.submit("a", "3");
    double.expect([]);
}
