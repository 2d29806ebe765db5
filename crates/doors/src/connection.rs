//! One connection: what phase it is in, and the limits that go with each phase.
//!
//! The HTTP library has a timer for headers, but it counts idle time as header time and costs an allocation a request. Here
//! a connection only notes its phase, and one sweeper for all of them closes those that are late.

use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::task::AbortHandle;

/// How long a connection may stay in each phase.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Between requests.
    pub idle: Duration,
    /// From the first byte of a request's head to its last.
    pub header: Duration,
    /// While the client takes no byte of its answer.
    pub stalled: Duration,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// The state that a connection shares with its sweeper. Times are in ticks of the sweeper's clock.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    phase: AtomicU8,
    since: AtomicU32,
    stalled_since: AtomicU32,
    abort: OnceLock<AbortHandle>,
}

impl Connection {
    pub(crate) fn opened(tick: u32) -> Connection {
        // A client that connects and says nothing has as long as one that began a head.
        let connection = Connection::default();
        connection.enter(HEAD, tick);
        connection
    }

    fn enter(&self, phase: u8, tick: u32) {
        self.since.store(tick, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    pub(crate) fn set_abort(&self, handle: AbortHandle) {
        // Set once, by the one who spawned the connection's task.
        let _ = self.abort.set(handle);
    }

    /// A whole head is in; the request is being served.
    pub(crate) fn request_began(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// The last byte of the answer is handed over.
    pub(crate) fn request_ended(&self, tick: u32) {
        self.enter(IDLE, tick);
    }

    fn is_idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == IDLE
    }

    /// Whether nothing is lost if the connection is closed now: no request is being served, and no answer waits to be taken.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_idle() && self.stalled_since.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn abort(&self) {
        if let Some(abort) = self.abort.get() {
            abort.abort();
        }
    }

    /// Whether the connection has been in its phase for too long.
    pub(crate) fn is_late(&self, tick: u32, limits: &TickLimits) -> bool {
        let spent = tick.saturating_sub(self.since.load(Ordering::Relaxed));
        let stalled = self.stalled_since.load(Ordering::Relaxed);
        let late = match self.phase.load(Ordering::Relaxed) {
            IDLE => spent > limits.idle,
            HEAD => spent > limits.header,
            _ => false,
        };
        late || (stalled != 0 && tick.saturating_sub(stalled) > limits.stalled)
    }
}

/// [`Timeouts`] in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickLimits {
    idle: u32,
    header: u32,
    stalled: u32,
}

impl TickLimits {
    pub(crate) fn new(timeouts: &Timeouts, tick: Duration) -> TickLimits {
        let ticks = |span: Duration| u32::try_from(span.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u32::MAX);
        TickLimits { idle: ticks(timeouts.idle), header: ticks(timeouts.header), stalled: ticks(timeouts.stalled) }
    }
}

/// The sweeper's clock: ticks since the listener began, starting at 1.
#[derive(Debug)]
pub(crate) struct TickClock(AtomicU32);

impl Default for TickClock {
    fn default() -> Self {
        TickClock(AtomicU32::new(1))
    }
}

impl TickClock {
    pub(crate) fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A stream that notes on its connection what it sees.
pub(crate) struct Watched<S> {
    pub(crate) stream: S,
    pub(crate) shared: std::sync::Arc<crate::listener::Shared>,
    pub(crate) connection: std::sync::Arc<Connection>,
}

impl<S: Read + Unpin> Read for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() && self.connection.is_idle() {
            self.connection.enter(HEAD, self.shared.clock.now());
        }
        read
    }
}

impl<S: Write + Unpin> Watched<S> {
    fn noted<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let stalled = &self.connection.stalled_since;
        match &written {
            Poll::Ready(_) => stalled.store(0, Ordering::Relaxed),
            Poll::Pending if stalled.load(Ordering::Relaxed) == 0 => {
                stalled.store(self.shared.clock.now(), Ordering::Relaxed);
            }
            Poll::Pending => {}
        }
        written
    }
}

impl<S: Write + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
