//! What a session sends: the body of its request, made while it is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use evener_protocol::api;
use http_body::{Body, Frame};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::time::Sleep;

use super::desk::{Desk, Next};
use super::ledger::Message;

/// How long new calls may wait for company while the node has enough to do.
pub(super) const LINGER: Duration = Duration::from_millis(1);

/// The numbers of two fields, as in `evener.proto`.
const SESSION_REQUEST_PARTS: u32 = 4;
const PART_DATA: u32 = 3;

/// Messages, made of what has gathered at the desk whenever the connection has room for more.
#[derive(Debug)]
pub(super) struct Outgoing {
    desk: Arc<Desk>,
    hello: Option<api::Hello>,
    /// The bytes of a piece whose head has just been handed over.
    piece: Option<Bytes>,
    /// Nothing was sent since the desk was asked the last time.
    idle: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    pub(super) fn new(desk: Arc<Desk>, hello: api::Hello) -> Self {
        Self { desk, hello: Some(hello), piece: None, idle: true, timer: None }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(piece) = self.piece.take() {
            return Poll::Ready(Some(piece));
        }
        if let Some(hello) = self.hello.take() {
            let rest = api::SessionRequest { hello: Some(hello), ..api::SessionRequest::default() };
            return Poll::Ready(Some(encode(Message { rest, piece: None }).0));
        }
        loop {
            match self.desk.next(Instant::now(), self.idle, context.waker()) {
                Next::Send(message) => {
                    self.idle = false;
                    let (head, piece) = encode(message);
                    self.piece = piece;
                    return Poll::Ready(Some(head));
                }
                Next::End => return Poll::Ready(None),
                Next::Wait(until) => {
                    self.idle = true;
                    let Some(until) = until else {
                        self.timer = None;
                        return Poll::Pending;
                    };
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
                    timer.as_mut().reset(until.into());
                    ready!(timer.as_mut().poll(context));
                }
            }
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_next(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A message with the five bytes that gRPC puts in front of it, and the bytes of its piece, which end the message. The piece is
/// not copied: its head is written by hand, as the last field of the message.
fn encode(message: Message) -> (Bytes, Option<Bytes>) {
    let Message { rest, piece } = message;
    let rest_len = rest.encoded_len();
    let (piece, data) = match piece {
        Some(mut part) => {
            let data = std::mem::take(&mut part.data);
            (Some(part), data)
        }
        None => (None, Bytes::new()),
    };
    let data_len = key_len(PART_DATA) + encoded_len_varint(data.len() as u64) + data.len();
    let part_len = piece.as_ref().map_or(0, |part| part.encoded_len() + data_len);
    let head_len = key_len(SESSION_REQUEST_PARTS) + encoded_len_varint(part_len as u64);
    let len = rest_len + if piece.is_some() { head_len + part_len } else { 0 };
    let mut head = BytesMut::with_capacity(5 + len - data.len());
    // Not compressed, and how long it is.
    head.put_u8(0);
    head.put_u32(len as u32);
    rest.encode(&mut head).expect("there is room");
    let Some(part) = piece else { return (head.freeze(), None) };
    encode_key(SESSION_REQUEST_PARTS, WireType::LengthDelimited, &mut head);
    encode_varint(part_len as u64, &mut head);
    part.encode(&mut head).expect("there is room");
    encode_key(PART_DATA, WireType::LengthDelimited, &mut head);
    encode_varint(data.len() as u64, &mut head);
    (head.freeze(), Some(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node would read.
    fn read(message: &Message) -> api::SessionRequest {
        let (head, piece) = encode(Message { rest: message.rest.clone(), piece: message.piece.clone() });
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(&piece.unwrap_or_default());
        assert_eq!(bytes[0], 0);
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 5);
        api::SessionRequest::decode(&bytes[5..]).unwrap()
    }

    #[test]
    fn a_message_is_what_the_protocol_says() {
        let call = api::Call { number: 300, input: Bytes::from_static(b"input"), more: true, ..api::Call::default() };
        let cancels = vec![api::Cancel { number: 2, kill: true }];
        let rest = api::SessionRequest { calls: vec![call], cancels, ..api::SessionRequest::default() };
        assert_eq!(read(&Message { rest: rest.clone(), piece: None }), rest);
        for (len, more) in [(0, false), (1, true), (127, false), (128, true), (300_000, true)] {
            let function = Bytes::from_static(b"hash");
            let part = api::Part { number: 1 << 63, function, data: Bytes::from(vec![9; len]), more };
            let expected = api::SessionRequest { parts: vec![part.clone()], ..rest.clone() };
            assert_eq!(read(&Message { rest: rest.clone(), piece: Some(part) }), expected);
        }
    }
}
