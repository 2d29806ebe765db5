//! The calls that wait on this side, one queue for each pool.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a pool is left alone that has refused a call and did not say for how long.
const REFUSED: Duration = Duration::from_millis(50);
/// The longest that it is left alone, unless it asks for longer itself.
const LONGEST: Duration = Duration::from_secs(5);

/// A place in a queue: higher priorities come first, and calls of the same priority in the order of their numbers.
type Place = (Reverse<i8>, u64);

/// The calls that wait for a pool, and how many the pool may have.
///
/// A pool that refuses a call because its queue or the memory is full is left alone for a while. Then it gets one call more than
/// it held when it refused, and one for each that it finishes; and if it refuses none of them, two more a moment later, four more,
/// and so on. So whatever other clients do, it is kept busy, and few calls are refused twice.
#[derive(Debug)]
pub(super) struct Queue {
    /// The pool.
    pub(super) name: String,
    waiting: BTreeSet<Place>,
    /// Calls that it has been sent and that have no outcome.
    in_flight: u32,
    /// How many of those there may be.
    limit: u32,
    /// It is left alone.
    paused: bool,
    /// When it is not left alone any more, or may have more, if it has refused a call lately.
    next: Option<Instant>,
    /// How many more it may then have.
    step: u32,
    /// How often it has refused without taking anything in between.
    refusals: u32,
}

impl Queue {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            waiting: BTreeSet::new(),
            in_flight: 0,
            limit: u32::MAX,
            paused: false,
            next: None,
            step: 1,
            refusals: 0,
        }
    }

    /// A call waits, or waits again at its old place.
    pub(super) fn insert(&mut self, priority: i8, number: u64) {
        self.waiting.insert((Reverse(priority), number));
    }

    /// A call waits no longer.
    pub(super) fn remove(&mut self, priority: i8, number: u64) {
        self.waiting.remove(&(Reverse(priority), number));
    }

    /// Who is the next to go, if the pool may have another.
    pub(super) fn first(&self) -> Option<Place> {
        if self.paused || self.in_flight >= self.limit {
            return None;
        }
        self.waiting.first().copied()
    }

    /// A call is sent.
    pub(super) fn sent(&mut self) {
        self.in_flight += 1;
    }

    /// A call that was sent has an outcome other than a refusal.
    pub(super) fn finished(&mut self) {
        self.in_flight -= 1;
        self.limit = self.limit.saturating_add(1);
        self.refusals = 0;
    }

    /// A call that was sent was refused. `jitter` is between 0 and 1.
    pub(super) fn refused(&mut self, now: Instant, retry_after: Option<Duration>, jitter: f64) {
        self.in_flight -= 1;
        self.limit = self.limit.min(self.in_flight);
        self.step = 1;
        if self.paused {
            return;
        }
        let first = retry_after.unwrap_or(REFUSED).max(Duration::from_millis(1));
        let pause = first.saturating_mul(1 << self.refusals.min(10)).min(LONGEST.max(first));
        // Clients that were refused together do not come back together.
        self.next = now.checked_add(pause.mul_f64(0.75 + jitter / 2.0));
        self.paused = true;
        self.refusals += 1;
    }

    /// When the pool may have more calls, if someone waits for that.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.next.filter(|_| !self.waiting.is_empty() && (self.paused || self.in_flight >= self.limit))
    }

    /// Lets the pool have more calls if it is time.
    pub(super) fn resume(&mut self, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        if !self.paused {
            self.refusals = 0;
        }
        self.paused = false;
        self.limit = self.limit.max(self.in_flight).saturating_add(self.step);
        self.step = self.step.saturating_mul(2);
        // When the limit is so high, there is none.
        self.next = if self.limit < u32::MAX { now.checked_add(REFUSED) } else { None };
    }

    /// Whether anyone waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends one if the pool may have one.
    fn send(queue: &mut Queue) -> Option<u64> {
        let (Reverse(priority), number) = queue.first()?;
        queue.remove(priority, number);
        queue.sent();
        Some(number)
    }

    fn queue(count: u64) -> Queue {
        let mut queue = Queue::new(String::new());
        (1..=count).for_each(|number| queue.insert(0, number));
        queue
    }

    fn send_all(queue: &mut Queue) -> usize {
        std::iter::from_fn(|| send(queue)).count()
    }

    #[test]
    fn higher_priorities_come_first_and_then_who_came_first() {
        let mut queue = queue(0);
        for (priority, number) in [(0, 1), (5, 2), (0, 3), (-5, 4), (5, 5)] {
            queue.insert(priority, number);
        }
        let order: Vec<_> = std::iter::from_fn(|| send(&mut queue)).collect();
        assert_eq!(order, [2, 5, 1, 3, 4]);
    }

    #[test]
    fn a_pool_that_refuses_is_left_alone_and_then_gets_more_and_more() {
        let now = Instant::now();
        let mut queue = queue(100);
        (0..4).for_each(|_| queue.sent());
        queue.refused(now, None, 0.5);
        queue.refused(now, None, 0.5);
        assert_eq!(send_all(&mut queue), 0);
        assert_eq!(queue.wake_at(), Some(now + REFUSED));
        for (moment, more) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
            queue.resume(now + REFUSED * moment);
            assert_eq!(send_all(&mut queue), more);
        }
        queue.finished();
        assert_eq!(send_all(&mut queue), 2, "one for the one that is finished, and one more");
    }

    #[test]
    fn the_wait_grows_while_nothing_is_taken() {
        let mut now = Instant::now();
        let mut queue = queue(1);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(send(&mut queue), Some(1));
            queue.refused(now, None, 0.5);
            queue.insert(0, 1);
            let until = queue.wake_at().unwrap();
            waits.push((until - now).as_millis());
            now = until;
            queue.resume(now);
        }
        assert_eq!(waits[..5], [50, 100, 200, 400, 800]);
        assert_eq!(waits[11], 5000);
        assert_eq!(send(&mut queue), Some(1));
        queue.finished();
        queue.insert(0, 2);
        queue.sent();
        queue.refused(now, Some(Duration::from_secs(20)), 0.0);
        assert_eq!(queue.wake_at(), Some(now + Duration::from_secs(15)), "what the pool asks for counts, give or take");
    }

    #[test]
    fn nobody_is_woken_for_nothing() {
        let now = Instant::now();
        let mut queue = queue(1);
        send(&mut queue);
        queue.refused(now, None, 0.5);
        assert_eq!(queue.wake_at(), None, "nobody waits");
        queue.resume(now + REFUSED);
        queue.insert(0, 2);
        assert_eq!(queue.wake_at(), None, "who waits may go");
    }
}
