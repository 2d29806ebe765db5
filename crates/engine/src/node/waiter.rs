//! What the node keeps with each request: who waits for it, and how it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use evener_core::RequestId;
use evener_doors::stream::{ChunkSender, Chunks};
use evener_doors::{Answered, Arrival, Called, Caller, Function, Origin, Parcel, Stream as CallStream};
use evener_supervisor::output::Stream;
use tokio::sync::oneshot;

/// Who waits for a request.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// The task of an HTTP request.
    Request {
        /// Where its answer goes, or the beginning of one that comes in chunks.
        answer: Option<oneshot::Sender<Arrival>>,
        /// Where its chunks go, once there has been one.
        chunks: Option<ChunkSender>,
        /// The request, for workers that ask.
        origin: Option<Arc<Origin>>,
        /// Whether the first stage gets the request instead of its body.
        as_request: bool,
    },
    /// The caller of a function.
    Call(Call),
}

impl Waiter {
    /// Passes a piece of the answer on; the first makes the stream. Never waits, since it is called under the node's lock.
    pub(super) fn chunk(&mut self, parcel: Parcel, open: impl FnOnce() -> (ChunkSender, Chunks)) {
        let Waiter::Request { answer, chunks, .. } = self else { return };
        if let Some(answer) = answer.take() {
            let (sender, stream) = open();
            let first = parcel.value.content.clone();
            // Whoever waited is gone, and has said so or will: the stream need not, which could not be done here.
            if let Err(Arrival::Stream { chunks, .. }) = answer.send(Arrival::Stream { first, chunks: stream }) {
                chunks.let_go();
            }
            *chunks = Some(sender);
        }
        if let Some(chunks) = chunks {
            chunks.send(parcel);
        }
    }
}

/// A call of a function. What changes here changes under the node's lock.
#[derive(Debug)]
pub(crate) struct Call {
    caller: Arc<dyn Caller>,
    number: u64,
    pub(super) function: Arc<Function>,
    pub(super) group: bool,
    /// How long one try may run, in nanoseconds as a worker is told: all ones are without end.
    pub(super) left_nanos: u64,
    /// How many bytes of output are still passed on.
    output: AtomicU64,
    /// Whether its caller has heard that no more is passed on, or does not want to.
    cut: AtomicU32,
    /// Who has it, or had it last.
    worker: AtomicU32,
    tries: AtomicU32,
}

impl Call {
    /// `output` is the most bytes of output that are passed on; `None`: its caller wants none.
    pub(super) fn new(
        caller: Arc<dyn Caller>,
        number: u64,
        function: Arc<Function>,
        group: bool,
        timeout: Option<Duration>,
        output: Option<u64>,
    ) -> Call {
        let left_nanos = timeout.and_then(|timeout| u64::try_from(timeout.as_nanos()).ok()).unwrap_or(u64::MAX);
        let cut = u32::from(output.is_none()).into();
        let (output, worker, tries) = (output.unwrap_or(0).into(), 0.into(), 0.into());
        Call { caller, number, function, group, left_nanos, output, cut, worker, tries }
    }

    /// It is handed to a worker.
    pub(super) fn handed(&self, worker: u32, tries: u32) {
        self.worker.store(worker, Ordering::Relaxed);
        self.tries.store(tries, Ordering::Relaxed);
    }

    /// It wrote something, which its caller gets as far as its output's limit goes.
    pub(super) fn printed(&self, stream: Stream, bytes: &[u8]) {
        if self.cut.load(Ordering::Relaxed) != 0 {
            return;
        }
        let left = self.output.load(Ordering::Relaxed);
        let size = (bytes.len() as u64).min(left);
        self.output.store(left - size, Ordering::Relaxed);
        let cut = size < bytes.len() as u64;
        let stream = match stream {
            Stream::Stdout => CallStream::Stdout,
            Stream::Stderr => CallStream::Stderr,
        };
        let taken = self.caller.printed(self.number, stream, &bytes[..size as usize], cut);
        self.cut.store((cut || !taken).into(), Ordering::Relaxed);
    }

    pub(super) fn goes_on(&self) {
        self.caller.goes_on(self.number);
    }

    pub(super) fn answered(self, id: RequestId, answer: Answered, ran: Duration) {
        let (worker, tries) = (self.worker.into_inner(), self.tries.into_inner());
        self.caller.answered(self.number, Called { id, answer, worker, ran, tries });
    }
}
