//! When a worker that ended may be started again.
//!
//! ```text
//!   started ──ready──> serving ──failed──> wait (none, or longer after each quick death) ──> started
//!      └──failed──> wait; three in a row: broken, until a start gets ready
//! ```
//!
//! Time is a `Duration` since any moment, as long as it is the same one; randomness is an argument.

use std::time::Duration;

/// The numbers behind the waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The first wait that is not nothing. It doubles with each further quick death.
    pub shortest: Duration,
    /// No wait is longer than this.
    pub longest: Duration,
    /// A worker that was ready for this long has proved itself: what was before is forgotten.
    pub calm: Duration,
    /// This many starts in a row that never got ready mean that it is broken.
    pub failures: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            shortest: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            calm: Duration::from_secs(10),
            failures: 3,
        }
    }
}

/// The record of one worker's place in a pool: its lives and how they ended.
#[derive(Debug, Clone)]
pub struct Restart {
    policy: Policy,
    /// Since when the present life is ready to work, if it is.
    ready: Option<Duration>,
    /// Deaths since the last long life.
    quick: u32,
    /// Starts in a row that never got ready.
    failures: u32,
}

impl Restart {
    /// A place in which nothing has happened yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ready: None, quick: 0, failures: 0 }
    }

    /// A process was started, or could not be (then [`failed`](Self::failed) follows at once).
    pub fn started(&mut self) {
        self.ready = None;
    }

    /// The process is ready to work. That mends a broken place.
    pub fn ready(&mut self, now: Duration) {
        self.ready = Some(now);
        self.failures = 0;
    }

    /// The process has done what it is there for: it is no part of a crash loop, and its end is mended at once.
    pub fn worked(&mut self) {
        self.quick = 0;
    }

    /// The process ended, or did not start, and nobody had asked for it. Says how long to wait
    /// until the next start; `jitter` is a random number from 0 to 1.
    ///
    /// A life that was ready is restarted at once the first time. A start that failed is not, as
    /// the next one would most likely fail too.
    pub fn failed(&mut self, now: Duration, jitter: f64) -> Duration {
        match self.ready.take() {
            Some(since) if now.saturating_sub(since) >= self.policy.calm => self.quick = 0,
            Some(_) => {}
            None => {
                self.failures = self.failures.saturating_add(1);
                self.quick = self.quick.max(1);
            }
        }
        let wait = self.wait(jitter);
        self.quick = self.quick.saturating_add(1);
        wait
    }

    /// The process ended because it was told to, such as after its share of jobs: it may be
    /// replaced at once, and nothing is held against it.
    pub fn retired(&mut self) {
        self.ready = None;
    }

    /// Whether the last few starts all failed.
    pub fn is_broken(&self) -> bool {
        self.failures >= self.policy.failures
    }

    /// How many starts in a row have failed.
    pub fn failed_starts(&self) -> u32 {
        self.failures
    }

    /// From half the step to all of it, so that workers that died together do not start together.
    fn wait(&self, jitter: f64) -> Duration {
        let Some(doublings) = self.quick.checked_sub(1) else { return Duration::ZERO };
        let step = 2_u32
            .checked_pow(doublings)
            .and_then(|times| self.policy.shortest.checked_mul(times))
            .map_or(self.policy.longest, |step| step.min(self.policy.longest));
        let jitter = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
        step.mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One life: when it is ready after its start (if ever), when it ends after that.
    fn live(restart: &mut Restart, now: &mut Duration, ready: Option<u64>, lived: u64, jitter: f64) -> Duration {
        restart.started();
        if let Some(after) = ready {
            *now += ms(after);
            restart.ready(*now);
        }
        *now += ms(lived);
        restart.failed(*now, jitter)
    }

    #[test]
    fn the_first_restart_is_at_once_and_quick_deaths_wait_longer_and_longer() {
        let (mut restart, mut now) = (Restart::new(Policy::default()), ms(5));
        let waits: Vec<_> = (0..11).map(|_| live(&mut restart, &mut now, Some(1), 1, 1.0).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
        assert!(!restart.is_broken());
        assert_eq!(live(&mut restart, &mut now, Some(1), 10_000, 1.0), ms(0), "a long life is forgiven all");
        assert_eq!(live(&mut restart, &mut now, Some(1), 1, 0.0), ms(50));
    }

    #[test]
    fn three_failed_starts_are_broken_and_the_next_ready_mends() {
        let (mut restart, mut now) = (Restart::new(Policy::default()), ms(0));
        assert_eq!(live(&mut restart, &mut now, None, 60_000, 1.0), ms(100), "slow to fail is no long life");
        assert_eq!(live(&mut restart, &mut now, None, 1, 1.0), ms(200));
        assert!(!restart.is_broken());
        live(&mut restart, &mut now, None, 1, 1.0);
        assert!(restart.is_broken());
        restart.started();
        assert!(restart.is_broken(), "a start is not yet a success");
        restart.ready(now);
        assert!(!restart.is_broken());
        assert_eq!(restart.failed_starts(), 0);
    }

    #[test]
    fn a_planned_end_costs_nothing() {
        let (mut restart, mut now) = (Restart::new(Policy::default()), ms(0));
        for _ in 0..5 {
            restart.started();
            restart.ready(now);
            restart.retired();
        }
        assert_eq!(live(&mut restart, &mut now, Some(1), 1, 1.0), ms(0));
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_so_are_the_starts_in_any_ten_seconds(
            lives in proptest::collection::vec(
                (proptest::option::of(0..200_u64), prop_oneof![0..5_u64, 0..20_000_u64], -1.0..2.0_f64), 1..300),
        ) {
            let (mut restart, mut now) = (Restart::new(Policy::default()), ms(0));
            let mut starts = Vec::new();
            for (ready, lived, jitter) in lives {
                starts.push(now);
                let wait = live(&mut restart, &mut now, ready, lived, jitter);
                prop_assert!(wait <= Policy::default().longest);
                now += wait;
            }
            for (index, &start) in starts.iter().enumerate() {
                let window = starts[index..].iter().take_while(|&&next| next < start + ms(10_000)).count();
                // At once, then 50, 100, 200 … ms of waiting at the least, and one long life that
                // may end within.
                prop_assert!(window <= 10, "{window} starts within ten seconds");
            }
        }
    }
}
