//! One process for one job: what it reads and what it prints, and its end.
//!
//! Nothing here waits for the process alone: what it does not read is kept, what it prints is bounded, and one that should end
//! is asked with SIGTERM and then killed. Its process group goes with it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;

use crate::certificate::How;
use crate::output::{LineSplitter, Tail};
use crate::warden::{Exit, ProcessId, Signal, Spawn, SpawnError, Target, Warden};

/// Room for what is read at once.
const PIECE: usize = 16 << 10;
/// How much of standard error is read once the process is gone: somebody who left its group may write on.
const LAST_WORDS: usize = 64 << 10;

/// What is asked of a process that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// To go on.
    Nothing,
    /// To end: SIGTERM at this time, and SIGKILL once the grace is over as well.
    End(Instant),
    /// SIGKILL, now.
    Kill,
}

/// What bounds a process.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most bytes of its standard output. One that prints more is killed.
    pub output: usize,
    /// How long it has from SIGTERM to SIGKILL.
    pub grace: Duration,
}

/// What has become of a process.
#[derive(Debug)]
pub struct Done {
    /// How it ended; unknown if its warden is gone.
    pub how: How,
    /// What it printed, or why that is not kept.
    pub output: Result<Vec<u8>, Unkept>,
    /// The last lines of its standard error, oldest first.
    pub stderr: Vec<String>,
}

/// Why what a process printed is not kept. Such a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unkept {
    /// It is more than it may print.
    TooMuch,
    /// There is no memory for it.
    NoRoom,
}

/// Who follows a process while it runs.
pub trait Follow {
    /// The process of this number wrote a line to its standard error.
    fn said(&mut self, pid: u32, line: &str);

    /// What it has printed takes so many bytes of memory now. False if there is no room for them.
    fn holds(&mut self, bytes: usize) -> bool;
}

/// Starts a process, gives it `input` to read, and waits for its end. If the future is dropped, the process is killed.
pub async fn run(
    warden: &Warden,
    spawn: &Spawn,
    input: &[u8],
    bounds: Bounds,
    asked: &mut watch::Receiver<Ask>,
    follower: &mut impl Follow,
) -> Result<Done, SpawnError> {
    let piped = warden.spawn_piped(spawn).await?;
    let mut life = Life { warden, id: piped.id, gone: false, sent: None, next: None, grace: bounds.grace };
    let mut pipes = Pipes {
        stdin: Some(Sender::from_owned_fd(piped.stdin).map_err(SpawnError::Descriptors)?),
        stdout: Some(Receiver::from_owned_fd(piped.stdout).map_err(SpawnError::Descriptors)?),
        stderr: Some(Receiver::from_owned_fd(piped.stderr).map_err(SpawnError::Descriptors)?),
        unread: input,
        output: Vec::new(),
        most: bounds.output,
        unkept: None,
        held: 0,
        said: Said {
            pid: piped.id.pid(),
            left: MOST_SAID,
            follower,
            lines: LineSplitter::default(),
            tail: Tail::default(),
        },
    };
    let mut exit = piped.exit;
    let mut listening = true;
    life.ask(*asked.borrow_and_update());
    let exit = loop {
        tokio::select! {
            exit = &mut exit => break exit.unwrap_or_else(|_| Exit::unknown()),
            () = pipes.flow() => if pipes.unkept.is_some() && life.sent != Some(Signal::Kill) {
                life.ask(Ask::Kill);
            },
            () = wait(life.next) => life.due(),
            changed = asked.changed(), if listening => match changed {
                Ok(()) => life.ask(*asked.borrow_and_update()),
                Err(_) => listening = false,
            },
        }
    };
    life.gone = true;
    pipes.rest();
    let Pipes { mut output, unkept, mut said, .. } = pipes;
    said.finish();
    // From here on its bytes alone are counted.
    output.shrink_to_fit();
    Ok(Done { how: exit.how, output: unkept.map_or(Ok(output), Err), stderr: said.tail.take() })
}

async fn wait(next: Option<(Instant, Signal)>) {
    match next {
        Some((at, _)) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A process that runs, and the signal that it gets next.
struct Life<'a> {
    warden: &'a Warden,
    id: ProcessId,
    gone: bool,
    /// The last signal that it got.
    sent: Option<Signal>,
    next: Option<(Instant, Signal)>,
    grace: Duration,
}

impl Life<'_> {
    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Nothing => {}
            Ask::End(_) if self.sent.is_some() => {}
            Ask::End(at) => self.next = Some((at, Signal::Terminate)),
            Ask::Kill => self.send(Signal::Kill),
        }
    }

    fn due(&mut self) {
        if let Some((_, signal)) = self.next.take() {
            self.send(signal);
        }
    }

    fn send(&mut self, signal: Signal) {
        self.warden.signal(self.id, signal, Target::Group);
        self.sent = Some(signal);
        let kill = || Instant::now().checked_add(self.grace).map(|at| (at, Signal::Kill));
        self.next = if signal == Signal::Terminate { kill() } else { None };
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        if !self.gone {
            self.warden.signal(self.id, Signal::Kill, Target::Group);
        }
    }
}

/// The node's ends of its three pipes, each `None` once it is at its end.
struct Pipes<'a, F: Follow> {
    stdin: Option<Sender>,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    /// What it has not taken yet.
    unread: &'a [u8],
    output: Vec<u8>,
    most: usize,
    unkept: Option<Unkept>,
    /// How much memory its output takes, as it was told.
    held: usize,
    said: Said<'a, F>,
}

impl<F: Follow> Pipes<'_, F> {
    /// Moves some bytes one way or another. Nothing is lost if the future is dropped.
    async fn flow(&mut self) {
        if self.unread.is_empty() {
            self.stdin = None;
        }
        let Pipes { stdin, stdout, stderr, unread, output, most, said, .. } = self;
        // Left unread, and not closed: it is about to be killed, and shall not die of something else.
        let keeps = self.unkept.is_none();
        let mut piece = [0; PIECE];
        tokio::select! {
            written = write(stdin, unread) => match written {
                Ok(count) => self.unread = &self.unread[count..],
                // It does not want to read any more.
                Err(_) => self.stdin = None,
            },
            read = read(stdout, output, *most), if keeps => match read {
                Ok(1..) => self.check(),
                Ok(0) | Err(_) => self.stdout = None,
            },
            read = read_piece(stderr, &mut piece) => match read {
                Ok(count @ 1..) => {
                    said.push(&piece[..count]);
                    // One that writes without end must not keep the others from their turn.
                    tokio::task::yield_now().await;
                }
                Ok(0) | Err(_) => self.stderr = None,
            },
        }
    }

    fn check(&mut self) {
        if self.held != self.output.capacity() {
            self.held = self.output.capacity();
            if !self.said.follower.holds(self.held) {
                return self.let_go(Unkept::NoRoom);
            }
        }
        if self.output.len() > self.most {
            self.let_go(Unkept::TooMuch);
        }
    }

    fn let_go(&mut self, why: Unkept) {
        self.unkept = Some(why);
        self.output = Vec::new();
        self.held = 0;
        self.said.follower.holds(0);
    }

    /// Takes what it had printed before its end. That is there already; whoever holds the pipes still is not waited for.
    fn rest(&mut self) {
        let mut piece = [0; PIECE];
        while self.unkept.is_none()
            && let Some(count) = self.stdout.as_ref().and_then(|end| read_now(end, &mut piece))
        {
            self.output.extend_from_slice(&piece[..count]);
            self.check();
        }
        let mut left = LAST_WORDS;
        while left > 0
            && let Some(count) = self.stderr.as_ref().and_then(|end| read_now(end, &mut piece))
        {
            left = left.saturating_sub(count);
            self.said.push(&piece[..count]);
        }
    }
}

async fn write(end: &mut Option<Sender>, bytes: &[u8]) -> io::Result<usize> {
    match end {
        Some(end) => end.write(bytes).await,
        None => std::future::pending().await,
    }
}

/// Reads what there is. No more room is made for it than `most` bytes may need.
async fn read(end: &mut Option<Receiver>, bytes: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let Some(end) = end else { return std::future::pending().await };
    end.readable().await?;
    if bytes.capacity() - bytes.len() < PIECE {
        let room = (2 * bytes.capacity()).min(most).max(bytes.len()).saturating_add(PIECE);
        bytes.reserve_exact(room - bytes.len());
    }
    end.read_buf(bytes).await
}

async fn read_piece(end: &mut Option<Receiver>, piece: &mut [u8]) -> io::Result<usize> {
    match end {
        Some(end) => end.read(piece).await,
        None => std::future::pending().await,
    }
}

/// What is there, whatever the runtime remembers of the pipe. `None` at its end, or if nothing is.
fn read_now(end: impl AsFd, piece: &mut [u8]) -> Option<usize> {
    loop {
        match rustix::io::read(&end, &mut *piece) {
            Ok(0) => return None,
            Ok(count) => return Some(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// How many bytes of what one process writes to its standard error are told. What follows is only kept for its last lines.
const MOST_SAID: usize = 1 << 20;

/// What it says on standard error.
struct Said<'a, F> {
    pid: u32,
    /// How much more is told.
    left: usize,
    follower: &'a mut F,
    lines: LineSplitter,
    tail: Tail,
}

impl<F: Follow> Said<'_, F> {
    fn push(&mut self, bytes: &[u8]) {
        let Said { pid, left, follower, lines, tail } = self;
        lines.push(bytes, &mut |text| tell(*pid, left, *follower, tail, text));
    }

    fn finish(&mut self) {
        let Said { pid, left, follower, lines, tail } = self;
        lines.finish(&mut |text| tell(*pid, left, *follower, tail, text));
    }
}

/// Tells one line, if there is room left for it.
fn tell(pid: u32, left: &mut usize, follower: &mut impl Follow, tail: &mut Tail, text: &str) {
    tail.push(text);
    match left.checked_sub(text.len() + 1) {
        Some(less) => {
            *left = less;
            follower.said(pid, text);
        }
        None if *left > 0 => {
            *left = 0;
            follower.said(pid, "(it writes very much to standard error: what follows is not logged)");
        }
        None => {}
    }
}
