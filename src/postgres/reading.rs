//! Reads for callers: a row as JSON, and the outcome of a write under any key.

use sqlx::{AssertSqlSafe, PgPool, Row as _};
use uuid::Uuid;

use crate::core::entity::Entity;
use crate::core::key::Key;
use crate::core::outcome::{Outcome, Rest};
use crate::core::plan::Recorded;

use super::{catalogue, ledger};

/// The row with this key as JSON text, numbers exact, and its version; not one that is marked as
/// deleted.
pub async fn row(
    pool: &PgPool,
    entity: &Entity,
    key: &str,
) -> Result<Option<(String, Option<i64>)>, sqlx::Error> {
    let Ok(key) = Key::parse(entity, key) else { return Ok(None) };
    let quoted = catalogue::quoted;
    let matches: Vec<String> = entity
        .key
        .iter()
        .zip(1..)
        .map(|(column, number)| {
            format!("t.{} = ${number}::text::{}", quoted(&column.name), column.sql_type)
        })
        .collect();
    let there = entity
        .deleted_at
        .as_ref()
        .map_or_else(String::new, |column| format!(" and t.{} is null", quoted(column)));
    let version = entity.version.as_ref().map_or_else(
        || "null::bigint".to_owned(),
        |column| format!("t.{}::bigint", quoted(column)),
    );
    let sql = format!(
        "select to_jsonb(t)::text, {version} from {} t where {}{there}",
        entity.table,
        matches.join(" and ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for part in key.parts() {
        query = query.bind(part.as_str());
    }
    let Some(row) = query.fetch_optional(pool).await? else { return Ok(None) };
    Ok(Some((row.try_get(0)?, row.try_get(1)?)))
}

/// What is known of a write id: the newest line of the ledger, else the write that rests.
pub async fn outcome(
    pool: &PgPool,
    entity: &str,
    write_id: &str,
    id: Uuid,
) -> Result<Option<Recorded>, sqlx::Error> {
    const RESTING: &str = "
        select key, fingerprint, reason, dead_at from keylane.dead_letters
         where entity = $1 and write_id = $2 and state in ('parked', 'waiting')
         order by id limit 1";
    let mut connection = pool.acquire().await?;
    let mut known = ledger::load(&mut connection, &[id]).await?;
    let newest =
        known.remove(&id).and_then(|lines| lines.into_iter().max_by_key(|line| line.applied_at));
    if newest.is_some() {
        return Ok(newest);
    }
    let resting = sqlx::query(RESTING).bind(entity).bind(write_id);
    let Some(row) = resting.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
    let reason: &str = row.try_get("reason")?;
    Ok(Some(Recorded {
        key: row.try_get("key")?,
        fingerprint: fingerprint.try_into().unwrap_or_default(),
        outcome: Outcome::Parked(Rest::from_label(reason).unwrap_or(Rest::BehindDeadLetter)),
        applied_at: row.try_get("dead_at")?,
    }))
}
