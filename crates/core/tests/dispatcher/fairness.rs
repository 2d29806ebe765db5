//! Flows: the flood of one client does not starve another.

use evener_core::Terms;

use crate::double::{Double, on, stage};

fn of(flow: u16) -> Terms {
    Terms { flow, ..Terms::default() }
}

#[test]
fn flows_go_in_turn_whoever_came_first() {
    let mut double = Double::new(vec![stage("a")]);
    for value in ["1", "2", "3", "4"] {
        double.submit_with("a", value, on(of(1)));
    }
    double.submit_with("a", "x", on(of(2)));
    double.submit_with("a", "y", on(of(2)));
    double.expect([]);
    double.arrive(0);
    double.expect(["a.0 runs r1.1 try 1: 1"]);
    for (answer, next) in [
        ("r1 = value v", "a.0 runs r5.1 try 1: x"),
        ("r5 = value v", "a.0 runs r2.1 try 1: 2"),
        ("r2 = value v", "a.0 runs r6.1 try 1: y"),
        ("r6 = value v", "a.0 runs r3.1 try 1: 3"),
        ("r3 = value v", "a.0 runs r4.1 try 1: 4"),
    ] {
        double.next("a.0", "v");
        double.expect([answer, next]);
    }
}

#[test]
fn a_priority_goes_before_any_turn_and_a_retry_before_its_flow() {
    let mut double = Double::new(vec![stage("a")]);
    double.submit_with("a", "low", on(of(1)));
    double.submit_with("a", "high", on(Terms { priority: 1, ..of(1) }));
    double.submit_with("a", "higher", on(Terms { priority: 1, ..of(2) }));
    double.arrive(0);
    double.expect(["a.0 runs r2.1 try 1: high"]);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r2.1 try 2: high"]);
    double.next("a.1", "v");
    double.expect(["r2 = value v", "a.1 runs r3.1 try 1: higher"]);
    double.next("a.1", "v");
    double.expect(["r3 = value v", "a.1 runs r1.1 try 1: low"]);
}
