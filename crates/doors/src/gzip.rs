//! Answers that are compressed on their way to clients that take gzip.

use std::io::{self, Write};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use tonic::Status;

use crate::body::AnswerBody;
use crate::streamed::Streamed;

/// Smaller bodies are not worth it: they travel in one packet either way.
const LEAST: u64 = 1024;
/// How many bytes are compressed at a time. It takes about a millisecond, in which the node does nothing else.
pub(crate) const SLICE: usize = 64 * 1024;
/// Higher levels take much longer and gain little.
const LEVEL: Compression = Compression::new(4);

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
pub(crate) fn compress(response: Response<AnswerBody>, accepted: bool) -> Response<AnswerBody> {
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
    Response::from_parts(head, body.compressed())
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

fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), LEVEL)
}

/// A body that is compressed as it goes.
pub(crate) struct Gzip {
    source: Source,
    /// None after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// Whether others have their turn before the next slice.
    pause: bool,
}

enum Source {
    /// What is left of a large body.
    Rest(Bytes),
    /// Chunks, each of which is passed on at once.
    Chunks(Streamed),
}

impl Gzip {
    pub(crate) fn whole(bytes: Bytes) -> Gzip {
        Gzip { source: Source::Rest(bytes), encoder: Some(encoder()), pause: false }
    }

    pub(crate) fn chunks(streamed: Streamed) -> Gzip {
        Gzip { source: Source::Chunks(streamed), encoder: Some(encoder()), pause: false }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.encoder.is_none()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while let Some(encoder) = &mut self.encoder {
            let compressed = match &mut self.source {
                Source::Rest(rest) => {
                    let slice = rest.split_to(rest.len().min(SLICE));
                    self.pause = !rest.is_empty();
                    let written = encoder.write_all(&slice);
                    if rest.is_empty() {
                        written.and_then(|()| self.finish())
                    } else {
                        written.map(|()| taken(encoder))
                    }
                }
                Source::Chunks(streamed) => match ready!(streamed.poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let chunk = frame.into_data().unwrap_or_default();
                        encoder.write_all(&chunk).and_then(|()| encoder.flush()).map(|()| taken(encoder))
                    }
                    // Without its end, nobody takes what came for all.
                    Some(Err(error)) => {
                        self.encoder = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => self.finish(),
                },
            };
            match compressed {
                Ok(bytes) if bytes.is_empty() => {
                    if std::mem::take(&mut self.pause) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(error) => {
                    self.encoder = None;
                    return Poll::Ready(Some(Err(Status::internal(error.to_string()))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn finish(&mut self) -> io::Result<Bytes> {
        self.encoder.take().map_or(Ok(Bytes::new()), |encoder| encoder.finish().map(Bytes::from))
    }
}

fn taken(encoder: &mut GzEncoder<Vec<u8>>) -> Bytes {
    std::mem::take(encoder.get_mut()).into()
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
