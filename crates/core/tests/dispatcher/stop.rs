//! Workers that do not come back: told, then SIGTERM, then SIGKILL, while their jobs go on elsewhere.

use std::time::Duration;

use evener_core::{Failure, OnCancel, RetryOn, StageId, StageRules};

use crate::double::{Double, stage, within};

fn rules() -> StageRules {
    StageRules {
        timeout: Duration::from_millis(500),
        grace: Duration::from_millis(300),
        backoff: Some(Duration::ZERO),
        retry_on: RetryOn { lost: true, timeout: true, error: false },
        ..stage("a")
    }
}

fn one_at_work(rules: StageRules) -> Double {
    let mut double = Double::new(vec![rules]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double
}

#[test]
fn a_hanging_worker_is_told_then_terminated_then_killed_each_in_its_time() {
    let mut double = one_at_work(rules());
    double.wait(499);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 is told"]);
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: x"]);
    double.next("a.1", "y");
    double.expect(["r1 = value y"]);
    double.wait(299);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGTERM"]);
    double.wait(999);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGKILL"]);
    double.wait(3_600_000);
    double.expect([]);
    double.lose("a.0");
    let counts = double.core.counts(StageId(0));
    assert_eq!((counts.workers, counts.idle, counts.lost), (1, 1, 1));
}

#[test]
fn the_answer_does_not_wait_for_the_kill() {
    let mut double = one_at_work(StageRules { retries: 0, ..rules() });
    double.wait(500);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout"]);
    assert!(double.problem().detail.contains("500ms"), "{}", double.problem().detail);
}

#[test]
fn a_late_outcome_within_grace_frees_the_worker() {
    let mut double = one_at_work(StageRules { retries: 0, ..rules() });
    double.wait(500);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout"]);
    double.submit("a", "next");
    double.expect([]);
    double.wait(299);
    double.next("a.0", "late");
    double.expect(["a.0 runs r2.1 try 1: next"]);
    double.wait(400);
    double.expect([]);
}

#[test]
fn an_outcome_after_sigterm_does_not_free_the_worker() {
    let mut double = one_at_work(StageRules { retries: 0, ..rules() });
    double.wait(800);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout", "a.0 gets SIGTERM"]);
    double.submit("a", "next");
    double.next("a.0", "late");
    double.expect([]);
    double.wait(1000);
    double.expect(["a.0 gets SIGKILL"]);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r2.1 try 1: next"]);
}

#[test]
fn out_of_memory_after_sigterm_does_not_spare_the_worker_its_sigkill() {
    let mut double = one_at_work(StageRules { retries: 0, ..rules() });
    double.wait(800);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout", "a.0 gets SIGTERM"]);
    double.fail("a.0", Failure::OutOfMemory { message: String::new() });
    double.expect([]);
    double.wait(1000);
    double.expect(["a.0 gets SIGKILL"]);
}

#[test]
fn a_told_worker_that_runs_out_of_memory_gets_no_more_jobs_and_counts_as_lost() {
    let mut double = one_at_work(rules());
    double.wait(500);
    double.expect(["a.0 is told"]);
    double.fail("a.0", Failure::OutOfMemory { message: String::new() });
    double.expect([]);
    assert_eq!(double.queued(0), 1, "the job waits for another worker");
    double.lose("a.0");
    assert_eq!(double.core.counts(StageId(0)).lost, 1);
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: x"]);
}

#[test]
fn a_cancelled_job_may_go_on_until_its_timeout_and_grace() {
    let mut double = one_at_work(rules());
    double.wait(100);
    double.cancel(1);
    double.expect(["a.0 is told"]);
    double.wait(699);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGTERM"]);
    double.wait(1000);
    double.expect(["a.0 gets SIGKILL"]);
}

#[test]
fn a_cancelled_job_that_ends_by_itself_frees_its_worker() {
    let mut double = one_at_work(rules());
    double.cancel(1);
    double.expect(["a.0 is told"]);
    double.submit("a", "next");
    double.fail("a.0", Failure::Cancelled);
    double.expect(["a.0 runs r2.1 try 1: next"]);
    assert_eq!(double.core.counts(StageId(0)).failed, 0, "it is no failure to be cancelled");
}

#[test]
fn where_a_cancel_kills_only_grace_lies_between() {
    let mut double = one_at_work(StageRules { on_cancel: OnCancel::Kill, ..rules() });
    double.cancel(1);
    double.expect(["a.0 is told"]);
    double.wait(299);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGTERM"]);
    double.wait(1000);
    double.expect(["a.0 gets SIGKILL"]);
}

#[test]
fn where_a_cancel_kills_coming_back_in_time_still_frees() {
    let mut double = one_at_work(StageRules { on_cancel: OnCancel::Kill, ..rules() });
    double.cancel(1);
    double.expect(["a.0 is told"]);
    double.wait(299);
    double.fail("a.0", Failure::Cancelled);
    double.wait(10_000);
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).idle, 1);
}

#[test]
fn a_deadline_tells_as_a_cancel_does() {
    let mut double = Double::new(vec![StageRules { on_cancel: OnCancel::Kill, ..rules() }]);
    double.arrive(0);
    double.submit_with("a", "x", within(200));
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.wait(200);
    double.expect(["r1 = 504 deadline-exceeded", "a.0 is told"]);
    double.wait(300);
    double.expect(["a.0 gets SIGTERM"]);
}

#[test]
fn a_worker_that_dies_after_sigterm_is_not_killed() {
    let mut double = one_at_work(StageRules { retries: 0, ..rules() });
    double.wait(800);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout", "a.0 gets SIGTERM"]);
    double.lose("a.0");
    double.wait(60_000);
    double.expect([]);
    assert_eq!(double.core.next_timeout(), None);
}

#[test]
fn a_late_wakeup_gives_the_whole_grace() {
    let mut double = one_at_work(StageRules { retries: 0, ..rules() });
    double.leap(60_000);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout"]);
    double.wait(299);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGTERM"]);
}
