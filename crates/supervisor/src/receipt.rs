//! Results of workers that have not come in full: what there is of them is counted, like all that the node holds.

use evener_core::{Budget, Reservation};
use evener_protocol::Inbox;

/// What is kept of a result in receipt, and where it counts.
#[derive(Debug)]
pub struct Receipt {
    /// `None` if it counts for nothing before it is whole.
    memory: Option<Budget>,
    held: Option<Reservation>,
}

impl Receipt {
    /// Nothing has come.
    pub fn new(memory: Option<Budget>) -> Receipt {
        Receipt { memory, held: None }
    }

    /// Counts what is in the inbox. If there is no room for it, it is not kept, and its job fails.
    pub fn count(&mut self, inbox: &mut Inbox) {
        let Some(memory) = &self.memory else { return };
        let kept = inbox.held();
        let counted = match &mut self.held {
            _ if kept == 0 => return self.held = None,
            Some(held) => held.grow(kept.saturating_sub(held.bytes())),
            none => {
                *none = memory.reserve(kept);
                none.is_some()
            }
        };
        if !counted {
            inbox.drop_result();
            self.held = None;
        }
    }

    /// The result is whole: whoever takes it counts it from now on.
    pub fn end(&mut self) {
        self.held = None;
    }
}
