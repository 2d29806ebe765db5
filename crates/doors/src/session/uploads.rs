//! Functions and inputs that come in pieces.

use std::collections::HashMap;

use bytes::Bytes;
use evener_core::{RequestId, Reservation};
use evener_protocol::api;
use sha2::{Digest, Sha256};

/// What came of another piece.
pub(super) enum Upload {
    /// More is to come.
    Goes,
    /// There is no memory for it; if it was of a call, its id and number, and how many bytes it has at least.
    NoRoom(Option<(RequestId, u64, u64)>),
    /// A function is whole.
    Function { hash: [u8; 32], name: String, python: String, body: Bytes, held: Reservation },
    /// A call is whole.
    Call { id: RequestId, call: Box<api::Call>, held: Reservation },
}

struct Open<T> {
    what: T,
    bytes: Vec<u8>,
    held: Reservation,
}

impl<T> Open<T> {
    /// The first piece of something that is said to have `size` bytes, which are set aside.
    fn new(what: T, first: &[u8], size: u64, held: Reservation) -> Open<T> {
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(held.bytes())).unwrap_or(0));
        bytes.extend_from_slice(first);
        Open { what, bytes, held }
    }

    /// Keeps another piece; false if there is no room.
    fn push(&mut self, data: &[u8]) -> bool {
        // What was announced is set aside already.
        let more = (self.bytes.len() + data.len()) as u64;
        let fits = self.held.grow(more.saturating_sub(self.held.bytes()));
        if fits {
            self.bytes.extend_from_slice(data);
        }
        fits
    }
}

#[derive(Default)]
pub(super) struct Uploads {
    functions: HashMap<[u8; 32], Open<(String, String)>>,
    calls: HashMap<u64, Open<(RequestId, api::Call)>>,
}

impl Uploads {
    /// How many functions are coming in.
    pub(super) fn functions(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn has_function(&self, hash: &[u8; 32]) -> bool {
        self.functions.contains_key(hash)
    }

    pub(super) fn begin_function(
        &mut self,
        hash: [u8; 32],
        name: String,
        python: String,
        body: &[u8],
        size: u64,
        held: Reservation,
    ) {
        self.functions.insert(hash, Open::new((name, python), body, size, held));
    }

    pub(super) fn begin_call(&mut self, id: RequestId, mut call: api::Call, held: Reservation) {
        let (input, size) = (std::mem::take(&mut call.input), call.size);
        self.calls.insert(call.number, Open::new((id, call), &input, size, held));
    }

    /// Drops a call whose input has not come in full.
    pub(super) fn drop_call(&mut self, number: u64) -> Option<RequestId> {
        self.calls.remove(&number).map(|open| open.what.0)
    }

    /// Takes the next piece; `None` if it belongs to nothing, such as a call that was refused.
    pub(super) fn part(&mut self, part: &api::Part) -> Option<Upload> {
        let api::Part { number, function, data, more } = part;
        if *number == 0 {
            let hash = <[u8; 32]>::try_from(&function[..]).ok()?;
            let open = self.functions.get_mut(&hash)?;
            if !open.push(data) {
                self.functions.remove(&hash);
                return Some(Upload::NoRoom(None));
            }
            if *more {
                return Some(Upload::Goes);
            }
            let Open { what: (name, python), bytes, held } = self.functions.remove(&hash)?;
            return Some(Upload::Function { hash, name, python, body: bytes.into(), held });
        }
        let open = self.calls.get_mut(number)?;
        if !open.push(data) {
            let size = (open.bytes.len() + data.len()) as u64;
            let id = self.drop_call(*number)?;
            return Some(Upload::NoRoom(Some((id, *number, size))));
        }
        if *more {
            return Some(Upload::Goes);
        }
        let Open { what: (id, mut call), bytes, held } = self.calls.remove(number)?;
        call.input = bytes.into();
        Some(Upload::Call { id, call: Box::new(call), held })
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
