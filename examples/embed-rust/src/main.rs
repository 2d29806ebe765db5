//! The primes service with no other process: a node within a program, whose stages are Rust functions.
//!
//! `cargo run --release -p embed-rust [ADDRESS]`, then `curl 'http://127.0.0.1:8003/is_prime?possible_prime=91'`.

use std::path::Path;
use std::process::ExitCode;

use evener_engine::config::{self, Listener};
use evener_engine::{Done, Job, Registry};
use tokio::signal::unix::{SignalKind, signal};

/// The square root of a number below this is below 10,000, so that a job takes microseconds.
const LARGEST: u64 = 100_000_000;

fn main() -> ExitCode {
    // The node may start this program once more, to start workers from. It has none here.
    if let Some(exit) = evener_engine::serve_if_warden() {
        return exit;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(serve()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/service.yaml"));
    let loaded = config::load(file, &|name| std::env::var_os(name)).map_err(|report| report.to_string())?;
    let mut service = loaded.service;
    if let Some(address) = std::env::args().nth(1) {
        service.listen.http = Some(Listener::new(&address)?);
    }
    let functions = Registry::new().quick("parse", parse).quick("compute", compute);
    let running = evener_engine::start_with(service, &functions, evener_engine::this_program).await;
    let running = running.map_err(|error| error.to_string())?;
    for address in running.addresses() {
        println!("listening {} {}", address.name, address.url);
    }
    running.node().ready().await;
    println!("ready");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    running.drain(std::future::pending()).await;
    Ok(())
}

/// Reads the number from the query. Even numbers are answered from here: any stage may answer.
fn parse(job: Job<'_>) -> Result<Done, Done> {
    let text = job.query("possible_prime");
    let text = text.ok_or_else(|| Done::abort(400, "the query parameter possible_prime is missing"))?;
    let number: u64 = match text.trim().parse() {
        Ok(number @ 2..=LARGEST) => number,
        _ => return Err(Done::abort(400, format!("possible_prime must be a whole number from 2 to {LARGEST}"))),
    };
    Ok(if number.is_multiple_of(2) { Done::text("2").respond(200) } else { Done::json(&number) })
}

/// The smallest factor of an odd number: the number itself if it is prime.
fn compute(job: Job<'_>) -> Result<Done, Done> {
    let number: u64 = job.json()?;
    let factor =
        (3..).step_by(2).take_while(|factor| factor * factor <= number).find(|factor| number.is_multiple_of(*factor));
    Ok(Done::json(&factor.unwrap_or(number)))
}
