//! Tries that are lost, and what follows them.

use std::time::Duration;

use evener_core::{Cause, Failure, FallbackOn, RetryOn, StageId, StageRules};

use crate::double::{Double, NO_FALLBACK, Wish, raised, stage};

fn one(rules: StageRules, workers: u32) -> Double {
    let mut double = Double::new(vec![rules]);
    (0..workers).for_each(|_| double.arrive(0));
    double
}

fn retrying(timeout: bool, error: bool) -> StageRules {
    StageRules { retry_on: RetryOn { lost: true, timeout, error }, timeout: Duration::from_millis(500), ..stage("a") }
}

#[test]
fn a_lost_job_goes_to_an_idle_worker_at_once() {
    let mut double = one(stage("a"), 2);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.lose("a.1");
    double.expect(["a.0 runs r1.1 try 2: x"]);
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
    let counts = double.core.counts(StageId(0));
    assert_eq!((counts.started, counts.retried, counts.lost, counts.done, counts.failed), (2, 1, 1, 1, 0));
}

#[test]
fn a_lost_job_goes_to_the_front_of_the_queue() {
    let mut double = one(stage("a"), 1);
    double.submit("a", "first");
    double.expect(["a.0 runs r1.1 try 1: first"]);
    double.submit("a", "second");
    double.lose("a.0");
    assert_eq!(double.queued(0), 2);
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: first"]);
}

#[test]
fn the_second_retry_waits_and_the_next_twice_as_long() {
    let mut double = one(StageRules { retries: 3, ..stage("a") }, 4);
    double.submit("a", "x");
    double.expect(["a.3 runs r1.1 try 1: x"]);
    double.lose("a.3");
    double.expect(["a.2 runs r1.1 try 2: x"]);
    double.lose("a.2");
    double.wait(99);
    double.expect([]);
    double.wait(1);
    double.expect(["a.1 runs r1.1 try 3: x"]);
    double.lose("a.1");
    double.wait(199);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 runs r1.1 try 4: x"]);
    double.lose("a.0");
    double.expect(["r1 = 502 worker-died"]);
}

#[test]
fn a_backoff_of_its_own_holds_from_the_first_retry_on() {
    let rules = StageRules { backoff: Some(Duration::from_millis(40)), ..stage("a") };
    let mut double = one(rules, 3);
    double.submit("a", "x");
    double.expect(["a.2 runs r1.1 try 1: x"]);
    double.lose("a.2");
    double.wait(39);
    double.expect([]);
    double.wait(1);
    double.expect(["a.1 runs r1.1 try 2: x"]);
    double.lose("a.1");
    double.wait(79);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 runs r1.1 try 3: x"]);
}

#[test]
fn a_delayed_job_goes_in_front_of_those_that_came_meanwhile() {
    let rules = StageRules { backoff: Some(Duration::from_millis(40)), ..stage("a") };
    let mut double = one(rules, 1);
    double.submit("a", "first");
    double.expect(["a.0 runs r1.1 try 1: first"]);
    double.lose("a.0");
    double.submit("a", "second");
    double.submit("a", "third");
    double.wait(40);
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: first"]);
    double.arrive(0);
    double.expect(["a.2 runs r2.1 try 1: second"]);
}

#[test]
fn spent_tries_are_a_502_with_the_cause_and_the_certificate() {
    let mut double = one(StageRules { retries: 0, ..stage("a") }, 1);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.lose("a.0");
    double.expect(["r1 = 502 worker-died"]);
    let problem = double.problem();
    assert!(problem.detail.contains("was killed by SIGKILL"), "{}", problem.detail);
    assert_eq!(problem.cause, Some(Cause::Died("signal 9, peak 12 MiB".to_owned())));
    assert_eq!((problem.tries, problem.stage), (1, Some(StageId(0))));
}

#[test]
fn a_command_that_fails_is_tried_again_like_a_function_that_raises() {
    let failure = || Failure::Command { detail: "exited with code 3".to_owned(), stderr: "secret".to_owned() };
    let retry_on = RetryOn { lost: false, timeout: false, error: true };
    let mut double = one(StageRules { retries: 1, retry_on, ..stage("a") }, 1);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.fail("a.0", failure());
    double.expect([]);
    double.wait(100);
    double.expect(["a.0 runs r1.1 try 2: x"]);
    double.fail("a.0", failure());
    double.expect(["r1 = 500 command-failed"]);
    let problem = double.problem();
    assert_eq!(problem.detail, "the command of stage `a` exited with code 3 (try 2)");
    assert_eq!(problem.cause, Some(Cause::Said("secret".to_owned())));
    let mut double = one(stage("a"), 1);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.fail("a.0", failure());
    double.expect(["r1 = 500 command-failed"]);
}

#[test]
fn a_stage_may_refuse_to_retry_after_a_loss() {
    let retry_on = RetryOn { lost: false, timeout: false, error: false };
    let mut double = one(StageRules { retry_on, ..stage("a") }, 2);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.lose("a.1");
    double.expect(["r1 = 502 worker-died"]);
}

#[test]
fn each_job_of_a_request_has_tries_of_its_own() {
    let rules = |name| StageRules { retries: 1, ..stage(name) };
    let mut double = Double::new(vec![rules("a"), rules("b")]);
    for stage in [0, 0, 1, 1] {
        double.arrive(stage);
    }
    double.submit("all", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.lose("a.1");
    double.expect(["a.0 runs r1.1 try 2: x"]);
    double.next("a.0", "y");
    double.expect(["b.1 runs r1.2 try 1: y"]);
    double.lose("b.1");
    double.expect(["b.0 runs r1.2 try 2: y"]);
    double.lose("b.0");
    double.expect(["r1 = 502 worker-died"]);
}

#[test]
fn an_error_is_retried_only_where_the_stage_says_so() {
    let mut double = one(retrying(false, false), 2);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.fail("a.1", raised("OSError"));
    double.expect(["r1 = 500 function-failed"]);

    let mut double = one(retrying(false, true), 1);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.fail("a.0", raised("OSError"));
    double.wait(99);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 runs r1.1 try 2: x"]);
    double.fail("a.0", raised("OSError"));
    double.wait(200);
    double.expect(["a.0 runs r1.1 try 3: x"]);
    double.fail("a.0", raised("OSError"));
    double.expect(["r1 = 500 function-failed"]);
    assert_eq!(double.problem().tries, 3);
}

#[test]
fn a_timeout_is_retried_only_where_the_stage_says_so() {
    let mut double = one(retrying(false, false), 2);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.wait(500);
    double.expect(["a.1 is told", "r1 = 504 stage-timeout"]);

    let mut double = one(retrying(true, false), 2);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.wait(500);
    double.expect(["a.1 is told"]);
    double.wait(100);
    double.expect(["a.0 runs r1.1 try 2: x"]);
}

#[test]
fn what_the_function_decided_is_never_retried() {
    let failures = [
        (Failure::Abort { status: 400, detail: String::new() }, "r1 = 400 aborted"),
        (Failure::Decode { detail: String::new() }, "r1 = 400 bad-body"),
        (Failure::Encode { detail: String::new() }, "r1 = 500 result-not-encodable"),
        (Failure::TooLarge { detail: String::new() }, "r1 = 500 result-too-large"),
        (Failure::NoRoom { detail: String::new() }, "r1 = 429 memory-full"),
    ];
    for (failure, answer) in failures {
        let mut double = one(retrying(true, true), 2);
        double.submit("a", "x");
        double.expect(["a.1 runs r1.1 try 1: x"]);
        double.fail("a.1", failure);
        double.expect([answer]);
        let counts = double.core.counts(StageId(0));
        assert_eq!((counts.retried, counts.failed), (0, 1));
    }
}

#[test]
fn out_of_memory_counts_as_lost_and_the_worker_gets_no_more_jobs() {
    let mut double = one(StageRules { retries: 1, ..stage("a") }, 2);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double.submit("a", "other");
    double.expect(["a.0 runs r2.1 try 1: other"]);
    double.fail("a.1", Failure::OutOfMemory { message: "MemoryError".to_owned() });
    double.expect([]);
    double.next("a.0", "done");
    double.expect(["r2 = value done", "a.0 runs r1.1 try 2: x"]);
    double.lose("a.1");
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).lost, 1, "one death is counted once");
    double.fail("a.0", Failure::OutOfMemory { message: "MemoryError".to_owned() });
    double.expect(["r1 = 502 worker-died"]);
    assert!(double.problem().detail.contains("ran out of memory"));
}

#[test]
fn a_lost_worker_may_have_a_fallback() {
    let mut double = one(StageRules { retries: 0, ..stage("a") }, 1);
    let fallback_on = FallbackOn { lost: true, ..NO_FALLBACK };
    double.submit_with("a", "x", Wish { fallback_on, ..Wish::default() });
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.lose("a.0");
    double.expect(["r1 = fallback for worker-died"]);
}
