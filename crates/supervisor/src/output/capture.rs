//! The two pipes that one worker prints into.

use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::net::unix::pipe::Receiver;

use super::lines::LineSplitter;

/// How much one call of [`Capture::drain`] reads at most from each stream, so that a worker that
/// prints without end holds up nobody else, and one stream not the other.
const AT_ONCE: usize = 128 << 10;

/// Which of its two streams a worker printed a line to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What one call of [`Capture::drain`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// How many bytes it read.
    pub bytes: usize,
    /// It read as much as it may at once, and there may be more.
    pub more: bool,
}

/// The reading ends of a worker's standard output and standard error.
#[derive(Debug)]
pub struct Capture {
    pipes: [Pipe; 2],
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    /// None once it has ended.
    end: Option<Receiver>,
    lines: LineSplitter,
}

impl Capture {
    /// Takes both ends, which are pipes. Must be called within a Tokio runtime with I/O.
    pub fn new(stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipes: [Pipe::new(Stream::Stdout, stdout)?, Pipe::new(Stream::Stderr, stderr)?] })
    }

    /// Reads what is there now; never waits. Where nothing is there, that costs one system call.
    ///
    /// `bytes` is given the bytes as they come, and says whether somebody wants them; then `line` is given each line that they end,
    /// with what `bytes` said. Call it again while it says that there may be more. The last line of a stream that ends without a
    /// line feed is given, too.
    pub fn drain(
        &mut self,
        bytes: &mut impl FnMut(Stream, &[u8]) -> bool,
        line: &mut impl FnMut(Stream, &str, bool),
    ) -> Drained {
        let mut drained = Drained::default();
        let there = there(&self.pipes);
        for (pipe, there) in self.pipes.iter_mut().zip(there) {
            if there {
                let taken = pipe.read(AT_ONCE, bytes, line);
                drained.bytes += taken;
                drained.more |= taken == AT_ONCE;
            }
        }
        drained
    }

    /// Like [`drain`](Self::drain), but reads so many bytes of standard output and standard error, which are there already, and not
    /// one more.
    pub fn take(
        &mut self,
        counts: [u64; 2],
        bytes: &mut impl FnMut(Stream, &[u8]) -> bool,
        line: &mut impl FnMut(Stream, &str, bool),
    ) {
        for (pipe, count) in self.pipes.iter_mut().zip(counts) {
            pipe.read(usize::try_from(count).unwrap_or(usize::MAX), bytes, line);
        }
    }

    /// Gives the lines that have begun and not ended, because what comes next belongs to another
    /// job, or nothing will come.
    pub fn finish(&mut self, sink: &mut impl FnMut(Stream, &str)) {
        for pipe in &mut self.pipes {
            pipe.lines.finish(&mut |line| sink(pipe.stream, line));
        }
    }

    /// Whether both streams have ended: every process that held them is gone or closed them.
    pub fn is_closed(&self) -> bool {
        self.pipes.iter().all(|pipe| pipe.end.is_none())
    }

    /// Waits until there is something to [`drain`](Self::drain), an end of a stream included. Once
    /// both have ended it waits forever. Nothing is lost if the future is dropped, but only one task
    /// may wait at a time.
    pub async fn readable(&self) -> io::Result<()> {
        if self.is_closed() {
            return pending().await;
        }
        poll_fn(|context| {
            for pipe in &self.pipes {
                if let Poll::Ready(result) = pipe.poll_readable(context) {
                    return Poll::Ready(result);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Which pipes have something to read, or have ended.
fn there(pipes: &[Pipe; 2]) -> [bool; 2] {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let look = |polled: &mut [PollFd<'_>]| {
        // An error (there is no room in the kernel, or a signal came) means that nobody knows. A
        // read then finds out, as it does not block.
        let failed = rustix::event::poll(polled, Some(&now)).is_err();
        move |polled: &PollFd<'_>| failed || !polled.revents().is_empty()
    };
    match [&pipes[0].end, &pipes[1].end] {
        [Some(first), Some(second)] => {
            let mut polled = [PollFd::new(first, PollFlags::IN), PollFd::new(second, PollFlags::IN)];
            let is_ready = look(&mut polled);
            [is_ready(&polled[0]), is_ready(&polled[1])]
        }
        [None, None] => [false, false],
        [first, second] => [first.is_some(), second.is_some()],
    }
}

impl Pipe {
    fn new(stream: Stream, end: OwnedFd) -> io::Result<Self> {
        Ok(Self { stream, end: Some(Receiver::from_owned_fd(end)?), lines: LineSplitter::default() })
    }

    /// Reads until nothing is there or it was `most`, and says how much.
    fn read(
        &mut self,
        most: usize,
        wants: &mut impl FnMut(Stream, &[u8]) -> bool,
        line: &mut impl FnMut(Stream, &str, bool),
    ) -> usize {
        let mut bytes = [0; 16 << 10];
        let mut taken = 0;
        while let Some(end) = &self.end {
            let room = bytes.len().min(most - taken);
            if room == 0 {
                break;
            }
            match rustix::io::read(end, &mut bytes[..room]) {
                Ok(read @ 1..) => {
                    taken += read;
                    let wanted = wants(self.stream, &bytes[..read]);
                    self.lines.push(&bytes[..read], &mut |text| line(self.stream, text, wanted));
                    // A pipe gives all it has: less than asked for means that it is empty now.
                    if read < room {
                        break;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Ok(0) | Err(_) => {
                    self.lines.finish(&mut |text| line(self.stream, text, false));
                    self.end = None;
                }
            }
        }
        taken
    }

    /// Ready if a read would not have to wait. What the runtime remembers may be out of date, as
    /// `drain` reads without telling it; so this looks, and forgets what is not so.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(end) = &self.end else { return Poll::Pending };
        let look = || {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            match rustix::event::poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&now)) {
                Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                // On an error nobody knows, and a read finds out.
                Ok(_) | Err(_) => Ok(()),
            }
        };
        loop {
            ready!(end.poll_read_ready(context))?;
            match end.try_io(look) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn pipes() -> (Capture, io::PipeWriter, io::PipeWriter) {
        let (stdout, out) = io::pipe().unwrap();
        let (stderr, err) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&stdout, true).unwrap();
        rustix::io::ioctl_fionbio(&stderr, true).unwrap();
        (Capture::new(stdout.into(), stderr.into()).unwrap(), out, err)
    }

    fn drain(capture: &mut Capture) -> (Vec<String>, Drained) {
        let mut lines = Vec::new();
        let mut line = |stream: Stream, line: &str, _| lines.push(format!("{}: {line}", stream.as_str()));
        let drained = capture.drain(&mut |_, _| false, &mut line);
        (lines, drained)
    }

    #[tokio::test]
    async fn drain_takes_what_is_there_and_never_waits() {
        let (mut capture, mut out, mut err) = pipes();
        assert_eq!(drain(&mut capture), (vec![], Drained::default()));
        out.write_all(b"one\ntwo\nhal").unwrap();
        err.write_all(b"oh\n").unwrap();
        assert_eq!(drain(&mut capture).0, ["stdout: one", "stdout: two", "stderr: oh"]);
        let mut rest = Vec::new();
        capture.finish(&mut |stream, line| rest.push((stream, line.to_owned())));
        assert_eq!(rest, [(Stream::Stdout, "hal".to_owned())]);
        drop(out);
        err.write_all(b"end").unwrap();
        drop(err);
        assert_eq!(drain(&mut capture).0, Vec::<String>::new());
        assert_eq!(drain(&mut capture).0, ["stderr: end"]);
        assert!(capture.is_closed());
        assert_eq!(drain(&mut capture), (vec![], Drained::default()));
    }

    #[tokio::test]
    async fn take_reads_what_it_is_told_and_no_more() {
        let (mut capture, mut out, mut err) = pipes();
        out.write_all(b"mineyours").unwrap();
        err.write_all(b"!").unwrap();
        let mut seen = Vec::new();
        let mut wants = |stream: Stream, bytes: &[u8]| {
            seen.push((stream, bytes.to_vec()));
            true
        };
        capture.take([4, 0], &mut wants, &mut |_, _, _| {});
        capture.drain(&mut wants, &mut |_, _, _| {});
        let all = [(Stream::Stdout, &b"mine"[..]), (Stream::Stdout, b"yours"), (Stream::Stderr, b"!")];
        assert_eq!(seen, all.map(|(stream, bytes)| (stream, bytes.to_vec())));
    }

    #[tokio::test]
    async fn one_call_is_bounded() {
        let (mut capture, mut out, _err) = pipes();
        let writer = std::thread::spawn(move || out.write_all(&b"0123456789abcde\n".repeat(64 << 10)).unwrap());
        let mut lines = 0;
        let mut bytes = 0;
        while !writer.is_finished() || bytes < 1 << 20 {
            capture.readable().await.unwrap();
            let drained = capture.drain(&mut |_, _| false, &mut |_, line, _| {
                assert_eq!(line, "0123456789abcde");
                lines += 1;
            });
            assert!(drained.bytes <= AT_ONCE, "{drained:?}");
            bytes += drained.bytes;
        }
        assert_eq!(lines, 64 << 10);
    }

    #[tokio::test]
    async fn readable_waits_for_news_and_not_for_what_was_drained() {
        let (mut capture, mut out, err) = pipes();
        out.write_all(b"a\n").unwrap();
        capture.readable().await.unwrap();
        assert_eq!(drain(&mut capture).0, ["stdout: a"]);
        let waited = tokio::time::timeout(Duration::from_millis(20), capture.readable()).await;
        assert!(waited.is_err(), "there is nothing to read");
        let writer = tokio::spawn(async move {
            tokio::task::yield_now().await;
            out.write_all(b"b\n").unwrap();
            out
        });
        capture.readable().await.unwrap();
        assert_eq!(drain(&mut capture).0, ["stdout: b"]);
        drop(err);
        capture.readable().await.unwrap();
        drain(&mut capture);
        drop(writer.await.unwrap());
        capture.readable().await.unwrap();
        drain(&mut capture);
        assert!(capture.is_closed());
        let waited = tokio::time::timeout(Duration::from_millis(20), capture.readable()).await;
        assert!(waited.is_err(), "nothing will ever come");
    }
}
