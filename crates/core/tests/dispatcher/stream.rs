//! Answers that come in chunks.

use evener_core::{FallbackOn, Outcome, RequestKey, RetryOn, StageRules};

use crate::double::{Double, Wish, raised, stage};

fn two() -> Double {
    let generous = |name| StageRules { retry_on: RetryOn { lost: true, timeout: true, error: true }, ..stage(name) };
    let mut double = Double::new(vec![generous("a"), generous("b")]);
    (0..2).for_each(|stage| double.arrive(stage));
    double
}

fn at_the_last() -> Double {
    let mut double = two();
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.next("a.0", "y");
    double.expect(["b.0 runs r1.2 try 1: y"]);
    double
}

#[test]
fn the_last_stage_streams_and_its_end_is_the_answer() {
    let mut double = at_the_last();
    assert!(double.chunk("b.0", "1"));
    double.expect(["r1 gets 1"]);
    assert!(double.chunk("b.0", "2"));
    double.expect(["r1 gets 2"]);
    double.consumed(1, 7);
    double.expect(["b.0 may send 7 more"]);
    double.outcome("b.0", Outcome::Ended);
    double.expect(["r1 = ended"]);
    double.consumed(1, 7);
    double.expect([]);
}

#[test]
fn a_stream_may_be_empty() {
    let mut double = at_the_last();
    double.outcome("b.0", Outcome::Ended);
    double.expect(["r1 = ended"]);
}

#[test]
fn only_the_last_stage_may_stream() {
    let mut double = two();
    double.submit("all", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    assert!(!double.chunk("a.0", "1"));
    let held = double.held("a.0");
    assert!(!double.bring(held, Outcome::Ended));
}

#[test]
fn once_a_chunk_is_out_nothing_else_can_take_its_place() {
    let mut double = two();
    let fallback_on = FallbackOn { timeout: true, error: true, lost: true, unavailable: true };
    double.submit_with("b", "x", Wish { fallback_on, ..Wish::default() });
    double.expect(["b.0 runs r1.1 try 1: x"]);
    assert!(double.chunk("b.0", "1"));
    double.expect(["r1 gets 1"]);
    let held = double.held("b.0");
    assert!(!double.bring(held, Outcome::Next("whole")), "a whole value after a piece");
    double.fail("b.0", raised("ValueError"));
    double.expect(["r1 = 500 function-failed"]);

    let mut double = at_the_last();
    assert!(double.chunk("b.0", "1"));
    double.expect(["r1 gets 1"]);
    double.lose("b.0");
    double.expect(["r1 = 502 worker-died"]);
}

#[test]
fn chunks_that_nobody_waits_for_are_dropped() {
    let mut double = at_the_last();
    double.cancel(1);
    double.expect(["b.0 is told"]);
    assert!(double.chunk("b.0", "late"));
    double.expect([]);
    double.outcome("b.0", Outcome::Ended);
    double.expect([]);
    assert!(!double.chunk("b.0", "later"), "it is at no job");
    double.core.consumed(RequestKey::unpack(7), 1);
}
