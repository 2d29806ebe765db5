//! Thousands of worlds with branches. `EVENER_SEEDS=200000` makes more of them, and `EVENER_SEED=7` makes that one again.

mod cores;

use evener_simulation::graph::run;

const SEEDS: u64 = 2_000;
/// Each thing that can happen has to happen so often at least.
const LEAST: u64 = 10;

#[test]
fn every_world_keeps_its_promises() {
    cores::run_asked(SEEDS, LEAST, run);
}

#[test]
fn a_seed_makes_the_same_world_again() {
    for seed in 0..50 {
        let once = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let again = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(once.to_string(), again.to_string());
    }
}
