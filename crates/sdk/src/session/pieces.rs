//! What is too large for one message and goes on in pieces, so that what comes after it does not wait for all of it.

use std::collections::VecDeque;

use bytes::Bytes;
use evener_protocol::api;

/// A body or an input up to this size travels within its message; a larger one goes on in pieces.
pub(super) const INLINE_BYTES: usize = 64 * 1024;
/// The most bytes of one piece.
pub(super) const PIECE_BYTES: usize = 512 * 1024;

/// What a piece is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The input of a call, by its number on the wire.
    Call(u64),
    /// The body of a function, by its index.
    Function(u32),
}

/// Bodies and inputs on their way. Each gives a piece in turn.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    under_way: VecDeque<(Of, Bytes)>,
}

impl Pieces {
    /// Something is to be sent in pieces; it is not empty.
    pub(super) fn push(&mut self, of: Of, data: Bytes) {
        self.under_way.push_back((of, data));
    }

    /// The next piece, and of what it is. It says itself whether it is the last one. Whoever sends it adds the function's hash.
    pub(super) fn next(&mut self) -> Option<(Of, api::Part)> {
        let (of, mut rest) = self.under_way.pop_front()?;
        let data = rest.split_to(rest.len().min(PIECE_BYTES));
        let more = !rest.is_empty();
        if more {
            self.under_way.push_back((of, rest));
        }
        let number = match of {
            Of::Call(number) => number,
            Of::Function(_) => 0,
        };
        Some((of, api::Part { number, function: Bytes::new(), data, more }))
    }

    /// The rest of an input is not wanted any more.
    pub(super) fn forget(&mut self, number: u64) {
        self.under_way.retain(|(of, _)| *of != Of::Call(number));
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_go_on_in_turns() {
        let mut pieces = Pieces::default();
        pieces.push(Of::Call(7), Bytes::from(vec![7; 2 * PIECE_BYTES + 1]));
        pieces.push(Of::Function(0), Bytes::from(vec![1; PIECE_BYTES + 1]));
        let sent: Vec<_> = std::iter::from_fn(|| pieces.next())
            .map(|(of, part)| (of, part.number, part.data.len(), part.more))
            .collect();
        let expected = [
            (Of::Call(7), 7, PIECE_BYTES, true),
            (Of::Function(0), 0, PIECE_BYTES, true),
            (Of::Call(7), 7, PIECE_BYTES, true),
            (Of::Function(0), 0, 1, false),
            (Of::Call(7), 7, 1, false),
        ];
        assert_eq!(sent, expected);
        assert!(pieces.is_empty());
    }

    #[test]
    fn a_whole_piece_is_not_followed_by_an_empty_one() {
        let mut pieces = Pieces::default();
        pieces.push(Of::Call(1), Bytes::from(vec![0; PIECE_BYTES]));
        assert!(!pieces.next().unwrap().1.more);
        assert!(pieces.next().is_none());
    }

    #[test]
    fn the_rest_can_be_forgotten() {
        let mut pieces = Pieces::default();
        pieces.push(Of::Call(1), Bytes::from(vec![0; 3 * PIECE_BYTES]));
        pieces.next();
        pieces.forget(1);
        assert!(pieces.is_empty());
    }
}
