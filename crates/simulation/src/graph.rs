//! Worlds with services of every kind: steps with branches, named or one for each element of a list, and branches within
//! branches; gotos out of all of them; workers that do several jobs at a time, or several as one; equal keys that go to the
//! same worker; clients in turn; answers in chunks; requests that take another way instead of failing; pools that size
//! themselves; and new plans while requests of the old ones go on.
//!
//! The worlds beside this module know the finer points of one worker and one job: jobs ahead, taking back, the pace of
//! functions. These know what becomes of many jobs of one request. Their checker keeps a tree of each request, works out from
//! every input which jobs there have to be with which values, and asks for each of them what may become of it.

mod book;
mod checker;
mod crew;
mod plan;
mod tally;
mod tree;
mod turns;
mod world;

use evener_core::{Part, Payloads, Time, Topology};

pub use self::tally::Happening;
use crate::machine::{Core, Machine};
use crate::tally::Tally;
use crate::{Failure, STEPS_SHOWN, trail};

/// Values are put together so that each of them, its name and its place make a difference.
pub const PAYLOADS: Payloads<u64> = Payloads { gather, constant: trail::constant };

fn gather(_: &Topology, parts: &[Part<'_, u64>], _: bool) -> Result<u64, String> {
    let end = |part: &Part<'_, u64>| part.value.copied().map_err(|problem| problem.code);
    let parts: Vec<_> = parts.iter().map(|part| (part.name, end(part))).collect();
    trail::gathered(&parts).ok_or_else(|| "one of them is a single value".to_owned())
}

const TICK: u64 = 50_000;

/// The tick at which something that is due then happens.
fn due_tick(at: Time) -> u64 {
    at.as_nanos().div_ceil(TICK)
}

/// Whether what was due at `due` has happened once the dispatcher was told that it is `now`. These worlds never look at the
/// clock at the very moment of a tick, and so this is no matter of rounding.
fn fired(due: Time, now: Time) -> bool {
    due_tick(due) <= now.as_nanos() / TICK
}

/// Runs the world of that seed on the real dispatcher.
pub fn run(seed: u64) -> Result<Tally<Happening>, Failure> {
    run_on(seed, |core| core)
}

/// Runs the world of that seed on what `machine` makes of the real dispatcher.
pub fn run_on<M: Machine>(seed: u64, machine: impl Fn(Core) -> M) -> Result<Tally<Happening>, Failure> {
    let mut world = world::World::new(seed, &machine);
    if world.run().is_ok() {
        return Ok(world.into_tally());
    }
    let mut world = world::World::new(seed, &machine);
    world.write_down(STEPS_SHOWN);
    let what = world.run().err().unwrap_or_else(|| "it failed the first time, but not the second".to_owned());
    Err(Failure { seed, test: "graphs", what, steps: world.into_steps() })
}
