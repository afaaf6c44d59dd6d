//! The ledger: one line a write, written with the rows that it speaks of.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::core::batch::{Item, Source};
use crate::core::outcome::{Effect, Outcome, Reason, Rejection, Unmet};
use crate::core::plan::{CommitPlan, Recorded};

/// What the ledger knows of these ids, in every part that is alive.
pub async fn load(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Recorded>>, sqlx::Error> {
    const SQL: &str = "
        select l.id, l.key, l.fingerprint, l.outcome, l.effect, l.reason, l.detail, l.pointer,
               l.version, l.applied_at
          from unnest($1::uuid[]) as wanted (id)
          join keylane.ledger l on l.id = wanted.id
         order by l.part desc";
    let mut known: HashMap<Uuid, Vec<Recorded>> = HashMap::new();
    for row in sqlx::query(SQL).bind(ids).fetch_all(connection).await? {
        // The newest part comes first, so that the newest line of a key is found first.
        known.entry(row.try_get("id")?).or_default().push(recorded(&row)?);
    }
    Ok(known)
}

fn recorded(row: &PgRow) -> Result<Recorded, sqlx::Error> {
    let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
    Ok(Recorded {
        key: row.try_get("key")?,
        fingerprint: fingerprint.try_into().map_err(|_bytes| unreadable("fingerprint"))?,
        outcome: outcome(row)?,
        applied_at: row.try_get("applied_at")?,
    })
}

fn outcome(row: &PgRow) -> Result<Outcome, sqlx::Error> {
    let version = row.try_get("version")?;
    let effect = row.try_get::<Option<&str>, _>("effect")?.and_then(Effect::from_label);
    let reason: &str = row.try_get::<Option<&str>, _>("reason")?.unwrap_or_default();
    match (row.try_get("outcome")?, effect, Unmet::from_label(reason), Reason::from_label(reason)) {
        ("applied", Some(effect), _, _) => Ok(Outcome::Applied { effect, version }),
        ("precondition_failed", _, Some(unmet), _) => {
            Ok(Outcome::PreconditionFailed { unmet, version })
        }
        ("rejected", _, _, Some(reason)) => {
            let detail: Option<String> = row.try_get("detail")?;
            let (detail, pointer) = (detail.unwrap_or_default(), row.try_get("pointer")?);
            Ok(Outcome::Rejected(Rejection { reason, detail, pointer }))
        }
        _ => Err(unreadable("outcome")),
    }
}

fn unreadable(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(
        format!("keylane.ledger.{column} holds what this version did not write").into(),
    )
}

/// Removes the lines of these letters: the outcome of a replay replaces the one before.
pub(super) async fn replace(
    connection: &mut PgConnection,
    items: &[Item],
    plan: &CommitPlan,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        delete from keylane.ledger l using unnest($1::uuid[], $2::text[]) as n (id, key)
         where l.id = n.id and l.key = n.key";
    let names: Vec<_> = plan
        .ledger
        .iter()
        .filter_map(|position| items.get(*position))
        .filter(|item| matches!(item.source, Source::Letter { .. }))
        .filter_map(Item::identity)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    sqlx::query(SQL)
        .bind(names.iter().map(|name| name.id).collect::<Vec<_>>())
        .bind(names.iter().map(|name| name.key.as_str()).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

/// Writes the plan's ledger lines into `part`; returns how many it took. A line that is there
/// already is an error of its own: with `on conflict` each line would be looked up first, and
/// logged twice.
pub(super) async fn insert(
    connection: &mut PgConnection,
    part: i32,
    items: &[Item],
    plan: &CommitPlan,
) -> Result<u64, sqlx::Error> {
    const SQL: &str = "
        insert into keylane.ledger (part, applied_at, id, entity, write_id, key, fingerprint,
                                    outcome, effect, reason, detail, pointer, version)
        select $1, $2, line.*
          from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::bytea[],
                      $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
                      $13::bigint[]) as line";
    let lines: Vec<_> = plan
        .ledger
        .iter()
        .filter_map(|position| {
            let identity = items.get(*position)?.identity()?;
            Some((identity, &plan.settled.get(*position)?.outcome))
        })
        .collect();
    let text = |of: fn(&Outcome) -> Option<&str>| -> Vec<Option<&str>> {
        lines.iter().map(|(_, outcome)| of(outcome)).collect()
    };
    let done = sqlx::query(SQL)
        .bind(part)
        .bind(plan.now)
        .bind(lines.iter().map(|(identity, _)| identity.id).collect::<Vec<_>>())
        .bind(lines.iter().map(|(identity, _)| identity.entity.as_str()).collect::<Vec<_>>())
        .bind(lines.iter().map(|(identity, _)| identity.write_id.as_str()).collect::<Vec<_>>())
        .bind(lines.iter().map(|(identity, _)| identity.key.as_str()).collect::<Vec<_>>())
        .bind(lines.iter().map(|(identity, _)| identity.fingerprint.as_slice()).collect::<Vec<_>>())
        .bind(text(|outcome| Some(outcome.label())))
        .bind(text(Outcome::effect))
        .bind(text(Outcome::reason))
        .bind(text(Outcome::detail))
        .bind(text(Outcome::pointer))
        .bind(lines.iter().map(|(_, outcome)| outcome.version()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
