//! Seeded worlds that run the core of Evener under faults.
//!
//! A world is made of one number: the stages and their rules, the functions and how quick each is, the clients, what
//! they ask for, on which terms, and whether they leave or take it back, the workers and when they die, hang, freeze,
//! print, answer late or answer twice, how long messages are on their way, the stages that break and are mended, and a
//! clock that at times leaps.
//! It drives a [`Machine`], which is the real dispatcher, through its public face alone. A checker beside it keeps the
//! history as clients and workers see it, knows from the inputs what has to come out, and looks at every action: what
//! goes out unasked, late, twice, to the wrong hands or not at all ends the run with a [`Failure`] that names the
//! seed. The same seed makes the same history again, step by step.
//!
//! [`graph`] has worlds of another kind, beside these: with services whose steps have branches, workers that do several
//! jobs at a time or as one, clients in turn, answers in chunks, and plans that change.
//!
//! What this crate will never do: look into the dispatcher to find out what is right. Rules are said here a second
//! time, in other words, and the two sayings have to agree.

mod checker;
mod crew;
pub mod graph;
mod habits;
mod line;
mod machine;
mod pace;
mod plan;
mod record;
mod tally;
mod trail;
mod world;

use std::fmt;

pub use machine::{Core, Machine, PAYLOADS};
pub use tally::{Counted, Happening, Tally};

/// How many of the last steps a failure shows.
const STEPS_SHOWN: usize = 400;

/// A run in which something was not as it has to be.
#[derive(Debug)]
pub struct Failure {
    /// Makes the same run again.
    pub seed: u64,
    /// The test that runs such worlds.
    pub test: &'static str,
    /// What was wrong.
    pub what: String,
    /// The last steps, oldest first.
    pub steps: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        writeln!(f, "the last steps:")?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        write!(f, "again: EVENER_SEED={} cargo test -p evener-simulation --test {}", self.seed, self.test)
    }
}

/// Runs the world of that seed on the real dispatcher.
pub fn run(seed: u64) -> Result<Tally, Failure> {
    run_on(seed, |core| core)
}

/// Runs the world of that seed on what `machine` makes of the real dispatcher. The first time nothing is written down;
/// a run that fails is made again to tell its last steps.
pub fn run_on<M: Machine>(seed: u64, machine: impl Fn(Core) -> M) -> Result<Tally, Failure> {
    let mut world = world::World::new(seed, &machine);
    if world.run().is_ok() {
        return Ok(world.into_tally());
    }
    let mut world = world::World::new(seed, &machine);
    world.write_down(STEPS_SHOWN);
    let what = world.run().err().unwrap_or_else(|| "it failed the first time, but not the second".to_owned());
    Err(Failure { seed, test: "seeds", what, steps: world.into_steps() })
}
