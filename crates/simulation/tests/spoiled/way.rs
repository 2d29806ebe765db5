//! The ways in which a dispatcher's work can be spoiled.

/// How the work is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Not,
    LoseRun,
    Misdirect,
    MixUpPayloads,
    LoseAnswer,
    DoubleAnswer,
    MixUpAnswers,
    IgnoreLeaving,
    LoseCancel,
    LoseStop,
    LoseRetire,
    Unfence,
    LoseOutcome,
    OverlookDeath,
    StopClock,
    FastClock,
    ForgetDrain,
    LoseRetried,
    /// The order of two jobs that go out at once is turned round.
    OutOfTurn,
    /// Workers are taken to have given credit that they have not given.
    InventCredit,
    LoseAsk,
    AskTwice,
    /// All functions are taken to be quick.
    InventPace,
    OverlookPrint,
    LoseRecall,
    RecallEarly,
    LoseReturned,
    /// What did not begin on a worker that died counts as a try.
    ChargeAhead,
    /// What may begin on a stuck worker after all does not count as a try.
    SpareStuck,
    LoseGoingOn,
    GoOnTwice,
    /// What has begun, or may have, is cancelled all the same.
    CancelBegun,
    IgnoreWithdrawal,
    /// A worker is not asked whether the job has begun that is to be withdrawn.
    LoseQuestion,
    /// Whoever insists is answered, and the worker is left in peace.
    NeverKill,
    /// Whoever insists is answered, and counted as one that went away.
    CountAsLeft,
    InvertUrgency,
    ForgetUrgency,
    /// All functions are taken for one.
    MixUpFunctions,
    RememberFunctions,
    ForgetOwnRetries,
    ForgetOwnTimeouts,
    SwallowException,
    /// Workers that are to go for good stay.
    IgnoreRetirement,
    /// A job is handed out twice.
    DoubleRun,
    /// Batches seem to end with each of their jobs.
    CutBatch,
    LoseChunk,
    DoubleChunk,
    LoseCredit,
    LoseAssess,
    /// Equal keys are taken for others each time.
    ForgetKeys,
    /// All jobs are taken to weigh as little as they can.
    ForgetWeights,
    LoseGrow,
    GrowTwice,
    LoseShrink,
    LoseOutdated,
    /// Nobody is told that a request takes its other way.
    LoseRecovery,
    /// A new plan is not taken over.
    IgnoreReload,
    /// All clients are taken for one.
    MixUpFlows,
}
