//! What can happen in these worlds.

use crate::tally::happenings;

happenings! {
    /// An input was given.
    Step,
    /// The world ended early: two things were due to one request at the same tick, and either may come first.
    Blurred,
    /// A request was let in.
    Accepted,
    /// A request was refused.
    Refused,
    /// A client went away.
    Left,
    /// A request was answered with a value.
    Value,
    /// A request was answered early.
    Reply,
    /// An answer in chunks came to its end.
    Ended,
    /// A request was answered with a problem.
    Problem,
    /// A request was answered since its deadline passed.
    DeadlinePassed,
    /// A request was answered since a step with branches took too long.
    ScatterTimedOut,
    /// A request took its other way.
    Recovered,
    /// A list was taken apart.
    Split,
    /// A value was sent elsewhere.
    Goto,
    /// A job went to a worker.
    Run,
    /// A job went to a worker, and ended in the same step.
    RanAndFell,
    /// A job came to be in a step with several causes, and was another than it was thought.
    Renamed,
    /// A job is tried again.
    Retry,
    /// A try took too long.
    TryTimedOut,
    /// A worker died with a job.
    DiedAtWork,
    /// A job lost its worker, which was stopped for another, and no try.
    Spared,
    /// An outcome came for a job that had gone another way.
    LateOutcome,
    /// An outcome came that nobody should bring.
    Ghost,
    /// A worker got SIGTERM.
    Terminated,
    /// A worker got SIGKILL.
    Killed,
    /// A worker left.
    Retired,
    /// A worker left for good, as it was to.
    LeftForGood,
    /// A worker left since its stage takes other numbers of jobs now.
    Reshaped,
    /// A batch was full.
    FullBatch,
    /// A batch went out since it had waited long enough.
    SmallBatch,
    /// A batch was not full, and went out since no worker waits for more.
    BatchAtOnce,
    /// A job that had lost a try went alone.
    Alone,
    /// A job went alone, since the next did not fit into its batch.
    LightBatch,
    /// A job of a key went to one of several workers that were free.
    Preferred,
    /// The key of a job came after its end.
    AssessedTooLate,
    /// A piece of an answer went on.
    Chunk,
    /// A client took pieces.
    Consumed,
    /// A pool grew.
    Grew,
    /// A pool shrank.
    Shrank,
    /// A pool sizes itself within other bounds than before.
    Rescaled,
    /// A worker came up that is more than was asked for.
    Unasked,
    /// A stage broke.
    Broken,
    /// A new plan took over.
    Reload,
    /// The last request of an old plan ended.
    Outdated,
    /// The clock leapt.
    Leap,
}
