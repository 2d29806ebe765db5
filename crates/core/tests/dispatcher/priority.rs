//! Who comes first among those that wait.

use std::time::Duration;

use evener_core::{StageId, StageRules, Withdrawal};

use crate::ahead::quick;
use crate::double::{Double, on, priority, stage, within};

/// Requests of these priorities wait for a stage without workers.
fn waiting(rules: StageRules, priorities: &[i8]) -> Double {
    let mut double = Double::new(vec![rules]);
    for number in priorities {
        double.submit_with("a", "", on(priority(*number)));
    }
    double.arrive(0);
    double
}

/// The order in which the one worker is handed the requests that wait.
fn order(mut double: Double) -> Vec<u32> {
    let mut order = Vec::new();
    double.several = true;
    while let Some(line) = double.seen().last().filter(|line| line.contains(" runs ")).cloned() {
        double.clear();
        let (_, request) = line.split_once(" runs r").expect("it runs");
        let (request, _) = request.split_once('.').expect("it has a job");
        order.push(request.parse().expect("a number"));
        double.next("a.0", "");
    }
    double.clear();
    order
}

#[test]
fn the_highest_goes_first_and_among_equals_who_came_first() {
    let double = waiting(stage("a"), &[0, -128, 5, 0, 127, 5, -128, 0, 127]);
    assert_eq!(order(double), [5, 9, 3, 6, 1, 4, 8, 2, 7]);
}

#[test]
fn without_priorities_who_came_first_is_served_first() {
    assert_eq!(order(waiting(stage("a"), &[0; 5])), [1, 2, 3, 4, 5]);
}

#[test]
fn a_job_that_comes_later_overtakes_those_that_wait_and_none_that_runs() {
    let mut double = waiting(stage("a"), &[0, 0]);
    double.expect(["a.0 runs r1.1 try 1: "]);
    double.submit_with("a", "", on(priority(9)));
    double.next("a.0", "");
    double.expect(["r1 = value ", "a.0 runs r3.1 try 1: "]);
    double.next("a.0", "");
    double.expect(["r3 = value ", "a.0 runs r2.1 try 1: "]);
}

#[test]
fn a_retried_job_goes_in_front_of_its_equals_and_not_of_others() {
    let mut double = waiting(stage("a"), &[3, 3, 7]);
    double.expect(["a.0 runs r3.1 try 1: "]);
    double.next("a.0", "");
    double.expect(["r3 = value ", "a.0 runs r1.1 try 1: "]);
    double.submit_with("a", "", on(priority(7)));
    double.submit_with("a", "", on(priority(-1)));
    double.lose("a.0");
    assert_eq!(double.queued(0), 4);
    double.arrive(0);
    double.expect(["a.1 runs r4.1 try 1: "]);
    for (done, next) in [(4, "r1.1 try 2: "), (1, "r2.1 try 1: "), (2, "r5.1 try 1: ")] {
        double.next("a.1", "");
        double.expect([format!("r{done} = value ").as_str(), format!("a.1 runs {next}").as_str()]);
    }
}

#[test]
fn a_job_may_leave_from_anywhere() {
    let priorities = [1, 2, 1, 2, 1, 2, 0];
    for gone in 1..=7 {
        let mut left = vec![2, 4, 6, 1, 3, 5, 7];
        left.retain(|number| *number != gone);
        let mut double = Double::new(vec![stage("a")]);
        for number in priorities {
            double.submit_with("a", "", on(priority(number)));
        }
        if gone % 2 == 0 {
            double.cancel(gone);
        } else {
            assert_eq!(double.withdraw(gone), Withdrawal::Done);
            double.clear();
        }
        double.arrive(0);
        assert_eq!(order(double), left, "without {gone}");
    }
}

#[test]
fn a_deadline_is_kept_in_any_lane() {
    let mut double = Double::new(vec![stage("a")]);
    for (number, millis) in [(0, 30), (5, 20), (5, 10), (-5, 40)] {
        let wish = within(millis);
        double.submit_with("a", "", crate::double::Wish { terms: priority(number), ..wish });
    }
    double.wait(40);
    double
        .expect([3, 2, 1, 4].map(|number| format!("r{number} = 504 deadline-exceeded")).each_ref().map(String::as_str));
}

#[test]
fn a_request_keeps_its_priority_all_the_way() {
    let mut double = Double::new(vec![stage("a"), stage("b"), stage("c")]);
    double.arrive(0);
    double.submit_with("all", "low", on(priority(-3)));
    double.expect(["a.0 runs r1.1 try 1: low"]);
    double.submit_with("all", "high", on(priority(3)));
    double.next("a.0", "low");
    double.expect(["a.0 runs r2.1 try 1: high"]);
    double.submit("b", "middle");
    double.next("a.0", "high");
    double.arrive(1);
    double.expect(["b.0 runs r2.2 try 1: high"]);
    double.goto("b.0", "b", "again");
    double.expect(["b.0 runs r2.3 try 1: again"]);
    double.goto("b.0", "c", "elsewhere");
    double.expect(["b.0 runs r3.1 try 1: middle"]);
    double.next("b.0", "");
    double.expect(["r3 = value ", "b.0 runs r1.2 try 1: low"]);
    double.next("b.0", "low");
    double.arrive(2);
    double.expect(["c.0 runs r2.4 try 1: elsewhere"]);
}

#[test]
fn a_queue_is_full_of_all_of_them() {
    let mut double = Double::new(vec![StageRules { queue: 2, ..stage("a") }]);
    double.submit_with("a", "", on(priority(1)));
    double.submit_with("a", "", on(priority(-1)));
    double.submit_with("a", "", on(priority(127)));
    double.expect(["r3 refused: 429 queue-full"]);
}

#[test]
fn a_broken_stage_answers_all_of_them() {
    let mut double = Double::new(vec![stage("a")]);
    for number in [0, 3, -3, 3] {
        double.submit_with("a", "", on(priority(number)));
    }
    double.break_stage(0);
    let answers = [2, 4, 1, 3].map(|number| format!("r{number} = 503 stage-broken"));
    double.expect(answers.each_ref().map(String::as_str));
    assert_eq!(double.core.counts(StageId(0)).queued, 0);
}

/// What is handed out ahead has left the queue: it is not called back for one of a higher priority.
#[test]
fn jobs_go_ahead_in_the_order_of_their_priority() {
    let mut double = quick(stage("a"), 1);
    for number in [0, 1, 2, 3] {
        double.submit_with("a", "", on(priority(number)));
    }
    double.expect(["a.0 runs r17.1 try 1: ", "a.0 is asked for credit"]);
    double.credit("a.0", 2);
    double.expect(["a.0 gets r20.1 try 1: ", "a.0 gets r19.1 try 1: "]);
    double.submit_with("a", "", on(priority(9)));
    double.expect([]);
    double.next("a.0", "");
    double.expect(["r17 = value ", "a.0 gets r21.1 try 1: "]);
    double.now = double.now + Duration::from_micros(100);
    double.lose("a.0");
    double.arrive(0);
    double.expect(["a.1 runs r21.1 try 1: ", "a.1 is asked for credit"]);
    double.next("a.1", "");
    double.expect(["r21 = value ", "a.1 runs r20.1 try 2: "]);
    for (done, next) in [(20, "r19.1 try 1: "), (19, "r18.1 try 1: ")] {
        double.next("a.1", "");
        double.expect([format!("r{done} = value ").as_str(), format!("a.1 runs {next}").as_str()]);
    }
}
