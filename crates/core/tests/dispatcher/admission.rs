//! Who is let in.

use std::time::Duration;

use evener_core::{StageId, StageRules};

use crate::double::{Double, stage};

fn small(name: &str, queue: usize) -> StageRules {
    StageRules { queue, ..stage(name) }
}

#[test]
fn a_full_queue_refuses_with_the_time_to_come_back() {
    let mut double = Double::new(vec![small("a", 4)]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    for _ in 0..4 {
        double.submit("a", "x");
    }
    for done in 1..=3 {
        double.wait(2_000);
        double.next("a.0", "y");
        double.expect([format!("r{done} = value y").as_str(), format!("a.0 runs r{}.1 try 1: x", done + 1).as_str()]);
        double.submit("a", "x");
    }
    double.submit("a", "x");
    double.expect(["r9 refused: 429 queue-full"]);
    let problem = double.problem();
    assert_eq!(problem.retry_after, Some(Duration::from_secs(8)), "4 jobs wait, and one leaves every 2 s");
    assert_eq!(problem.stage, Some(StageId(0)));
    assert!(problem.detail.contains("4 jobs wait for stage `a`"), "{}", problem.detail);
}

#[test]
fn the_time_to_come_back_follows_a_slow_stage() {
    let mut double = Double::new(vec![small("a", 2)]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("a", "x");
    for done in 1..=40 {
        double.wait(20_000);
        double.next("a.0", "y");
        double.expect([format!("r{done} = value y").as_str(), format!("a.0 runs r{}.1 try 1: x", done + 1).as_str()]);
        double.submit("a", "x");
    }
    double.submit("a", "x");
    double.submit("a", "x");
    double.expect(["r44 refused: 429 queue-full"]);
    assert_eq!(double.problem().retry_after, Some(Duration::from_secs(40)), "2 jobs wait, and one leaves every 20 s");
}

#[test]
fn the_time_to_come_back_is_between_a_second_and_a_minute() {
    let mut double = Double::new(vec![small("a", 1)]);
    double.submit("a", "x");
    double.submit("a", "x");
    double.expect(["r2 refused: 429 queue-full"]);
    assert_eq!(double.problem().retry_after, Some(Duration::from_secs(1)));
    double.arrive(0);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("a", "x");
    double.wait(3_000_000);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout", "a.0 gets SIGTERM", "a.0 gets SIGKILL"]);
    double.submit("a", "x");
    double.expect(["r4 refused: 429 queue-full"]);
    assert_eq!(double.problem().retry_after, Some(Duration::from_secs(60)));
}

#[test]
fn a_quiet_hour_does_not_make_a_stage_slow() {
    let mut double = Double::new(vec![small("a", 2)]);
    double.arrive(0);
    for request in 1..=5 {
        double.submit("a", "x");
        double.clear();
        double.next("a.0", "y");
        double.clear();
        double.wait(if request < 5 { 3_600_000 } else { 100 });
    }
    for _ in 6..=8 {
        double.submit("a", "x");
        double.clear();
    }
    double.submit("a", "x");
    double.expect(["r9 refused: 429 queue-full"]);
    assert_eq!(double.problem().retry_after, Some(Duration::from_secs(1)));
}

#[test]
fn a_full_stage_refuses_every_path_that_contains_it() {
    let mut double = Double::new(vec![stage("a"), small("b", 1)]);
    double.submit("b", "x");
    double.submit("all", "x");
    double.expect(["r2 refused: 429 queue-full"]);
    assert_eq!(double.problem().stage, Some(StageId(1)));
    double.submit("a", "x");
    double.expect([]);
}

#[test]
fn inner_hops_are_never_refused() {
    let pipelines = vec![("ring".to_owned(), vec![StageId(0), StageId(1)])];
    let mut double = Double::with(vec![small("a", 1), small("b", 1)], pipelines, 1000);
    double.arrive(0);
    double.arrive(1);
    double.submit("a", "1");
    double.expect(["a.0 runs r1.1 try 1: 1"]);
    double.submit("b", "2");
    double.expect(["b.0 runs r2.1 try 1: 2"]);
    double.submit("a", "3");
    double.submit("b", "4");
    // Both queues are full, and both workers send their job to the other stage, round after round.
    double.goto("a.0", "b", "1");
    double.expect(["a.0 runs r3.1 try 1: 3"]);
    assert_eq!(double.queued(1), 2, "over its limit");
    double.goto("b.0", "a", "2");
    double.expect(["b.0 runs r4.1 try 1: 4"]);
    double.goto("a.0", "b", "3");
    double.expect(["a.0 runs r2.2 try 1: 2"]);
    double.goto("b.0", "a", "4");
    double.expect(["b.0 runs r1.2 try 1: 1"]);
    double.submit("b", "5");
    double.expect(["r5 refused: 429 queue-full"]);
    double.next("b.0", "1");
    double.expect(["r1 = value 1", "b.0 runs r3.2 try 1: 3"]);
    double.next("b.0", "3");
    double.expect(["r3 = value 3"]);
    double.next("a.0", "2");
    double.expect(["r2 = value 2", "a.0 runs r4.2 try 1: 4"]);
    double.next("a.0", "4");
    double.expect(["r4 = value 4"]);
}

#[test]
fn a_broken_stage_answers_what_waits_and_refuses_what_comes() {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.submit("b", "1");
    double.submit("b", "2");
    double.break_stage(1);
    double.expect(["r1 = 503 stage-broken", "r2 = 503 stage-broken"]);
    assert_eq!(double.problem().stage, Some(StageId(1)));
    assert_eq!(double.core.counts(StageId(1)).broken.as_deref(), Some("no module named numpy"));
    assert!(!double.problem().detail.contains("numpy"), "why it broke is for the log");
    double.submit("all", "3");
    double.expect(["r3 refused: 503 stage-broken"]);
    double.submit("a", "4");
    double.expect(["a.0 runs r4.1 try 1: 4"]);
    double.next("a.0", "fine");
    double.expect(["r4 = value fine"]);
}

#[test]
fn a_request_that_is_on_its_way_ends_at_a_broken_stage() {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.break_stage(1);
    double.expect([]);
    double.next("a.0", "y");
    double.expect(["r1 = 503 stage-broken"]);
}

#[test]
fn a_job_that_is_to_be_tried_again_ends_at_a_broken_stage() {
    let mut double = Double::new(vec![StageRules { backoff: Some(Duration::from_millis(50)), ..stage("a") }]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.lose("a.0");
    double.break_stage(0);
    double.wait(50);
    double.expect(["r1 = 503 stage-broken"]);
}

#[test]
fn a_worker_that_is_up_mends_its_stage() {
    let mut double = Double::new(vec![stage("a")]);
    double.break_stage(0);
    double.arrive(0);
    assert_eq!(double.core.counts(StageId(0)).broken, None);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
}

#[test]
fn a_stage_with_a_worker_is_not_broken() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("a", "y");
    double.break_stage(0);
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).broken, None);
}

#[test]
fn jobs_that_a_broken_stage_answers_say_nothing_about_its_speed() {
    let mut double = Double::new(vec![small("a", 10)]);
    for _ in 0..10 {
        double.submit("a", "x");
    }
    double.arrive(0);
    double.clear();
    for _ in 0..3 {
        double.wait(4_000);
        double.next("a.0", "y");
        double.clear();
    }
    double.lose("a.0");
    double.break_stage(0);
    double.clear();
    double.arrive(0);
    for _ in 0..11 {
        double.submit("a", "x");
        double.clear();
    }
    double.submit("a", "x");
    double.expect(["r22 refused: 429 queue-full"]);
    assert_eq!(double.problem().retry_after.map(|wait| wait.as_secs() > 10), Some(true));
}
