//! Outcomes that come from the past or from the wrong hands.

use std::time::Duration;

use evener_core::{Failure, JobKey, Outcome, RetryOn, StageId, StageRules, WorkerKey};

use crate::double::{Double, Held, stage};

fn timing_out() -> StageRules {
    StageRules {
        timeout: Duration::from_millis(500),
        retry_on: RetryOn { lost: true, timeout: true, error: true },
        backoff: Some(Duration::ZERO),
        ..stage("a")
    }
}

fn two_workers() -> Double {
    let mut double = Double::new(vec![timing_out()]);
    double.arrive(0);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.1 runs r1.1 try 1: x"]);
    double
}

fn value() -> Outcome<&'static str> {
    Outcome::Next("forged")
}

#[test]
fn an_outcome_comes_but_once() {
    let mut double = two_workers();
    let held = double.held("a.1");
    double.next("a.1", "y");
    double.expect(["r1 = value y"]);
    assert!(!double.bring(held, value()));
    assert_eq!(double.core.worker_done(held.worker), Some(1));
}

#[test]
fn an_old_attempt_of_the_same_worker_is_refused() {
    let mut double = Double::new(vec![timing_out()]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    let first = double.held("a.0");
    double.fail("a.0", Failure::Error { name: "E".to_owned(), message: String::new(), traceback: String::new() });
    double.expect(["a.0 runs r1.1 try 2: x"]);
    let second = double.held("a.0");
    assert!(first.job == second.job && first.attempt < second.attempt);
    assert!(!double.bring(first, value()));
    assert!(!double.bring(Held { attempt: second.attempt + 1, ..second }, value()));
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
}

#[test]
fn a_job_in_other_hands_is_refused() {
    let mut double = two_workers();
    double.submit("a", "other");
    double.expect(["a.0 runs r2.1 try 1: other"]);
    let (zero, one) = (double.held("a.1"), double.held("a.0"));
    assert!(!double.bring(Held { worker: one.worker, ..zero }, value()));
    assert!(!double.bring(Held { worker: zero.worker, ..one }, value()));
    let nobody = Held { worker: WorkerKey::unpack(u64::MAX), ..zero };
    assert!(!double.bring(nobody, value()));
    assert!(!double.bring(Held { job: JobKey::unpack(u64::MAX), ..zero }, value()));
}

#[test]
fn an_idle_worker_has_nothing_to_bring() {
    let mut double = two_workers();
    double.submit("a", "other");
    double.expect(["a.0 runs r2.1 try 1: other"]);
    double.next("a.0", "y");
    double.expect(["r2 = value y"]);
    let (zero, one) = (double.held("a.1"), double.held("a.0"));
    assert!(!double.bring(Held { worker: one.worker, ..zero }, value()));
}

#[test]
fn an_outcome_of_the_dead_is_refused() {
    let mut double = two_workers();
    let held = double.held("a.1");
    double.lose("a.1");
    double.expect(["a.0 runs r1.1 try 2: x"]);
    assert!(!double.bring(held, value()));
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
}

/// SIGSTOP, a retry by another worker, SIGCONT.
#[test]
fn a_worker_that_wakes_after_the_retry_changes_nothing_and_is_free_again() {
    let mut double = two_workers();
    double.wait(500);
    double.expect(["a.1 is told", "a.0 runs r1.1 try 2: x"]);
    double.next("a.1", "too late");
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).idle, 1);
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
    double.submit("a", "z");
    double.expect(["a.0 runs r2.1 try 1: z"]);
}

#[test]
fn a_worker_that_wakes_after_the_answer_changes_nothing() {
    let mut double = two_workers();
    double.wait(500);
    double.expect(["a.1 is told", "a.0 runs r1.1 try 2: x"]);
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
    double.next("a.1", "too late");
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).idle, 2);
    assert_eq!(double.core.next_timeout(), None, "nobody is to be killed any more");
}

#[test]
fn a_late_failure_costs_the_job_no_try() {
    let mut double = two_workers();
    double.wait(500);
    double.expect(["a.1 is told", "a.0 runs r1.1 try 2: x"]);
    double.lose("a.1");
    double.expect([]);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.2 runs r1.1 try 3: x"]);
}

#[test]
fn keys_of_ended_requests_name_nothing() {
    let mut double = two_workers();
    double.next("a.1", "y");
    double.expect(["r1 = value y"]);
    double.cancel(1);
    double.expect([]);
    assert_eq!(double.core.totals().cancelled, 0);
}
