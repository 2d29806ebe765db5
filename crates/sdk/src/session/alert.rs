//! Waiting awake for calls that are short.
//!
//! A processor that sleeps takes longer to wake up than a short call takes. So whoever waits for one call stays awake for a moment
//! first, if the calls before it were short. That also keeps the other processes of the call on one processor, which then does not
//! sleep between them either.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mailbox::Mailbox;

/// Calls that take about this long are waited for awake, and for so long at most.
const SHORT: Duration = Duration::from_micros(200);
/// A longer call counts as this long, or one would be remembered for too long.
const LONGEST: Duration = Duration::from_millis(5);

/// How long calls took that were waited for one by one, and whether somebody stays awake for one.
#[derive(Debug)]
pub(super) struct Alert {
    average_nanos: AtomicU64,
    taken: AtomicBool,
    /// There is another processor for the rest of the call.
    possible: bool,
}

impl Alert {
    pub(super) fn new() -> Self {
        let possible = std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Self { average_nanos: AtomicU64::new(0), taken: AtomicBool::new(false), possible }
    }

    /// A call took so long, from when it was made until its outcome was taken.
    pub(super) fn took(&self, span: Duration) {
        let nanos = span.min(LONGEST).as_nanos() as u64;
        let average = self.average_nanos.load(Ordering::Relaxed);
        self.average_nanos.store(average - average / 8 + nanos / 8, Ordering::Relaxed);
    }

    /// Whether calls are so short that it is worth while.
    fn is_worth_while(&self) -> bool {
        self.possible && Duration::from_nanos(self.average_nanos.load(Ordering::Relaxed)) < SHORT
    }

    /// Waits awake until something is in the mailbox, or a moment has passed since `began`; for one caller at a time.
    pub(super) fn wait<T>(&self, mailbox: &Mailbox<T>, began: Instant, timeout: Option<Duration>) {
        let wanted = self.is_worth_while() && timeout != Some(Duration::ZERO);
        if !wanted || self.taken.swap(true, Ordering::Acquire) {
            return;
        }
        let span = timeout.map_or(SHORT, |timeout| timeout.min(SHORT));
        while mailbox.is_empty() && began.elapsed() < span {
            std::hint::spin_loop();
        }
        self.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_calls_are_waited_for_awake() {
        let alert = Alert { possible: true, ..Alert::new() };
        assert!(alert.is_worth_while(), "nothing is known of the calls, so they may be short");
        (0..10).for_each(|_| alert.took(Duration::from_secs(1)));
        assert!(!alert.is_worth_while());
        (0..100).for_each(|_| alert.took(Duration::from_micros(40)));
        assert!(alert.is_worth_while());
        let alone = Alert { possible: false, ..Alert::new() };
        assert!(!alone.is_worth_while());
    }

    #[test]
    fn nobody_stays_awake_for_long() {
        let alert = Alert { possible: true, ..Alert::new() };
        let mailbox: Mailbox<()> = Mailbox::new();
        let began = Instant::now();
        alert.wait(&mailbox, began, None);
        assert!(began.elapsed() >= SHORT);
        mailbox.close();
        alert.wait(&mailbox, Instant::now() + Duration::from_secs(3600), None);
    }
}
