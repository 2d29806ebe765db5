//! The primes service of `examples/embed-rust` on axum alone: what its answers cost a server that has no stages.
//!
//! The same GETs get the same answers. It announces itself as `evener up` does, so that the harness starts both in the
//! same way.

use std::io::{self, Write};

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;

const LARGEST: u64 = 100_000_000;

#[derive(Deserialize)]
struct Asked {
    possible_prime: u64,
}

/// The smallest factor of a number: the number itself if it is prime.
async fn is_prime(Query(Asked { possible_prime: number }): Query<Asked>) -> Response {
    if !(2..=LARGEST).contains(&number) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    if number.is_multiple_of(2) {
        return "2".into_response();
    }
    let factor =
        (3..).step_by(2).take_while(|factor| factor * factor <= number).find(|factor| number.is_multiple_of(*factor));
    Json(factor.unwrap_or(number)).into_response()
}

async fn run() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening http http://{}\nready", listener.local_addr()?)?;
    stdout.flush()?;
    // A connection that cannot have it is slower, and no reason to end.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, Router::new().route("/is_prime", get(is_prime))).await
}

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_io().build()?.block_on(run())
}
