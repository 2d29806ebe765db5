//! Requests that take another way instead of failing.

use evener_core::{Failure, FallbackOn, Outcome, Path, Reply, StageId};

use crate::double::{Double, Wish, raised, stage, within};

/// Stages `a`, `b` and `mend`, and a pipeline through the first two; a request is on its way, and `mend` is its other way.
fn mended(timeout_millis: u64) -> Double {
    let pipelines = vec![("ab".to_owned(), vec![StageId(0), StageId(1)])];
    let mut double = Double::with(["a", "b", "mend"].map(stage).to_vec(), pipelines, 64);
    (0..3).for_each(|stage| double.arrive(stage));
    let wish = Wish { on_error: Some(Path::Stage(StageId(2))), ..within(timeout_millis) };
    double.submit_with("ab", "x", wish);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double
}

const AN_HOUR: u64 = 3_600_000;

#[test]
fn what_failed_goes_another_way_with_what_the_client_sent() {
    let mut double = mended(AN_HOUR);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y"]);
    double.fail("b.0", raised("ValueError"));
    double.expect(["r1 takes its other way for function-failed", "mend.0 runs r1.3 try 1: x after function-failed"]);
    double.outcome("mend.0", Outcome::Respond(Reply { status: 503, headers: vec![], body: "mended" }));
    double.expect(["r1 = reply 503 mended"]);
}

#[test]
fn the_first_problem_is_told_if_that_fails_as_well() {
    let mut double = mended(AN_HOUR);
    double.fail("a.0", raised("ValueError"));
    double.expect(["r1 takes its other way for function-failed", "mend.0 runs r1.2 try 1: x after function-failed"]);
    double.fail("mend.0", Failure::Abort { status: 418, detail: "no".into() });
    double.expect(["r1 fails there as well: aborted", "r1 = 500 function-failed"]);
}

#[test]
fn it_is_tried_again_like_any_job() {
    let mut double = mended(AN_HOUR);
    double.fail("a.0", raised("ValueError"));
    double.expect(["r1 takes its other way for function-failed", "mend.0 runs r1.2 try 1: x after function-failed"]);
    double.lose("mend.0");
    double.arrive(2);
    double.expect(["mend.1 runs r1.2 try 2: x after function-failed"]);
    double.next("mend.1", "good");
    double.expect(["r1 = value good"]);
}

#[test]
fn what_the_client_did_wrong_and_what_is_too_late_is_told() {
    let mut double = mended(AN_HOUR);
    double.fail("a.0", Failure::Decode { detail: "no JSON".into() });
    double.expect(["r1 = 400 bad-body"]);

    let mut double = mended(100);
    double.wait(101);
    double.expect(["r1 = 504 deadline-exceeded", "a.0 is told"]);

    let mut double = mended(100);
    double.fail("a.0", raised("ValueError"));
    double.expect(["r1 takes its other way for function-failed", "mend.0 runs r1.2 try 1: x after function-failed"]);
    double.wait(101);
    double.expect(["r1 fails there as well: deadline-exceeded", "r1 = 500 function-failed", "mend.0 is told"]);
}

#[test]
fn a_fallback_stands_in_only_if_the_other_way_fails() {
    let mut double = Double::new(vec![stage("a"), stage("mend")]);
    (0..2).for_each(|stage| double.arrive(stage));
    let fallback_on = FallbackOn { timeout: false, error: true, lost: false, unavailable: false };
    let wish = Wish { on_error: Some(Path::Stage(StageId(1))), fallback_on, ..Wish::default() };
    double.submit_with("a", "x", wish);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.fail("a.0", raised("ValueError"));
    double.expect(["r1 takes its other way for function-failed", "mend.0 runs r1.2 try 1: x after function-failed"]);
    double.fail("mend.0", raised("KeyError"));
    double.expect(["r1 fails there as well: function-failed", "r1 = fallback for function-failed"]);
}
