//! How far ahead the jobs of a stage may be handed out, worked out a second time and in floating point.

use std::time::Duration;

/// So many jobs go one at a time before anything is known.
const KNOWN_AFTER: u32 = 16;
/// And so many after something was printed.
const QUIET_AFTER: u32 = 1_000;
/// What lies ahead of a job takes about so long at most.
const MOST_WAIT: f64 = 1e6;
const DEEPEST: usize = 16;
/// The dispatcher works in whole nanoseconds, and each step may cut one off.
const ROUNDING: f64 = 40.0;

#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    mean: f64,
    seen: u32,
    hush: u32,
    printed: bool,
}

impl Pace {
    pub(crate) fn ran(&mut self, span: Duration) {
        let nanos = span.as_nanos().min(100_000_000) as f64;
        self.mean = if self.seen == 0 { nanos } else { self.mean * 15.0 / 16.0 + nanos / 16.0 };
        self.seen = self.seen.saturating_add(1);
        self.hush = self.hush.saturating_sub(1);
    }

    pub(crate) fn printed(&mut self) {
        (self.hush, self.printed) = (QUIET_AFTER, true);
    }

    /// Whether something was printed at some time.
    pub(crate) fn was_hushed(&self) -> bool {
        self.printed
    }

    /// How many jobs may lie ahead at least and at most: where the mean is close to where a number turns into the next,
    /// both are right.
    pub(crate) fn depth(&self) -> (usize, usize) {
        if self.seen < KNOWN_AFTER || self.hush > 0 {
            return (0, 0);
        }
        let fits = |mean: f64| ((MOST_WAIT / mean.max(1.0)) as usize).min(DEEPEST);
        (fits(self.mean + ROUNDING), fits(self.mean - ROUNDING))
    }
}
