//! Every way in which a batch can fail, and what is done about each.
//!
//! Owns: the one table of verdicts. The shell carries them out and decides nothing.

use std::time::Duration;

use super::outcome::{Reason, Rejection};
use super::parking::{Obstacle, WaitsFor};

/// How often a batch is loaded and planned again because somebody else was first, before it is
/// cut in two.
pub const REPLANS_MAX: u32 = 3;
/// How often a batch is tried again whole after a deadlock, before it is cut in two.
pub const DEADLOCKS_MAX: u32 = 2;
/// The first pause before a batch is tried again; it doubles with each try.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
/// The longest pause before a batch is tried again.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether there is room again for writes that must rest.
const ROOM_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked whether a queue has its turn.
const TURN_AFTER: Duration = Duration::from_millis(100);

/// Why a batch was not committed: one variant for each thing that can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing is claimed on a living connection: at the first delivery, and after a lost one.
    #[error("the partition is not claimed")]
    Unclaimed,
    /// Another claim is newer than ours.
    #[error("another worker claimed the partition")]
    Superseded,
    /// The connection is gone, or the end of a COMMIT is unknown: the claim went with it.
    #[error("the database connection was lost: {0}")]
    ConnectionLost(String),
    /// The database is away, busy, full or read-only; the same batch may succeed later.
    #[error("the database cannot serve now: {0}")]
    Unavailable(String),
    /// A row is locked by somebody else.
    #[error("a row is locked by somebody else: {0}")]
    Locked(String),
    /// Deadlock or serialization failure.
    #[error("a concurrent transaction was in the way: {0}")]
    Conflict(String),
    /// The statement was too slow or too large.
    #[error("the batch is too much for one statement: {0}")]
    TooMuch(String),
    /// Fewer rows were written than planned: somebody else was first, or a trigger kept it back.
    #[error("fewer rows were written than planned: {0}")]
    RowsDiffer(String),
    /// The ledger took fewer lines than planned: another lane wrote the same write id.
    #[error("the ledger took fewer lines than planned")]
    LedgerDiffers,
    /// A statement on the user's table was refused: one of the writes is at fault.
    #[error("the table refused a write: {0}")]
    Refused(String),
    /// The row that a foreign key of the user's table refers to is not there.
    #[error("the row that a foreign key refers to is missing: {0}")]
    MissingParent(String),
    /// More writes rest than may.
    #[error("too many writes rest: {0}")]
    ParkFull(String),
    /// Nobody has applied it yet, and it is not the turn of this queue.
    #[error("not the turn of this queue: {0}")]
    NotOurTurn(String),
    /// Nobody has applied it yet, and the turn of this queue is over.
    #[error("the turn of this queue is over: its copy in a later one waits, or it has none")]
    Stranded,
    /// Nobody foresaw it. No write is at fault.
    #[error("an error that nobody foresaw: {0}")]
    Unforeseen(String),
}

/// What the shell must do about a failure. Nothing was settled in any of these cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Claim anew, prove that the channel still lives, and load again.
    Reclaim,
    /// Wait and load again. `halt` asks for a person: readiness goes off.
    Retry { after: Duration, halt: bool },
    /// Cut the batch in two, in queue order; each half is an ordinary batch.
    Bisect,
    /// The write is alone and cannot be applied.
    Reject(Rejection),
    /// The write is alone and has to wait; its key waits with it.
    Rest(Obstacle),
    /// The write is alone and in a queue that gets no turn any more. Wait for its copy to be
    /// applied, and load again; if that never happens, put it where it gets another turn.
    Hold { after: Duration },
}

impl Failure {
    /// The cause of failures that a row which somebody holds leads to.
    pub const LOCKED: &'static str = "locked";

    /// The labels of those that are tried again.
    pub const CAUSES: [&'static str; 11] = [
        "connection_lost",
        "unavailable",
        Self::LOCKED,
        "conflict",
        "too_much",
        "rows_differ",
        "ledger_differs",
        "park_full",
        "not_our_turn",
        "stranded",
        "unforeseen",
    ];

    /// The label under which `keylane_retries_total` counts it.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Superseded => "superseded",
            Self::ConnectionLost(_) => "connection_lost",
            Self::Unavailable(_) => "unavailable",
            Self::Locked(_) => Self::LOCKED,
            Self::Conflict(_) => "conflict",
            Self::TooMuch(_) => "too_much",
            Self::RowsDiffer(_) => "rows_differ",
            Self::LedgerDiffers => "ledger_differs",
            Self::Refused(_) => "refused",
            Self::MissingParent(_) => "missing_parent",
            Self::ParkFull(_) => "park_full",
            Self::NotOurTurn(_) => "not_our_turn",
            Self::Stranded => "stranded",
            Self::Unforeseen(_) => "unforeseen",
        }
    }

    /// What to do, at the `attempt`th failure (from 1) of a batch with so many writes.
    pub fn verdict(&self, attempt: u32, writes: usize) -> Verdict {
        let retry = Verdict::Retry { after: delay(attempt), halt: false };
        let alone = writes <= 1;
        match self {
            Self::Unclaimed | Self::Superseded => Verdict::Reclaim,
            Self::ConnectionLost(_) | Self::Unavailable(_) => retry,
            // The first try waits for the lock, the second finds out whose writes it is about.
            Self::Locked(_) if attempt < 2 => retry,
            Self::ParkFull(_) if alone => Verdict::Retry { after: ROOM_AFTER, halt: false },
            Self::NotOurTurn(_) if alone => Verdict::Retry { after: TURN_AFTER, halt: false },
            Self::Stranded if alone => Verdict::Hold { after: TURN_AFTER },
            Self::Conflict(_) if attempt < DEADLOCKS_MAX || alone => retry,
            Self::LedgerDiffers if attempt < REPLANS_MAX || alone => retry,
            Self::RowsDiffer(_) if attempt < REPLANS_MAX => retry,
            Self::TooMuch(_) if alone => retry,
            Self::RowsDiffer(why) | Self::Refused(why) if alone => {
                Verdict::Reject(Rejection::new(Reason::ConstraintViolation, why.clone()))
            }
            Self::MissingParent(why) if alone => {
                Verdict::Rest(Obstacle { waits_for: WaitsFor::Parent, why: why.clone() })
            }
            Self::Locked(why) if alone => {
                Verdict::Rest(Obstacle { waits_for: WaitsFor::Lock, why: why.clone() })
            }
            Self::Conflict(_)
            | Self::Locked(_)
            | Self::MissingParent(_)
            | Self::ParkFull(_)
            | Self::NotOurTurn(_)
            | Self::Stranded
            | Self::LedgerDiffers
            | Self::RowsDiffer(_)
            | Self::TooMuch(_)
            | Self::Refused(_) => Verdict::Bisect,
            Self::Unforeseen(_) => Verdict::Retry { after: delay(attempt), halt: true },
        }
    }
}

fn delay(attempt: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempt.saturating_sub(1).min(16));
    RETRY_DELAY_MIN.saturating_mul(factor).min(RETRY_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_that_is_alone_is_ever_rejected() {
        let failures = [
            Failure::Unclaimed,
            Failure::Superseded,
            Failure::ConnectionLost(String::new()),
            Failure::Unavailable(String::new()),
            Failure::Locked(String::new()),
            Failure::Conflict(String::new()),
            Failure::TooMuch(String::new()),
            Failure::RowsDiffer(String::new()),
            Failure::LedgerDiffers,
            Failure::Refused(String::new()),
            Failure::MissingParent(String::new()),
            Failure::ParkFull(String::new()),
            Failure::NotOurTurn(String::new()),
            Failure::Stranded,
            Failure::Unforeseen(String::new()),
        ];
        for failure in &failures {
            for attempt in 1..10 {
                let many = failure.verdict(attempt, 2);
                assert!(!matches!(many, Verdict::Reject(_)), "{failure:?} {attempt}");
                let blames = matches!(failure, Failure::Refused(_) | Failure::RowsDiffer(_));
                let alone = failure.verdict(attempt, 1);
                assert!(blames || !matches!(alone, Verdict::Reject(_)), "{failure:?} {attempt}");
                assert_ne!(alone, Verdict::Bisect, "{failure:?}: one write cannot be cut");
            }
        }
        assert!(matches!(Failure::Refused(String::new()).verdict(1, 1), Verdict::Reject(_)));
        assert_eq!(Failure::Refused(String::new()).verdict(1, 2), Verdict::Bisect);
    }

    #[test]
    fn pauses_grow_to_their_bound_and_stay_there() {
        assert_eq!(delay(1), RETRY_DELAY_MIN);
        assert_eq!(delay(2), RETRY_DELAY_MIN * 2);
        assert_eq!(delay(u32::MAX), RETRY_DELAY_MAX);
    }
}
