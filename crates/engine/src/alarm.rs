//! A timer of the system's own. The runtime's ticks once in a millisecond and rounds up, so that one millisecond becomes more than two;
//! this one wakes within some ten microseconds of its time.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The longest that is slept at a time. Whoever sleeps looks at the clock and sleeps again.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// An alarm clock for one sleeper.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm that is not set. To be made within a runtime.
    pub(crate) fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an OwnedFd owns its descriptor, and the AsyncFd only lends it out by shared reference.
        #[allow(unsafe_code)]
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Alarm { timer: timer? })
    }

    /// Sleeps that long, or for a day if that is shorter. A sleep that is dropped leaves nothing behind.
    pub(crate) async fn sleep(&self, span: Duration) -> io::Result<()> {
        if span.is_zero() {
            return Ok(());
        }
        let span = span.min(LONGEST);
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec { tv_sec: span.as_secs().cast_signed(), tv_nsec: i64::from(span.subsec_nanos()) };
        // This also takes back what is due of an earlier sleep.
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: never, it_value: once })?;
        loop {
            let mut ready = self.timer.readable().await?;
            let mut fired = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut fired)?));
            match read {
                Ok(read) => return read.map(|_| ()),
                // It was of an earlier sleep.
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_millisecond_is_one() {
        let alarm = Alarm::new().expect("there is a descriptor");
        let mut overshot = Vec::new();
        for _ in 0..40 {
            let span = Duration::from_millis(1);
            let begun = Instant::now();
            alarm.sleep(span).await.expect("it wakes");
            overshot.push(begun.elapsed().checked_sub(span).expect("it does not wake early"));
        }
        overshot.sort_unstable();
        // The best quarter, since others use the machine as well.
        assert!(overshot[10] < Duration::from_micros(200), "{overshot:?}");
    }

    #[tokio::test]
    async fn what_was_due_of_an_earlier_sleep_wakes_nobody() {
        let alarm = Alarm::new().expect("there is a descriptor");
        for _ in 0..20 {
            let short = alarm.sleep(Duration::from_micros(50));
            tokio::select! {
                biased;
                () = async { std::thread::sleep(Duration::from_micros(200)) } => {}
                _ = short => {}
            }
            let begun = Instant::now();
            alarm.sleep(Duration::from_millis(3)).await.expect("it wakes");
            assert!(begun.elapsed() >= Duration::from_millis(3));
        }
    }
}
