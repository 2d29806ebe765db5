//! Stages that give equal keys to the same worker while it is free.

use std::collections::BTreeSet;
use std::time::Duration;

use evener_core::{Failure, StageRules};

use crate::double::{Double, stage, within};

fn workers(count: u32) -> Double {
    let mut double = Double::new(vec![StageRules { affinity: true, ..stage("a") }]);
    (0..count).for_each(|_| double.arrive(0));
    double
}

/// Lets a job with that key through, and says which worker did it.
fn done(double: &mut Double, key: u32) -> String {
    let request = double.submit("a", "v");
    double.expect([&format!("which key has r{request}: v")]);
    double.has_key(request, Ok(key));
    let worker = double.runner();
    double.clear();
    double.next(&worker, "w");
    double.expect([&format!("r{request} = value w")]);
    worker
}

#[test]
fn equal_keys_go_to_the_same_worker_and_others_are_spread() {
    let mut double = workers(8);
    let mut used = BTreeSet::new();
    for key in 1..200 {
        let worker = done(&mut double, key);
        assert_eq!(worker, done(&mut double, key), "key {key}");
        used.insert(worker);
    }
    assert_eq!(used.len(), 8, "{used:?}");
}

#[test]
fn one_that_is_busy_makes_nobody_wait() {
    let mut double = workers(2);
    let first = done(&mut double, 7);
    double.submit("a", "x");
    double.clear();
    double.has_key(2, Ok(7));
    assert_eq!(double.runner(), first);
    double.clear();
    double.submit("a", "y");
    double.clear();
    double.has_key(3, Ok(7));
    assert_ne!(double.runner(), first, "the other is free");
    double.clear();
}

#[test]
fn few_keys_move_when_a_worker_goes() {
    let mut double = workers(8);
    let before: Vec<String> = (1..100).map(|key| done(&mut double, key)).collect();
    double.lose("a.3");
    double.expect([]);
    for (key, before) in (1..100).zip(before) {
        let after = done(&mut double, key);
        assert!(after == before || before == "a.3", "key {key} moved from {before} to {after}");
    }
}

#[test]
fn a_job_waits_for_its_key_and_may_end_meanwhile() {
    let mut double = workers(1);
    double.submit_with("a", "v", within(100));
    double.expect(["which key has r1: v"]);
    double.wait(101);
    double.expect(["r1 = 504 deadline-exceeded"]);
    double.has_key(1, Ok(3));
    double.expect([]);

    double.submit("a", "v");
    double.expect(["which key has r2: v"]);
    double.cancel(2);
    double.expect([]);
    double.has_key(2, Ok(3));
    double.expect([]);

    double.submit("a", "v");
    double.expect(["which key has r3: v"]);
    double.has_key(3, Err(Failure::Filter { detail: "cannot index".into() }));
    double.expect(["r3 = 500 filter-failed"]);

    double.submit("a", "v");
    double.expect(["which key has r4: v"]);
    double.has_key(4, Ok(0));
    double.expect(["a.0 runs r4.1 try 1: v"]);
    double.has_key(4, Ok(0));
    double.expect([]);
}

/// The one that has its key may be free before the one that takes it ahead.
#[test]
fn nothing_goes_ahead_however_quick_it_is() {
    let mut double = workers(1);
    double.ran = Duration::from_micros(50);
    for _ in 0..20 {
        done(&mut double, 7);
    }
    double.credit("a.0", 4);
    for (request, said) in [(21, &["a.0 runs r21.1 try 1: x"][..]), (22, &[])] {
        double.submit("a", "x");
        double.expect([&format!("which key has r{request}: x")]);
        double.has_key(request, Ok(7));
        assert_eq!(double.seen(), said);
        double.clear();
    }
    assert_eq!(double.queued(0), 1);
}

#[test]
fn a_job_whose_key_is_not_known_yet_has_a_place_in_the_queue() {
    let mut double = Double::new(vec![StageRules { affinity: true, queue: 3, ..stage("a") }]);
    for request in 1..=3 {
        double.submit("a", "x");
        double.expect([&format!("which key has r{request}: x")]);
    }
    double.submit("a", "x");
    double.expect(["r4 refused: 429 queue-full"]);
    assert!(double.problem().detail.starts_with("3 jobs wait for stage `a`"), "{}", double.problem().detail);
    double.has_key(1, Ok(7));
    double.submit("a", "x");
    double.expect(["r5 refused: 429 queue-full"]);
    double.cancel(2);
    double.submit("a", "x");
    double.expect(["which key has r6: x"]);
    double.has_key(3, Err(Failure::Filter { detail: String::new() }));
    double.expect(["r3 = 500 filter-failed"]);
    double.submit("a", "x");
    double.expect(["which key has r7: x"]);
}
