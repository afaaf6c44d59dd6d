//! Pauses a key, and lets it go on.
//!
//! Owns: the barrier after a pause. Lanes hold their row of `keylane.partitions` during a batch, and
//! read what stands still only then; once each of those rows was held here, no batch is left that
//! does not know of the pause.
//! Never: touches a write. What comes meanwhile rests, in order.

use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::actions::{self, Action};
use super::requests;
use crate::core::partition::PartitionId;

/// Longest wait for the end of one lane's batch.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(15);

/// A key, and who changes it.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    pub entity: &'a str,
    pub key: &'a str,
    pub actor: &'a str,
    /// Why, in the operator's words.
    pub because: Option<&'a str>,
}

impl Change<'_> {
    fn target(&self) -> String {
        format!("{} {}", self.entity, self.key)
    }
}

/// Pauses a key: when this returns, nothing of it is applied any more until somebody resumes it.
pub async fn pause(connection: &mut PgConnection, change: Change<'_>) -> anyhow::Result<()> {
    const SQL: &str = "
        update keylane.parked_keys set paused = true, due_at = null
         where entity = $1 and key = $2 and not paused";
    let Change { entity, key, actor, because } = change;
    let mut tx = connection.begin().await.context("open a transaction")?;
    let lane = lane(&mut tx, entity, key).await.context("look for the key's lane")?;
    requests::hold(&mut tx, entity, key, lane).await.context("hold the key")?;
    let paused = sqlx::query(SQL).bind(entity).bind(key).execute(&mut *tx).await;
    if paused.context("pause the key")?.rows_affected() == 0 {
        bail!("{} is paused already", change.target());
    }
    let target = change.target();
    let (action, reason, result) = ("pause key", because, "paused");
    let noted = Action { actor, action, target: &target, reason, filter: None, count: 1, result };
    actions::note(&mut tx, &noted).await.context("note the action")?;
    tx.commit().await.context("commit")?;
    barrier(connection).await
}

/// Lets a paused key go on; its lane looks at it as soon as it is woken.
pub async fn resume(connection: &mut PgConnection, change: Change<'_>) -> anyhow::Result<()> {
    const SQL: &str = "
        update keylane.parked_keys set paused = false
         where entity = $1 and key = $2 and paused";
    let Change { entity, key, actor, because } = change;
    let mut tx = connection.begin().await.context("open a transaction")?;
    let resumed = sqlx::query(SQL).bind(entity).bind(key).execute(&mut *tx).await;
    if resumed.context("resume the key")?.rows_affected() == 0 {
        bail!("{} is not paused", change.target());
    }
    requests::due(&mut tx, entity, key).await.context("tell the key's lane")?;
    let target = change.target();
    let (action, reason, result) = ("resume key", because, "resumed");
    let noted = Action { actor, action, target: &target, reason, filter: None, count: 1, result };
    actions::note(&mut tx, &noted).await.context("note the action")?;
    tx.commit().await.context("commit")
}

/// The lane that saw the key last, as far as its dead letters tell; else any of the newest ring: a
/// lane that gets the key's next write takes it over.
async fn lane(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
) -> Result<PartitionId, sqlx::Error> {
    const SQL: &str = "
        (select generation, partition from keylane.dead_letters
          where entity = $1 and key = $2 order by id desc limit 1)
        union all
        (select generation, 0 from keylane.generations
          where state = 'open' order by generation desc limit 1)
        limit 1";
    let found: Option<(i32, i32)> =
        sqlx::query_as(SQL).bind(entity).bind(key).fetch_optional(connection).await?;
    let (generation, partition) = found.unwrap_or_default();
    Ok(PartitionId { generation, partition })
}

/// Waits until every batch that may not know of the pause has ended.
async fn barrier(connection: &mut PgConnection) -> anyhow::Result<()> {
    const LANES: &str = "
        select generation, partition, owner from keylane.partitions where closed_at is null
         order by generation, partition";
    let lanes: Vec<(i32, i32, String)> =
        sqlx::query_as(LANES).fetch_all(&mut *connection).await.context("read the lanes")?;
    for (generation, partition, owner) in lanes {
        let lane = PartitionId { generation, partition };
        wait_for_batch(connection, lane).await.with_context(|| {
            format!(
                "the key is paused, but worker {owner} did not end its batch of partition {lane} \
                 within {BATCH_WAIT_MAX:?}: what is in it may still be applied"
            )
        })?;
    }
    Ok(())
}

async fn wait_for_batch(connection: &mut PgConnection, lane: PartitionId) -> sqlx::Result<()> {
    const SQL: &str = "
        select 1 from keylane.partitions where generation = $1 and partition = $2 for update";
    let mut tx = connection.begin().await?;
    let milliseconds = BATCH_WAIT_MAX.as_millis();
    // The wait counts as part of the statement.
    let bounds = format!(
        "set local lock_timeout = {milliseconds}; set local statement_timeout = {}",
        milliseconds * 2
    );
    sqlx::raw_sql(AssertSqlSafe(bounds)).execute(&mut *tx).await?;
    sqlx::query(SQL).bind(lane.generation).bind(lane.partition).execute(&mut *tx).await?;
    tx.rollback().await
}
