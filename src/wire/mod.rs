//! The outcome as senders get it, over AMQP and over HTTP (WIRE.md, section 4).

pub mod line;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use utoipa::ToSchema;

use crate::core::outcome::Outcome;
use crate::core::write::Identity;

/// RFC 3339 in UTC, always in microseconds: what PostgreSQL keeps.
const MICROSECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// What became of a write. Stored once; every repeat gets the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeBody {
    /// The configured table; `null` where the message names none that is known.
    pub entity: Option<String>,
    /// The business key, as it stands in the routing key.
    pub key: String,
    /// The sender's idempotency key.
    pub write_id: Option<String>,
    /// `applied`, `precondition_failed`, `rejected` or `parked`.
    #[schema(example = "applied")]
    pub outcome: String,
    /// Of an applied write: `created`, `updated`, `deleted` or `unchanged`.
    #[schema(example = "updated")]
    pub effect: Option<String>,
    /// The row's version afterwards, where the entity has one and the row is there.
    pub version: Option<i64>,
    /// Why it was not applied.
    pub reason: Option<String>,
    /// The same in words.
    pub detail: Option<String>,
    /// JSON pointer (RFC 6901) to the member of the body to blame.
    #[serde(default)]
    pub pointer: Option<String>,
    /// RFC 3339, in microseconds.
    #[schema(example = "2026-11-21T02:00:00.123456Z")]
    pub applied_at: String,
    /// It was decided before: this time nothing was changed.
    pub replayed: bool,
}

impl OutcomeBody {
    /// The outcome of a write with a name; `key` is the routing key where it has none.
    pub fn new(
        identity: Option<&Identity>,
        key: &str,
        outcome: &Outcome,
        applied_at: OffsetDateTime,
        replayed: bool,
    ) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            entity: identity.map(|identity| identity.entity.clone()),
            key: identity.map_or_else(|| key.to_owned(), |identity| identity.key.clone()),
            write_id: identity.map(|identity| identity.write_id.clone()),
            outcome: outcome.label().to_owned(),
            effect: owned(outcome.effect()),
            version: outcome.version(),
            reason: owned(outcome.reason()),
            detail: owned(outcome.detail()),
            pointer: owned(outcome.pointer()),
            applied_at: applied_at.format(MICROSECONDS).unwrap_or_default(),
            replayed,
        }
    }

    /// Whether it stays what it is.
    pub fn is_final(&self) -> bool {
        self.outcome != "parked"
    }
}
