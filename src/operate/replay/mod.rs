//! Replays dead letters: a frozen set is requested in portions, and each result is waited for.
//!
//! Owns: the steps of a replay and where it stands, in `keylane.replays` and
//! `keylane.replay_letters`. Every portion is one transaction, so a command that is killed leaves
//! nothing half done, and another one goes on.
//! Never: applies a write. The key's lane does, from the table, before anything newer.

mod canary;
pub mod dry_run;
mod front;
mod request;
mod results;
mod run;
mod start;

use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};

pub use canary::Canary;
pub use results::{Line, lines};
pub use run::{End, Options, Stuck, Watch, run};
pub use start::{Frozen, Later, freeze, later_writes, resume};

/// Where the letters of a replay stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, FromRow)]
pub struct Counts {
    pub total: i64,
    /// Not requested yet.
    pub waiting: i64,
    /// Requested, and not decided yet.
    pub requested: i64,
    /// Applied, or decided by the sender's own condition.
    pub resolved: i64,
    /// Dead letters again.
    pub dead: i64,
    /// They cannot be replayed, or need not be.
    pub skipped: i64,
    /// Those of the skipped that somebody else resolved.
    pub resolved_by_others: i64,
}

impl Counts {
    /// Whether nothing is left to be done by anybody.
    pub const fn all_resolved(&self) -> bool {
        self.resolved + self.resolved_by_others == self.total
    }

    /// A portion of the waiting ones was dealt with.
    fn took(&mut self, requested: u64, published: u64, skipped: u64) {
        let letters = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting -= letters(requested + published + skipped);
        self.requested += letters(requested);
        self.resolved += letters(published);
        self.skipped += letters(skipped);
    }

    /// A letter has its result.
    const fn decided(&mut self, dead: bool) {
        self.requested -= 1;
        if dead {
            self.dead += 1;
        } else {
            self.resolved += 1;
        }
    }

    /// How many have their result.
    pub const fn ended(&self) -> i64 {
        self.resolved + self.dead + self.skipped
    }

    /// In words.
    pub fn summary(&self) -> String {
        let Self { total, waiting, requested, resolved, dead, skipped, .. } = self;
        let mut text = format!("{resolved} of {total} resolved, {dead} dead again");
        for (count, what) in
            [(skipped, "skipped"), (requested, "without a result yet"), (waiting, "not requested")]
        {
            if *count > 0 {
                text.extend([", ", &count.to_string(), " ", what]);
            }
        }
        text
    }
}

/// Counts a replay's letters.
pub async fn counts(connection: &mut PgConnection, replay: i64) -> Result<Counts, sqlx::Error> {
    const SQL: &str = "
        select count(*) as total,
               count(*) filter (where state = 'waiting') as waiting,
               count(*) filter (where state = 'requested') as requested,
               count(*) filter (where state = 'done' and result ->> 'outcome' in
                   ('applied', 'precondition_failed', 'published')) as resolved,
               count(*) filter (where state = 'done' and result ->> 'outcome' not in
                   ('applied', 'precondition_failed', 'published')) as dead,
               count(*) filter (where state = 'skipped') as skipped,
               count(*) filter (where state = 'skipped' and result ->> 'reason' = 'resolved')
                   as resolved_by_others
          from keylane.replay_letters
         where replay = $1";
    sqlx::query_as(SQL).bind(replay).fetch_one(connection).await
}

/// The result of a letter that is not replayed.
fn skipped(reason: &str, detail: &str) -> Value {
    serde_json::json!({"outcome": "skipped", "reason": reason, "detail": detail})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_well_when_each_letter_is_resolved_by_whomever() {
        let counts = Counts { total: 3, resolved: 2, ..Counts::default() };
        assert!(!counts.all_resolved());
        let others = Counts { skipped: 1, resolved_by_others: 1, ..counts };
        assert!(others.all_resolved());
        assert_eq!(others.summary(), "2 of 3 resolved, 0 dead again, 1 skipped");
        let waits = Counts { requested: 1, ..counts };
        assert_eq!(waits.summary(), "2 of 3 resolved, 0 dead again, 1 without a result yet");
    }
}
