//! Dispatchers that work by other rules than the world expects: each rule is held against what happens.

use std::sync::Arc;
use std::time::Duration;

use evener_core::{Dispatcher, OnCancel, RetryOn, StageRules, Topology};
use evener_simulation::{Core, PAYLOADS};

use crate::failure;

/// The same service, with every stage's rules changed.
fn changed(core: &Core, max_hops: u32, change: impl Fn(&mut StageRules)) -> Core {
    let topology = core.topology();
    let mut stages = topology.stages().to_vec();
    stages.iter_mut().for_each(change);
    let pipelines = (0..)
        .map(|number| format!("p{number}"))
        .map_while(|name| topology.find(&name).map(|path| (name, topology.path(path).to_vec())));
    Dispatcher::new(Arc::new(Topology::new(stages, pipelines.collect(), max_hops)), PAYLOADS)
}

#[track_caller]
fn is_noticed(words: &[&str], change: impl Fn(&mut StageRules)) {
    failure(|core| changed(&core, core.topology().max_hops(), &change), words);
}

#[test]
fn one_try_too_many() {
    is_noticed(&["is tried again after WorkerDied, not None"], |rules| rules.retries += 1);
}

#[test]
fn one_try_too_few() {
    is_noticed(&["for no reason"], |rules| rules.retries = rules.retries.saturating_sub(1));
}

#[test]
fn retries_after_what_is_not_worth_one() {
    is_noticed(&["is tried again after StageTimeout, not None"], |rules| {
        rules.retry_on = RetryOn { lost: true, timeout: true, error: true };
    });
}

#[test]
fn a_retry_that_comes_too_early() {
    is_noticed(&["too early"], |rules| rules.backoff = Some(Duration::ZERO));
}

#[test]
fn a_retry_that_comes_too_late() {
    is_noticed(&["though a worker is idle"], |rules| rules.backoff = Some(Duration::from_secs(2)));
}

#[test]
fn a_timeout_that_is_too_short() {
    is_noticed(&["before its time was over"], |rules| rules.timeout /= 2);
}

#[test]
fn a_timeout_that_is_too_long() {
    is_noticed(&["past its timeout", "should have got SIGTERM"], |rules| rules.timeout *= 2);
}

#[test]
fn no_grace() {
    is_noticed(&["before the grace was over"], |rules| rules.grace = Duration::ZERO);
}

#[test]
fn too_much_grace() {
    is_noticed(&["should have got SIGTERM"], |rules| rules.grace += Duration::from_millis(50));
}

#[test]
fn a_cancel_that_kills_where_it_should_not() {
    is_noticed(&["before the grace was over"], |rules| rules.on_cancel = OnCancel::Kill);
}

#[test]
fn a_cancel_that_does_not_kill_where_it_should() {
    is_noticed(&["should have got SIGTERM"], |rules| rules.on_cancel = OnCancel::Tell);
}

#[test]
fn a_queue_that_is_too_long() {
    is_noticed(&["was full"], |rules| rules.queue += 1);
}

#[test]
fn a_queue_that_is_too_short() {
    is_noticed(&["for no reason"], |rules| rules.queue = 1);
}

#[test]
fn workers_that_never_leave() {
    is_noticed(&["should have been retired"], |rules| rules.max_jobs_per_worker = None);
}

#[test]
fn a_goto_to_a_pool_of_functions() {
    is_noticed(&["answered with Some(Problem(UnknownTarget))", "an answer is due"], |rules| rules.functions = false);
}

#[test]
fn a_goto_too_many() {
    failure(
        |core| changed(&core, core.topology().max_hops() + 1, |_| ()),
        &["answered with Some(Problem(TooManyHops))"],
    );
}
