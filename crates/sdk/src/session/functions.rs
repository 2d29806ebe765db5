//! The functions of a session, and which of them the node has.

use std::collections::hash_map::Entry::Vacant;

use bytes::Bytes;
use evener_protocol::api;

use super::pieces::{INLINE_BYTES, Of, Pieces};
use super::table::Table;
use crate::work::{Definition, Hash, told_name};

/// Functions, by their index.
#[derive(Debug, Default)]
pub(super) struct Functions {
    list: Vec<Function>,
    by_hash: Table<Hash, u32>,
}

/// A function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) hash: Bytes,
    name: String,
    python: String,
    /// Kept, as the node may have no memory for it and must then be sent it again.
    body: Bytes,
    pub(super) state: State,
    /// How often it was sent.
    pub(super) edition: u32,
}

/// Where a function is.
#[derive(Debug)]
pub(super) enum State {
    /// The node is to be sent it before the next call of it.
    New,
    /// It goes out in pieces; these calls wait for the last of them.
    Going { held: Vec<u64> },
    /// The node has it.
    Known,
}

impl Functions {
    /// A function becomes known; nothing changes if it is.
    pub(super) fn define(&mut self, definition: Definition) {
        let Definition { hash, name, python, body } = definition;
        let name = told_name(&name).to_owned();
        if let Vacant(vacant) = self.by_hash.entry(hash) {
            vacant.insert(self.list.len() as u32);
            let hash = Bytes::copy_from_slice(&hash.0);
            self.list.push(Function { hash, name, python, body, state: State::New, edition: 0 });
        }
    }

    pub(super) fn find(&self, hash: &Hash) -> Option<u32> {
        self.by_hash.get(hash).copied()
    }

    pub(super) fn get(&self, index: u32) -> &Function {
        &self.list[index as usize]
    }

    /// The function, of which a call is about to be sent. If the node does not have it, it goes into the message, or begins to go
    /// out in pieces. Says also how many bytes of the message it takes.
    pub(super) fn for_call(
        &mut self,
        index: u32,
        pieces: &mut Pieces,
        message: &mut api::SessionRequest,
    ) -> (&mut Function, usize) {
        let function = &mut self.list[index as usize];
        if !matches!(function.state, State::New) {
            return (function, 0);
        }
        let Function { hash, name, python, body, .. } = function;
        let (hash, name, python) = (hash.clone(), name.clone(), python.clone());
        let more = body.len() > INLINE_BYTES;
        let sent = if more {
            pieces.push(Of::Function(index), body.clone());
            api::Function { hash, name, python, body: Bytes::new(), more, size: body.len() as u64 }
        } else {
            api::Function { hash, name, python, body: body.clone(), more, size: 0 }
        };
        let len = sent.body.len();
        message.functions.push(sent);
        function.edition += 1;
        function.state = if more { State::Going { held: Vec::new() } } else { State::Known };
        (function, len)
    }

    /// The last piece of a function goes out. Returns the calls that have waited for it.
    pub(super) fn sent(&mut self, index: u32) -> Vec<u64> {
        match std::mem::replace(&mut self.list[index as usize].state, State::Known) {
            State::Going { held } => held,
            State::New | State::Known => Vec::new(),
        }
    }

    /// A call no longer waits for its function.
    pub(super) fn let_go(&mut self, index: u32, number: u64) {
        if let State::Going { held } = &mut self.list[index as usize].state {
            held.retain(|&held| held != number);
        }
    }

    /// The node says that it does not have a function, of a call that was sent after the function was sent for the `edition`th
    /// time. It gets it again; of several calls that say so, only the first counts.
    pub(super) fn missing(&mut self, index: u32, edition: u32) {
        let function = &mut self.list[index as usize];
        if matches!(function.state, State::Known) && function.edition == edition {
            function.state = State::New;
        }
    }
}
