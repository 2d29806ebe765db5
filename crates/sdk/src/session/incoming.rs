//! What a session receives: the body of the node's response, message by message.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use evener_protocol::api;
use http::{Response, StatusCode, header};
use http_body::Body;
use prost::Message;
use tonic::{Code, Status};

use crate::connection::Connection;
use crate::error::Error;

/// No message is larger than that: a node sends large values in parts.
const MOST: usize = 16 * api::MESSAGE;
/// What gRPC puts before each message: whether it is compressed, and how long it is.
const HEAD: usize = 5;

/// The node's replies.
pub(super) struct Incoming {
    body: hyper::body::Incoming,
    arrived: Chunks,
    connection: Connection,
}

impl Incoming {
    /// The replies of a response.
    pub(super) fn new(response: Response<hyper::body::Incoming>, connection: Connection) -> Result<Self, Error> {
        // A node that refuses says so in the headers, and sends no body.
        if let Some(status) = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) {
            return Err(connection.refused(&status));
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_grpc = kind.is_some_and(|kind| kind.starts_with("application/grpc"));
        match response.status() {
            StatusCode::OK if is_grpc => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(connection.refused(&Status::unauthenticated(response.status().to_string())));
            }
            status => return Err(connection.refused(&Status::unimplemented(format!("it answers {status}")))),
        }
        Ok(Self { body: response.into_body(), arrived: Chunks::default(), connection })
    }

    /// The next reply; None when the node has ended the session in good order.
    pub(super) async fn next(&mut self) -> Result<Option<api::SessionReply>, Error> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<api::SessionReply>, Error>> {
        loop {
            match self.arrived.message() {
                Ok(Some(reply)) => return Poll::Ready(Ok(Some(reply))),
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(self.connection.refused(&Status::internal(why)))),
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(self.connection.broken(&error))),
                None => return Poll::Ready(Ok(None)),
            };
            match frame.into_data() {
                Ok(data) => self.arrived.push(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(match Status::from_header_map(&trailers) {
                        Some(status) if status.code() != Code::Ok => Err(self.connection.refused(&status)),
                        _ => Ok(None),
                    });
                }
            }
        }
    }
}

/// Bytes in the pieces in which they came: payloads are slices of them, not copies.
#[derive(Debug, Default)]
struct Chunks {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Chunks {
    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// The next message, if all of it is there.
    fn message<M: Message + Default>(&mut self) -> Result<Option<M>, String> {
        let Some(len) = self.message_len()? else { return Ok(None) };
        if self.len < HEAD + len {
            return Ok(None);
        }
        self.advance(HEAD);
        let message = M::decode(self.take(len));
        message.map(Some).map_err(|error| format!("its message is malformed: {error}"))
    }

    fn message_len(&self) -> Result<Option<usize>, String> {
        let mut head = [0; HEAD];
        let mut bytes = self.chunks.iter().flatten();
        for place in &mut head {
            let Some(&byte) = bytes.next() else { return Ok(None) };
            *place = byte;
        }
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        match head[0] {
            _ if len > MOST => Err(format!("its message has {len} bytes")),
            0 => Ok(Some(len)),
            _ => Err("its message is compressed, and nobody asked for that".to_owned()),
        }
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| &chunk[..])
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "cannot advance past the end");
        self.len -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        match self.chunks.front_mut() {
            Some(front) if len < front.len() => {
                self.len -= len;
                front.split_to(len)
            }
            Some(front) if len == front.len() => {
                self.len -= len;
                self.chunks.pop_front().unwrap_or_default()
            }
            _ => {
                let mut whole = bytes::BytesMut::with_capacity(len);
                bytes::BufMut::put(&mut whole, self.take(len));
                whole.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(reply: &api::SessionReply) -> Vec<u8> {
        let body = reply.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let part = api::Part { number: 3, data: Bytes::from(vec![7; 1000]), more: true, ..api::Part::default() };
        let first = api::SessionReply { parts: vec![part.clone(), part], ..api::SessionReply::default() };
        let second = api::SessionReply { going_on: vec![1, 2, 3], ..api::SessionReply::default() };
        let bytes = [framed(&first), framed(&second), framed(&api::SessionReply::default())].concat();
        for size in [1, 2, 3, 5, 7, 100, 1003, 1010, 5000] {
            let mut chunks = Chunks::default();
            let mut read = Vec::new();
            for chunk in bytes.chunks(size) {
                chunks.push(Bytes::copy_from_slice(chunk));
                while let Some(reply) = chunks.message::<api::SessionReply>().unwrap() {
                    read.push(reply);
                }
            }
            assert_eq!(read, [first.clone(), second.clone(), api::SessionReply::default()], "cut every {size} bytes");
            assert_eq!(chunks.remaining(), 0);
        }
    }

    #[test]
    fn payloads_are_not_copied() {
        let part = api::Part { data: Bytes::from(vec![7; 1000]), ..api::Part::default() };
        let bytes = Bytes::from(framed(&api::SessionReply { parts: vec![part], ..api::SessionReply::default() }));
        let mut chunks = Chunks::default();
        chunks.push(bytes.clone());
        let reply: api::SessionReply = chunks.message().unwrap().unwrap();
        let range = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
        assert!(range.contains(&(reply.parts[0].data.as_ptr() as usize)));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&b"\x01\0\0\0\0"[..], b"\0\xff\xff\xff\xff", b"\0\0\0\0\x02\xff\xff"] {
            let mut chunks = Chunks::default();
            chunks.push(Bytes::copy_from_slice(bytes));
            assert!(chunks.message::<api::SessionReply>().is_err(), "{bytes:?}");
        }
    }
}
