//! Thousands of worlds. `EVENER_SEEDS=200000` makes more of them, and `EVENER_SEED=7` makes that one again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use evener_simulation::{Happening, Tally, run};

const SEEDS: u64 = 3_000;
/// Each thing that can happen has to happen so often at least.
const LEAST: u64 = 10;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Runs so many worlds on all cores, up to the first that fails.
fn run_all(seeds: u64) -> Result<Tally, String> {
    let next = AtomicU64::new(0);
    let (tally, failure) = (Mutex::new(Tally::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get()) {
            scope.spawn(|| {
                let mut mine = Tally::default();
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds
                {
                    match run(seed) {
                        Ok(tally) => mine.add(&tally),
                        Err(failed) => {
                            next.store(seeds, Ordering::Relaxed);
                            failure.lock().expect("no thread panicked").get_or_insert(failed.to_string());
                        }
                    }
                }
                tally.lock().expect("no thread panicked").add(&mine);
            });
        }
    });
    match failure.into_inner().expect("no thread panicked") {
        Some(failure) => Err(failure),
        None => Ok(tally.into_inner().expect("no thread panicked")),
    }
}

#[test]
fn every_world_keeps_its_promises() {
    if let Some(seed) = number("EVENER_SEED") {
        match run(seed) {
            Ok(tally) => println!("seed {seed} is fine:\n{tally}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let seeds = number("EVENER_SEEDS").unwrap_or(SEEDS);
    let tally = run_all(seeds).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{seeds} worlds:\n{tally}");
    if seeds >= SEEDS {
        for happening in Happening::ALL {
            assert!(tally.of(*happening) >= LEAST, "too little of {happening:?} in {seeds} worlds:\n{tally}");
        }
    }
}

#[test]
fn a_seed_makes_the_same_world_again() {
    for seed in 0..50 {
        let once = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let again = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(once.to_string(), again.to_string());
    }
}
