//! An open-loop load generator: requests leave when their time has come, whether or not earlier ones were answered.
//!
//! Arrivals follow a Poisson process of a fixed seed, so that two systems at one rate see the very same pattern. A
//! request's latency counts from the moment it was due, not from the moment it was sent: a server that stalls pays for
//! every request that should have been under way meanwhile.
//!
//! What it can measure: latencies from about 20 us up, at rates up to some ten thousand a second, over a fixed number
//! of keep-alive connections, one thread each. What it cannot: when all connections are busy, a due request waits here
//! and not in the server's accept queue (`backlogged` counts those); and what the kernel takes to wake a sleeping
//! thread is in every latency (`wake_*` says how much). Nothing but HTTP/1.1 answers with a Content-Length is read.
//!
//! Usage: `openloop HOST:PORT PATH BODY RATE SECONDS CONNECTIONS SEED`; one line of JSON comes out.

use std::env;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a request may take before it counts as an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the last thread being ready and the first request being due.
const RUN_UP: Duration = Duration::from_millis(50);

struct Plan {
    address: String,
    request: Vec<u8>,
    /// The body that every answer must have: that of the very first one.
    expected: Vec<u8>,
    /// When each request is due, counted from the start.
    due: Vec<Duration>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    wakes: Vec<Duration>,
    backlogged: usize,
    errors: usize,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    /// Sends one request and gives the body of a 200 answer; anything else is an error.
    fn ask(&mut self, request: &[u8]) -> io::Result<&[u8]> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        let mut head = None;
        loop {
            if filled == self.buffer.len() {
                return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
            }
            let count = self.stream.read(&mut self.buffer[filled..])?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            if head.is_none() {
                head = read_head(&self.buffer[..filled])?;
            }
            if let Some((body, length)) = head
                && filled >= body + length
            {
                return Ok(&self.buffer[body..body + length]);
            }
        }
    }
}

/// Where the body begins and how long it is, once the head is complete.
fn read_head(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let invalid = |why| io::Error::new(ErrorKind::InvalidData, why);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid("the head is not text"))?;
    let mut lines = head.split("\r\n");
    if !lines.next().is_some_and(|status| status.starts_with("HTTP/1.1 200")) {
        return Err(invalid("the status is not 200"));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| invalid("no content-length"))?;
    Ok(Some((end + 4, length)))
}

/// Due times of a Poisson process: `rate` a second for `seconds`.
fn poisson(rate: f64, seconds: f64, seed: u64) -> Vec<Duration> {
    let mut state = seed;
    let mut at = 0.0;
    let mut due = Vec::with_capacity((rate * seconds * 1.1) as usize);
    loop {
        // splitmix64 (Steele, Lea and Flood, 2014); the top 53 bits make a fraction in [0, 1).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let fraction = (bits >> 11) as f64 / (1u64 << 53) as f64;
        at -= (1.0 - fraction).ln() / rate;
        if at >= seconds {
            return due;
        }
        due.push(Duration::from_secs_f64(at));
    }
}

/// Takes the next due request, waits for its time, sends it, and so on until none is left.
fn work(plan: &Plan, mut connection: Option<Connection>, start: Instant) -> Tally {
    let mut tally = Tally::default();
    loop {
        let index = plan.next.fetch_add(1, Ordering::Relaxed);
        let Some(due) = plan.due.get(index).map(|offset| start + *offset) else {
            return tally;
        };
        let early = due.saturating_duration_since(Instant::now());
        if early.is_zero() {
            tally.backlogged += 1;
        } else {
            thread::sleep(early);
            tally.wakes.push(due.elapsed());
        }
        let answer = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(&plan.address),
        }
        .and_then(|mut open| {
            let right = open.ask(&plan.request)? == plan.expected;
            Ok((open, right))
        });
        match answer {
            Ok((open, right)) => {
                tally.latencies.push(due.elapsed());
                tally.errors += usize::from(!right);
                connection = Some(open);
            }
            Err(_) => tally.errors += 1,
        }
    }
}

fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last);
    sorted.get(index).map_or(0.0, |duration| duration.as_secs_f64() * 1e6)
}

fn report(tally: &mut Tally, planned: usize, seconds: f64) -> String {
    tally.latencies.sort_unstable();
    tally.wakes.sort_unstable();
    format!(
        "{{\"planned\": {planned}, \"answered\": {}, \"errors\": {}, \"backlogged\": {}, \"seconds\": {seconds:.6}, \
         \"p50_us\": {:.1}, \"p90_us\": {:.1}, \"p99_us\": {:.1}, \"max_us\": {:.1}, \
         \"wake_p50_us\": {:.1}, \"wake_p99_us\": {:.1}}}",
        tally.latencies.len(),
        tally.errors,
        tally.backlogged,
        percentile(&tally.latencies, 0.50),
        percentile(&tally.latencies, 0.90),
        percentile(&tally.latencies, 0.99),
        percentile(&tally.latencies, 1.0),
        percentile(&tally.wakes, 0.50),
        percentile(&tally.wakes, 0.99),
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, path, body, rate, seconds, connections, seed] = arguments.as_slice() else {
        return Err("usage: openloop HOST:PORT PATH BODY RATE SECONDS CONNECTIONS SEED".into());
    };
    let (rate, seconds): (f64, f64) = (rate.parse()?, seconds.parse()?);
    if !(rate > 0.0 && seconds > 0.0) {
        return Err("rate and seconds must be above zero".into());
    }
    let connections: usize = connections.parse()?;
    // Threads inherit this: a sleep then ends within a microsecond of its time, not within the usual fifty. Where it
    // cannot be set, `wake_*` shows it.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");

    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes();
    let expected = Connection::open(address)?.ask(&request)?.to_vec();
    let due = poisson(rate, seconds, seed.parse()?);
    let planned = due.len();
    let plan = Arc::new(Plan { address: address.clone(), request, expected, due, next: AtomicUsize::new(0) });

    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut connection = Connection::open(address)?;
        connection.ask(&plan.request)?;
        open.push(connection);
    }
    let start = Instant::now() + RUN_UP;
    let threads: Vec<_> = open
        .into_iter()
        .map(|connection| {
            let plan = Arc::clone(&plan);
            thread::spawn(move || work(&plan, Some(connection), start))
        })
        .collect();
    let mut total = Tally::default();
    for thread in threads {
        let tally = thread.join().map_err(|_| "a thread panicked")?;
        total.latencies.extend(tally.latencies);
        total.wakes.extend(tally.wakes);
        total.backlogged += tally.backlogged;
        total.errors += tally.errors;
    }
    let elapsed = start.elapsed().as_secs_f64();
    println!("{}", report(&mut total, planned, elapsed));
    Ok(())
}
