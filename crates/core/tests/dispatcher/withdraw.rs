//! Requests that their clients take back while they wait for them.

use std::time::Duration;

use evener_core::{Failure, FallbackOn, OnCancel, StageId, StageRules, Terms, Withdrawal};

use crate::ahead::{at_work, held, quick, three_ahead};
use crate::double::{Double, Wish, call_of, function, functions, on, stage, within};

fn rules() -> StageRules {
    StageRules { timeout: Duration::from_millis(500), grace: Duration::from_millis(300), ..stage("a") }
}

/// One worker that is at `r1`.
fn running(rules: StageRules) -> Double {
    let mut double = Double::new(vec![rules]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double
}

/// `r20`, the middle one of three ahead, is taken back while its worker has it in hand.
fn asked(rules: StageRules) -> Double {
    let mut double = three_ahead(rules);
    assert_eq!(double.withdraw(20), Withdrawal::Asked);
    double.expect(["a.0 is to give r20.1 back"]);
    double
}

#[test]
fn a_queued_job_never_runs_and_its_request_is_answered() {
    let mut double = running(stage("a"));
    for payload in ["2", "3", "4"] {
        double.submit("a", payload);
    }
    assert_eq!(double.withdraw(3), Withdrawal::Done);
    double.expect(["r3 = 409 cancelled"]);
    let problem = double.problem();
    assert!(problem.detail.contains("before it began"), "{}", problem.detail);
    assert_eq!((problem.tries, problem.stage), (0, Some(StageId(0))));
    double.next("a.0", "");
    double.expect(["r1 = value ", "a.0 runs r2.1 try 1: 2"]);
    double.next("a.0", "");
    double.expect(["r2 = value ", "a.0 runs r4.1 try 1: 4"]);
    let totals = double.core.totals();
    assert_eq!((totals.accepted, totals.answered, totals.cancelled), (4, 3, 0), "it was answered");
    assert_eq!(double.core.counts(StageId(0)).failed, 0, "it is no failure to be cancelled");
}

#[test]
fn a_request_that_is_taken_back_makes_room_for_another() {
    let mut double = Double::new(vec![StageRules { queue: 1, ..stage("a") }]);
    double.submit("a", "1");
    assert_eq!(double.withdraw(1), Withdrawal::Done);
    double.expect(["r1 = 409 cancelled"]);
    double.submit("a", "2");
    double.expect([]);
    assert_eq!(double.queued(0), 1);
}

#[test]
fn a_running_job_goes_on() {
    let mut double = running(stage("a"));
    assert_eq!(double.withdraw(1), Withdrawal::GoesOn);
    double.expect([]);
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
}

#[test]
fn what_was_answered_cannot_be_taken_back() {
    let mut double = running(stage("a"));
    double.next("a.0", "y");
    double.expect(["r1 = value y"]);
    assert_eq!(double.withdraw(1), Withdrawal::Answered);
    assert_eq!(double.kill(1), Withdrawal::Answered);
    double.expect([]);
}

/// Whoever hears that a call is cancelled takes it that nothing of it was done.
#[test]
fn a_job_that_has_begun_on_an_earlier_try_goes_on_wherever_it_is() {
    let mut double = running(StageRules { backoff: Some(Duration::from_millis(50)), ..stage("a") });
    double.lose("a.0");
    assert_eq!(double.withdraw(1), Withdrawal::GoesOn);
    double.wait(50);
    assert_eq!(double.queued(0), 1);
    assert_eq!(double.withdraw(1), Withdrawal::GoesOn);
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: x"]);

    let mut double = three_ahead(stage("a"));
    double.lose("a.0");
    double.credit("a.1", 16);
    double.clear();
    assert_eq!(double.withdraw(17), Withdrawal::GoesOn, "it is ahead of a.1 now, and was at work on a.0");
    double.expect([]);
}

#[test]
fn a_job_that_is_to_be_tried_again_ends_where_that_is_insisted_on() {
    let mut double = running(StageRules { backoff: Some(Duration::from_millis(50)), ..stage("a") });
    double.lose("a.0");
    assert_eq!(double.kill(1), Withdrawal::Done);
    double.expect(["r1 = 409 cancelled"]);
    assert!(double.problem().detail.contains("before it was tried again"), "{}", double.problem().detail);
    assert_eq!(double.problem().tries, 1);
    assert_eq!(double.core.next_timeout(), None, "no timer stays behind");
    double.arrive(0);
    double.expect([]);
}

#[test]
fn a_second_stage_counts_by_itself() {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.next("a.0", "y");
    assert_eq!(double.withdraw(1), Withdrawal::Done);
    double.expect(["r1 = 409 cancelled"]);
}

#[test]
fn no_fallback_stands_in_for_it() {
    let mut double = Double::new(vec![stage("a")]);
    let fallback_on = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };
    double.submit_with("a", "x", Wish { fallback_on, ..Wish::default() });
    double.withdraw(1);
    double.expect(["r1 = 409 cancelled"]);
}

#[test]
fn a_job_ahead_that_is_given_back_is_cancelled_and_the_others_stay() {
    let mut double = asked(stage("a"));
    let [_, second, _] = held(&double);
    double.give_back(second);
    double.expect(["r20 = 409 cancelled"]);
    assert_eq!(double.problem().tries, 0);
    for number in [17, 19, 21] {
        double.next("a.0", "v");
        double.expect([format!("r{number} = value v").as_str()]);
    }
    assert_eq!(double.queued(0), 0);
}

#[test]
fn a_job_ahead_that_is_taken_back_twice_is_called_back_once() {
    let mut double = asked(stage("a"));
    assert_eq!(double.withdraw(20), Withdrawal::Asked);
    double.expect([]);
    let [_, second, _] = held(&double);
    double.give_back(second);
    double.expect(["r20 = 409 cancelled"]);
    assert_eq!(double.withdraw(20), Withdrawal::Answered);
}

#[test]
fn a_job_ahead_that_becomes_the_oldest_first_goes_on() {
    let mut double = asked(stage("a"));
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    double.next("a.0", "2");
    double.expect(["r20 goes on", "r19 = value 2"]);
    assert_eq!(double.withdraw(20), Withdrawal::GoesOn);
    double.expect([]);
    double.next("a.0", "3");
    double.expect(["r20 = value 3"]);
}

/// Its client was told already that it goes on.
#[test]
fn a_job_that_goes_on_and_is_given_back_after_all_waits_for_its_turn() {
    let mut double = three_ahead(stage("a"));
    assert_eq!(double.withdraw(19), Withdrawal::Asked);
    double.expect(["a.0 is to give r19.1 back"]);
    let [first, ..] = held(&double);
    double.next("a.0", "1");
    double.expect(["r19 goes on", "r17 = value 1"]);
    double.give_back(first);
    double.expect(["a.0 gets r19.1 try 1: y"]);
    assert_eq!(double.withdraw(19), Withdrawal::Asked, "now it is known that it did not begin");
    double.expect(["a.0 is to give r19.1 back"]);
    double.give_back(double.held("a.0"));
    double.expect(["r19 = 409 cancelled"]);
}

#[test]
fn a_job_ahead_of_a_worker_that_dies_is_cancelled() {
    let mut double = asked(stage("a"));
    double.lose("a.0");
    double.expect(["r20 = 409 cancelled", "a.1 is asked for credit"]);
    assert_eq!(double.queued(0), 3, "r17, r19 and r21");
}

#[test]
fn a_job_ahead_of_a_worker_out_of_memory_is_cancelled() {
    let mut double = asked(stage("a"));
    double.fail("a.0", Failure::OutOfMemory { message: String::new() });
    double.expect(["r20 = 409 cancelled", "a.1 is asked for credit"]);
}

#[test]
fn a_job_ahead_that_was_called_back_already_is_cancelled_when_it_comes() {
    let mut double = three_ahead(stage("a"));
    double.wait(2);
    double.expect(["a.0 is to give r21.1 back", "a.0 is to give r20.1 back", "a.0 is to give r19.1 back"]);
    assert_eq!(double.withdraw(20), Withdrawal::Asked);
    double.expect([]);
    for held in held(&double) {
        double.give_back(held);
    }
    double.expect(["a.0 is asked for credit", "a.1 is asked for credit", "r20 = 409 cancelled"]);
    assert_eq!(double.queued(0), 2);
}

#[test]
fn a_job_ahead_of_a_stuck_worker_stays_there_until_it_is_known_whether_it_began() {
    let mut double = asked(stage("a"));
    double.wait(2);
    double.expect(["a.0 is to give r21.1 back", "a.0 is to give r19.1 back"]);
    let [first, second, third] = held(&double);
    double.wait(1_000);
    double.expect([
        "a.0 is told of r21.1",
        "a.0 is told of r19.1",
        "a.0 is asked for credit",
        "a.1 is asked for credit",
    ]);
    double.wait(10_000);
    double.expect([]);
    for held in [first, second, third] {
        double.give_back(held);
    }
    double.expect(["r20 = 409 cancelled"]);
}

#[test]
fn a_stuck_worker_may_begin_it() {
    let mut double = asked(stage("a"));
    double.wait(2_000);
    double.clear();
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    double.next("a.0", "nobody waits for r19 here");
    double.expect(["r20 goes on"]);
    double.next("a.0", "2");
    double.expect(["r20 = value 2"]);
}

/// It is the only job that is called back, and was so just now.
#[test]
fn a_worker_is_not_stuck_because_a_job_was_taken_back() {
    let mut double = at_work(stage("a"), 16);
    double.submit("a", "y");
    double.expect(["a.0 gets r18.1 try 1: y"]);
    double.wait(1);
    double.withdraw(18);
    double.expect(["a.0 is to give r18.1 back"]);
    double.wait(1);
    double.expect([]);
    double.next("a.0", "1");
    double.expect(["r18 goes on", "r17 = value 1"]);
    double.next("a.0", "2");
    double.expect(["r18 = value 2"]);
}

#[test]
fn a_deadline_comes_before_what_a_worker_says() {
    let mut double = at_work(stage("a"), 16);
    double.submit_with("a", "y", within(1));
    double.withdraw(18);
    double.expect(["a.0 gets r18.1 try 1: y", "a.0 is to give r18.1 back"]);
    double.wait(1);
    double.expect(["r18 = 504 deadline-exceeded", "a.0 is told of r18.1"]);
    double.give_back(double.held("a.0"));
    double.expect([]);
}

#[test]
fn a_client_may_go_away_meanwhile() {
    let mut double = asked(stage("a"));
    double.cancel(20);
    double.expect(["a.0 is told of r20.1"]);
    let [_, second, _] = held(&double);
    double.give_back(second);
    double.expect([]);
    assert_eq!(double.core.totals().cancelled, 1);
}

#[test]
fn a_drain_may_end_meanwhile() {
    let mut double = asked(stage("a"));
    double.drain(0);
    assert!(double.seen().iter().any(|line| line == "r20 = 503 draining"));
    double.clear();
    let [_, second, _] = held(&double);
    double.give_back(second);
    double.expect([]);
}

/// Two workers whose tries and grace are short. `a.0` got SIGTERM while at `r17`, and `r19` was taken back.
fn going_down(retries: u32) -> Double {
    let rules = StageRules { timeout: Duration::from_millis(10), grace: Duration::from_millis(10), ..stage("a") };
    let mut double = three_ahead(StageRules { retries, ..rules });
    assert_eq!(double.withdraw(19), Withdrawal::Asked);
    double.next("a.1", "1");
    double.wait(20);
    double.clear();
    double
}

/// So it may be lost with it, and is tried again.
#[test]
fn a_job_that_a_worker_may_begin_after_a_signal_goes_on() {
    let mut double = going_down(1);
    double.next("a.0", "late");
    double.expect(["a.1 runs r19.1 try 2: y", "r19 goes on"]);
    double.next("a.1", "2");
    double.clear();
    double.lose("a.0");
    double.clear();
}

#[test]
fn a_job_that_is_lost_with_a_worker_on_its_last_try_is_answered_and_does_not_go_on() {
    let mut double = going_down(0);
    double.next("a.0", "late");
    double.expect(["r19 = 502 worker-died"]);
}

#[test]
fn a_running_job_that_is_killed_is_answered_at_once_and_its_worker_told_terminated_and_killed() {
    let mut double = running(rules());
    double.arrive(0);
    double.submit("a", "other");
    double.expect(["a.1 runs r2.1 try 1: other"]);
    double.wait(100);
    assert_eq!(double.kill(1), Withdrawal::Done);
    double.expect(["r1 = 409 cancelled", "a.0 is told"]);
    assert!(double.problem().detail.contains("while it ran"), "{}", double.problem().detail);
    assert_eq!(double.problem().tries, 1);
    double.wait(299);
    double.expect([]);
    double.next("a.1", "untouched");
    double.expect(["r2 = value untouched"]);
    double.wait(1);
    double.expect(["a.0 gets SIGTERM"]);
    double.wait(999);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGKILL"]);
    double.lose("a.0");
    double.wait(60_000);
    double.expect([]);
    assert_eq!(double.core.totals().answered, 2);
}

#[test]
fn a_killed_job_that_comes_back_in_time_frees_its_worker() {
    let mut double = running(rules());
    double.submit("a", "next");
    double.kill(1);
    double.expect(["r1 = 409 cancelled", "a.0 is told"]);
    double.wait(299);
    double.fail("a.0", Failure::Cancelled);
    double.expect(["a.0 runs r2.1 try 1: next"]);
    double.wait(499);
    double.expect([]);
}

#[test]
fn what_a_killed_job_brings_late_is_not_used() {
    let mut double = running(rules());
    double.kill(1);
    double.expect(["r1 = 409 cancelled", "a.0 is told"]);
    double.next("a.0", "y");
    double.expect([]);
    assert_eq!(double.core.next_timeout(), None, "nobody is to be killed any more");
}

/// A job that may not be interrupted by a client that goes away may be killed by one that insists.
#[test]
fn a_kill_does_not_ask_what_a_cancel_does_at_this_stage() {
    let mut double = running(StageRules { on_cancel: OnCancel::Tell, ..rules() });
    double.kill(1);
    double.expect(["r1 = 409 cancelled", "a.0 is told"]);
    double.wait(300);
    double.expect(["a.0 gets SIGTERM"]);
}

#[test]
fn the_jobs_ahead_of_a_worker_that_is_killed_go_to_others() {
    let mut double = three_ahead(StageRules { grace: Duration::from_millis(300), ..stage("a") });
    double.kill(17);
    double.expect(["r17 = 409 cancelled", "a.0 is told"]);
    double.wait(2);
    double.expect(["a.0 is to give r21.1 back", "a.0 is to give r20.1 back", "a.0 is to give r19.1 back"]);
    double.wait(298);
    double.expect(["a.0 gets SIGTERM"]);
    double.next("a.1", "1");
    double.expect(["r18 = value 1"]);
    double.lose("a.0");
    double.expect(["a.1 runs r19.1 try 1: y", "a.1 is asked for credit"]);
    assert!(double.retried.is_empty(), "none of them had begun");
}

#[test]
fn a_queued_job_that_is_killed_costs_no_worker() {
    let mut double = running(rules());
    double.submit("a", "y");
    assert_eq!(double.kill(2), Withdrawal::Done);
    double.expect(["r2 = 409 cancelled"]);
    double.next("a.0", "x");
    double.expect(["r1 = value x"]);
}

#[test]
fn a_job_ahead_that_is_killed_is_answered_at_once_and_dropped_by_its_worker() {
    let mut double = three_ahead(stage("a"));
    assert_eq!(double.kill(20), Withdrawal::Done);
    double.expect(["r20 = 409 cancelled", "a.0 is told of r20.1"]);
    let [_, second, _] = held(&double);
    assert!(double.bring(second, evener_core::Outcome::Fail(Failure::Cancelled)));
    for number in [17, 19, 21] {
        double.next("a.0", "v");
        double.expect([format!("r{number} = value v").as_str()]);
    }
}

#[test]
fn a_job_ahead_may_be_taken_back_and_then_killed() {
    let mut double = asked(stage("a"));
    assert_eq!(double.kill(20), Withdrawal::Done);
    double.expect(["r20 = 409 cancelled", "a.0 is told of r20.1"]);
    let [_, second, _] = held(&double);
    double.give_back(second);
    double.expect([]);
    assert_eq!(double.kill(20), Withdrawal::Answered);
}

/// It had begun just before it was told, or does not care.
#[test]
fn a_killed_job_ahead_that_begins_all_the_same_has_a_grace() {
    let rules = StageRules { grace: Duration::from_millis(100), ..stage("a") };
    let mut double = three_ahead(StageRules { on_cancel: OnCancel::Tell, ..rules });
    double.kill(19);
    double.expect(["r19 = 409 cancelled", "a.0 is told of r19.1"]);
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    double.wait(2);
    double.expect(["a.0 is to give r21.1 back", "a.0 is to give r20.1 back"]);
    double.wait(97);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGTERM"]);
    double.wait(1_000);
    let kills: Vec<_> = double.seen().iter().filter(|line| line.contains("SIG")).cloned().collect();
    assert_eq!(kills, ["a.0 gets SIGKILL"], "and nobody else");
    double.clear();
    double.lose("a.0");
    double.clear();
}

/// `r17` is a call that nothing is known of, so that nothing goes ahead while it is first.
#[test]
fn with_the_first_gone_the_next_may_go_ahead() {
    let mut double = Double::new(vec![functions("a")]);
    double.several = true;
    double.ran = Duration::from_micros(50);
    double.arrive(0);
    for _ in 0..17 {
        double.submit_with("a", "", on(call_of(1)));
        double.clear();
        if double.core.pending() == 1 && double.core.totals().accepted < 17 {
            double.next("a.0", "");
            double.clear();
        }
    }
    double.credit("a.0", 16);
    for (leaves, number) in [(true, 18), (false, 20)] {
        double.submit_with("a", "unknown", on(call_of(2)));
        double.submit_with("a", "known", on(call_of(1)));
        double.expect([]);
        if leaves {
            double.cancel(number);
        } else {
            double.withdraw(number);
        }
        let expected = format!("a.0 gets r{}.1 try 1: known", number + 1);
        assert_eq!(double.seen().last(), Some(&expected));
        double.clear();
    }
    double.submit_with("a", "unknown", Wish { timeout: Duration::ZERO, ..on(call_of(2)) });
    double.submit_with("a", "known", on(call_of(1)));
    double.expect([]);
    double.wait(1);
    double.expect(["r22 = 504 deadline-exceeded", "a.0 gets r23.1 try 1: known"]);
    assert!(function(1) != function(2));
}

/// The terms of a call hold for a job that its client has left, as well.
#[test]
fn a_job_ahead_that_begins_when_nobody_waits_any_more_keeps_the_timeout_of_its_terms() {
    let grace = Duration::from_millis(100);
    let mut double = quick(StageRules { grace, timeout: Duration::from_secs(60), ..stage("a") }, 1);
    double.submit("a", "x");
    double.credit("a.0", 1);
    let terms = Terms { timeout: Some(Duration::from_millis(50)), ..Terms::default() };
    double.submit_with("a", "y", on(terms));
    double.cancel(18);
    double.expect(["a.0 runs r17.1 try 1: x", "a.0 gets r18.1 try 1: y", "a.0 is told of r18.1"]);
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    double.wait(149);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 gets SIGTERM"]);
}
