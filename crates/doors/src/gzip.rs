//! Answers that are compressed on their way to clients that take gzip.

use std::io::{self, Write};
use std::num::NonZero;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use evener_core::Budget;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::sync::Semaphore;
use tonic::Status;

use crate::body::{AnswerBody, hold};
use crate::streamed::Streamed;

/// Smaller bodies are not worth it: they travel in one packet either way.
const LEAST: u64 = 1024;
/// How many bytes are compressed where others wait for the same thread. It takes about a tenth of a millisecond.
pub(crate) const AT_ONCE: usize = 8 * 1024;
/// How many bytes are compressed at a time elsewhere: then others have their turn.
const SLICE: usize = 256 * 1024;
/// Higher levels take much longer and gain little.
const LEVEL: Compression = Compression::new(4);

/// How many answers are compressed at a time. One processor is left to the node.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new(processors.saturating_sub(1).max(1))
});

/// Whether a client takes gzip.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = false;
    for coding in values.flat_map(|value| value.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            return wanted;
        }
        any |= name == "*" && wanted;
    }
    any
}

/// Compresses an answer that is worth it, if its client takes that.
/// What the compressed bytes take is counted in `budget`.
pub(crate) fn compress(response: Response<AnswerBody>, accepted: bool, budget: &Budget) -> Response<AnswerBody> {
    let (mut head, body) = response.into_parts();
    let large = body.size_hint().exact().is_none_or(|size| size >= LEAST);
    if !large || !is_whole(head.status, &head.headers) || !head.headers.get(CONTENT_TYPE).is_some_and(is_compressible) {
        return Response::from_parts(head, body);
    }
    head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    if !accepted {
        return Response::from_parts(head, body);
    }
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // The bytes are others now, though they mean the same.
    let weak = head.headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    if let Some(Ok(weak)) = weak.map(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())) {
        head.headers.insert(ETAG, weak);
    }
    Response::from_parts(head, body.compressed(budget))
}

/// Whether an answer has a whole body that nobody has encoded yet, or forbidden to change.
fn is_whole(status: StatusCode, headers: &HeaderMap) -> bool {
    let partial = status == StatusCode::PARTIAL_CONTENT || headers.contains_key(CONTENT_RANGE);
    let mut control = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let fixed = control.any(|value| value.to_ascii_lowercase().contains("no-transform"));
    !partial && !fixed && status != StatusCode::NOT_MODIFIED && !headers.contains_key(CONTENT_ENCODING)
}

/// Whether contents of that type get smaller. Images, films, archives and bytes of no known kind mostly do not.
fn is_compressible(media_type: &HeaderValue) -> bool {
    const OTHERS: [&str; 6] = [
        "application/json",
        "application/x-ndjson",
        "application/xml",
        "application/javascript",
        "application/yaml",
        "application/wasm",
    ];
    let media_type = media_type.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let suffixed = media_type.ends_with("+json") || media_type.ends_with("+xml");
    media_type.starts_with("text/") || suffixed || OTHERS.contains(&media_type.as_str())
}

/// A body at once.
pub(crate) fn at_once(bytes: &[u8]) -> Bytes {
    let mut encoder = encoder();
    // Writing into memory does not fail; if it did, what is cut short shows in its checksum.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

fn encoder() -> Box<Encoder> {
    Box::new(GzEncoder::new(Vec::new(), LEVEL))
}

type Encoder = GzEncoder<Vec<u8>>;
/// What has become of a piece: the encoder, unless that was the end, and the compressed bytes.
type Done = io::Result<(Option<Box<Encoder>>, Bytes)>;

/// A body that is compressed as it goes.
pub(crate) struct Gzip {
    source: Source,
    state: State,
    budget: Budget,
}

enum Source {
    /// What is left of a large body.
    Rest(Bytes),
    /// Chunks, each of which is passed on at once.
    Chunks(Streamed),
}

enum State {
    /// It waits for the next piece.
    Waiting(Box<Encoder>),
    /// A piece is being compressed on another thread.
    Working(Pin<Box<dyn Future<Output = Done> + Send>>),
    Ended,
}

/// How a piece is compressed.
#[derive(Clone, Copy)]
enum How {
    /// Others follow.
    Write,
    /// The client shall have it at once.
    Flush,
    /// It is the last.
    Finish,
}

impl Gzip {
    pub(crate) fn whole(bytes: Bytes, budget: &Budget) -> Gzip {
        Gzip { source: Source::Rest(bytes), state: State::Waiting(encoder()), budget: budget.clone() }
    }

    pub(crate) fn chunks(streamed: Streamed, budget: &Budget) -> Gzip {
        Gzip { source: Source::Chunks(streamed), state: State::Waiting(encoder()), budget: budget.clone() }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let done = match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Working(mut working) => match working.as_mut().poll(cx) {
                    Poll::Ready(done) => done,
                    Poll::Pending => {
                        self.state = State::Working(working);
                        return Poll::Pending;
                    }
                },
                State::Waiting(encoder) => {
                    let (piece, how) = match self.source.poll_piece(cx) {
                        Poll::Ready(Ok(piece)) => piece,
                        // Without its end, nobody takes what came for all.
                        Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                        Poll::Pending => {
                            self.state = State::Waiting(encoder);
                            return Poll::Pending;
                        }
                    };
                    if piece.len() > AT_ONCE {
                        self.state = State::Working(Box::pin(elsewhere(encoder, piece, how)));
                        continue;
                    }
                    piece_through(encoder, &piece, how)
                }
            };
            match done {
                Ok((encoder, bytes)) => {
                    self.state = encoder.map_or(State::Ended, State::Waiting);
                    if !bytes.is_empty() {
                        let held = self.budget.charge(bytes.len() as u64);
                        return Poll::Ready(Some(Ok(Frame::data(hold(bytes, Some(Arc::new(held)))))));
                    }
                }
                Err(error) => return Poll::Ready(Some(Err(Status::internal(error.to_string())))),
            }
        }
    }
}

impl Source {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Bytes, How), Status>> {
        match self {
            Source::Rest(rest) => {
                let slice = rest.split_to(rest.len().min(SLICE));
                Poll::Ready(Ok((slice, if rest.is_empty() { How::Finish } else { How::Write })))
            }
            Source::Chunks(streamed) => Poll::Ready(match ready!(streamed.poll_frame(cx)) {
                Some(Ok(frame)) => Ok((frame.into_data().unwrap_or_default(), How::Flush)),
                Some(Err(error)) => Err(error),
                None => Ok((Bytes::new(), How::Finish)),
            }),
        }
    }
}

/// Compresses a piece on another thread, when it is its turn.
async fn elsewhere(encoder: Box<Encoder>, piece: Bytes, how: How) -> Done {
    // Nobody closes it.
    let _turn = TURNS.acquire().await;
    let compressed = tokio::task::spawn_blocking(move || piece_through(encoder, &piece, how));
    // The thread only fails if the runtime ends.
    compressed.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn piece_through(mut encoder: Box<Encoder>, piece: &[u8], how: How) -> Done {
    encoder.write_all(piece)?;
    match how {
        How::Finish => return Ok((None, encoder.finish()?.into())),
        How::Flush => encoder.flush()?,
        How::Write => {}
    }
    let bytes = std::mem::take(encoder.get_mut()).into();
    Ok((Some(encoder), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip() {
        let takes = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
            is_accepted(&headers)
        };
        for yes in ["gzip", "deflate, GZIP;q=0.5", "br;q=1.0, x-gzip", "*", "br, *;q=0.1", "gzip; q=1"] {
            assert!(takes(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip;q=0.000, *", "*;q=0", "identity", "gzip;q=x", "gzipped"] {
            assert!(!takes(no), "{no}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }

    #[test]
    fn what_gets_smaller() {
        let is = |media_type: &'static str| is_compressible(&HeaderValue::from_static(media_type));
        for yes in ["application/json", "Text/HTML; charset=utf-8", "image/svg+xml", "application/problem+json"] {
            assert!(is(yes), "{yes}");
        }
        for no in ["application/octet-stream", "image/png", "video/mp4", "application/zip", ""] {
            assert!(!is(no), "{no}");
        }
    }
}
