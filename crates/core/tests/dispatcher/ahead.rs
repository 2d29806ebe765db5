//! Jobs that a worker holds behind the one it is at.

use std::time::Duration;

use evener_core::{Failure, OnCancel, Outcome, RetryOn, StageId, StageRules};

use crate::double::{Double, Held, stage, within};

/// A stage that is known as quick: sixteen jobs are done, the next is `r17`. Nobody has given credit.
pub(crate) fn quick(rules: StageRules, workers: u32) -> Double {
    let mut double = Double::new(vec![rules]);
    double.several = true;
    double.ran = Duration::from_micros(50);
    (0..workers).for_each(|_| double.arrive(0));
    for _ in 0..16 {
        let number = double.submit("a", "");
        let worker = double.runner();
        double.clear();
        double.next(&worker, "");
        double.expect([format!("r{number} = value ").as_str()]);
    }
    double
}

/// One worker that takes so many jobs ahead, and is at `r17`.
pub(crate) fn at_work(rules: StageRules, credit: u32) -> Double {
    let mut double = quick(rules, 1);
    double.submit("a", "x");
    double.credit("a.0", credit);
    double.expect(["a.0 runs r17.1 try 1: x"]);
    double
}

/// Two workers that are at `r17` and `r18`, and `a.0` has `r19`, `r20` and `r21` ahead.
pub(crate) fn three_ahead(rules: StageRules) -> Double {
    let mut double = quick(rules, 1);
    double.submit("a", "x");
    double.arrive(0);
    double.submit("a", "x");
    double.credit("a.0", 3);
    double.expect(["a.0 runs r17.1 try 1: x", "a.1 runs r18.1 try 1: x"]);
    (19..22).for_each(|_| _ = double.submit("a", "y"));
    double.expect(["a.0 gets r19.1 try 1: y", "a.0 gets r20.1 try 1: y", "a.0 gets r21.1 try 1: y"]);
    double
}

/// What the worker was handed for each of `r19`, `r20` and `r21`.
pub(crate) fn held(double: &Double) -> [Held; 3] {
    let hands = double.hands("a.0");
    [hands[1], hands[2], hands[3]]
}

fn micros(double: &mut Double, micros: u64) {
    double.now = double.now + Duration::from_micros(micros);
}

fn out_of_memory() -> Failure {
    Failure::OutOfMemory { message: String::new() }
}

#[test]
fn a_worker_is_asked_for_credit_when_a_job_waits_and_gets_as_many_ahead_as_it_takes() {
    let mut double = quick(stage("a"), 1);
    double.submit("a", "x");
    double.expect(["a.0 runs r17.1 try 1: x"]);
    double.submit("a", "y");
    double.expect(["a.0 is asked for credit"]);
    double.submit("a", "z");
    double.submit("a", "z");
    double.expect([]);
    double.credit("a.0", 2);
    double.expect(["a.0 gets r18.1 try 1: y", "a.0 gets r19.1 try 1: z"]);
    double.next("a.0", "1");
    double.expect(["r17 = value 1", "a.0 gets r20.1 try 1: z"]);
    double.next("a.0", "2");
    double.expect(["r18 = value 2"]);
    double.next("a.0", "3");
    double.expect(["r19 = value 3"]);
    double.next("a.0", "4");
    double.expect(["r20 = value 4"]);
    assert_eq!(double.core.counts(StageId(0)).idle, 1);
}

#[test]
fn a_slow_function_gets_nothing_ahead() {
    let mut double = at_work(stage("a"), 16);
    double.ran = Duration::from_millis(40);
    double.next("a.0", "slow");
    double.submit("a", "x");
    double.expect(["r17 = value slow", "a.0 runs r18.1 try 1: x"]);
    double.submit("a", "y");
    double.expect([]);
}

#[test]
fn a_function_that_is_not_known_gets_nothing_ahead() {
    let mut double = Double::new(vec![stage("a")]);
    double.several = true;
    double.ran = Duration::from_micros(1);
    double.arrive(0);
    double.credit("a.0", 16);
    (0..20).for_each(|_| _ = double.submit("a", ""));
    double.clear();
    for _ in 0..15 {
        double.next("a.0", "");
        assert_eq!(double.hands("a.0").len(), 1);
        double.clear();
    }
    double.next("a.0", "");
    double.clear();
    assert_eq!(double.hands("a.0").len(), 4, "the sixteenth run makes it known");
    (0..4).for_each(|_| {
        double.next("a.0", "");
        double.clear();
    });
}

#[test]
fn after_a_line_was_printed_a_thousand_jobs_go_one_at_a_time() {
    let mut double = at_work(stage("a"), 1);
    double.prints("a.0");
    for _ in 0..999 {
        double.submit("a", "");
        assert_eq!(double.hands("a.0").len(), 1);
        double.next("a.0", "");
        double.clear();
    }
    double.submit("a", "");
    assert_eq!(double.hands("a.0").len(), 1);
    double.next("a.0", "");
    double.clear();
    double.submit("a", "x");
    double.submit("a", "y");
    double.clear();
    assert_eq!(double.hands("a.0").len(), 2);
}

#[test]
fn a_worker_with_a_share_gets_nothing_ahead() {
    let mut double = at_work(StageRules { max_jobs_per_worker: Some(1_000), ..stage("a") }, 16);
    double.submit("a", "y");
    double.expect([]);
}

#[test]
fn the_least_loaded_worker_gets_the_next_job_ahead() {
    let mut double = quick(stage("a"), 3);
    (0..3).for_each(|_| _ = double.submit("a", ""));
    double.clear();
    (0..3).for_each(|worker| double.credit(&format!("a.{worker}"), 3));
    for request in 20..29 {
        double.submit("a", "");
        double.expect([format!("a.{} gets r{request}.1 try 1: ", (request - 20) % 3).as_str()]);
    }
    double.submit("a", "");
    double.expect(["a.0 is asked for credit", "a.1 is asked for credit", "a.2 is asked for credit"]);
    double.next("a.1", "");
    double.clear();
    assert_eq!(double.hands("a.1").len(), 4);
}

#[test]
fn an_idle_worker_comes_before_one_that_takes_jobs_ahead() {
    let mut double = at_work(stage("a"), 16);
    double.arrive(0);
    double.submit("a", "y");
    double.expect(["a.1 runs r18.1 try 1: y"]);
    double.submit("a", "z");
    double.expect(["a.0 gets r19.1 try 1: z"]);
}

#[test]
fn a_worker_that_has_been_at_its_job_for_a_while_gets_nothing_ahead() {
    let mut double = at_work(stage("a"), 16);
    micros(&mut double, 1_000);
    double.submit("a", "y");
    double.expect(["a.0 gets r18.1 try 1: y"]);
    micros(&mut double, 1);
    double.submit("a", "z");
    double.expect(["a.0 is asked for credit"]);
    double.next("a.0", "1");
    double.expect(["r17 = value 1", "a.0 gets r19.1 try 1: z"]);
}

#[test]
fn only_the_job_at_hand_costs_a_try_when_a_worker_dies_and_all_keep_their_order() {
    let mut double = three_ahead(stage("a"));
    double.lose("a.0");
    double.submit("a", "z");
    double.expect(["a.1 is asked for credit"]);
    double.credit("a.1", 16);
    double.expect([
        "a.1 gets r17.1 try 2: x",
        "a.1 gets r19.1 try 1: y",
        "a.1 gets r20.1 try 1: y",
        "a.1 gets r21.1 try 1: y",
        "a.1 gets r22.1 try 1: z",
    ]);
    assert_eq!(double.hands("a.1").iter().map(|held| held.attempt).collect::<Vec<_>>(), [1, 2, 2, 2, 2, 1]);
    assert_eq!(double.retried.len(), 1);
}

#[test]
fn an_idle_worker_takes_the_oldest_of_what_a_dead_one_had() {
    let mut double = three_ahead(StageRules { retry_on: RetryOn { lost: false, ..stage("a").retry_on }, ..stage("a") });
    double.next("a.1", "1");
    double.expect(["r18 = value 1"]);
    double.lose("a.0");
    double.expect(["r17 = 502 worker-died", "a.1 runs r19.1 try 1: y", "a.1 is asked for credit"]);
}

#[test]
fn jobs_ahead_of_which_a_worker_is_overdue_are_called_back_and_keep_their_order() {
    let mut double = three_ahead(stage("a"));
    double.wait(1);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 is to give r21.1 back", "a.0 is to give r20.1 back", "a.0 is to give r19.1 back"]);
    let [first, second, third] = held(&double);
    double.give_back(third);
    double.give_back(second);
    double.give_back(first);
    double.expect(["a.0 is asked for credit", "a.1 is asked for credit"]);
    double.next("a.1", "1");
    double.expect(["r18 = value 1", "a.1 runs r19.1 try 1: y"]);
    double.next("a.1", "2");
    double.expect(["r19 = value 2", "a.1 runs r20.1 try 1: y"]);
    assert_eq!(double.hands("a.1")[0].attempt, 2);
    double.next("a.0", "3");
    double.expect(["r17 = value 3", "a.0 runs r21.1 try 1: y"]);
}

#[test]
fn a_worker_that_is_being_asked_for_jobs_back_gets_no_more() {
    let mut double = three_ahead(stage("a"));
    double.wait(2);
    double.clear();
    let [first, ..] = held(&double);
    double.give_back(first);
    double.clear();
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    assert_eq!(double.queued(0), 1, "r20 counts as begun, r21 is to come back");
}

#[test]
fn a_job_that_was_begun_before_it_was_called_back_brings_its_outcome() {
    let mut double = three_ahead(stage("a"));
    double.wait(2);
    double.clear();
    for number in [17, 19, 20, 21] {
        double.next("a.0", "v");
        double.expect([format!("r{number} = value v").as_str()]);
    }
}

/// The outcome of the job before it was on its way first.
#[test]
fn a_job_may_come_back_when_it_counts_as_begun_and_costs_no_try() {
    let mut double = three_ahead(stage("a"));
    double.wait(2);
    double.clear();
    let [first, second, third] = held(&double);
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    double.give_back(third);
    double.give_back(second);
    double.expect([
        "a.0 is asked for credit",
        "a.1 is asked for credit",
        "a.0 gets r20.1 try 1: y",
        "a.0 gets r21.1 try 1: y",
    ]);
    double.give_back(first);
    double.expect(["a.0 gets r19.1 try 1: y"]);
    assert_eq!(double.core.counts(StageId(0)).started, 20, "a count never goes down");
}

#[test]
fn what_a_client_has_got_something_of_has_begun_and_does_not_come_back() {
    let mut double = at_work(stage("a"), 4);
    double.submit("a", "y");
    double.expect(["a.0 gets r18.1 try 1: y"]);
    double.wait(4);
    double.expect(["a.0 is to give r18.1 back"]);
    double.next("a.0", "v");
    double.expect(["r17 = value v"]);
    assert!(double.chunk("a.0", "piece"));
    double.expect(["r18 gets piece"]);
    let held = double.held("a.0");
    assert!(!double.bring(held, Outcome::Returned));
    double.outcome("a.0", Outcome::Ended);
    double.expect(["r18 = ended"]);
}

#[test]
fn what_was_not_called_back_does_not_come_back() {
    let mut double = three_ahead(stage("a"));
    for held in double.hands("a.0") {
        assert!(!double.bring(held, Outcome::Returned));
    }
    double.cancel(17);
    double.expect(["a.0 is told"]);
    assert!(!double.bring(double.hands("a.0")[0], Outcome::Returned), "it was told, not called back");
}

#[test]
fn outcomes_come_in_turn() {
    let mut double = three_ahead(stage("a"));
    for held in held(&double) {
        assert!(!double.bring(held, Outcome::Next("out of turn")));
        assert!(!double.bring(held, Outcome::Fail(Failure::Cancelled)), "nobody cancelled it");
    }
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
}

#[test]
fn the_jobs_of_a_stuck_worker_go_to_others_at_the_cost_of_a_try() {
    let mut double = three_ahead(stage("a"));
    double.wait(2);
    double.clear();
    let [first, ..] = held(&double);
    double.give_back(first);
    double.clear();
    double.next("a.1", "1");
    double.expect(["r18 = value 1", "a.1 runs r19.1 try 1: y"]);
    double.next("a.1", "2");
    double.expect(["r19 = value 2"]);
    let stuck = [double.hands("a.0")[1], double.hands("a.0")[2]];
    double.wait(999);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 is told of r21.1", "a.0 is told of r20.1", "a.1 runs r20.1 try 2: y"]);
    double.next("a.1", "3");
    double.expect(["r20 = value 3", "a.1 runs r21.1 try 2: y"]);
    // It comes to, and had not begun them.
    double.give_back(stuck[1]);
    double.give_back(stuck[0]);
    double.next("a.0", "4");
    double.expect(["r17 = value 4"]);
    double.next("a.1", "5");
    double.expect(["r21 = value 5"]);
    assert_eq!(double.core.counts(StageId(0)).idle, 2);
}

#[test]
fn a_stuck_worker_may_begin_a_job_that_has_gone_to_others() {
    let mut double = three_ahead(stage("a"));
    double.wait(2);
    double.clear();
    double.wait(1_000);
    double.clear();
    double.next("a.1", "1");
    double.expect(["r18 = value 1", "a.1 runs r19.1 try 2: y"]);
    double.next("a.0", "2");
    double.expect(["r17 = value 2"]);
    double.next("a.0", "the same");
    double.expect([]);
    double.next("a.1", "3");
    double.expect(["r19 = value 3", "a.1 runs r20.1 try 2: y"]);
}

#[test]
fn a_job_with_no_try_to_spare_stays_with_a_stuck_worker() {
    let mut double = three_ahead(StageRules { retries: 0, ..stage("a") });
    double.wait(2);
    double.clear();
    double.wait(10_000);
    double.expect([]);
    double.next("a.1", "1");
    double.expect(["r18 = value 1"]);
    double.lose("a.0");
    double.expect(["r17 = 502 worker-died", "a.1 runs r19.1 try 1: y", "a.1 is asked for credit"]);
}

/// The stuck worker has come on, and is given jobs ahead again before the second is over.
#[test]
fn a_worker_that_was_asked_for_jobs_back_once_is_asked_in_time_again() {
    let mut double = at_work(stage("a"), 1);
    double.submit("a", "y");
    double.expect(["a.0 gets r18.1 try 1: y"]);
    double.wait(2);
    double.expect(["a.0 is to give r18.1 back"]);
    double.give_back(double.hands("a.0")[1]);
    double.expect(["a.0 is asked for credit"]);
    double.next("a.0", "1");
    double.expect(["r17 = value 1", "a.0 runs r18.1 try 1: y"]);
    double.submit("a", "z");
    double.expect(["a.0 gets r19.1 try 1: z"]);
    double.wait(2);
    double.expect(["a.0 is to give r19.1 back"]);
}

#[test]
fn a_cancelled_job_ahead_is_dropped_by_its_worker() {
    let mut double = three_ahead(stage("a"));
    double.cancel(20);
    double.expect(["a.0 is told of r20.1"]);
    let [_, cancelled, _] = held(&double);
    double.submit("a", "z");
    double.expect(["a.0 is asked for credit", "a.1 is asked for credit"]);
    assert!(double.bring(cancelled, Outcome::Fail(Failure::Cancelled)));
    double.expect(["a.0 gets r22.1 try 1: z"]);
    for number in [17, 19, 21, 22] {
        double.next("a.0", "v");
        double.expect([format!("r{number} = value v").as_str()]);
    }
}

#[test]
fn a_cancelled_job_ahead_may_be_done_all_the_same() {
    let mut double = three_ahead(stage("a"));
    double.cancel(19);
    double.expect(["a.0 is told of r19.1"]);
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    double.next("a.0", "nobody wants it");
    double.expect([]);
    double.next("a.0", "2");
    double.expect(["r20 = value 2"]);
}

#[test]
fn a_job_that_waits_ahead_is_answered_by_its_deadline() {
    let mut double = at_work(StageRules { timeout: Duration::from_millis(5), ..stage("a") }, 16);
    double.submit_with("a", "y", within(1));
    double.expect(["a.0 gets r18.1 try 1: y"]);
    double.wait(1);
    double.expect(["r18 = 504 deadline-exceeded", "a.0 is told of r18.1"]);
    assert!(double.problem().detail.contains("waited for stage `a`"), "{}", double.problem().detail);
    assert_eq!(double.problem().tries, 0);
}

/// Where a cancel kills, that goes for a job too that had begun just before.
#[test]
fn a_cancelled_job_ahead_that_is_done_all_the_same_has_a_grace_if_the_stage_says_so() {
    let grace = Duration::from_millis(100);
    let mut double = three_ahead(StageRules { on_cancel: OnCancel::Kill, grace, ..stage("a") });
    double.cancel(19);
    double.expect(["a.0 is told of r19.1"]);
    double.next("a.0", "1");
    double.expect(["r17 = value 1"]);
    double.wait(2);
    double.expect(["a.0 is to give r21.1 back", "a.0 is to give r20.1 back"]);
    double.wait(98);
    double.expect(["a.0 gets SIGTERM"]);
}

#[test]
fn a_worker_out_of_memory_comes_to_none_of_its_jobs_ahead() {
    let mut double = three_ahead(stage("a"));
    double.fail("a.0", out_of_memory());
    double.expect(["a.1 is asked for credit"]);
    double.next("a.1", "1");
    double.expect(["r18 = value 1", "a.1 runs r17.1 try 2: x"]);
    double.next("a.1", "2");
    double.expect(["r17 = value 2", "a.1 runs r19.1 try 1: y"]);
    double.lose("a.0");
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).lost, 1);
}

/// It may begin the next one before the signal takes it.
#[test]
fn the_next_job_of_a_worker_that_was_sent_a_signal_is_lost_with_it() {
    let rules = StageRules { timeout: Duration::from_millis(10), grace: Duration::from_millis(10), ..stage("a") };
    let mut double = three_ahead(StageRules { retries: 1, ..rules });
    double.next("a.1", "1");
    double.expect(["r18 = value 1"]);
    double.wait(2);
    double.clear();
    double.wait(18);
    double.expect(["a.0 is told", "r17 = 504 stage-timeout", "a.0 gets SIGTERM"]);
    double.next("a.0", "late");
    double.expect(["a.1 runs r19.1 try 2: y"]);
    double.next("a.0", "later");
    double.expect(["a.0 is asked for credit", "a.1 is asked for credit"]);
    double.lose("a.0");
    double.next("a.1", "2");
    double.expect(["r19 = value 2", "a.1 runs r21.1 try 1: y"]);
    double.next("a.1", "3");
    double.expect(["r21 = value 3", "a.1 runs r20.1 try 2: y"]);
    assert_eq!(double.retried.len(), 2);
}

/// So may the one after a job that it gives back.
#[test]
fn a_worker_that_was_sent_a_signal_may_give_back_what_counts_as_lost() {
    let rules = StageRules { timeout: Duration::from_millis(10), grace: Duration::from_millis(10), ..stage("a") };
    let mut double = three_ahead(rules);
    double.wait(20);
    let [first, second, _] = held(&double);
    double.next("a.0", "late");
    assert_eq!(double.retried.len(), 1);
    double.give_back(first);
    assert_eq!(double.retried.len(), 2, "it may be at the second now");
    assert!(double.bring(second, Outcome::Next("later")));
    assert_eq!(double.retried.len(), 3);
    double.clear();
    double.lose("a.0");
    double.lose("a.1");
    double.arrive(0);
    double.expect(["a.2 runs r21.1 try 2: y", "a.2 is asked for credit"]);
}

#[test]
fn cancelled_runs_say_nothing_of_how_quick_a_function_is() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.credit("a.0", 16);
    double.ran = Duration::ZERO;
    for _ in 0..40 {
        let number = double.submit("a", "");
        double.clear();
        double.cancel(number);
        double.clear();
        double.fail("a.0", Failure::Cancelled);
    }
    double.submit("a", "");
    double.clear();
    double.submit("a", "");
    double.expect([]);
}

#[test]
fn the_end_of_a_drain_answers_jobs_ahead() {
    let mut double = three_ahead(stage("a"));
    double.drain(1);
    double.wait(1);
    let told = double.seen().iter().filter(|line| line.contains("is told")).count();
    let answered = double.seen().iter().filter(|line| line.ends_with("503 draining")).count();
    assert_eq!((told, answered), (5, 5));
    double.clear();
    for _ in 0..4 {
        double.fail("a.0", Failure::Cancelled);
    }
    double.fail("a.1", Failure::Cancelled);
    double.wait(10);
    assert_eq!(double.core.next_timeout(), None);
    assert_eq!(double.core.counts(StageId(0)).idle, 2);
}

/// More workers than are looked at for room at a time.
#[test]
fn a_large_pool_takes_jobs_ahead_as_well() {
    let mut double = quick(stage("a"), 200);
    for _ in 0..201 {
        double.submit("a", "");
        double.clear();
    }
    for worker in 0..200 {
        double.credit(&format!("a.{worker}"), 2);
        double.clear();
    }
    for _ in 0..299 {
        double.submit("a", "");
        double.clear();
    }
    assert_eq!(double.queued(0), 0, "there is room for 400");
    let loads: Vec<usize> = (0..200).map(|worker| double.hands(&format!("a.{worker}")).len()).collect();
    assert!(loads.iter().all(|load| (1..=3).contains(load)), "{loads:?}");
    for worker in 0..200 {
        while !double.hands(&format!("a.{worker}")).is_empty() {
            double.next(&format!("a.{worker}"), "");
            double.clear();
        }
    }
    assert_eq!(double.core.pending(), 0);
    assert_eq!(double.core.counts(StageId(0)).idle, 200);
}
