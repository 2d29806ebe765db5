//! An open-loop load generator: requests leave when their time has come, whether or not earlier ones were answered.
//!
//! Arrivals follow a Poisson process of a fixed seed, so that two systems at one rate see the very same pattern. A
//! request's latency counts from the moment it was due, not from the moment it was sent: a server that stalls pays for
//! every request that should have been under way meanwhile.
//!
//! What it can measure: latencies from about 20 us up, at rates up to some ten thousand a second, over a fixed number
//! of keep-alive connections, all in one thread. What it cannot: when all connections are busy, a due request waits
//! here and not in the server's accept queue (`backlogged` counts those); and what the kernel takes to wake this
//! thread is in every latency (`wake_*` says how much). Nothing but HTTP/1.1 answers with a Content-Length is read.
//!
//! Usage: `openloop HOST:PORT PATH BODY RATE SECONDS CONNECTIONS SEED`; one line of JSON comes out.

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// How long answers may be outstanding after the last request was due.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the connections being open and the first request being due.
const RUN_UP: Duration = Duration::from_millis(50);
/// What the timer is called among the connections, which are called by their index.
const TIMER: u64 = u64::MAX;

/// One keep-alive connection with at most one request under way.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// When the request under way was due.
    due: Option<Instant>,
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024], filled: 0, due: None })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> io::Result<()> {
        self.filled = 0;
        self.due = Some(due);
        // A request is far smaller than a socket's buffer, which is empty now: it goes whole or not at all.
        self.stream.write_all(request)
    }

    /// Reads what is there; gives the body once the answer is complete.
    fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        let count = self.stream.read(&mut self.buffer[self.filled..])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.filled += count;
        let Some((start, length)) = read_head(&self.buffer[..self.filled])? else {
            return Ok(None);
        };
        Ok(self.buffer[..self.filled].get(start..start + length))
    }

    /// One request and its answer, waiting for it.
    fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.send(request, Instant::now())?;
        loop {
            if let Some(body) = self.receive()? {
                let body = body.to_vec();
                self.due = None;
                return Ok(body);
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
fn poisson(rate: f64, seconds: f64, seed: u64) -> VecDeque<Duration> {
    let mut state = seed;
    let mut at = 0.0;
    let mut due = VecDeque::with_capacity((rate * seconds * 1.1) as usize);
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
        due.push_back(Duration::from_secs_f64(at));
    }
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    wakes: Vec<Duration>,
    backlogged: usize,
    errors: usize,
}

/// The run: what is due, what waits for a connection, who is free.
struct Run {
    request: Vec<u8>,
    /// The body that every answer must have: that of the very first one.
    expected: Vec<u8>,
    connections: Vec<Connection>,
    /// Taken from the front and given back at the end, so that all connections are used in turn.
    free: VecDeque<usize>,
    start: Instant,
    due: VecDeque<Duration>,
    backlog: VecDeque<Instant>,
    epoll: OwnedFd,
    timer: OwnedFd,
    tally: Tally,
}

impl Run {
    fn new(
        request: Vec<u8>,
        expected: Vec<u8>,
        connections: Vec<Connection>,
        due: VecDeque<Duration>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        for (index, connection) in connections.iter().enumerate() {
            connection.stream.set_nonblocking(true)?;
            let name = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &connection.stream, name, epoll::EventFlags::IN)?;
        }
        let free = (0..connections.len()).collect();
        let start = Instant::now() + RUN_UP;
        let (backlog, tally) = (VecDeque::new(), Tally::default());
        Ok(Self { request, expected, connections, free, start, due, backlog, epoll, timer, tally })
    }

    /// Sends all that is due, and gives when the next request will be.
    fn send_due(&mut self) -> Option<Instant> {
        while let Some(due) = self.due.front().map(|offset| self.start + *offset) {
            let late = Instant::now().saturating_duration_since(due);
            if late.is_zero() {
                return Some(due);
            }
            self.due.pop_front();
            match self.free.pop_front() {
                Some(index) => {
                    self.tally.wakes.push(late);
                    self.send(index, due);
                }
                None => {
                    self.tally.backlogged += 1;
                    self.backlog.push_back(due);
                }
            }
        }
        None
    }

    fn send(&mut self, index: usize, due: Instant) {
        if self.connections[index].send(&self.request, due).is_err() {
            self.lose(index);
        }
    }

    fn receive(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        match connection.receive() {
            Ok(None) => {}
            Ok(Some(body)) => {
                self.tally.errors += usize::from(body != self.expected);
                if let Some(due) = connection.due.take() {
                    self.tally.latencies.push(due.elapsed());
                }
                match self.backlog.pop_front() {
                    Some(due) => self.send(index, due),
                    None => self.free.push_back(index),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.lose(index),
        }
    }

    /// Gives a connection up. One lost connection spoils the run, so nothing replaces it.
    fn lose(&mut self, index: usize) {
        self.tally.errors += 1;
        self.connections[index].due = None;
        self.free.retain(|free| *free != index);
        let _ = epoll::delete(&self.epoll, &self.connections[index].stream);
    }

    fn outstanding(&self) -> usize {
        self.connections.iter().filter(|connection| connection.due.is_some()).count()
    }

    fn go(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(self.connections.len() + 1);
        let mut armed = None;
        let last = self.start + self.due.back().copied().unwrap_or_default();
        loop {
            let next = self.send_due();
            if next.is_none() && self.outstanding() == 0 {
                return Ok(());
            }
            // After the last request the timer ends the wait for answers.
            let end = next.unwrap_or(last + PATIENCE);
            if end < Instant::now() && next.is_none() {
                self.tally.errors += self.outstanding();
                return Ok(());
            }
            if armed != Some(end) {
                self.arm(end)?;
                armed = Some(end);
            }
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                match event.data.u64() {
                    // Setting the timer anew is what makes it quiet again.
                    TIMER => armed = None,
                    index => self.receive(index as usize),
                }
            }
        }
    }

    fn arm(&self, end: Instant) -> io::Result<()> {
        // A timer set to zero is off.
        let wait = end.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value: value })?;
        Ok(())
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
    let connections: usize = connections.parse()?;
    if !(rate > 0.0 && seconds > 0.0 && connections > 0) {
        return Err("rate, seconds and connections must be above zero".into());
    }
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes();
    let mut open = Vec::with_capacity(connections);
    let mut expected = Vec::new();
    for _ in 0..connections {
        let mut connection = Connection::open(address)?;
        expected = connection.ask(&request)?;
        open.push(connection);
    }
    let due = poisson(rate, seconds, seed.parse()?);
    let planned = due.len();
    let mut run = Run::new(request, expected, open, due)?;
    run.go()?;
    let elapsed = run.start.elapsed().as_secs_f64();
    println!("{}", report(&mut run.tally, planned, elapsed));
    Ok(())
}
