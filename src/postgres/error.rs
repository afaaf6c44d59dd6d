//! Reads SQLSTATEs: the only place that does.
//!
//! Owns: which failure an error is. Only the statements on the user's table, and COMMIT, can be a
//! write's fault; an error of keylane's own statements never blames one.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::core::failure::Failure;

/// Which statement failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// One on keylane's own tables.
    Nobody,
    /// One that writes rows of the user's table, or the COMMIT.
    AWrite,
    /// One that deletes rows of the user's table.
    ADelete,
}

/// What `error` means for a batch.
pub fn failure(error: &sqlx::Error, blame: Blame) -> Failure {
    match error {
        sqlx::Error::Database(error) => {
            let error = error.downcast_ref::<PgDatabaseError>();
            by_sqlstate(error.code(), described(error), blame)
        }
        sqlx::Error::PoolTimedOut => {
            Failure::Unavailable("every connection of this process is in use".into())
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::PoolClosed => Failure::ConnectionLost(error.to_string()),
        other => Failure::Unforeseen(other.to_string()),
    }
}

/// What an error of one of keylane's own statements means; no row of the user's is in it.
pub(super) fn ours(error: &sqlx::Error) -> Failure {
    match failure(error, Blame::Nobody) {
        Failure::Locked(why) => Failure::Unavailable(why),
        other => other,
    }
}

/// What an error of the ledger's insert means: somebody else may have stored the same write.
pub(super) fn of_the_ledger(error: &sqlx::Error) -> Failure {
    let taken = error.as_database_error().is_some_and(DatabaseError::is_unique_violation);
    if taken { Failure::LedgerDiffers } else { ours(error) }
}

/// The server's message, which names a constraint but, unlike its detail, quotes no values.
fn described(error: &PgDatabaseError) -> String {
    format!("{} (SQLSTATE {})", error.message(), error.code())
}

fn by_sqlstate(code: &str, message: String, blame: Blame) -> Failure {
    let class = code.get(..2).unwrap_or_default();
    match (class, code) {
        // The end of the transaction is unknown, or the server went read-only in a failover.
        (_, "40003" | "25006" | "25P03") | ("08", _) => Failure::ConnectionLost(message),
        // A plan of this connection no longer fits the user's table: a new one makes new plans.
        (_, "0A000") if message.contains("cached plan") => Failure::ConnectionLost(message),
        ("40", _) => Failure::Conflict(message),
        (_, "55P03") => Failure::Locked(message),
        (_, "57014" | "53200") => Failure::TooMuch(message),
        (_, "57P01" | "57P02" | "57P03" | "57P05") => Failure::ConnectionLost(message),
        ("53" | "57" | "58", _) => Failure::Unavailable(message),
        // Of a delete it says that others refer to the row, which will not pass by itself.
        (_, "23503") if blame == Blame::AWrite => Failure::MissingParent(message),
        ("22" | "23" | "44" | "P0" | "54", _) if blame != Blame::Nobody => {
            Failure::Refused(message)
        }
        _ => Failure::Unforeseen(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_on_the_users_table_can_blame_a_write() {
        for code in ["22001", "23505", "23514", "44000", "P0001", "54000"] {
            let at = |blame| by_sqlstate(code, String::new(), blame);
            assert!(matches!(at(Blame::AWrite), Failure::Refused(_)), "{code}");
            assert!(matches!(at(Blame::Nobody), Failure::Unforeseen(_)), "{code}");
        }
        let orphan = |blame| by_sqlstate("23503", String::new(), blame);
        assert!(matches!(orphan(Blame::AWrite), Failure::MissingParent(_)));
        assert!(matches!(orphan(Blame::ADelete), Failure::Refused(_)));
        assert!(matches!(orphan(Blame::Nobody), Failure::Unforeseen(_)));
    }

    #[test]
    fn sqlstates_lead_to_the_failures_that_can_be_acted_upon() {
        let failure = |code| by_sqlstate(code, String::new(), Blame::AWrite);
        for code in ["40001", "40P01"] {
            assert!(matches!(failure(code), Failure::Conflict(_)), "{code}");
        }
        for code in ["08006", "57P01", "25006", "40003", "25P03"] {
            assert!(matches!(failure(code), Failure::ConnectionLost(_)), "{code}");
        }
        for code in ["53100", "53300", "58030"] {
            assert!(matches!(failure(code), Failure::Unavailable(_)), "{code}");
        }
        for code in ["42501", "42P01", "55000", "3D000", "XX000"] {
            assert!(matches!(failure(code), Failure::Unforeseen(_)), "{code}");
        }
        assert!(matches!(failure("55P03"), Failure::Locked(_)));
        assert!(matches!(failure("57014"), Failure::TooMuch(_)));
    }
}
