//! The functions that a session may call without sending them again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::node::Function;

/// How many functions a session keeps, and how many bytes of them. One may always be kept.
const MOST: usize = 256;
const MOST_BYTES: usize = 64 << 20;

#[derive(Default)]
pub(super) struct Known {
    functions: HashMap<[u8; 32], Entry>,
    bytes: usize,
    /// Goes up with each use.
    clock: u64,
    /// Those that were too large to be taken in.
    refused: HashSet<[u8; 32]>,
}

struct Entry {
    function: Arc<Function>,
    used: u64,
}

impl Known {
    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<&Arc<Function>> {
        self.functions.get(hash).map(|entry| &entry.function)
    }

    /// Keeps a function; those that were not used for the longest time make room for it. A call of one of them is answered with
    /// `unknown-function`, and it may be sent again.
    pub(super) fn insert(&mut self, function: Arc<Function>) {
        self.clock += 1;
        self.bytes += function.body.len();
        let hash = function.hash;
        if let Some(before) = self.functions.insert(hash, Entry { function, used: self.clock }) {
            self.bytes -= before.function.body.len();
        }
        while self.functions.len() > 1 && (self.functions.len() > MOST || self.bytes > MOST_BYTES) {
            let oldest = self.functions.iter().min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash);
            let Some(gone) = oldest.and_then(|oldest| self.functions.remove(&oldest)) else { return };
            self.bytes -= gone.function.body.len();
        }
    }

    /// A function is called.
    pub(super) fn used(&mut self, hash: &[u8; 32]) {
        self.clock += 1;
        if let Some(entry) = self.functions.get_mut(hash) {
            entry.used = self.clock;
        }
    }

    /// A function is too large to be taken in, ever.
    pub(super) fn refuse(&mut self, hash: [u8; 32]) {
        if self.refused.len() < MOST {
            self.refused.insert(hash);
        }
    }

    pub(super) fn is_refused(&self, hash: &[u8; 32]) -> bool {
        self.refused.contains(hash)
    }
}
