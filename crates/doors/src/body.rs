//! Bodies: taking a client's in, within its limits, and giving an answer's out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use evener_core::{Budget, Code, Problem, Reservation};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::connection::Watching;
use crate::gzip::{self, Gzip};
use crate::listener::Busy;
use crate::streamed::Streamed;

/// Bodies up to this size are copied out of the connection's buffer.
const COPY: usize = 16 * 1024;

/// How much of an answer is handed over at a time where only that shows how it gets on.
const PIECE: usize = 64 * 1024;

/// Memory for a body is set aside in steps of this many bytes.
const STEP: u64 = 64 * 1024;

/// The limits on a client's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Its most bytes.
    pub(crate) size: u64,
    /// How long may pass between two pieces.
    pub(crate) pause: Duration,
}

/// A body that is in, and the memory set aside for it.
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    pub(crate) held: Option<Reservation>,
}

/// Takes a body in. One that says that it is too large is refused before a byte of it is read.
pub(crate) async fn collect(mut body: Incoming, limits: BodyLimits, budget: &Budget) -> Result<Collected, Problem> {
    // What the answer takes is not known yet: but there must be room for one.
    if budget.used() >= budget.limit() {
        return Err(memory_full(budget));
    }
    if body.is_end_stream() {
        return Ok(Collected { bytes: Bytes::new(), held: None });
    }
    if body.size_hint().lower() > limits.size {
        return Err(too_large(limits, Some(body.size_hint().lower())));
    }
    if budget.used().saturating_add(body.size_hint().lower()) > budget.limit() {
        return Err(memory_full(budget));
    }
    // There is room now; but not all that the client promises is set aside at once: it may never come.
    let promised = body.size_hint().exact();
    let mut held = reserve(budget, body.size_hint().lower().min(STEP))?;
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(piece) = next_piece(&mut body, limits.pause).await? {
        let size = first.len() + all.len() + piece.len();
        if size as u64 > limits.size {
            return Err(too_large(limits, None));
        }
        if first.is_empty() && all.is_empty() {
            if size as u64 > held.bytes() && !held.grow(size as u64 - held.bytes()) {
                return Err(memory_full(budget));
            }
            first = piece;
        } else {
            if size > all.capacity() && !make_room(&mut all, size, promised.unwrap_or(limits.size), &mut held) {
                return Err(memory_full(budget));
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&piece);
        }
        if body.is_end_stream() {
            break;
        }
    }
    let bytes = match all.is_empty() {
        // A slice of the connection's buffer would keep all of that buffer alive.
        true if first.len() <= COPY => Bytes::copy_from_slice(&first),
        true => first,
        false => all.into(),
    };
    Ok(Collected { bytes, held: Some(held) })
}

/// Makes room for `size` bytes, and for as many again if so many may still come. What is counted is what the buffer takes, with
/// the part of it that nothing has filled yet. False if the node has no memory for it.
fn make_room(all: &mut Vec<u8>, size: usize, most: u64, held: &mut Reservation) -> bool {
    let room = (size as u64 * 2).max(STEP).min(most).max(size as u64);
    if room > held.bytes() && !held.grow(room - held.bytes()) {
        return false;
    }
    all.reserve_exact(room as usize - all.len());
    true
}

async fn next_piece(body: &mut Incoming, pause: Duration) -> Result<Option<Bytes>, Problem> {
    loop {
        // Mostly the piece is here already; only a body that lets one wait costs a timer.
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = tokio::time::sleep(pause) => {
                let detail = format!("no byte of the body came for {pause:?}");
                return Err(Problem::new(Code::BodyTimeout, detail));
            }
        };
        match frame {
            None => return Ok(None),
            // Trailers mean nothing to a worker.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_) => continue,
            },
            Some(Err(error)) => {
                return Err(Problem::new(Code::BadRequest, format!("the body could not be read: {error}")));
            }
        }
    }
}

fn reserve(budget: &Budget, bytes: u64) -> Result<Reservation, Problem> {
    budget.reserve(bytes).ok_or_else(|| memory_full(budget))
}

pub(crate) fn memory_full(budget: &Budget) -> Problem {
    let detail = format!("the node holds {} bytes of payload, and {} is the most", budget.used(), budget.limit());
    Problem::new(Code::MemoryFull, detail).retry_after(Duration::from_secs(1))
}

fn too_large(limits: BodyLimits, said: Option<u64>) -> Problem {
    let detail = match said {
        Some(said) => format!("the body has {said} bytes, and {} is the most", limits.size),
        None => format!("the body has more than {} bytes, which is the most", limits.size),
    };
    Problem::new(Code::BodyTooLarge, detail)
}

/// The body of an answer. Holds on to whatever must live until its last byte is handed over.
pub(crate) struct AnswerBody {
    content: Content,
    kept: Kept,
}

enum Content {
    Whole(Option<Bytes>),
    /// The messages of a gRPC call, as they come, and where what waits to be written of them is counted.
    Messages(tonic::body::Body, Budget),
    /// The chunks of an answer, as they come.
    Chunks(Streamed),
    /// Either of these, compressed.
    Gzip(Box<Gzip>),
}

/// What lives as long as an answer's body.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) busy: Option<Busy>,
    /// What the request itself takes, where many are side by side on one connection.
    pub(crate) _open: Option<Reservation>,
    /// Its place among the streams that watch the node's health.
    pub(crate) _watching: Option<Watching>,
}

/// What a request takes that is side by side with others on its connection: its head, and what the library keeps of it.
const OPEN: u64 = 4 << 10;

impl Kept {
    /// For a request that has just come. The error says that the node has no room for it.
    pub(crate) fn begin(busy: Busy, budget: &Budget) -> Result<Kept, (Kept, Problem)> {
        if !busy.wants_pieces() {
            return Ok(Kept { busy: Some(busy), _open: None, _watching: None });
        }
        match budget.reserve(OPEN) {
            Some(open) => Ok(Kept { busy: Some(busy), _open: Some(open), _watching: None }),
            None => Err((Kept { busy: Some(busy), _open: None, _watching: None }, memory_full(budget))),
        }
    }

    /// Whether an answer may have to wait for its client while others of the same connection do as well.
    pub(crate) fn is_side_by_side(&self) -> bool {
        self.busy.as_ref().is_some_and(Busy::wants_pieces)
    }
}

/// Bytes, and the memory that is set aside for them.
struct Held {
    bytes: Bytes,
    _held: Arc<Reservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that keep their memory set aside until the last of them is with the client.
pub fn hold(bytes: Bytes, held: Option<Arc<Reservation>>) -> Bytes {
    match held {
        Some(held) => Bytes::from_owner(Held { bytes, _held: held }),
        None => bytes,
    }
}

impl AnswerBody {
    pub(crate) fn new(bytes: Bytes, kept: Kept) -> AnswerBody {
        if !bytes.is_empty() {
            // From now on the client lets it wait, until it is asked for.
            kept.busy.as_ref().inspect(|busy| busy.gave());
        }
        AnswerBody { content: Content::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), kept }
    }

    /// The messages of a gRPC call. What the client has not taken of them is counted in `budget`.
    pub(crate) fn messages(body: tonic::body::Body, kept: Kept, budget: &Budget) -> AnswerBody {
        AnswerBody { content: Content::Messages(body, budget.clone()), kept }
    }

    /// The chunks of an answer.
    pub(crate) fn chunks(streamed: Streamed, kept: Kept) -> AnswerBody {
        AnswerBody { content: Content::Chunks(streamed), kept }
    }

    /// The same, compressed; what that takes is counted in `budget`.
    pub(crate) fn compressed(self, budget: &Budget) -> AnswerBody {
        let content = match self.content {
            Content::Whole(Some(bytes)) if bytes.len() <= gzip::AT_ONCE => Content::Whole(Some(gzip::at_once(&bytes))),
            Content::Whole(Some(bytes)) => Content::Gzip(Box::new(Gzip::whole(bytes, budget))),
            Content::Chunks(streamed) => Content::Gzip(Box::new(Gzip::chunks(streamed, budget))),
            other => other,
        };
        AnswerBody { content, ..self }
    }

    /// A body whose memory stays set aside until its last byte is with the client. Where a connection has one answer at a time, a
    /// small one is copied into its buffer, which bounds it.
    pub(crate) fn held(bytes: Bytes, held: Option<Arc<Reservation>>, kept: Kept) -> AnswerBody {
        let matters = bytes.len() > COPY || kept.is_side_by_side();
        AnswerBody::new(hold(bytes, held.filter(|_| matters)), kept)
    }
}

/// Takes the next piece of a body.
fn next_of(bytes: &mut Option<Bytes>, most: usize) -> Option<Bytes> {
    match bytes {
        Some(rest) if rest.len() > most => Some(rest.split_to(most)),
        _ => bytes.take(),
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let AnswerBody { content, kept: Kept { busy, .. } } = &mut *self;
        let polled = match content {
            // A client may take its time over these: it may be a script that is suspended.
            Content::Messages(body, budget) => {
                let counted = |bytes: Bytes| {
                    let held = budget.charge(bytes.len() as u64);
                    hold(bytes, Some(Arc::new(held)))
                };
                return Pin::new(body).poll_frame(cx).map_ok(|frame| frame.map_data(counted));
            }
            Content::Whole(bytes) => {
                busy.as_ref().inspect(|busy| busy.is_asked());
                let pieces = busy.as_ref().is_some_and(Busy::wants_pieces);
                Poll::Ready(next_of(bytes, if pieces { PIECE } else { usize::MAX }).map(|bytes| Ok(Frame::data(bytes))))
            }
            Content::Chunks(streamed) => {
                busy.as_ref().inspect(|busy| busy.is_asked());
                streamed.poll_frame(cx)
            }
            Content::Gzip(gzip) => {
                busy.as_ref().inspect(|busy| busy.is_asked());
                gzip.poll_frame(cx)
            }
        };
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            busy.as_ref().inspect(|busy| busy.gave());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Messages(body, _) => body.is_end_stream(),
            Content::Chunks(streamed) => streamed.has_ended(),
            Content::Gzip(gzip) => gzip.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Messages(body, _) => body.size_hint(),
            Content::Chunks(_) | Content::Gzip(_) => SizeHint::default(),
        }
    }
}
