//! What happened in a run, counted, so that a test can tell whether the worlds are wild enough.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! happenings {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Something that can happen in a world.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Happening { $($(#[doc = $doc])+ $name,)+ }

        impl Happening {
            /// All that can happen.
            pub const ALL: &[Happening] = &[$(Happening::$name),+];
        }

        impl $crate::tally::Counted for Happening {
            const ALL: &'static [Happening] = Happening::ALL;
        }
    };
}

pub(crate) use happenings;

/// A kind of thing that is counted.
pub trait Counted: Copy + Ord + fmt::Debug + 'static {
    /// All of the kind.
    const ALL: &'static [Self];
}

happenings! {
    /// An input was given.
    Step,
    /// A request was let in.
    Accepted,
    /// A request was refused since the node drained.
    RefusedByDrain,
    /// A request was refused since a stage was broken.
    RefusedByBroken,
    /// A request was refused since a queue was full.
    RefusedByFull,
    /// A request was answered with the value of its last stage.
    AnsweredWithValue,
    /// A request was answered early.
    AnsweredEarly,
    /// A request was answered with a problem.
    AnsweredWithProblem,
    /// A request was answered with what its function raised.
    AnsweredWithException,
    /// A request was answered with its fallback.
    AnsweredWithFallback,
    /// A request was answered since its deadline passed.
    DeadlinePassed,
    /// A request was answered at the end of a drain.
    DrainedAway,
    /// A request was answered since its stage broke.
    EndedByBroken,
    /// A request was answered since its tries were spent on workers that died.
    TriesSpent,
    /// A client went away and its job waited.
    CancelledWaiting,
    /// A client went away and its job was with a worker.
    CancelledRunning,
    /// A client went away after its answer had come.
    CancelledTooLate,
    /// A request was taken back whose job waited.
    WithdrawnWaiting,
    /// A request was taken back whose job waited for another try, and went on.
    WithdrawnBetweenTries,
    /// A request was taken back whose job ran, and went on.
    WithdrawnWhileRunning,
    /// A request was taken back whose job was with a worker and may have begun.
    WithdrawnAhead,
    /// The same request was taken back again.
    WithdrawnTwice,
    /// A request was taken back that had been answered.
    WithdrawnTooLate,
    /// A job came back that had not begun and was to be withdrawn.
    WithdrawnLater,
    /// A job began that was to be withdrawn, and went on.
    WentOn,
    /// A job that was to be withdrawn stayed with a worker that was stuck.
    StuckWhileAsked,
    /// A job that was to be withdrawn went down with a worker that had been sent a signal.
    WentDownWhileAsked,
    /// A client insisted on the end of a request whose job waited.
    KilledWaiting,
    /// A client insisted on the end of a request whose job ran.
    KilledRunning,
    /// A client insisted on the end of a request whose job was with a worker and may have begun.
    KilledAhead,
    /// A client insisted on the end of such a request after it had taken it back.
    KilledWhileAsked,
    /// A job was handed out before others that had waited longer, since it was more urgent.
    Overtook,
    /// A goto moved a request on.
    Goto,
    /// A request took too many gotos.
    TooManyHops,
    /// A job was tried again.
    Retry,
    /// A try took too long.
    TryTimedOut,
    /// A worker died with a job.
    DiedAtWork,
    /// A worker died without a job.
    DiedIdle,
    /// A worker died after it had been told.
    DiedTold,
    /// A worker ran out of memory.
    OutOfMemory,
    /// An outcome came for a job that had gone another way.
    LateOutcome,
    /// An outcome came for a job that was with another worker at that time.
    LateOutcomeWhileRetried,
    /// An outcome came after the worker had been sent a signal.
    OutcomeAfterSignal,
    /// An outcome was refused.
    StaleOutcome,
    /// A worker got SIGTERM.
    Terminated,
    /// A worker got SIGKILL.
    Killed,
    /// A worker left after its share of jobs.
    Retired,
    /// A job was handed to a worker that was busy.
    HandedAhead,
    /// A job was handed to a worker that was busy with a call of another function.
    AheadOfAnother,
    /// What was known of a function was forgotten.
    Forgotten,
    /// A worker was asked how many jobs it takes ahead.
    AskedForCredit,
    /// A worker said how many jobs it takes ahead.
    Credit,
    /// A worker printed something.
    Printed,
    /// A job was called back.
    Recalled,
    /// A job came back that waited behind another.
    Returned,
    /// A job came back that had become the oldest of its worker.
    ReturnedAsOldest,
    /// A job came back that nobody waited for any more.
    ReturnedUnwanted,
    /// A worker began a job that was being called back.
    BegunWhileRecalled,
    /// A job went back since its worker died at another.
    TakenBack,
    /// Nobody waited any more for a job ahead, and its worker was told.
    CancelledAhead,
    /// A worker dropped a cancelled job that it had not begun.
    DroppedAhead,
    /// A job was given to others since its worker was stuck.
    GivenToOthers,
    /// A stuck worker began a job after it had been given to others.
    BegunAfterGiven,
    /// A job went down with a worker that had been sent a signal at the job before.
    WentDown,
    /// A worker froze.
    Froze,
    /// A job was handed ahead again after the stage had been quiet for long enough.
    AheadAfterPrint,
    /// A stage broke.
    Broken,
    /// A broken stage was mended.
    Mended,
    /// The clock leapt.
    Leap,
}

/// How often each thing happened.
#[derive(Clone, Debug)]
pub struct Tally<H = Happening> {
    counts: BTreeMap<H, u64>,
}

impl<H> Default for Tally<H> {
    fn default() -> Self {
        Tally { counts: BTreeMap::new() }
    }
}

impl<H: Counted> Tally<H> {
    pub(crate) fn count(&mut self, what: H) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// How often this happened.
    pub fn of(&self, what: H) -> u64 {
        self.counts.get(&what).copied().unwrap_or_default()
    }

    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Tally<H>) {
        for (what, count) in &other.counts {
            *self.counts.entry(*what).or_default() += count;
        }
    }
}

impl<H: Counted> fmt::Display for Tally<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in H::ALL {
            writeln!(f, "{:>12}  {what:?}", self.of(*what))?;
        }
        Ok(())
    }
}
