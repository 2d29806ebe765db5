//! The worlds with branches can fail as well: each way to spoil what the dispatcher does there is noticed, and for the right reason.

use std::sync::Arc;
use std::time::Duration;

use evener_core::{Code, Dispatcher, OnFailure, Over, Part, Payloads, Scatter, StageRules, Step, Topology};
use evener_simulation::graph::{PAYLOADS, run_on};
use evener_simulation::{Core, Machine};

use crate::failure_of;
use crate::spoiler::Spoiled;
use crate::way::Way;

#[track_caller]
fn is_seen<M: Machine>(words: &[&str], machine: impl Fn(Core) -> M) {
    failure_of(|seed| run_on(seed, &machine).err(), words);
}

#[track_caller]
fn is_noticed(way: Way, words: &[&str]) {
    is_seen(words, |core| Spoiled::new(core, way));
}

/// The same service by other rules, and with other steps.
fn changed(
    core: &Core,
    rules: impl Fn(&mut StageRules),
    steps: impl Fn(&mut Scatter),
    payloads: Payloads<u64>,
) -> Core {
    let topology = core.topology();
    let mut stages = topology.stages().to_vec();
    stages.iter_mut().for_each(rules);
    let mut pipelines = Vec::new();
    while let Some(path) = topology.find(&format!("p{}", pipelines.len())) {
        let mut path: Vec<Step> = topology.path(path).to_vec();
        for step in &mut path {
            if let Step::Scatter(scatter) = step {
                steps(scatter);
            }
        }
        pipelines.push((format!("p{}", pipelines.len()), path));
    }
    Dispatcher::new(Arc::new(Topology::new(stages, pipelines, topology.max_hops())), payloads)
}

#[track_caller]
fn rule_is_seen(words: &[&str], rules: impl Fn(&mut StageRules)) {
    is_seen(words, |core| changed(&core, &rules, |_| (), PAYLOADS));
}

#[track_caller]
fn step_is_seen(words: &[&str], steps: impl Fn(&mut Scatter)) {
    is_seen(words, |core| changed(&core, |_| (), &steps, PAYLOADS));
}

type Gather = fn(&Topology, &[Part<'_, u64>], bool) -> Result<u64, String>;

#[track_caller]
fn gather_is_seen(words: &[&str], gather: Gather) {
    let payloads = || Payloads { gather, constant: PAYLOADS.constant };
    is_seen(words, |core| changed(&core, |_| (), |_| (), payloads()));
}

#[test]
fn nothing_spoiled_is_nothing_noticed() {
    for seed in 0..200 {
        run_on(seed, |core| Spoiled::new(core, Way::Not)).unwrap_or_else(|failure| panic!("{failure}"));
        run_on(seed, |core| changed(&core, |_| (), |_| (), PAYLOADS)).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn a_branch_whose_value_is_that_of_another() {
    gather_is_seen(&["is not what its way makes of it", "was due"], |topology, parts, named| {
        let mut parts: Vec<_> = parts.iter().map(|part| Part { name: part.name, value: part.value }).collect();
        if let [first, .., last] = &mut parts[..] {
            (first.value, last.value) = (last.value, first.value);
        }
        (PAYLOADS.gather)(topology, &parts, named)
    });
}

#[test]
fn a_branch_that_is_left_out() {
    gather_is_seen(&["is not what its way makes of it", "was due"], |topology, parts, named| {
        (PAYLOADS.gather)(topology, parts.split_last().map_or(parts, |(_, others)| others), named)
    });
}

#[test]
fn a_job_that_is_not_handed_out() {
    is_noticed(Way::LoseRun, &["is free"]);
}

#[test]
fn a_job_that_is_handed_out_twice() {
    is_noticed(Way::DoubleRun, &["has attempt 1 after 1"]);
}

#[test]
fn a_job_that_goes_to_another_worker() {
    is_noticed(Way::Misdirect, &["of another stage"]);
    is_noticed(Way::Misdirect, &["which takes no job now"]);
    is_noticed(Way::Misdirect, &["a worker that is gone"]);
}

#[test]
fn a_payload_that_is_mixed_up() {
    is_noticed(Way::MixUpPayloads, &["is not what its way makes of it"]);
}

#[test]
fn an_answer_that_never_comes() {
    is_noticed(Way::LoseAnswer, &["should have been answered"]);
}

#[test]
fn an_answer_that_comes_twice() {
    is_noticed(Way::DoubleAnswer, &["is answered again"]);
}

#[test]
fn an_answer_that_goes_to_another_client() {
    is_noticed(Way::MixUpAnswers, &["is answered again", "has the id of another"]);
}

#[test]
fn a_client_that_went_away_unseen() {
    is_noticed(Way::IgnoreLeaving, &["counts other requests", "nobody waits for it", "is answered again", "not told"]);
}

#[test]
fn a_worker_that_is_not_told() {
    is_noticed(Way::LoseCancel, &["was not told at once"]);
}

#[test]
fn a_worker_that_is_not_signalled() {
    is_noticed(Way::LoseStop, &["should have got SIG"]);
}

#[test]
fn a_failure_that_is_kept_from_all() {
    is_noticed(Way::LoseRecovery, &["takes its other way, and that was not told"]);
}

#[test]
fn a_worker_that_is_not_let_go() {
    is_noticed(Way::LoseRetire, &["should have been let go"]);
    is_noticed(Way::LoseShrink, &["should have been let go"]);
}

#[test]
fn a_retired_worker_that_gets_a_job() {
    is_noticed(Way::IgnoreRetirement, &["which takes no job now"]);
    is_noticed(Way::IgnoreRetirement, &["should have been let go"]);
}

#[test]
fn an_outcome_of_an_older_attempt_that_counts() {
    is_noticed(Way::Unfence, &["was taken that should have been refused"]);
}

#[test]
fn a_death_that_is_overlooked() {
    is_noticed(Way::OverlookDeath, &["that is gone", "at the end", "jobs are said to wait"]);
}

#[test]
fn a_clock_that_is_fast() {
    is_noticed(
        Way::FastClock,
        &["nothing is due", "before its time", "before the grace", "is told, and somebody waits"],
    );
}

#[test]
fn a_drain_that_never_ends() {
    is_noticed(Way::ForgetDrain, &["should have been answered with Some(Problem(Draining))"]);
}

#[test]
fn a_job_that_overtakes_another() {
    is_noticed(Way::OutOfTurn, &["whose turn it was"]);
    is_noticed(Way::InvertUrgency, &["which is more urgent"]);
}

#[test]
fn a_flow_that_is_starved() {
    is_noticed(Way::MixUpFlows, &["had its turn twice while"]);
}

#[test]
fn a_piece_that_is_lost_or_doubled() {
    is_noticed(Way::LoseChunk, &["did not go on to its client"]);
    is_noticed(Way::DoubleChunk, &["a piece that nobody brought"]);
    is_noticed(Way::LoseCredit, &["was not told that its client took something"]);
}

#[test]
fn a_job_that_is_not_asked_for_its_key() {
    is_noticed(Way::LoseAssess, &["was not asked for its key"]);
    rule_is_seen(&["was not asked for its key"], |rules| rules.affinity = false);
}

#[test]
fn a_preferred_worker_that_is_passed_over() {
    is_noticed(Way::ForgetKeys, &["was free, which had had it before"]);
}

#[test]
fn a_batch_that_is_cut() {
    is_noticed(Way::CutBatch, &["and more of the batch: false"]);
}

#[test]
fn a_batch_that_goes_out_too_early() {
    rule_is_seen(&["goes out before its time"], |rules| {
        if let Some(batch) = &mut rules.batch {
            batch.idle = Duration::ZERO;
        }
    });
}

#[test]
fn a_batch_that_goes_out_too_late() {
    rule_is_seen(&["has waited too long for others of its batch"], |rules| {
        if let Some(batch) = &mut rules.batch {
            batch.idle += Duration::from_millis(50);
        }
    });
}

#[test]
fn a_batch_of_another_size() {
    rule_is_seen(&["and more of the batch: true", "which takes no job now"], |rules| {
        rules.slots += u32::from(rules.batch.is_some());
    });
    rule_is_seen(&["goes out before its time", "and more of the batch: false"], |rules| {
        rules.slots -= u32::from(rules.batch.is_some() && rules.slots > 2);
    });
}

#[test]
fn a_batch_that_is_too_heavy() {
    is_noticed(Way::ForgetWeights, &["of a batch is too much"]);
    rule_is_seen(&["of a batch is too much"], |rules| {
        rules.slots += u32::from(rules.batch.is_some_and(|batch| batch.weighed));
    });
}

#[test]
fn a_pool_that_grows_as_it_should_not() {
    is_noticed(Way::GrowTwice, &["a pool grows"]);
    is_noticed(Way::LoseGrow, &["should have grown", "is to have"]);
    rule_is_seen(&["a pool grows, and no job has waited"], |rules| {
        if let Some(scale) = &mut rules.scale {
            scale.wait = Duration::ZERO;
        }
    });
    rule_is_seen(&["a pool shrinks, and all of it was needed"], |rules| {
        if let Some(scale) = &mut rules.scale {
            scale.idle = Duration::ZERO;
        }
    });
}

#[test]
fn an_old_plan_whose_end_is_not_told() {
    is_noticed(Way::LoseOutdated, &["and that was not told"]);
    is_noticed(Way::IgnoreReload, &["and that was not told"]);
}

#[test]
fn tries_too_many_and_too_few() {
    rule_is_seen(&["should have been answered", "was due", "nobody waits for it"], |rules| rules.retries += 1);
    rule_is_seen(&["nothing is due"], |rules| rules.retries = rules.retries.saturating_sub(1));
}

#[test]
fn a_goto_that_is_not_declared() {
    rule_is_seen(&["and nothing is due", "Some(Problem(UnknownTarget))", "was due", "which is no job now"], |rules| {
        rules.goto = None;
    });
    rule_is_seen(&["UnknownTarget"], |rules| rules.goto = Some(Vec::new()));
}

#[test]
fn a_step_whose_branches_may_fail_though_they_may_not() {
    step_is_seen(&["was due", "should have been answered"], |step| step.on_failure = OnFailure::Collect);
    step_is_seen(&["nothing is due", "was due"], |step| step.on_failure = OnFailure::Fail);
}

#[test]
fn a_step_that_nothing_stands_in_for() {
    step_is_seen(&["nothing is due"], |step| step.fallback = None);
}

#[test]
fn a_step_that_takes_as_long_as_it_wants() {
    step_is_seen(&[&format!("should have been answered with Some(Problem({:?}))", Code::ScatterTimeout)], |step| {
        step.timeout = None;
    });
}

#[test]
fn a_list_of_which_too_much_is_on_its_way() {
    step_is_seen(&["which is no job now", "jobs are said to wait", "needs none"], |step| {
        if let Over::Each { max_in_flight, .. } = &mut step.over {
            *max_in_flight += 1;
        }
    });
}
