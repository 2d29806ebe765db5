//! The simulation can fail: each way to spoil the dispatcher's work is noticed, and for the right reason.

mod graphs;
mod rules;
mod spoiler;
mod way;

use std::collections::BTreeSet;

use evener_simulation::{Core, Failure, Machine, run_on};
use spoiler::Spoiled;
use way::Way;

/// The first failure among a few thousand worlds that says one of these.
#[track_caller]
fn failure<M: Machine>(machine: impl Fn(Core) -> M, words: &[&str]) -> Failure {
    failure_of(|seed| run_on(seed, &machine).err(), words)
}

#[track_caller]
fn failure_of(run: impl Fn(u64) -> Option<Failure>, words: &[&str]) -> Failure {
    let mut others = BTreeSet::new();
    for seed in 0..3_000 {
        let Some(failure) = run(seed) else { continue };
        if words.iter().any(|words| failure.what.contains(words)) {
            return failure;
        }
        others.insert(failure.what);
    }
    panic!("no world says any of {words:?}; they say {others:#?}");
}

#[track_caller]
fn is_noticed(way: Way, words: &[&str]) {
    failure(|core| Spoiled::new(core, way), words);
}

#[test]
fn nothing_spoiled_is_nothing_noticed() {
    for seed in 0..200 {
        run_on(seed, |core| Spoiled::new(core, Way::Not)).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn a_job_that_is_not_handed_out() {
    is_noticed(Way::LoseRun, &["though a worker is idle"]);
}

#[test]
fn a_job_that_goes_to_a_busy_worker() {
    is_noticed(Way::Misdirect, &["was not idle", "wrong stage"]);
}

#[test]
fn a_payload_that_is_mixed_up() {
    is_noticed(Way::MixUpPayloads, &["payload is not what its path makes of it"]);
}

#[test]
fn an_answer_that_is_lost() {
    is_noticed(Way::LoseAnswer, &["should have been answered", "counts other requests"]);
}

#[test]
fn an_answer_that_comes_twice() {
    is_noticed(Way::DoubleAnswer, &["answered again"]);
}

#[test]
fn an_answer_that_goes_to_another_client() {
    is_noticed(Way::MixUpAnswers, &["has the id of another"]);
}

#[test]
fn an_answer_to_a_client_that_went_away() {
    is_noticed(Way::IgnoreLeaving, &["Cancelled, and answered again", "counts other requests", "nobody waits"]);
}

#[test]
fn a_worker_that_is_not_told() {
    is_noticed(Way::LoseCancel, &["was not told"]);
}

#[test]
fn a_worker_that_is_not_signalled() {
    is_noticed(Way::LoseStop, &["should have got SIG"]);
}

#[test]
fn a_worker_that_is_not_let_go() {
    is_noticed(Way::LoseRetire, &["should have been retired"]);
}

#[test]
fn a_stale_outcome_that_is_passed_off_as_the_present_one() {
    is_noticed(Way::Unfence, &["a stale outcome"]);
}

#[test]
fn an_outcome_that_is_lost() {
    is_noticed(Way::LoseOutcome, &["should have been answered", "though a worker is idle", "retired"]);
}

#[test]
fn a_death_that_is_overlooked() {
    is_noticed(Way::OverlookDeath, &["gone", "at the end"]);
}

#[test]
fn a_clock_that_stands_still() {
    is_noticed(Way::StopClock, &["past its deadline", "woken in the past"]);
}

#[test]
fn a_clock_that_is_fast() {
    is_noticed(Way::FastClock, &["for no reason", "too early", "before"]);
}

#[test]
fn a_drain_that_never_ends() {
    is_noticed(Way::ForgetDrain, &["at the end of the drain", "during a drain"]);
}

#[test]
fn a_failed_try_that_is_not_reported() {
    is_noticed(Way::LoseRetried, &["was not reported"]);
}

#[test]
fn a_job_that_overtakes_another() {
    is_noticed(Way::OutOfTurn, &["stood before it"]);
}

#[test]
fn a_job_ahead_on_no_credit() {
    is_noticed(Way::InventCredit, &["on no credit"]);
}

#[test]
fn a_worker_that_is_not_asked_for_credit() {
    is_noticed(Way::LoseAsk, &["was not asked for credit"]);
}

#[test]
fn a_worker_that_is_asked_for_credit_again() {
    is_noticed(Way::AskTwice, &["asked for credit twice"]);
}

#[test]
fn a_job_ahead_of_a_slow_function() {
    is_noticed(Way::InventPace, &["not known as quick", "for no reason"]);
}

#[test]
fn a_job_ahead_of_a_function_that_printed() {
    is_noticed(Way::OverlookPrint, &["not known as quick", "for no reason"]);
}

#[test]
fn a_job_that_is_not_called_back() {
    is_noticed(Way::LoseRecall, &["should have been asked for job"]);
}

#[test]
fn a_job_that_is_called_back_too_early() {
    is_noticed(Way::RecallEarly, &["called back too early"]);
}

#[test]
fn a_job_that_comes_back_and_is_lost() {
    is_noticed(Way::LoseReturned, &["though a worker", "stood before it"]);
}

#[test]
fn a_try_for_a_job_that_did_not_begin() {
    is_noticed(Way::ChargeAhead, &["after 0 runs"]);
}

#[test]
fn no_try_for_a_job_that_may_begin_on_a_stuck_worker() {
    is_noticed(Way::SpareStuck, &["try 1 after 1 runs", "try 2 after 2 runs"]);
}

#[test]
fn a_client_that_is_not_told_that_its_request_goes_on() {
    is_noticed(Way::LoseGoingOn, &["was not told that it goes on"]);
}

#[test]
fn a_client_that_is_told_twice_that_its_request_goes_on() {
    is_noticed(Way::GoOnTwice, &["is told that it goes on for no reason"]);
}

#[test]
fn a_request_that_is_cancelled_though_its_job_began() {
    is_noticed(Way::CancelBegun, &["ended with Cancelled for no reason"]);
}

#[test]
fn a_request_that_cannot_be_taken_back() {
    is_noticed(Way::IgnoreWithdrawal, &["was taken back, and it is GoesOn, not Done"]);
}

#[test]
fn a_worker_that_is_not_asked_whether_a_job_has_begun() {
    is_noticed(Way::LoseQuestion, &["which was taken back"]);
}

#[test]
fn a_worker_that_is_not_killed_though_a_client_insists() {
    is_noticed(Way::NeverKill, &["should have got SIGTERM"]);
}

#[test]
fn a_request_that_is_taken_back_and_counts_as_left() {
    is_noticed(Way::CountAsLeft, &["miscounted"]);
}

#[test]
fn the_least_urgent_first() {
    is_noticed(Way::InvertUrgency, &["is more urgent"]);
}

#[test]
fn nobody_more_urgent_than_another() {
    is_noticed(Way::ForgetUrgency, &["is more urgent"]);
}

#[test]
fn a_call_ahead_of_which_another_function_is_quick() {
    is_noticed(Way::MixUpFunctions, &["not known as quick"]);
}

#[test]
fn a_function_that_is_not_forgotten() {
    is_noticed(Way::RememberFunctions, &["not known as quick", "for no reason"]);
}

#[test]
fn a_call_that_is_tried_as_often_as_its_stage_says() {
    is_noticed(Way::ForgetOwnRetries, &["is tried again after WorkerDied, not None"]);
    is_noticed(Way::ForgetOwnRetries, &["ended with WorkerDied for no reason"]);
}

#[test]
fn a_call_that_takes_as_long_as_its_stage_says() {
    is_noticed(Way::ForgetOwnTimeouts, &["before its time was over"]);
    is_noticed(Way::ForgetOwnTimeouts, &["past its timeout"]);
}

#[test]
fn an_exception_that_does_not_come_to_its_client() {
    is_noticed(Way::SwallowException, &["should get Raised", "is tried again after FunctionFailed"]);
}

#[test]
fn a_failure_names_its_seed_and_shows_its_steps_and_comes_again() {
    let failure = failure(|core| Spoiled::new(core, Way::LoseAnswer), &["should have been answered", "counts other"]);
    let text = failure.to_string();
    assert!(text.contains(&format!("EVENER_SEED={}", failure.seed)), "{text}");
    assert!(!failure.steps.is_empty() && failure.steps.iter().any(|step| step.contains(" ms  ")), "{text}");
    let again = run_on(failure.seed, |core| Spoiled::new(core, Way::LoseAnswer)).expect_err("it fails again");
    assert_eq!(again.to_string(), text);
}
