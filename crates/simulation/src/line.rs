//! Those who wait for a worker of one stage: the most urgent first, and among equals whoever came first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A place in a line, as a key of the order in which it is served.
pub(crate) type Place = (Reverse<i8>, i64);

#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    places: BTreeMap<Place, u32>,
    /// The last turn that was given at the end of the line, and the last in front of it.
    back: i64,
    front: i64,
}

impl Line {
    /// Waits behind all others that are as urgent.
    pub(crate) fn join(&mut self, number: u32, urgency: i8) -> Place {
        self.back += 1;
        self.stand((Reverse(urgency), self.back), number)
    }

    /// Waits in front of all others that are as urgent.
    pub(crate) fn step_in_front(&mut self, number: u32, urgency: i8) -> Place {
        self.front -= 1;
        self.stand((Reverse(urgency), self.front), number)
    }

    fn stand(&mut self, place: Place, number: u32) -> Place {
        self.places.insert(place, number);
        place
    }

    pub(crate) fn leave(&mut self, place: Place) {
        self.places.remove(&place);
    }

    /// Whose turn is next, and how urgent that is.
    pub(crate) fn first(&self) -> Option<(u32, i8)> {
        self.places.first_key_value().map(|((Reverse(urgency), _), number)| (*number, *urgency))
    }

    /// Whether somebody less urgent waits who came before.
    pub(crate) fn overtakes(&self, place: Place) -> bool {
        let Some((&(least, _), _)) = self.places.last_key_value() else { return false };
        let longest = self.places.range((least, i64::MIN)..).next();
        longest.is_some_and(|((_, turn), _)| *turn < place.1)
    }
}
