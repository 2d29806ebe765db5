//! Pools that size themselves.

use std::time::Duration;

use evener_core::{Batch, Scale, StageId, StageRules, Step};

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

fn scaled(min: u32, max: u32) -> StageRules {
    let scale = Scale { min, max, wait: Duration::from_millis(100), idle: Duration::from_secs(10) };
    StageRules { scale: Some(scale), ..stage("a") }
}

/// Other rules for the one stage.
fn reload(double: &mut Double, rules: StageRules) {
    double.reload(vec![rules], vec![("all".to_owned(), vec![Step::Stage(StageId(0))])]);
}

/// So many workers, all idle, where there are to be so many at any time.
fn steady(workers: u32) -> Double {
    let mut double = Double::new(vec![scaled(workers, workers)]);
    (0..workers).for_each(|_| double.arrive(0));
    double
}

#[test]
fn workers_above_a_higher_least_are_not_let_go() {
    let mut double = large();
    reload(&mut double, scaled(3, 5));
    double.expect(["the old plan is done"]);
    assert_eq!(double.core.wanted(StageId(0)), Some(3));
    double.wait(60_000);
    double.expect([]);
}

#[test]
fn workers_above_a_lower_least_go_when_nobody_has_needed_them() {
    let mut double = steady(4);
    reload(&mut double, scaled(1, 4));
    double.expect(["the old plan is done"]);
    assert_eq!(double.core.wanted(StageId(0)), Some(4), "it has as many as it may");
    double.wait(9_000);
    double.expect([]);
    double.wait(1_001);
    double.expect(["a.0 leaves for good", "a.1 leaves for good", "a.2 leaves for good"]);
}

#[test]
fn a_lower_most_lets_go_what_is_too_many_and_who_is_at_work_last() {
    let mut double = steady(4);
    double.submit("a", "x");
    double.expect(["a.3 runs r1.1 try 1: x"]);
    double.submit("a", "y");
    double.expect(["a.2 runs r2.1 try 1: y"]);
    reload(&mut double, scaled(1, 1));
    double.expect(["a.0 leaves for good", "a.1 leaves for good"]);
    assert_eq!(double.core.wanted(StageId(0)), Some(1));
    double.next("a.2", "v");
    double.expect(["a.2 leaves for good", "r2 = value v"]);
    double.submit("a", "z");
    double.wait(30_000);
    double.expect([]);
    double.next("a.3", "v");
    double.expect(["the old plan is done", "r1 = value v", "a.3 runs r3.1 try 1: z"]);
}

#[test]
fn a_pool_that_had_one_size_for_a_while_sizes_itself_as_before() {
    let mut double = large();
    reload(&mut double, stage("a"));
    double.expect(["the old plan is done"]);
    assert_eq!(double.core.wanted(StageId(0)), None);
    for worker in ["a.0", "a.1"] {
        double.retire(worker);
        double.expect([&format!("{worker} leaves for good")]);
        double.lose(worker);
    }
    double.wait(60_000);
    double.expect([]);
    reload(&mut double, scaled(1, 3));
    double.expect(["the old plan is done"]);
    assert_eq!(double.core.wanted(StageId(0)), Some(1));
    double.submit("a", "1");
    double.expect(["a.2 runs r4.1 try 1: 1"]);
    double.submit("a", "2");
    double.wait(101);
    double.expect(["one more for a"]);
    double.arrive(0);
    double.expect(["a.3 runs r5.1 try 1: 2"]);
    double.several = true;
    double.next("a.2", "v");
    double.next("a.3", "v");
    double.clear();
    double.wait(20_001);
    double.expect(["a.2 leaves for good"]);
}

#[test]
fn a_worker_that_came_back_before_it_heard_that_it_was_to_go_is_let_go_again() {
    let mut double = large();
    double.wait(20_000);
    double.expect(["a.0 leaves for good", "a.1 leaves for good"]);
    double.lose("a.0");
    double.lose("a.1");
    double.arrive(0);
    double.arrive(0);
    assert_eq!(double.core.wanted(StageId(0)), Some(3));
    double.wait(20_001);
    assert_eq!(double.seen().len(), 2, "{:?}", double.seen());
    assert_eq!(double.core.wanted(StageId(0)), Some(1));
    double.clear();
}

#[test]
fn a_worker_that_takes_the_place_of_another_is_none_more() {
    let mut double = pool();
    double.arrive(0);
    double.retire("a.0");
    double.expect(["a.0 leaves for good"]);
    double.lose("a.0");
    assert_eq!(double.core.wanted(StageId(0)), Some(1));
    double.wait(60_000);
    double.expect([]);
}

#[test]
fn nobody_leaves_while_jobs_wait_for_others_of_their_batch() {
    let batch = Some(Batch { wait: Duration::ZERO, idle: Duration::from_secs(30), weighed: false });
    let mut double = Double::new(vec![StageRules { slots: 2, batch, ..scaled(1, 3) }]);
    double.arrive(0);
    double.arrive(0);
    double.wait(5_000);
    double.submit("a", "x");
    double.wait(5_001);
    double.expect([]);
    double.submit("a", "y");
    let both = ["a.1 runs r1.1 try 1: x, and", "a.1 gets r2.1 try 1: y"];
    double.expect(both);
}
