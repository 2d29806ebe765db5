//! What is spoken on a connection: HTTP/1.1 or HTTP/2, whichever the client begins with.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, ReadBuf, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::body::AnswerBody;
use crate::connection::Watched;
use crate::listener::Bounds;

/// What every client that speaks HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How many bytes are looked at, at first. It is as much as the library reads at a time: so it finds what is wrong with a head as
/// soon as if it had read that itself.
const FIRST: usize = 8 * 1024;

/// The most headers of an HTTP/1.1 request.
const HEADERS: usize = 256;
/// The most requests side by side on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// The most bytes of one HTTP/2 frame. Large frames make large payloads cheap.
const FRAME: u32 = (1 << 20) + (64 << 10);
/// How often an HTTP/2 client that says nothing is asked whether it is there, and how long it has for an answer. A process that a
/// client has forked keeps its connection open, so its end alone does not show.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// A client may be suspended for a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// How many bytes of an answer may wait to be written on an HTTP/2 stream.
const SEND_BUFFER: usize = 2 << 20;

/// The bounds of HTTP/2 that are not the same everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http2 {
    /// How many bytes a client may send ahead of what was taken, on one stream and in all.
    pub(crate) window: u32,
    /// How many times its limit a head may have before the library refuses it. The library counts more than its bytes, and says
    /// nothing but a status; the door itself says what is wrong.
    pub(crate) slack: usize,
}

/// Clients of the API send large values.
pub(crate) const API: Http2 = Http2 { window: 16 << 20, slack: 1 };
/// Anybody may come by a route.
pub(crate) const PUBLIC: Http2 = Http2 { window: 1 << 20, slack: 4 };

/// What is spoken on the connections of one listener.
#[derive(Clone)]
pub(crate) struct Spoken {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Spoken {
    pub(crate) fn new(bounds: &Bounds) -> Spoken {
        // A head that is a little over the limit shall reach the service, which says what is wrong; one that does not fit here
        // gets a bare 431. The library's smallest buffer is 8 KiB.
        let buffer = bounds.headers.saturating_mul(2).max(64 * 1024);
        let mut http1 = http1::Builder::new();
        http1.max_buf_size(buffer).max_headers(HEADERS);
        let Http2 { window, slack } = bounds.http2;
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .max_header_list_size(u32::try_from(bounds.headers.saturating_mul(slack)).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .max_frame_size(FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(ASK_EVERY)
            .keep_alive_timeout(ANSWER_WITHIN)
            .timer(TokioTimer::new());
        Spoken { http1, http2 }
    }

    pub(crate) async fn serve<I, S>(self, mut stream: Watched<I>, service: S) -> Result<(), Error>
    where
        I: Read + Write + Unpin + Send + 'static,
        S: Service<hyper::Request<Incoming>, Response = hyper::Response<AnswerBody>> + Send + 'static,
        S::Error: Into<Error>,
        S::Future: Send + 'static,
    {
        let mut first = Vec::new();
        let is_http2 = begins_with_preface(&mut stream, &mut first).await?;
        stream.put_back(first.into());
        match is_http2 {
            true => self.http2.serve_connection(stream, service).await.map_err(Into::into),
            false => self.http1.serve_connection(stream, service).await.map_err(Into::into),
        }
    }
}

/// Reads until it shows whether a client speaks HTTP/2.
async fn begins_with_preface<S: Read + Unpin>(stream: &mut S, first: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let count = poll_fn(|cx| {
            // No connection holds on to this while it says nothing.
            let mut space = [0; FIRST];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, buffer.unfilled()))?;
            first.extend_from_slice(buffer.filled());
            Poll::Ready(io::Result::Ok(buffer.filled().len()))
        });
        let count = count.await?;
        let length = first.len().min(PREFACE.len());
        if first[..length] != PREFACE[..length] || count == 0 {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
    }
}
