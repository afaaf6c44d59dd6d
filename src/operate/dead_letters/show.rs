//! Everything there is to know about one dead letter before somebody decides about it.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};
use time::OffsetDateTime;

use super::content::Changes;
use super::letter::{self, Body, DeadLetter};
use super::row::{self, CurrentRow};
use super::{IN_LINE, Summary};
use crate::core::failure::Failure;
use crate::core::fingerprint::ledger_id;
use crate::postgres::{Blame, failure};
use crate::settings::Settings;

/// How many of those that wait behind it are shown.
const BEHIND_SHOWN_MAX: i64 = 10;
/// The ledger is made for looking ids up, and this reads it through: so long, and no longer.
const LEDGER_TIMEOUT_MS: u32 = 5000;

/// A dead letter and what stands around it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// The body, where it is JSON, as it is written.
    pub json: Option<Box<RawValue>>,
    /// What it was before each edit.
    pub revisions: Vec<Revision>,
    /// The row of its key; `None` where it names no entity and key.
    pub row: Option<CurrentRow>,
    /// What its key must decide after it and before anything newer.
    pub behind: Behind,
    /// Writes of its key that were applied since it died; `None` where that is not known.
    pub applied_since: Option<i64>,
}

/// What it was before an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revision {
    #[serde(flatten)]
    pub stored: StoredRevision,
    /// What the edit changed.
    pub changes: Changes,
}

/// A revision as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct StoredRevision {
    /// 0 is what the sender sent.
    pub revision: i32,
    pub properties: Json<Value>,
    #[serde(flatten)]
    #[sqlx(try_from = "Vec<u8>")]
    pub body: Body,
    #[serde(with = "time::serde::rfc3339")]
    pub replaced_at: OffsetDateTime,
    pub replaced_by: String,
    pub reason: String,
}

/// What waits behind a dead letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Behind {
    pub count: i64,
    /// The first of them, in the order in which they come.
    pub first: Vec<Summary>,
}

/// Reads all of it, if the dead letter is there.
pub async fn show(
    connection: &mut PgConnection,
    settings: &Settings,
    id: i64,
) -> Result<Option<Report>, sqlx::Error> {
    let Some(letter) = letter::load(connection, id).await? else { return Ok(None) };
    let revisions = revisions(connection, &letter).await?;
    let (mut row, mut behind, mut applied_since) = (None, Behind::default(), None);
    if let Some(place) = letter.entity_and_key() {
        behind = waiting(connection, id, place).await?;
        applied_since = applied(connection, &letter, place).await?;
        row = Some(row::current(connection, settings, place).await);
    }
    let json = serde_json::from_slice(&letter.body.0).ok();
    Ok(Some(Report { letter, json, revisions, row, behind, applied_since }))
}

async fn revisions(
    connection: &mut PgConnection,
    letter: &DeadLetter,
) -> Result<Vec<Revision>, sqlx::Error> {
    const SQL: &str = "
        select revision, properties, body, replaced_at, replaced_by, reason
          from keylane.dead_letter_revisions
         where dead_letter = $1
         order by revision";
    let stored: Vec<StoredRevision> =
        sqlx::query_as(SQL).bind(letter.id).fetch_all(connection).await?;
    let now = (&letter.properties.0, letter.body.0.as_slice());
    let next = stored.iter().skip(1).map(|next| (&next.properties.0, next.body.0.as_slice()));
    let changes: Vec<Changes> = stored
        .iter()
        .zip(next.chain([now]))
        .map(|(old, new)| Changes::between((&old.properties.0, &old.body.0), new))
        .collect();
    let pairs = stored.into_iter().zip(changes);
    Ok(pairs.map(|(stored, changes)| Revision { stored, changes }).collect())
}

async fn waiting(
    connection: &mut PgConnection,
    id: i64,
    (entity, key): (&str, &str),
) -> Result<Behind, sqlx::Error> {
    let line = format!(
        "from keylane.dead_letters d where d.entity = $1 and d.key = $2 and d.id > $3 and {IN_LINE}"
    );
    let count = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) {line}")))
        .bind(entity)
        .bind(key)
        .bind(id)
        .fetch_one(&mut *connection)
        .await?;
    let first = format!(
        "select d.id, d.state, d.entity, d.key, d.write_id, d.reason, d.detail, d.dead_at {line}
          order by d.id limit $4"
    );
    let first = sqlx::query_as(AssertSqlSafe(first))
        .bind(entity)
        .bind(key)
        .bind(id)
        .bind(BEHIND_SHOWN_MAX)
        .fetch_all(connection)
        .await?;
    Ok(Behind { count, first })
}

/// How many writes of the key were applied since then; `None` if that takes too long. Lines of one
/// batch have one time, and their place in the table keeps their order.
async fn applied(
    connection: &mut PgConnection,
    letter: &DeadLetter,
    (entity, key): (&str, &str),
) -> Result<Option<i64>, sqlx::Error> {
    const SQL: &str = "
        with own as (
            select part, ctid as place from keylane.ledger
             where id = $4 and key = $2 and applied_at = $3)
        select count(*) from keylane.ledger l
         where l.entity = $1 and l.key = $2 and l.outcome = 'applied' and l.applied_at >= $3
           and (l.applied_at > $3
                or exists (select from own where own.part = l.part and own.place < l.ctid))";
    let mut tx = connection.begin().await?;
    let bound = format!("set local statement_timeout = {LEDGER_TIMEOUT_MS}");
    sqlx::query(AssertSqlSafe(bound)).execute(&mut *tx).await?;
    let count = sqlx::query_scalar(SQL)
        .bind(entity)
        .bind(key)
        .bind(letter.dead_at)
        .bind(letter.write_id.as_deref().map(|write_id| ledger_id(entity, write_id)))
        .fetch_one(&mut *tx)
        .await;
    tx.rollback().await?;
    match count {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(failure(&error, Blame::Nobody), Failure::TooMuch(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
