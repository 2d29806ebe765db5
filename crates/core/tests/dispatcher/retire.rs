//! Workers that are to go for good.

use std::time::Duration;

use evener_core::StageRules;

use crate::double::{Double, stage};

#[test]
fn one_that_is_idle_goes_at_once() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.retire("a.0");
    double.expect(["a.0 leaves for good"]);
    double.retire("a.0");
    double.expect([]);
    double.submit("a", "x");
    double.expect([]);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r1.1 try 1: x"]);
}

#[test]
fn one_that_is_busy_ends_what_it_does() {
    let mut double = Double::new(vec![stage("a")]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.retire("a.0");
    double.submit("a", "y");
    double.expect([]);
    double.next("a.0", "v");
    double.expect(["a.0 leaves for good", "r1 = value v"]);
    double.lose("a.0");
    double.expect([]);
}

#[test]
fn all_slots_end_what_they_do() {
    let mut double = Double::new(vec![StageRules { slots: 2, ..stage("a") }]);
    double.arrive(0);
    double.submit("a", "x");
    double.expect(["a.0 runs r1.1 try 1: x"]);
    double.submit("a", "y");
    double.expect(["a.0 gets r2.1 try 1: y"]);
    double.retire("a.0");
    let [first, second] = double.hands("a.0")[..] else { panic!("it holds two") };
    assert!(double.bring(second, evener_core::Outcome::Next("2")));
    double.expect(["r2 = value 2"]);
    assert!(double.bring(first, evener_core::Outcome::Next("1")));
    double.expect(["a.0 leaves for good", "r1 = value 1"]);
}

#[test]
fn what_it_holds_ahead_it_still_does() {
    let mut double = Double::new(vec![stage("a")]);
    double.ran = Duration::from_micros(10);
    double.arrive(0);
    double.several = true;
    for _ in 0..20 {
        double.submit("a", "v");
        double.next("a.0", "w");
    }
    for value in ["1", "2", "3"] {
        double.submit("a", value);
    }
    double.credit("a.0", 8);
    double.clear();
    double.several = false;
    assert_eq!(double.hands("a.0").len(), 3, "it holds jobs ahead");
    double.retire("a.0");
    double.submit("a", "4");
    double.expect([]);
    double.next("a.0", "w");
    double.expect(["r21 = value w"]);
    double.next("a.0", "w");
    double.expect(["r22 = value w"]);
    double.next("a.0", "w");
    double.expect(["a.0 leaves for good", "r23 = value w"]);
    assert_eq!(double.queued(0), 1);
}
