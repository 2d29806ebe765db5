//! How much payload a node holds, and how much it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared allowance of bytes. Cloning shares it.
///
/// The door *asks* before it takes a body in, and may be refused; so may a result be that has to find room, and then its request
/// ends. Nobody waits for room, so that cycles cannot lock one another out. What is there already is *charged*.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// An allowance of `limit` bytes.
    pub fn new(limit: u64) -> Budget {
        Budget { shared: Arc::new(Shared { limit, used: AtomicU64::new(0) }) }
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Sets `bytes` aside, or `None` if the allowance has no room for them.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let mut reservation = Reservation { shared: self.shared.clone(), bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Counts `bytes` that are here already, over the limit or not.
    pub fn charge(&self, bytes: u64) -> Reservation {
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { shared: self.shared.clone(), bytes }
    }
}

/// Bytes set aside from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    /// Sets `more` bytes aside as well; false, and nothing changed, if there is no room.
    pub fn grow(&mut self, more: u64) -> bool {
        let limit = self.shared.limit;
        let room = |used: u64| used.checked_add(more).filter(|sum| *sum <= limit);
        let grown = self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if grown {
            self.bytes += more;
        }
        grown
    }

    /// Counts `bytes` more of the same allowance that are here already, over the limit or not.
    pub fn charge(&self, bytes: u64) -> Reservation {
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { shared: self.shared.clone(), bytes }
    }

    /// Bytes set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(60).expect("there is room");
        assert!(budget.reserve(41).is_none());
        assert!(first.grow(40));
        assert!(!first.grow(1));
        let over = budget.charge(1000);
        assert_eq!(budget.used(), 1100);
        drop((first, over));
        assert_eq!(budget.used(), 0);
    }
}
