//! What happens since time passed, and not since anybody did something.

use evener_core::Code;

use super::super::TICK;
use super::*;
use crate::record::Mishap;

impl Checker {
    /// Time passed: what was due happens now.
    pub(in super::super) fn time_passes(&mut self, now: Time) {
        self.begin_step();
        self.time_passed = true;
        let mut due = Vec::new();
        while let Some((tick, timer)) = self.timers.first().copied().filter(|(tick, _)| *tick <= due_tick_of(now)) {
            self.timers.remove(&(tick, timer));
            if let Some(request) = self.concerns(timer) {
                due.push((tick, request, timer));
            }
        }
        // Batches go out and pools grow by the clock as well, before or after what else is due.
        let by_clock = |stage: &StageRules| stage.batch.is_some() || stage.scale.is_some();
        self.strict = due.is_empty() || (due.len() == 1 && !self.topology.stages().iter().any(by_clock));
        let mut seen: BTreeMap<(u64, u32), Timer> = BTreeMap::new();
        for (tick, request, timer) in &due {
            let first = seen.entry((*tick, *request)).or_insert(*timer);
            let alike = std::mem::discriminant(first) == std::mem::discriminant(timer);
            self.blurred |= !alike || (first != timer && matches!(timer, Timer::Expiry(..)));
        }
        // What drains takes all.
        self.blurred |= due.len() > 1 && due.iter().any(|(.., timer)| *timer == Timer::DrainEnd);
        for (_, _, timer) in due {
            self.fires(now, timer);
        }
        for member in self.crew.values_mut() {
            let rules = self.topology.stage(member.stage);
            for hold in member.holds.iter_mut().filter(|hold| !hold.awaited && hold.grace.is_none()) {
                hold.grace = fired(hold.try_ends, now).then_some(now + rules.grace);
            }
            member.time_passed(now, rules.grace);
        }
    }

    /// Whose request a timer is about, if it still is.
    fn concerns(&self, timer: Timer) -> Option<u32> {
        let waits = |request: u32| self.requests.contains_key(&request).then_some(request);
        match timer {
            Timer::Try(worker, job, attempt) => {
                let member = self.crew.get(&worker)?;
                let hold = &member.holds[member.find(job, attempt)?];
                hold.awaited.then_some(hold.of.0)
            }
            Timer::Retry(name, attempt) => {
                let job = self.book.get(name)?;
                (job.place == Place::Delayed && job.attempt == attempt).then_some(name.0)
            }
            Timer::Expiry(request, gather) => {
                let record = self.requests.get(&request).filter(|record| record.due.is_none());
                record.is_some_and(|record| record.way.waits_for(gather)).then_some(request)
            }
            Timer::Deadline(request) => waits(request),
            Timer::DrainEnd => Some(u32::MAX),
        }
    }

    fn fires(&mut self, now: Time, timer: Timer) {
        // Another may have come before it.
        if self.concerns(timer).is_none() {
            return;
        }
        match timer {
            Timer::Try(worker, job, attempt) => {
                let Some(member) = self.crew.get_mut(&worker) else { return };
                let (stage, Some(at)) = (member.stage, member.find(job, attempt)) else { return };
                let hold = &mut member.holds[at];
                (hold.awaited, hold.grace) = (false, Some(now + self.topology.stage(stage).grace));
                let name = hold.of;
                self.tally.count(Happening::TryTimedOut);
                self.mishap(now, stage, name, Mishap::Timeout);
            }
            Timer::Retry(name, _) => {
                let Some(stage) = self.book.get(name).map(|job| job.stage) else { return };
                self.comes_back(now, stage, name);
            }
            Timer::Expiry(request, gather) => self.happens(now, request, &Event::Expired(gather)),
            Timer::Deadline(request) => self.fails(now, request, Code::DeadlineExceeded),
            Timer::DrainEnd => self.drain_ends(now),
        }
    }
}

/// The tick that it is.
fn due_tick_of(now: Time) -> u64 {
    now.as_nanos() / TICK
}
