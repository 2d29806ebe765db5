//! A worker in Rust: a node starts this program, and gives it one job after the other on descriptor 3. It finds the smallest divisor
//! of a number.

use std::io;

use evener_worker::{Job, Made, serve};

fn main() -> io::Result<()> {
    serve("divide 1.0", divide)
}

fn divide(job: Job<'_>) -> Made {
    // A JSON number reads like a text.
    let text = match job.text() {
        Ok(text) => text,
        Err(undecodable) => return undecodable,
    };
    match text.parse::<u64>() {
        Ok(number @ 2..) => Made::json(smallest_divisor(number).to_string()),
        Ok(number) => Made::abort(422, &format!("{number} has no smallest divisor")),
        Err(error) => Made::undecodable(format!("{text} is not a number of 64 bits: {error}")),
    }
}

fn smallest_divisor(number: u64) -> u64 {
    let odd = (3..).step_by(2).take_while(|divisor| *divisor <= number / divisor);
    std::iter::once(2).chain(odd).find(|divisor| number.is_multiple_of(*divisor)).unwrap_or(number)
}
