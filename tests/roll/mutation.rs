//! The design, broken on purpose, one thing at a time.

/// What is left out or done wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mutation {
    /// Markers are put although what was routed before may still be under way.
    NoSettle,
    /// A source is consumed as soon as it has a turn: nothing is drained before.
    NextAtOnce,
    /// Held is unbound before the ring is bound that takes over.
    NoOverlap,
    /// The markers count although nobody has confirmed them.
    EndBeforeConfirm,
    /// The last source is unbound before the next has its turn.
    UnbindBeforeEnd,
    /// A ring that never had a turn is consumed.
    VoidConsumed,
    /// A lane closes at its marker although its turn has not come.
    CloseWhileNotYet,
    /// All turns of held share one binding key.
    OneKeyOfHeld,
    /// A lane closes at any marker.
    AnyMarker,
    /// A lane takes it for granted that what is behind its marker is elsewhere and applied.
    AckBehindMarker,
    /// A marker is put into the first partition only, and closes them all.
    MarkOne,
    /// A ring follows a ring that is lost.
    RingAfterLost,
    /// A lane takes a marker back without telling anybody.
    WithdrawInSecret,
    /// A lane stands before a marker for ever.
    NoWithdraw,
    /// What others planned is not given up.
    NoGiveUp,
    /// A turn that has ended can be ended once more.
    NoEndCheck,
    /// Copies are not recognised.
    NoLedger,
    /// A partition of which the queue is gone is not closed.
    GoneStaysOpen,
    /// A ring is deleted as soon as its turn is over.
    DeleteAtOnce,
    /// A lane's transaction does not keep others from closing its partition.
    NoFence,
}

impl Mutation {
    /// The explorer finds a schedule that shows what is wrong.
    pub(crate) const NOTICED: [Self; 16] = [
        Self::NoSettle,
        Self::NextAtOnce,
        Self::NoOverlap,
        Self::EndBeforeConfirm,
        Self::UnbindBeforeEnd,
        Self::VoidConsumed,
        Self::OneKeyOfHeld,
        Self::AnyMarker,
        Self::MarkOne,
        Self::RingAfterLost,
        Self::WithdrawInSecret,
        Self::NoWithdraw,
        Self::NoGiveUp,
        Self::NoEndCheck,
        Self::NoLedger,
        Self::GoneStaysOpen,
    ];

    /// No schedule of these scenarios shows a difference.
    ///
    /// `AckBehindMarker`: where everything that was routed before has arrived, what is behind a
    /// marker has a copy further on; to wait for it guards against a broker that is slower still.
    /// `CloseWhileNotYet`: a lane comes to a marker when all that is before it is known, so the turn
    /// has nothing left to do when it comes. `NoFence`: a queue is gone with all that was in it, so
    /// that whoever has something of it in hand applies what no other copy precedes.
    /// `DeleteAtOnce`: a ring that is closed holds copies only; the hour and the farewell guard
    /// against a broker that is slower than `Settle` waits.
    pub(crate) const UNNOTICED: [Self; 4] =
        [Self::AckBehindMarker, Self::CloseWhileNotYet, Self::NoFence, Self::DeleteAtOnce];
}
