//! Answers that come in chunks, on their way from the node to a client.

use std::fmt;
use std::task::{Context, Poll};

use evener_core::{Code, Problem};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::node::Parcel;

/// The node's end. What is said here never waits; how much lies on the way is bounded by what the worker may send before the
/// client has taken it.
#[derive(Debug)]
pub struct ChunkSender {
    sender: UnboundedSender<Piece>,
}

impl ChunkSender {
    /// Passes a piece on. If the client is gone, its end of the stream has said so.
    pub fn send(&self, parcel: Parcel) {
        let _ = self.sender.send(Piece::Chunk(parcel));
    }

    /// That was all, or a problem ends it.
    pub fn end(self, result: Result<(), Problem>) {
        let _ = self.sender.send(Piece::End(result));
    }
}

#[derive(Debug)]
enum Piece {
    Chunk(Parcel),
    End(Result<(), Problem>),
}

/// Told how many bytes the client has taken.
pub type Took = Box<dyn Fn(u64) + Send + Sync>;
/// Told that the client is gone before the end.
pub type Gone = Box<dyn FnOnce() + Send + Sync>;

/// The client's end.
pub struct Chunks {
    receiver: UnboundedReceiver<Piece>,
    took: Took,
    gone: Option<Gone>,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chunks")
    }
}

/// What comes next of a stream.
#[derive(Debug)]
pub(crate) enum Next {
    Chunk(Parcel),
    End,
    Broken(Problem),
}

/// The two ends of a stream. `took` and `gone` are called without any lock of the doors held, and not from within the node.
pub fn stream(took: Took, gone: Gone) -> (ChunkSender, Chunks) {
    let (sender, receiver) = unbounded_channel();
    (ChunkSender { sender }, Chunks { receiver, took, gone: Some(gone) })
}

impl Chunks {
    /// The next piece, which from then on counts as taken.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.receiver.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Chunk(parcel)) => {
                (self.took)(parcel.value.bytes.len() as u64);
                Next::Chunk(parcel)
            }
            Some(Piece::End(result)) => {
                self.gone = None;
                result.map_or_else(Next::Broken, |()| Next::End)
            }
            None => {
                self.gone = None;
                Next::Broken(Problem::new(Code::Draining, "the node stopped"))
            }
        })
    }

    /// Nobody is to be told of the client any more.
    pub fn let_go(mut self) {
        self.gone = None;
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if let Some(gone) = self.gone.take() {
            gone();
        }
    }
}
