//! The functions that clients have sent: each is here once, whoever sent it, and stays for a while after its last client is gone.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;

use bytes::Bytes;
use evener_core::{FunctionId, Reservation};
use evener_doors::Function;

/// How many bytes of functions that nobody holds are kept.
const KEPT_BYTES: u64 = 64 << 20;
/// How many such functions are kept.
const KEPT: usize = 1024;

/// Core's name for the calls of a function, and for the groups of calls of it: how quick the one is says nothing of the other.
pub(crate) fn id_of(function: &Function, group: bool) -> FunctionId {
    ids_of(function)[usize::from(group)]
}

/// Both of core's names for a function.
pub(crate) fn ids_of(function: &Function) -> [FunctionId; 2] {
    let number = function.number;
    // Numbers go up to 2^30.
    let id = |group: u32| FunctionId(NonZero::new(number.get() << 1 | group).unwrap_or(number));
    [id(0), id(1)]
}

#[derive(Debug, Default)]
pub(crate) struct Functions {
    /// By hash and version of Python: which version a function is for is the word of who sends it.
    by_hash: HashMap<([u8; 32], String), Arc<Function>>,
    /// All of them, the oldest first.
    order: Vec<Arc<Function>>,
    last: u32,
}

impl Functions {
    /// The function with that hash; a new one if it is not here. Numbers are never used again.
    pub(crate) fn define(
        &mut self,
        hash: [u8; 32],
        name: String,
        python: String,
        body: Bytes,
        held: Reservation,
    ) -> Arc<Function> {
        let key = (hash, python.clone());
        if let Some(function) = self.by_hash.get(&key) {
            return function.clone();
        }
        self.last += 1;
        let number = NonZero::new(self.last).unwrap_or(NonZero::<u32>::MIN);
        let function = Arc::new(Function { number, hash, name, python, body, held });
        self.by_hash.insert(key, function.clone());
        self.order.push(function.clone());
        function
    }

    /// Lets go of functions that nobody holds, the oldest first, if there are too many of them; returns those.
    pub(crate) fn evict(&mut self) -> Vec<Arc<Function>> {
        // One here and one in the order.
        let idle = |function: &Arc<Function>| Arc::strong_count(function) <= 2;
        let mut bytes: u64 = self.order.iter().filter(|one| idle(one)).map(|one| one.body.len() as u64).sum();
        let mut count = self.order.iter().filter(|one| idle(one)).count();
        let mut gone = Vec::new();
        self.order.retain(|function| {
            let goes = (bytes > KEPT_BYTES || count > KEPT) && idle(function);
            if goes {
                bytes -= function.body.len() as u64;
                count -= 1;
                gone.push(function.clone());
            }
            !goes
        });
        for function in &gone {
            self.by_hash.remove(&(function.hash, function.python.clone()));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use evener_core::Budget;

    use super::*;

    fn define(functions: &mut Functions, budget: &Budget, name: &str, size: usize) -> Arc<Function> {
        let mut hash = [0; 32];
        hash[..name.len()].copy_from_slice(name.as_bytes());
        let held = budget.charge(size as u64);
        functions.define(hash, name.to_owned(), "3.11".to_owned(), vec![0; size].into(), held)
    }

    #[test]
    fn a_function_is_here_once_and_is_let_go_of_only_when_nobody_holds_it() {
        let budget = Budget::new(u64::MAX);
        let mut functions = Functions::default();
        let large = KEPT_BYTES as usize / 2 + 1;
        let first = define(&mut functions, &budget, "first", large);
        let again = define(&mut functions, &budget, "first", large);
        assert!(Arc::ptr_eq(&first, &again));
        drop(again);
        let second = define(&mut functions, &budget, "second", large);
        assert!(functions.evict().is_empty(), "both are held");
        drop(second);
        assert!(functions.evict().is_empty(), "what nobody holds is not too much yet");
        let number = first.number;
        drop(first);
        let gone = functions.evict();
        assert_eq!(gone.iter().map(|function| &*function.name).collect::<Vec<_>>(), ["first"]);
        drop(gone);
        assert_eq!(budget.used(), large as u64, "its memory is given back");
        assert!(define(&mut functions, &budget, "first", 1).number > number, "and its number is not used again");
    }
}
