//! Runs jobs through the core and nothing else, to count its instructions per job.
//!
//! Two runs that differ only in the number of jobs differ by what those jobs cost:
//!
//! ```sh
//! cargo build --release -p evener-core --example count_instructions
//! for jobs in 10000 110000; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/count_instructions 3 $jobs
//! done    # (the second `Collected` minus the first) / 100,000 jobs, of 3 stages each
//! ```
//!
//! A third number is how many jobs wait in the queue meanwhile. With 0 for the stages there is one stage of a quick function
//! with 4 workers, which have jobs ahead.

#[path = "../benches/service/mod.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod service;

use std::io::Write;

use service::Service;

fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>().ok());
    let mut number = |otherwise| numbers.next().flatten().unwrap_or(otherwise);
    let (stages, jobs, queued) = (number(1), number(10_000), number(0));
    let mut service = match stages {
        0 => Service::quick(4, 32),
        _ => Service::of(stages as usize).with_workers(),
    };
    (0..queued).for_each(|_| _ = service.submit());
    for _ in 0..jobs {
        service.submit();
        service.work();
    }
    writeln!(std::io::stdout(), "{} requests through {stages} stages, {queued} queued", service.answers)
}
