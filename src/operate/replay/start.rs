//! Freezes the set of a replay, or takes up one that was not finished.

use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::{Acquire, AssertSqlSafe, PgConnection, Postgres, QueryBuilder};

use crate::operate::actions::{self, Action};
use crate::operate::actor::Actor;
use crate::operate::dead_letters::Filter;

/// Longest look through the ledger for what was applied since; it has no index for that.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// A replay that can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    pub replay: i64,
    pub total: i64,
}

/// Writes down which letters are meant; the oldest first where `limit` cuts. `None`: not one.
///
/// To be called in a transaction: who rolls it back has changed nothing.
pub async fn freeze(
    tx: &mut PgConnection,
    filter: &Filter,
    limit: Option<i64>,
    actor: &Actor,
    because: Option<&str>,
) -> anyhow::Result<Option<Frozen>> {
    const REPLAY: &str = "insert into keylane.replays (actor, filter) values ($1, $2) returning id";
    const TOTAL: &str = "update keylane.replays set total = $2 where id = $1";
    let kept = serde_json::to_value(filter).context("keep the filter")?;
    let replay: i64 = sqlx::query_scalar(REPLAY)
        .bind(actor.name())
        .bind(&kept)
        .fetch_one(&mut *tx)
        .await
        .context("make the replay")?;
    let frozen = letters(replay, filter, limit).build().execute(&mut *tx).await;
    let total = i64::try_from(frozen.context("freeze the set")?.rows_affected())?;
    if total == 0 {
        return Ok(None);
    }
    sqlx::query(TOTAL).bind(replay).bind(total).execute(&mut *tx).await.context("count the set")?;
    let action = Action {
        actor: actor.name(),
        action: "replay",
        target: &format!("replay {replay}"),
        reason: because,
        filter: Some(kept),
        count: total,
        result: "started",
    };
    actions::note(tx, &action).await.context("note the action")?;
    Ok(Some(Frozen { replay, total }))
}

/// What can never be replayed is skipped with its reason, so that it is not looked for in vain.
fn letters(replay: i64, filter: &Filter, limit: Option<i64>) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "insert into keylane.replay_letters (replay, dead_letter, reason, state, result) select ",
    );
    query.push_bind(replay);
    query.push(
        r#", q.id, q.reason, case when q.why is null then 'waiting' else 'skipped' end, q.why
          from (
            select d.id, d.reason, case
                when d.reason = 'write_id_reused' then
                    '{"outcome": "skipped", "reason": "write_id_reused", "detail":
                      "its id belongs to another write: send it again under a new one"}'::jsonb
                when d.write_id is not null and (octet_length(d.key) > 255
                     or starts_with(d.routing_key, chr(26))
                     or d.routing_key ~ '(^|[^\\])(\\\\)*\\x00') then
                    '{"outcome": "skipped", "reason": "key_invalid", "detail":
                      "its key can be no routing key, so no lane can look at it"}'::jsonb
                end as why
              from keylane.dead_letters d
             where d.state = 'dead'"#,
    );
    filter.append(&mut query);
    query.push(" order by d.id limit ").push_bind(limit).push(") q");
    query
}

/// How many letters of a set had writes of the same key applied since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    Letters(i64),
    /// The ledger is too long to be read through just now.
    Unknown,
}

/// Looks through the ledger for writes that a replay would come after.
pub async fn later_writes(tx: &mut PgConnection, replay: i64) -> anyhow::Result<Later> {
    const SQL: &str = "
        select count(*)
          from keylane.replay_letters r
          join keylane.dead_letters d on d.id = r.dead_letter
          join (select entity, key, max(applied_at) as last from keylane.ledger
                 where outcome = 'applied' group by entity, key) l
            on l.entity = d.entity and l.key = d.key and l.last > d.dead_at
         where r.replay = $1 and r.state = 'waiting'";
    // A savepoint: a statement that is ended takes nothing else with it.
    let mut look = tx.begin().await.context("open a savepoint")?;
    // The set is so new that the planner takes it for a small one, and would look through the
    // ledger once for each letter.
    let bound = format!(
        "set local statement_timeout = {}; set local enable_nestloop = off",
        LOOK_MAX.as_millis()
    );
    sqlx::raw_sql(AssertSqlSafe(bound)).execute(&mut *look).await.context("set bounds")?;
    let counted = sqlx::query_scalar(SQL).bind(replay).fetch_one(&mut *look).await;
    match counted {
        Ok(letters) => {
            look.rollback().await.context("undo the bounds")?;
            Ok(Later::Letters(letters))
        }
        Err(sqlx::Error::Database(_)) => {
            look.rollback().await.context("go back to the savepoint")?;
            Ok(Later::Unknown)
        }
        Err(error) => Err(error).context("look through the ledger"),
    }
}

/// Takes up a replay that was stopped or killed.
pub async fn resume(
    connection: &mut PgConnection,
    replay: i64,
    actor: &Actor,
    because: Option<&str>,
) -> anyhow::Result<Frozen> {
    const SQL: &str = "
        update keylane.replays set state = 'running', ended_at = null, note = null
         where id = $1 returning total";
    let mut tx = connection.begin().await.context("open a transaction")?;
    let total: Option<i64> = sqlx::query_scalar(SQL)
        .bind(replay)
        .fetch_optional(&mut *tx)
        .await
        .context("read the replay")?;
    let Some(total) = total else {
        bail!("no replay {replay}; a replay says its number when it starts");
    };
    let action = Action {
        actor: actor.name(),
        action: "replay",
        target: &format!("replay {replay}"),
        reason: because,
        filter: None,
        count: total,
        result: "continued",
    };
    actions::note(&mut tx, &action).await.context("note the action")?;
    tx.commit().await.context("commit")?;
    Ok(Frozen { replay, total })
}
