//! One connection: what phase it is in, and the limits that go with each phase.
//!
//! The HTTP library has a timer for headers, but it counts idle time as header time and costs an allocation a request. Here
//! a connection only notes its phase, and one sweeper for all of them closes those that are late.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::task::AbortHandle;

use crate::http::REQUEST_ID;
use crate::listener::Shared;

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
/// How every Content-Length begins that the HTTP library refuses as if the head were too large: 2^64 - 2 and 2^64 - 1.
const BEYOND: &[u8] = b"1844674407370955161";
/// The most bytes of a head that are read at a time.
const HEAD_PIECE: usize = 8 * 1024;
/// How many bytes are no more than a frame of HTTP/2 that carries nothing of an answer.
const ASKED: usize = 64;

/// The state that a connection shares with its sweeper. Times are in ticks of the sweeper's clock.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    phase: AtomicU8,
    since: AtomicU32,
    /// Requests that are being served.
    open: AtomicU32,
    /// Whether requests come side by side (HTTP/2): bytes between them are then no head of a request.
    multiplexed: AtomicBool,
    stalled_since: AtomicU32,
    /// Whether bytes of an answer may still be on their way through the HTTP library.
    answering: AtomicBool,
    /// Bytes that the client had not taken at the last look.
    untaken: AtomicU32,
    /// Since when each answer waits for its client to take what there is, 0 while it does not. Only of requests side by side:
    /// otherwise the socket shows it.
    waiting: Mutex<Vec<Arc<AtomicU32>>>,
    abort: OnceLock<AbortHandle>,
    /// Whether its client has shown the token.
    known: AtomicBool,
    /// Streams that watch the node's health.
    watches: AtomicU32,
    /// The socket, for as long as it is open.
    socket: Mutex<Option<RawFd>>,
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
        self.open.fetch_add(1, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// The last byte of the answer is handed over.
    pub(crate) fn request_ended(&self, tick: u32) {
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(IDLE, tick);
        }
    }

    /// Requests come side by side on this connection.
    pub(crate) fn set_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<AtomicU32>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that may have to wait for its client, if requests come side by side.
    pub(crate) fn add_waiting(&self) -> Option<Arc<AtomicU32>> {
        self.is_multiplexed().then(|| {
            let since = Arc::new(AtomicU32::new(0));
            self.waiting().push(since.clone());
            since
        })
    }

    /// That answer is handed over, or nobody wants it any more.
    pub(crate) fn remove_waiting(&self, since: &Arc<AtomicU32>) {
        self.waiting().retain(|other| !Arc::ptr_eq(other, since));
    }

    /// Whether an answer has waited for its client for too long.
    fn has_stalled(&self, tick: u32, limits: &TickLimits) -> bool {
        let late = |since: u32| since != 0 && tick.saturating_sub(since) > limits.stalled;
        self.is_multiplexed() && self.waiting().iter().any(|since| late(since.load(Ordering::Relaxed)))
    }

    fn is_idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == IDLE
    }

    /// Whether nothing is lost if the connection is closed now: no request is being served, and no answer waits to be taken.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_idle() && !self.answering.load(Ordering::Relaxed)
    }

    pub(crate) fn set_socket(&self, socket: Option<RawFd>) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }

    /// Looks at the socket itself: has the client gone while its request is served, and does it take its answer?
    ///
    /// The HTTP library notices neither where it has bytes of a further request in hand, or where the kernel's buffer is so
    /// large that a slow client frees too little of it to be told.
    pub(crate) fn look(&self, tick: u32) -> Presence {
        let held = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = *held else { return Presence::There };
        if self.phase.load(Ordering::Relaxed) == BUSY && crate::socket::has_hung_up(socket) {
            return Presence::Gone;
        }
        if self.stalled_since.load(Ordering::Relaxed) != 0 {
            let untaken = crate::socket::untaken(socket);
            if self.untaken.swap(untaken, Ordering::Relaxed) != untaken {
                self.stalled_since.store(tick, Ordering::Relaxed);
            }
        }
        Presence::There
    }

    /// Its client has shown the token.
    pub(crate) fn set_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// How many requests are being served on it.
    pub(crate) fn open_requests(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// A place for one more stream that watches the node's health; `None` if it has as many as may be.
    pub(crate) fn watch(self: &Arc<Self>, most: u32) -> Option<Watching> {
        let more = |watches: u32| (watches < most).then_some(watches + 1);
        self.watches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Watching(self.clone()))
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
        if stalled != 0 {
            return tick.saturating_sub(stalled) > limits.stalled;
        }
        if self.has_stalled(tick, limits) {
            return true;
        }
        match self.phase.load(Ordering::Relaxed) {
            IDLE => spent > limits.idle,
            HEAD => spent > limits.header,
            _ => false,
        }
    }
}

/// A stream that watches the node's health, for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Watching(Arc<Connection>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    Gone,
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
///
/// The HTTP library answers what it cannot parse by itself, with a bare status. Such an answer is replaced by one that says
/// what is wrong.
pub(crate) struct Watched<S> {
    stream: S,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    instead: Option<Instead>,
    /// What was read before, and is to be read again.
    again: Bytes,
    /// Whether a Content-Length that is beyond any may stand in what was read last of a head.
    beyond: bool,
}

/// What is written in place of the library's own answer.
struct Instead {
    bytes: Vec<u8>,
    written: usize,
    /// How long the library's answer was.
    stands_for: usize,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, socket: RawFd, shared: Arc<Shared>, connection: Arc<Connection>) -> Watched<S> {
        connection.set_socket(Some(socket));
        Watched { stream, shared, connection, instead: None, again: Bytes::new(), beyond: false }
    }

    /// What has been read is read again.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.beyond = memchr::memmem::find(&bytes, BEYOND).is_some();
        self.again = bytes;
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        // Before the stream closes it: its number may be another connection's a moment later.
        self.connection.set_socket(None);
    }
}

impl<S: Read + Unpin> Read for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let count = self.again.len().min(buffer.remaining());
            buffer.put_slice(&self.again.split_to(count));
            return Poll::Ready(Ok(()));
        }
        if self.connection.is_multiplexed() || self.connection.phase.load(Ordering::Relaxed) == BUSY {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let mut space = [MaybeUninit::uninit(); HEAD_PIECE];
        let most = buffer.remaining().min(HEAD_PIECE);
        let mut piece = ReadBuf::uninit(&mut space[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, piece.unfilled()))?;
        self.beyond = memchr::memmem::find(piece.filled(), BEYOND).is_some();
        buffer.put_slice(piece.filled());
        if self.connection.is_idle() {
            self.connection.enter(HEAD, self.shared.clock.now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Watched<S> {
    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let stalled = &self.connection.stalled_since;
        let was_stalled = stalled.load(Ordering::Relaxed) != 0;
        match &written {
            Poll::Ready(_) if was_stalled => {
                stalled.store(0, Ordering::Relaxed);
                if self.connection.is_idle() {
                    // Only now has the client its answer.
                    self.connection.enter(IDLE, self.shared.clock.now());
                }
            }
            // On HTTP/2 an answer waits for its client without the socket showing it. What is written is progress, unless it is
            // as little as what the library writes to ask whether the client is there.
            Poll::Ready(Ok(count))
                if *count > ASKED && self.connection.is_multiplexed() && self.connection.is_idle() =>
            {
                self.connection.enter(IDLE, self.shared.clock.now());
            }
            Poll::Pending if !was_stalled => stalled.store(self.shared.clock.now(), Ordering::Relaxed),
            Poll::Ready(_) | Poll::Pending => {}
        }
        written
    }

    /// Whether these bytes are the library's own answer to a head that it could not parse, and with which status.
    fn unparsed(&self, bytes: &[u8]) -> Option<u16> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?.first_chunk::<3>()?;
        if status[0] != b'4' || self.connection.answering.load(Ordering::Relaxed) {
            return None;
        }
        // Every answer of the service carries its id.
        let ours = bytes.windows(REQUEST_ID.as_str().len()).any(|name| name == REQUEST_ID.as_str().as_bytes());
        match std::str::from_utf8(status).ok()?.parse().ok()? {
            _ if ours => None,
            431 if self.beyond => Some(413),
            status => Some(status),
        }
    }

    fn write_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Watched { stream, instead, .. } = self;
        let Some(Instead { bytes, written, stands_for }) = instead else { return Poll::Ready(Ok(0)) };
        while *written < bytes.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &bytes[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        let stands_for = *stands_for;
        self.instead = None;
        Poll::Ready(Ok(stands_for))
    }
}

impl<S: Write + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none()
            && let Some(status) = self.unparsed(bytes)
        {
            let instead = (self.shared.unparsed)(status);
            self.instead = Some(Instead { bytes: instead, written: 0, stands_for: bytes.len() });
        }
        let written = match self.instead {
            Some(_) => self.write_instead(cx),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        };
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if self.instead.is_some() || self.unparsed(first).is_some() {
            return self.poll_write(cx, first);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // The library flushes when it has nothing left to write.
        if flushed.is_ready() && self.connection.phase.load(Ordering::Relaxed) != BUSY {
            self.connection.answering.store(false, Ordering::Relaxed);
        }
        match flushed {
            Poll::Ready(Ok(())) => self.noted(Poll::Ready(Ok(0))).map_ok(|_| ()),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.noted(Poll::Pending).map_ok(|_| ()),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
