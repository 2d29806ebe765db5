//! Calls of functions that clients send: what each says of its own tries, what it raises, and how quick each function is.

use std::time::Duration;

use evener_core::{Cause, Failure, FallbackOn, OnCancel, Outcome, RetryOn, StageId, StageRules, Terms, Time};

use crate::double::{Double, Wish, call_of, functions, on, priority, raised, stage};

fn retries(retries: u32) -> Terms {
    Terms { retries: Some(retries), ..Terms::default() }
}

fn timeout(timeout: Duration) -> Terms {
    Terms { timeout: Some(timeout), ..Terms::default() }
}

/// So many workers, and one request under these terms that is at work.
fn one(rules: StageRules, workers: u32, terms: Terms) -> Double {
    let mut double = Double::new(vec![rules]);
    (0..workers).for_each(|_| double.arrive(0));
    double.submit_with("a", "x", on(terms));
    double.expect([format!("a.{} runs r1.1 try 1: x", workers - 1).as_str()]);
    double
}

#[test]
fn a_call_may_have_more_tries_than_its_stage_gives() {
    let backoff = Some(Duration::ZERO);
    let mut double = one(StageRules { retries: 0, backoff, ..stage("a") }, 3, retries(2));
    double.lose("a.2");
    double.expect(["a.1 runs r1.1 try 2: x"]);
    double.lose("a.1");
    double.expect(["a.0 runs r1.1 try 3: x"]);
    double.lose("a.0");
    double.expect(["r1 = 502 worker-died"]);
    assert_eq!(double.problem().tries, 3);
}

#[test]
fn a_call_may_have_fewer_tries_than_its_stage_gives() {
    let mut double = one(StageRules { retries: 5, ..stage("a") }, 2, retries(0));
    double.lose("a.1");
    double.expect(["r1 = 502 worker-died"]);
}

#[test]
fn a_call_may_have_as_many_tries_as_it_likes() {
    let backoff = Some(Duration::ZERO);
    let mut double = one(StageRules { backoff, ..stage("a") }, 1, retries(u32::MAX));
    for number in 0..100 {
        double.lose(&format!("a.{number}"));
        double.arrive(0);
        double.expect([format!("a.{} runs r1.1 try {}: x", number + 1, number + 2).as_str()]);
    }
}

/// How many tries there are is the call's affair; what is worth one is the stage's.
#[test]
fn what_is_worth_a_try_is_the_stages_to_say() {
    let retry_on = RetryOn { lost: false, timeout: false, error: false };
    let mut double = one(StageRules { retry_on, ..stage("a") }, 2, retries(5));
    double.lose("a.1");
    double.expect(["r1 = 502 worker-died"]);
}

#[test]
fn a_call_has_no_retry_to_spare_for_a_stuck_worker() {
    let mut double = crate::ahead::at_work(StageRules { retries: 5, ..stage("a") }, 16);
    double.submit_with("a", "y", on(retries(0)));
    double.submit_with("a", "z", on(retries(1)));
    double.expect(["a.0 gets r18.1 try 1: y", "a.0 gets r19.1 try 1: z"]);
    double.wait(2);
    double.expect(["a.0 is to give r19.1 back", "a.0 is to give r18.1 back"]);
    double.wait(1_000);
    double.expect(["a.0 is told of r19.1", "a.0 is asked for credit"]);
    double.wait(60_000);
    double.clear();
}

#[test]
fn a_call_may_be_shorter_or_longer_than_its_stage_allows() {
    let rules = StageRules { timeout: Duration::from_millis(500), ..stage("a") };
    for millis in [100, 2_000] {
        let mut double = one(rules.clone(), 1, timeout(Duration::from_millis(millis)));
        double.wait(millis - 1);
        double.expect([]);
        double.wait(1);
        double.expect(["a.0 is told", "r1 = 504 stage-timeout"]);
        let detail = &double.problem().detail;
        assert!(detail.contains(&format!("{:?}", Duration::from_millis(millis))), "{detail}");
    }
}

#[test]
fn each_try_of_a_call_has_its_timeout() {
    let retry_on = RetryOn { lost: true, timeout: true, error: false };
    let rules = StageRules { retry_on, backoff: Some(Duration::ZERO), ..stage("a") };
    let mut double = one(rules, 2, Terms { retries: Some(1), ..timeout(Duration::from_millis(100)) });
    double.wait(100);
    double.expect(["a.1 is told", "a.0 runs r1.1 try 2: x"]);
    double.wait(99);
    double.expect([]);
    double.wait(1);
    double.expect(["a.0 is told", "r1 = 504 stage-timeout"]);
}

#[test]
fn a_call_may_take_as_long_as_it_likes() {
    let forever = Wish { timeout: Time::NEVER.since(Time::ZERO), ..on(timeout(Duration::MAX)) };
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.submit_with("a", "x", forever);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.leap(1_000 * 365 * 86_400 * 100);
    double.expect([]);
    double.next("a.0", "after a hundred years");
    double.expect(["r1 = value after a hundred years"]);
    assert_eq!(double.core.next_timeout(), None);
}

#[test]
fn a_call_without_a_timeout_ends_when_its_client_insists() {
    let rules = StageRules { grace: Duration::from_millis(300), on_cancel: OnCancel::Tell, ..stage("a") };
    let mut double = one(rules.clone(), 1, timeout(Duration::MAX));
    double.cancel(1);
    double.expect(["a.0 is told"]);
    double.leap(3_600_000_000);
    double.expect([]);
    let mut double = one(rules, 1, timeout(Duration::MAX));
    double.kill(1);
    double.expect(["r1 = 409 cancelled", "a.0 is told"]);
    double.wait(300);
    double.expect(["a.0 gets SIGTERM"]);
}

#[test]
fn the_terms_are_for_the_first_job_alone() {
    let rules = |name| StageRules { retries: 1, timeout: Duration::from_millis(500), ..stage(name) };
    for goto in [false, true] {
        let mut double = Double::new(vec![rules("a"), rules("b")]);
        [0, 1, 1].into_iter().for_each(|stage| double.arrive(stage));
        let terms = Terms { retries: Some(0), ..timeout(Duration::from_millis(100)) };
        double.submit_with("all", "x", on(Terms { function: call_of(7).function, ..terms }));
        double.expect(["a.0 runs r1.1 try 1: x"]);
        if goto {
            double.goto("a.0", "b", "y");
        } else {
            double.next("a.0", "y");
        }
        double.expect(["b.1 runs r1.2 try 1: y"]);
        double.lose("b.1");
        double.expect(["b.0 runs r1.2 try 2: y"]);
        double.wait(499);
        double.expect([]);
        double.wait(1);
        double.expect(["b.0 is told", "r1 = 504 stage-timeout"]);
    }
}

fn exception() -> Outcome<&'static str> {
    let (name, message, traceback) = ("KeyError".to_owned(), "secret".to_owned(), "line 7".to_owned());
    Outcome::Raised { name, message, traceback, exception: "pickled" }
}

#[test]
fn what_a_call_raises_comes_to_its_client_and_is_not_tried_again() {
    let retry_on = RetryOn { lost: true, timeout: true, error: true };
    let mut double = Double::new(vec![StageRules { retry_on, ..functions("a") }]);
    double.arrive(0);
    let fallback_on = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };
    double.submit_with("a", "x", Wish { fallback_on, ..on(retries(5)) });
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.outcome("a.0", exception());
    double.expect(["r1 = raised pickled"]);
    let problem = double.problem();
    assert_eq!((problem.code.name(), problem.tries, problem.stage), ("function-failed", 1, Some(StageId(0))));
    assert!(problem.detail.contains("KeyError") && !problem.detail.contains("secret"), "{}", problem.detail);
    assert!(matches!(&problem.cause, Some(Cause::Raised { message, .. }) if message == "secret"));
    let counts = double.core.counts(StageId(0));
    assert_eq!((counts.done, counts.failed, counts.retried, counts.idle), (0, 1, 0, 1));
}

#[test]
fn what_a_call_raises_too_late_comes_to_nobody() {
    let mut double = one(functions("a"), 1, call_of(1));
    double.kill(1);
    double.expect(["r1 = 409 cancelled", "a.0 is told"]);
    double.outcome("a.0", exception());
    double.expect([]);
    assert_eq!(double.core.counts(StageId(0)).idle, 1);
}

#[test]
fn no_goto_leads_to_a_pool_of_functions() {
    let mut double = Double::with::<StageId>(vec![stage("a"), functions("f")], vec![], 64);
    double.arrive(0);
    double.arrive(1);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.goto("a.0", "f", "y");
    double.expect(["r1 = 500 unknown-target"]);
    double.submit_with("f", "z", on(call_of(1)));
    double.expect(["f.0 runs r2.1 try 1: z"]);
    double.next("f.0", "done");
    double.expect(["r2 = value done"]);
}

/// Its name is nobody's but the pool's, so a pipeline may have it.
#[test]
fn a_goto_may_lead_to_a_pipeline_that_is_called_as_a_pool_is() {
    let pipelines = vec![("f".to_owned(), vec![StageId(0)])];
    let mut double = Double::with(vec![stage("a"), functions("f")], pipelines, 64);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.goto("a.0", "f", "y");
    double.expect(["a.0 runs r1.2 try 1: y"]);
}

/// A pool of one worker that takes 16 jobs ahead.
fn pool() -> Double {
    let mut double = Double::new(vec![functions("a")]);
    double.several = true;
    double.arrive(0);
    double.credit("a.0", 16);
    double
}

/// So many calls of that function, one after the other, each of which runs so long.
fn run(double: &mut Double, function: u32, calls: u32, micros: u64) {
    double.ran = Duration::from_micros(micros);
    for _ in 0..calls {
        assert_eq!(double.core.pending(), 0);
        double.submit_with("a", "", on(call_of(function)));
        let worker = double.runner();
        double.next(&worker, "");
        double.clear();
    }
}

/// Whether a call of `next` goes ahead while the worker is at a call of `oldest`.
#[track_caller]
fn goes_ahead(double: &mut Double, oldest: u32, next: u32) -> bool {
    double.submit_with("a", "", on(call_of(oldest)));
    double.submit_with("a", "", on(call_of(next)));
    let ahead = double.hands("a.0").len() == 2;
    for _ in 0..2 {
        double.next("a.0", "");
    }
    double.clear();
    assert_eq!(double.core.pending(), 0);
    ahead
}

#[test]
fn a_function_that_nobody_knows_gets_nothing_ahead_whatever_else_is_known() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    assert!(goes_ahead(&mut double, 1, 1));
    assert!(!goes_ahead(&mut double, 2, 2));
    assert!(!goes_ahead(&mut double, 1, 2), "it may be slow");
    assert!(!goes_ahead(&mut double, 2, 1), "what lies before it may be slow");
    run(&mut double, 2, 11, 50);
    assert!(!goes_ahead(&mut double, 2, 1), "it has run fifteen times");
    assert!(goes_ahead(&mut double, 2, 2));
}

#[test]
fn calls_do_not_overtake_one_that_cannot_go_ahead() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    double.submit_with("a", "unknown", on(call_of(2)));
    double.submit_with("a", "", on(call_of(1)));
    double.submit_with("a", "", on(Terms { priority: 1, ..call_of(1) }));
    double.expect(["a.0 runs r17.1 try 1: ", "a.0 gets r20.1 try 1: "]);
    assert_eq!(double.queued(0), 2);
    double.next("a.0", "");
    double.next("a.0", "");
    double.expect(["r17 = value ", "r20 = value ", "a.0 runs r18.1 try 1: unknown", "a.0 is asked for credit"]);
    double.next("a.0", "");
    double.expect(["r18 = value ", "a.0 runs r19.1 try 1: "]);
}

#[test]
fn a_slow_function_keeps_others_away_and_a_quick_one_does_not() {
    let mut double = pool();
    run(&mut double, 1, 20, 50);
    run(&mut double, 2, 20, 30_000);
    run(&mut double, 3, 20, 20);
    assert!(goes_ahead(&mut double, 1, 3) && goes_ahead(&mut double, 3, 1));
    assert!(!goes_ahead(&mut double, 2, 1), "behind a slow one");
    assert!(!goes_ahead(&mut double, 1, 2), "a slow one goes to whoever is idle first");
    assert!(!goes_ahead(&mut double, 2, 2));
}

/// As many as fit before the slower of the two.
#[test]
fn how_many_go_ahead_is_as_the_slower_function_has_it() {
    let mut double = pool();
    run(&mut double, 1, 20, 400);
    run(&mut double, 2, 20, 100);
    for (oldest, next, depth) in [(1, 1, 2), (2, 2, 10), (1, 2, 2), (2, 1, 2)] {
        double.ran = Duration::from_micros(if oldest == 1 { 400 } else { 100 });
        double.submit_with("a", "", on(call_of(oldest)));
        (0..16).for_each(|_| _ = double.submit_with("a", "", on(call_of(next))));
        double.clear();
        assert_eq!(double.hands("a.0").len(), 1 + depth, "{next} behind {oldest}");
        for number in 0..17 {
            let function = if number == 0 { oldest } else { next };
            double.ran = Duration::from_micros(if function == 1 { 400 } else { 100 });
            double.next("a.0", "");
            double.clear();
        }
    }
}

#[test]
fn a_call_of_no_function_goes_by_the_pace_of_its_stage() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    double.submit("a", "");
    double.expect(["a.0 runs r17.1 try 1: "]);
    double.next("a.0", "");
    double.next("a.0", "");
    double.clear();
}

#[test]
fn a_function_has_one_pace_in_all_pools() {
    let mut double = Double::with::<StageId>(vec![functions("a"), functions("b")], vec![], 64);
    double.several = true;
    double.arrive(0);
    double.arrive(1);
    double.credit("b.0", 1);
    run(&mut double, 1, 16, 50);
    double.submit_with("b", "", on(call_of(1)));
    double.submit_with("b", "", on(call_of(1)));
    double.expect(["b.0 runs r17.1 try 1: ", "b.0 gets r18.1 try 1: "]);
}

#[test]
fn what_is_known_of_a_function_can_be_forgotten() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    run(&mut double, 2, 16, 50);
    double.forget(1);
    assert!(!goes_ahead(&mut double, 1, 1), "it has to be learned again");
    assert!(goes_ahead(&mut double, 2, 2));
    run(&mut double, 1, 14, 50);
    assert!(goes_ahead(&mut double, 1, 1));
}

/// Whoever forgot it did so for good: what comes late is not remembered, or such functions would gather.
#[test]
fn a_late_outcome_does_not_bring_a_forgotten_function_back() {
    let mut double = pool();
    double.ran = Duration::from_micros(50);
    (0..20).for_each(|_| _ = double.submit_with("a", "", on(call_of(1))));
    double.forget(1);
    for _ in 0..19 {
        double.next("a.0", "");
        double.prints("a.0");
        assert_eq!(double.hands("a.0").len(), 1);
    }
    double.next("a.0", "");
    double.clear();
    run(&mut double, 1, 15, 50);
    assert!(!goes_ahead(&mut double, 1, 1), "this is the sixteenth call that is known of");
    assert!(goes_ahead(&mut double, 1, 1), "and nothing is known of what it printed");
}

#[test]
fn a_worker_that_was_at_a_forgotten_function_gets_nothing_ahead_until_it_is_done() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    run(&mut double, 2, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    double.forget(1);
    double.submit_with("a", "", on(call_of(2)));
    double.submit_with("a", "", on(call_of(2)));
    double.expect(["a.0 runs r33.1 try 1: ", "a.0 is asked for credit"]);
    double.next("a.0", "");
    double.expect(["r33 = value ", "a.0 runs r34.1 try 1: ", "a.0 gets r35.1 try 1: "]);
}

#[test]
fn a_function_that_printed_goes_alone_and_others_do_not_suffer() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    run(&mut double, 2, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    double.prints("a.0");
    double.submit_with("a", "", on(call_of(2)));
    double.submit_with("a", "", on(call_of(2)));
    double.expect(["a.0 runs r33.1 try 1: ", "a.0 is asked for credit"]);
    double.next("a.0", "");
    double.expect(["r33 = value ", "a.0 runs r34.1 try 1: ", "a.0 gets r35.1 try 1: "]);
    double.next("a.0", "");
    double.next("a.0", "");
    double.clear();
    assert!(!goes_ahead(&mut double, 1, 1));
    assert!(!goes_ahead(&mut double, 1, 2) && !goes_ahead(&mut double, 2, 1));
    assert!(goes_ahead(&mut double, 2, 2));
    run(&mut double, 1, 1000, 50);
    assert!(goes_ahead(&mut double, 1, 1));
}

/// What a worker prints belongs to the oldest of its jobs, which changes while it has others ahead.
#[test]
fn what_is_printed_is_held_against_the_oldest_job() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    run(&mut double, 2, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    double.submit_with("a", "", on(call_of(2)));
    double.next("a.0", "");
    double.prints("a.0");
    double.next("a.0", "");
    double.clear();
    assert!(goes_ahead(&mut double, 1, 1));
    assert!(!goes_ahead(&mut double, 2, 2));
}

/// While it is at that job, whatever is found out of the function meanwhile.
#[test]
fn a_worker_that_printed_gets_nothing_ahead_until_it_is_done() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    double.prints("a.0");
    double.forget(1);
    double.clear();
    double.arrive(0);
    for _ in 0..16 {
        double.submit_with("a", "", on(call_of(1)));
        double.next("a.1", "");
        double.clear();
    }
    double.submit_with("a", "", on(call_of(1)));
    double.submit_with("a", "", on(call_of(1)));
    double.expect(["a.1 runs r34.1 try 1: ", "a.0 is asked for credit", "a.1 is asked for credit"]);
    double.credit("a.1", 1);
    double.expect(["a.1 gets r35.1 try 1: "]);
    double.next("a.0", "");
    double.clear();
}

#[test]
fn how_long_a_call_ran_is_held_against_its_own_function() {
    let mut double = pool();
    run(&mut double, 1, 16, 50);
    run(&mut double, 2, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    double.submit_with("a", "", on(call_of(2)));
    double.ran = Duration::from_millis(30);
    double.next("a.0", "");
    double.ran = Duration::from_micros(50);
    double.next("a.0", "");
    double.clear();
    assert!(!goes_ahead(&mut double, 1, 1));
    assert!(goes_ahead(&mut double, 2, 2));
}

/// It may be at the next job, for as long as it lives.
#[test]
fn what_a_worker_prints_after_a_signal_is_held_against_the_next_job() {
    let rules = StageRules { timeout: Duration::from_millis(10), grace: Duration::ZERO, ..functions("a") };
    let mut double = Double::new(vec![StageRules { backoff: Some(Duration::from_secs(1)), ..rules }]);
    double.several = true;
    double.arrive(0);
    double.credit("a.0", 16);
    run(&mut double, 1, 16, 50);
    run(&mut double, 2, 16, 50);
    double.submit_with("a", "", on(call_of(1)));
    let number = double.submit_with("a", "", on(call_of(2)));
    double.wait(11);
    assert!(double.seen().iter().any(|line| line == "a.0 gets SIGTERM"));
    double.next("a.0", "late");
    double.prints("a.0");
    double.lose("a.0");
    double.kill(number);
    double.arrive(0);
    double.credit("a.1", 16);
    double.clear();
    for (function, ahead) in [(1, true), (2, false)] {
        double.submit_with("a", "", on(call_of(function)));
        double.submit_with("a", "", on(call_of(function)));
        assert_eq!(double.hands("a.1").len() == 2, ahead, "function {function}");
        double.next("a.1", "");
        double.next("a.1", "");
        double.clear();
    }
}

#[test]
fn a_call_that_raises_or_fails_says_how_quick_its_function_is() {
    let mut double = pool();
    double.ran = Duration::from_micros(50);
    for number in 0..16 {
        double.submit_with("a", "", on(call_of(1)));
        match number % 2 {
            0 => double.outcome("a.0", exception()),
            _ => double.fail("a.0", raised("KeyError")),
        }
        double.clear();
    }
    assert!(goes_ahead(&mut double, 1, 1));
}

#[test]
fn a_call_that_was_cancelled_says_nothing_of_how_quick_its_function_is() {
    let mut double = pool();
    double.ran = Duration::from_micros(50);
    for _ in 0..40 {
        let number = double.submit_with("a", "", on(call_of(1)));
        double.kill(number);
        double.fail("a.0", Failure::Cancelled);
        double.clear();
    }
    assert!(!goes_ahead(&mut double, 1, 1));
}

#[test]
fn a_call_has_all_its_terms_at_once() {
    let terms = Terms { retries: Some(1), priority: 5, ..call_of(3) };
    let mut double = Double::new(vec![StageRules { retries: 0, ..functions("a") }]);
    double.submit_with("a", "low", on(priority(4)));
    double.submit_with("a", "x", on(Terms { timeout: Some(Duration::from_millis(50)), ..terms }));
    double.arrive(0);
    double.expect(["a.0 runs r2.1 try 1: x"]);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r2.1 try 2: x"]);
    double.wait(50);
    double.expect(["a.1 is told", "r2 = 504 stage-timeout"]);
}
