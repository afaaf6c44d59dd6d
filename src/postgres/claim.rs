//! Claims: who may write a partition, decided by the database.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use tracing::warn;

use crate::core::failure::Failure;
use crate::core::partition::{Epoch, PartitionId};

use super::error::{Blame, failure};
use super::fence;

/// How long a claim waits for the transaction of an older owner before it ends that backend.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often the backend of an older owner is ended before the claim gives up for now.
const EVICTIONS_MAX: usize = 3;

/// Claims a partition under a new epoch, in a transaction of its own.
///
/// It waits for a transaction that holds the fence. A stopped process would hold it for ever, so
/// after [`CLAIM_WAIT_MAX`] its backend is ended; the start time tells it from a later one with
/// the same process id.
pub async fn claim(
    connection: &mut PgConnection,
    partition: PartitionId,
    owner: &str,
) -> Result<Epoch, Failure> {
    fence::prepare(connection).await.map_err(|error| failure(&error, Blame::Nobody))?;
    for _ in 0..EVICTIONS_MAX {
        match try_claim(connection, partition, owner).await {
            Err(Failure::Locked(_)) => evict(connection, partition).await?,
            ended => return ended,
        }
    }
    Err(Failure::Unavailable(format!("partition {partition} is held by a backend that stays")))
}

async fn try_claim(
    connection: &mut PgConnection,
    partition: PartitionId,
    owner: &str,
) -> Result<Epoch, Failure> {
    const SQL: &str = "
        insert into keylane.partitions as p
               (generation, partition, epoch, owner, backend_pid, backend_start)
        select $1, $2, 1, $3, a.pid, a.backend_start
          from pg_catalog.pg_stat_activity a where a.pid = pg_catalog.pg_backend_pid()
        on conflict (generation, partition) do update
           set epoch = p.epoch + 1, owner = excluded.owner, backend_pid = excluded.backend_pid,
               backend_start = excluded.backend_start, claimed_at = clock_timestamp()
        returning epoch";
    let wait = CLAIM_WAIT_MAX.as_millis();
    let claimed = async {
        let bound =
            format!("begin isolation level read committed; set local lock_timeout = {wait}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(bound)).execute(&mut *connection).await?;
        let epoch = sqlx::query_scalar(SQL)
            .bind(partition.generation)
            .bind(partition.partition)
            .bind(owner)
            .fetch_one(&mut *connection)
            .await?;
        sqlx::raw_sql("commit").execute(&mut *connection).await?;
        Ok(Epoch(epoch))
    };
    match claimed.await {
        Ok(epoch) => Ok(epoch),
        Err(error) => {
            let failure = failure(&error, Blame::Nobody);
            let rolled_back = sqlx::raw_sql("rollback").execute(connection).await;
            rolled_back.map_err(|error| Failure::ConnectionLost(error.to_string()))?;
            Err(failure)
        }
    }
}

async fn evict(connection: &mut PgConnection, partition: PartitionId) -> Result<(), Failure> {
    const SQL: &str = "
        select p.owner, p.backend_pid, pg_catalog.pg_terminate_backend(a.pid)
          from keylane.partitions p
          join pg_catalog.pg_stat_activity a
            on a.pid = p.backend_pid and a.backend_start = p.backend_start
         where p.generation = $1 and p.partition = $2";
    let evicted = sqlx::query(SQL)
        .bind(partition.generation)
        .bind(partition.partition)
        .fetch_optional(connection)
        .await
        .map_err(|error| failure(&error, Blame::Nobody))?;
    if let Some(row) = evicted {
        let (owner, pid): (String, i32) = (row.get(0), row.get(1));
        warn!(%partition, owner, pid, "Ended the backend of an owner that did not give way");
    }
    Ok(())
}
