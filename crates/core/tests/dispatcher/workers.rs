//! Who of the workers gets the next job.

use std::collections::BTreeMap;

use evener_core::{StageId, StageRules};

use crate::double::{Double, stage};

/// Its memory is still warm.
#[test]
fn the_worker_that_got_idle_last_gets_the_next_job() {
    let mut double = Double::new(vec![stage("a")]);
    (0..3).for_each(|_| double.arrive(0));
    for request in 1..9 {
        double.submit("a", "x");
        double.expect([format!("a.2 runs r{request}.1 try 1: x").as_str()]);
        double.next("a.2", "y");
        double.expect([format!("r{request} = value y").as_str()]);
    }
    for worker in ["a.2", "a.1", "a.0"] {
        let request = double.submit("a", "x");
        double.expect([format!("{worker} runs r{request}.1 try 1: x").as_str()]);
    }
    for worker in ["a.1", "a.0", "a.2"] {
        double.next(worker, "y");
        double.clear();
    }
    double.submit("a", "x");
    double.expect(["a.2 runs r12.1 try 1: x"]);
}

#[test]
fn a_worker_leaves_after_its_share_and_another_takes_its_place() {
    let mut double = Double::new(vec![StageRules { max_jobs_per_worker: Some(2), ..stage("a") }]);
    double.arrive(0);
    for payload in ["1", "2", "3"] {
        double.submit("a", payload);
        double.clear();
    }
    double.next("a.0", "");
    double.expect(["r1 = value ", "a.0 runs r2.1 try 1: 2"]);
    double.next("a.0", "");
    double.expect(["a.0 retires", "r2 = value "]);
    assert_eq!(double.queued(0), 1);
    double.arrive(0);
    double.expect(["a.1 runs r3.1 try 1: 3"]);
    double.lose("a.0");
    double.expect([]);
    let counts = double.core.counts(StageId(0));
    assert_eq!((counts.workers, counts.lost), (1, 0), "a worker that has left is not lost");
}

#[test]
fn cancelled_jobs_count_towards_the_share() {
    let mut double = Double::new(vec![StageRules { max_jobs_per_worker: Some(1), ..stage("a") }]);
    double.arrive(0);
    let request = double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.cancel(request);
    double.expect(["a.0 is told"]);
    double.next("a.0", "late");
    double.expect(["a.0 retires"]);
}

#[test]
fn an_idle_worker_that_dies_is_handed_nothing() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.arrive(0);
    double.lose("a.0");
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.submit("a", "y");
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).lost, 1);
}

#[test]
fn a_worker_dies_but_once() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.lose("a.0");
    double.lose("a.0");
    assert_eq!(double.core.counts(StageId(0)).lost, 1);
    assert_eq!(double.core.counts(StageId(0)).workers, 0);
}

#[test]
fn all_are_at_work_when_there_is_enough_to_do_and_then_work_spreads_evenly() {
    let mut double = Double::new(vec![stage("a")]);
    (0..7).for_each(|_| double.arrive(0));
    let mut done: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..14 {
        double.submit("a", "x");
        double.clear();
    }
    for round in 0..20 {
        for worker in 0..7 {
            let worker = format!("a.{worker}");
            double.next(&worker, "y");
            if round < 18 {
                assert_eq!(double.runner(), worker);
                double.clear();
                double.submit("a", "x");
            }
            double.clear();
            *done.entry(worker).or_default() += 1;
        }
    }
    assert_eq!(done.into_values().collect::<Vec<_>>(), [20; 7]);
    assert_eq!(double.core.pending(), 0);
}
