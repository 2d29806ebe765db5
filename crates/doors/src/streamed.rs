//! The body of an answer that comes in chunks, in the form that its client asked for.

use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use evener_core::Problem;
use evener_protocol::{Content, Value};
use http::HeaderMap;
use http::header::{ACCEPT, HeaderValue};
use http_body::Frame;

use crate::body::hold;
use crate::stream::{Chunks, Next};

/// How chunks stand in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One behind the other.
    Raw,
    /// JSON, each in a line of its own.
    Lines,
    /// Server-sent events.
    Events,
}

impl Form {
    /// The form for a stream that begins with `first`: events if the client accepts them by name.
    pub(crate) fn of(first: &Content, events: bool) -> Form {
        match first {
            _ if events => Form::Events,
            Content::Json | Content::Nothing => Form::Lines,
            Content::Text | Content::Bytes | Content::Named(_) => Form::Raw,
        }
    }

    /// The media type, if the form says it.
    pub(crate) fn media_type(self) -> Option<HeaderValue> {
        match self {
            Form::Raw => None,
            Form::Lines => Some(HeaderValue::from_static("application/x-ndjson")),
            Form::Events => Some(HeaderValue::from_static("text/event-stream")),
        }
    }
}

/// Whether a client takes server-sent events, and says so.
pub(crate) fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|range| range.eq_ignore_ascii_case("text/event-stream"));
        named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// Writes a problem as JSON.
pub(crate) type Written = Box<dyn Fn(&Problem) -> Bytes + Send>;

/// The body.
pub(crate) struct Streamed {
    chunks: Chunks,
    form: Form,
    write: Written,
    ended: bool,
}

impl Streamed {
    pub(crate) fn new(chunks: Chunks, form: Form, write: Written) -> Streamed {
        Streamed { chunks, form, write, ended: false }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next piece of the body. A problem half-way is the last line or event; where there is no place for one, the connection
    /// is cut off, so that nobody takes what came for all.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        while !self.ended {
            match ready!(self.chunks.poll_next(cx)) {
                Next::Chunk(parcel) => {
                    let bytes = hold(self.piece(&parcel.value), parcel.held);
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                Next::End => self.ended = true,
                Next::Broken(problem) => {
                    self.ended = true;
                    let json = (self.write)(&problem);
                    return Poll::Ready(Some(match self.form {
                        Form::Raw => Err(tonic::Status::aborted(problem.detail)),
                        Form::Lines => Ok(Frame::data(line(&json))),
                        Form::Events => Ok(Frame::data(event("event: error\n", &json))),
                    }));
                }
            }
        }
        Poll::Ready(None)
    }

    fn piece(&self, value: &Value) -> Bytes {
        match (self.form, &value.content) {
            (Form::Events, _) => event("", &value.bytes),
            (_, Content::Json) => line(&value.bytes),
            (_, Content::Nothing) => line(b"null"),
            (_, Content::Text | Content::Bytes | Content::Named(_)) => value.bytes.clone(),
        }
    }
}

fn line(json: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(json.len() + 1);
    line.put_slice(json);
    line.put_u8(b'\n');
    line.freeze()
}

/// One event. Its data may have several lines, each of which must be marked; a carriage return ends a line as well.
fn event(head: &str, data: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(data);
    let mut event = BytesMut::with_capacity(head.len() + data.len() + 16);
    event.put_slice(head.as_bytes());
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    for line in text.split('\n') {
        event.put_slice(b"data: ");
        event.put_slice(line.as_bytes());
        event.put_u8(b'\n');
    }
    event.put_u8(b'\n');
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_asked_for_by_name() {
        let accepts = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            accepts_events(&headers)
        };
        assert!(accepts("text/event-stream") && accepts("text/html, Text/Event-Stream;q=0.9"));
        assert!(!accepts("*/*") && !accepts("text/*") && !accepts("text/event-stream;q=0"));
        assert!(!accepts_events(&HeaderMap::new()));
    }

    #[test]
    fn each_line_of_an_event_is_marked() {
        assert_eq!(event("", b"a\r\nb\rc\n"), "data: a\ndata: b\ndata: c\ndata: \n\n".as_bytes());
        assert_eq!(event("event: error\n", b"{}"), "event: error\ndata: {}\n\n".as_bytes());
        assert_eq!(line(b"[1]"), "[1]\n".as_bytes());
    }
}
