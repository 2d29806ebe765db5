//! Many worlds on all cores, and what the environment says of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use evener_simulation::{Counted, Failure, Tally};

/// A number that a variable of the environment says, if it is set.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Runs so many worlds on all cores, up to the first that fails.
pub(crate) fn run_all<H: Counted + Send>(
    seeds: u64,
    run: fn(u64) -> Result<Tally<H>, Failure>,
) -> Result<Tally<H>, String> {
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

/// Runs the worlds that the environment asks for, or else `seeds`, in which each thing that can happen has to happen so
/// often at least.
pub(crate) fn run_asked<H: Counted + Send>(seeds: u64, least: u64, run: fn(u64) -> Result<Tally<H>, Failure>) {
    if let Some(seed) = number("EVENER_SEED") {
        match run(seed) {
            Ok(tally) => println!("seed {seed} is fine:\n{tally}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let asked = number("EVENER_SEEDS").unwrap_or(seeds);
    let tally = run_all(asked, run).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{asked} worlds:\n{tally}");
    if asked >= seeds {
        for happening in H::ALL {
            assert!(tally.of(*happening) >= least, "too little of {happening:?} in {asked} worlds:\n{tally}");
        }
    }
}
