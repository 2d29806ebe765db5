//! What clients are told when a stage has no value.

use evener_core::{Cause, Code, Failure, FallbackOn};

use crate::double::{Double, NO_FALLBACK, Wish, raised, stage};

/// Two stages with a worker each, and a request that is at stage `at`.
fn two(at: u32, wish: Wish) -> Double {
    let mut double = Double::new(vec![stage("a"), stage("b")]);
    double.arrive(0);
    double.arrive(1);
    double.submit_with("all", "x", wish);
    double.expect(["a.0 runs r1.1 try 1: x"]);
    if at == 1 {
        double.next("a.0", "y");
        double.expect(["b.0 runs r1.2 try 1: y"]);
    }
    double
}

#[test]
fn an_abort_brings_its_own_status_and_words() {
    let mut double = two(1, Wish::default());
    double.fail("b.0", Failure::Abort { status: 418, detail: "a teapot".to_owned() });
    double.expect(["r1 = 418 aborted"]);
    let problem = double.problem();
    assert_eq!((problem.detail.as_str(), problem.tries, problem.cause.as_ref()), ("a teapot", 1, None));
    assert_eq!(problem.job.map(|job| job.0 & 0xff), Some(2));
}

#[test]
fn what_does_not_decode_is_the_clients_fault_only_if_the_client_sent_it() {
    let decode = || Failure::Decode { detail: "line 1 column 2".to_owned() };
    let mut double = two(0, Wish::default());
    double.fail("a.0", decode());
    double.expect(["r1 = 400 bad-body"]);
    let mut double = two(1, Wish::default());
    double.fail("b.0", decode());
    double.expect(["r1 = 500 value-not-decodable"]);
    assert!(double.problem().detail.contains("line 1 column 2"));
}

#[test]
fn a_value_that_a_goto_brought_back_is_not_the_clients() {
    let mut double = two(0, Wish::default());
    double.goto("a.0", "a", "y");
    double.expect(["a.0 runs r1.2 try 1: y"]);
    double.fail("a.0", Failure::Decode { detail: String::new() });
    double.expect(["r1 = 500 value-not-decodable"]);
}

#[test]
fn a_client_body_is_the_clients_on_every_try() {
    let mut double = two(0, Wish::default());
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 2: x"]);
    double.fail("a.1", Failure::Decode { detail: String::new() });
    double.expect(["r1 = 400 bad-body"]);
}

#[test]
fn an_exception_shows_its_type_and_keeps_the_rest_for_the_log() {
    let mut double = two(0, Wish::default());
    double.fail("a.0", raised("ValueError"));
    double.expect(["r1 = 500 function-failed"]);
    let problem = double.problem();
    assert!(problem.detail.contains("ValueError") && !problem.detail.contains("secret"), "{}", problem.detail);
    assert!(matches!(&problem.cause, Some(Cause::Raised { message, .. }) if message == "secret"));
}

#[test]
fn every_other_failure_has_its_code() {
    let detail = || "result[0]".to_owned();
    let cases = [
        (Failure::Encode { detail: detail() }, "r1 = 500 result-not-encodable"),
        (Failure::TooLarge { detail: detail() }, "r1 = 500 result-too-large"),
        (Failure::NoRoom { detail: detail() }, "r1 = 429 memory-full"),
        (Failure::Cancelled, "r1 = 500 function-failed"),
    ];
    for (failure, answer) in cases {
        let mut double = two(1, Wish::default());
        double.fail("b.0", failure);
        double.expect([answer]);
        assert_eq!(double.core.pending(), 0);
        assert_eq!(double.core.counts(evener_core::StageId(1)).failed, 1);
    }
}

fn each_class() -> [FallbackOn; 4] {
    let none = NO_FALLBACK;
    [
        FallbackOn { timeout: true, ..none },
        FallbackOn { error: true, ..none },
        FallbackOn { lost: true, ..none },
        FallbackOn { unavailable: true, ..none },
    ]
}

#[test]
fn a_fallback_stands_in_for_its_class_alone() {
    let class = |code: Code| match code.status() {
        504 => Some(0),
        500 => Some(1),
        502 => Some(2),
        503 | 429 => Some(3),
        _ => None,
    };
    for code in Code::ALL {
        for (number, fallback_on) in each_class().into_iter().enumerate() {
            assert_eq!(fallback_on.covers(*code), class(*code) == Some(number), "{} and {number}", code.name());
        }
        assert!(!NO_FALLBACK.covers(*code));
    }
}

const EVERYTHING: FallbackOn = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };

#[test]
fn a_failed_function_may_have_a_fallback() {
    let wish = Wish { fallback_on: FallbackOn { error: true, ..NO_FALLBACK }, ..Wish::default() };
    let mut double = two(1, wish);
    double.fail("b.0", raised("KeyError"));
    double.expect(["r1 = fallback for function-failed"]);
}

#[test]
fn a_goto_to_nowhere_may_have_a_fallback() {
    let mut double = two(1, Wish { fallback_on: EVERYTHING, ..Wish::default() });
    double.goto("b.0", "nowhere", "z");
    double.expect(["r1 = fallback for unknown-target"]);
}

#[test]
fn what_the_client_did_wrong_is_told_as_it_is() {
    let wish = Wish { fallback_on: EVERYTHING, ..Wish::default() };
    let mut double = two(0, wish);
    double.fail("a.0", Failure::Decode { detail: String::new() });
    double.expect(["r1 = 400 bad-body"]);
    let mut double = two(1, wish);
    double.fail("b.0", Failure::Abort { status: 422, detail: "negative".to_owned() });
    double.expect(["r1 = 422 aborted"]);
}

#[test]
fn a_value_is_never_replaced_by_the_fallback() {
    let mut double = two(1, Wish { fallback_on: EVERYTHING, ..Wish::default() });
    double.next("b.0", "z");
    double.expect(["r1 = value z"]);
}

#[test]
fn a_refusal_may_have_a_fallback() {
    let mut double = Double::new(vec![stage("a")]);
    double.break_stage(0);
    double.submit_with("a", "x", Wish { fallback_on: EVERYTHING, ..Wish::default() });
    double.expect(["r1 refused: fallback for stage-broken"]);
    double.submit("a", "x");
    double.expect(["r2 refused: 503 stage-broken"]);
}
