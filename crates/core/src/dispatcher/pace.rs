//! How quick a stage's function is, and so how far ahead its workers may be given jobs.
//!
//! A worker that finds its next job at hand does not sleep and wake up between two jobs, which for a quick function costs
//! more than the function itself. But a job that waits behind another one cannot go to whoever is free first. So jobs are
//! handed out ahead only where what lies ahead takes about a millisecond.

use std::time::Duration;

use crate::pool::AHEAD_WAIT;

/// The most jobs behind the one at hand.
const DEEPEST: u64 = 16;
/// So many jobs must have been seen before anything is known.
const KNOWN_AFTER: u32 = 16;
/// After a worker printed something, so many jobs go one at a time: with another job at hand, nobody could say whose the next
/// line is.
const QUIET_AFTER: u32 = 1000;
/// A longer run counts as this long, or one would be remembered for too long.
const LONGEST: Duration = Duration::from_millis(100);

/// A moving average of how long the function runs.
#[derive(Debug, Default)]
pub(super) struct Pace {
    mean_nanos: u64,
    seen: u32,
    hush: u32,
}

impl Pace {
    /// The function ran once more.
    pub(super) fn ran(&mut self, span: Duration) {
        let nanos = span.min(LONGEST).as_nanos() as u64;
        self.mean_nanos = match self.seen {
            0 => nanos,
            _ => self.mean_nanos - self.mean_nanos / 16 + nanos / 16,
        };
        self.seen = self.seen.saturating_add(1);
        self.hush = self.hush.saturating_sub(1);
    }

    /// A worker printed something.
    pub(super) fn printed(&mut self) {
        self.hush = QUIET_AFTER;
    }

    /// How many jobs a worker may hold behind the one at hand.
    pub(super) fn depth(&self) -> usize {
        if self.seen < KNOWN_AFTER || self.hush > 0 {
            return 0;
        }
        (AHEAD_WAIT.as_nanos() as u64 / self.mean_nanos.max(1)).min(DEEPEST) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quick_and_quiet_function_is_given_jobs_ahead() {
        let mut pace = Pace::default();
        for _ in 0..KNOWN_AFTER {
            assert_eq!(pace.depth(), 0, "not before it is known");
            pace.ran(Duration::from_micros(100));
        }
        assert_eq!(pace.depth(), 10);
        pace.ran(Duration::from_secs(3600));
        assert_eq!(pace.depth(), 0, "one long run is noticed");
        for _ in 0..200 {
            pace.ran(Duration::from_micros(1));
        }
        assert_eq!(pace.depth(), 16, "and forgotten");
        pace.printed();
        assert_eq!(pace.depth(), 0);
        (0..QUIET_AFTER).for_each(|_| pace.ran(Duration::ZERO));
        assert_eq!(pace.depth(), 16);
    }
}
