//! Many timers, most of which never fire.
//!
//! A hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987): setting and clearing a
//! timer take constant time however many there are. Levels of 64 slots, each level 64 times coarser than the one below; the
//! lowest ticks 20 times in a millisecond. A timer fires at the first tick at or after its time: up to 50 us late, never early.

use crate::slab::{Key, Slab};
use crate::time::Time;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Ten levels of six bits span 2^60 ticks.
const LEVELS: usize = 10;
/// A twentieth of the least unit of a duration, so that one millisecond is one, and not two.
const TICK_NANOS: u64 = 50_000;
/// Later than this counts as this: some 1.8 million years. ([`Time`] ends long before.)
const LAST_TICK: u64 = (1 << 60) - 1;

/// Names one timer that is set.
pub type TimerKey<T> = Key<Timer<T>>;

/// One timer that is set, linked into its slot.
#[derive(Debug, Clone)]
pub struct Timer<T> {
    tick: u64,
    what: T,
    level: u8,
    slot: u8,
    previous: Option<Key<Timer<T>>>,
    next: Option<Key<Timer<T>>>,
}

#[derive(Debug, Clone)]
struct Level<T> {
    occupied: u64,
    heads: [Option<Key<Timer<T>>>; SLOTS],
}

/// The timers that are set, each with a `T` that says what it is for.
#[derive(Debug, Clone)]
pub struct Timers<T> {
    slab: Slab<Timer<T>>,
    levels: Vec<Level<T>>,
    elapsed: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        let level = || Level { occupied: 0, heads: [None; SLOTS] };
        Timers { slab: Slab::default(), levels: (0..LEVELS).map(|_| level()).collect(), elapsed: 0 }
    }
}

impl<T: Copy> Timers<T> {
    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Sets a timer for `at`. One for a point in the past fires at the next tick.
    pub fn set(&mut self, at: Time, what: T) -> TimerKey<T> {
        let tick = at.as_nanos().div_ceil(TICK_NANOS).clamp(self.elapsed + 1, LAST_TICK);
        let key = self.slab.insert(Timer { tick, what, level: 0, slot: 0, previous: None, next: None });
        self.link(key, tick);
        key
    }

    /// Changes what a timer is for.
    pub fn change(&mut self, key: TimerKey<T>, what: T) {
        if let Some(timer) = self.slab.get_mut(key) {
            timer.what = what;
        }
    }

    /// Clears a timer; false if it fired or was cleared before.
    pub fn clear(&mut self, key: TimerKey<T>) -> bool {
        self.unlink(key);
        self.slab.remove(key).is_some()
    }

    /// When to call [`pop`](Timers::pop) next: at or before the earliest timer, `None` if none is set.
    pub fn next(&self) -> Option<Time> {
        let (_, _, tick) = self.next_slot()?;
        Some(Time::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// Takes out one timer that is due at `now`, the earliest tick first; `None` once all that are due are out. Time never
    /// runs backwards here: an earlier `now` than the last finds nothing.
    pub fn pop(&mut self, now: Time) -> Option<T> {
        let now = (now.as_nanos() / TICK_NANOS).min(LAST_TICK);
        while let Some((level, slot, tick)) = self.next_slot().filter(|(_, _, tick)| *tick <= now) {
            self.elapsed = self.elapsed.max(tick);
            if level == 0 {
                let key = self.levels[level].heads[slot]?;
                self.unlink(key);
                return self.slab.remove(key).map(|timer| timer.what);
            }
            self.levels[level].occupied &= !(1 << slot);
            let mut next = self.levels[level].heads[slot].take();
            while let Some((key, tick, after)) = next.and_then(|key| self.slab.get(key).map(|t| (key, t.tick, t.next)))
            {
                self.link(key, tick);
                next = after;
            }
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    fn link(&mut self, key: TimerKey<T>, tick: u64) {
        let differing = (self.elapsed ^ tick) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS) as usize;
        let slot = (tick >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1);
        let head = self.levels[level].heads[slot].replace(key);
        self.levels[level].occupied |= 1 << slot;
        if let Some(timer) = head.and_then(|head| self.slab.get_mut(head)) {
            timer.previous = Some(key);
        }
        if let Some(timer) = self.slab.get_mut(key) {
            (timer.level, timer.slot) = (level as u8, slot as u8);
            (timer.previous, timer.next) = (None, head);
        }
    }

    fn unlink(&mut self, key: TimerKey<T>) {
        let Some(&Timer { level, slot, previous, next, .. }) = self.slab.get(key) else { return };
        if let Some(timer) = next.and_then(|next| self.slab.get_mut(next)) {
            timer.previous = previous;
        }
        if let Some(timer) = previous.and_then(|previous| self.slab.get_mut(previous)) {
            timer.next = next;
            return;
        }
        let level = &mut self.levels[level as usize];
        level.heads[slot as usize] = next;
        if next.is_none() {
            level.occupied &= !(1 << slot);
        }
    }

    /// The earliest slot with timers in it, and the tick at which it begins. Lower levels always come before higher ones:
    /// what is on a higher level lies beyond the span of the lower. Within a level no slot lies behind the present, since a
    /// timer stands at the level where its tick first differs from it.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let (number, level) = self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        let shift = SLOT_BITS * number as u32;
        let slot = level.occupied.trailing_zeros() as usize;
        let span_start = self.elapsed >> shift >> SLOT_BITS << SLOT_BITS << shift;
        Some((number, slot, span_start + ((slot as u64) << shift)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK_MICROS: u64 = TICK_NANOS / 1000;

    fn at(micros: u64) -> Time {
        Time::from_nanos(micros * 1000)
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        let mut timers = Timers::default();
        timers.set(at(1510), 'a');
        assert_eq!(timers.pop(at(1549)), None);
        assert_eq!(timers.pop(at(1550)), Some('a'));
        assert_eq!(timers.pop(at(9000)), None);
    }

    #[test]
    fn never_is_far_away_but_not_an_overflow() {
        let mut timers = Timers::default();
        timers.set(Time::NEVER, ());
        assert_eq!(timers.pop(at(10_000_000_000)), None);
        assert!(timers.next().is_some());
    }

    proptest! {
        /// Against a plain sorted list: the same timers fire in every step, in the order of their ticks.
        #[test]
        fn like_a_sorted_list(steps in proptest::collection::vec((0u64..200_000_000, 0u64..90_000, any::<bool>()), 1..200)) {
            let mut timers = Timers::default();
            let mut model: Vec<(u64, usize, TimerKey<usize>)> = Vec::new();
            let mut now = 0;
            for (number, (ahead, advance, clear)) in steps.into_iter().enumerate() {
                let due = (now + ahead).div_ceil(TICK_MICROS).max(now / TICK_MICROS + 1);
                model.push((due, number, timers.set(at(now + ahead), number)));
                if clear && model.len() > 2 {
                    let (_, _, key) = model.swap_remove(number % model.len());
                    prop_assert!(timers.clear(key));
                    prop_assert!(!timers.clear(key));
                }
                now += advance * advance / 1000;
                let promised = timers.next();
                let mut fired: Vec<usize> = std::iter::from_fn(|| timers.pop(at(now))).collect();
                let tick = now / TICK_MICROS;
                let due_now = |due: u64| due <= tick;
                let mut expected: Vec<usize> = model.iter().filter(|(due, ..)| due_now(*due)).map(|(_, n, _)| *n).collect();
                model.retain(|(due, ..)| !due_now(*due));
                if !expected.is_empty() {
                    prop_assert!(promised.is_some_and(|promised| promised <= at(now)));
                }
                fired.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(fired, expected);
                prop_assert_eq!(timers.len(), model.len());
            }
        }
    }
}
