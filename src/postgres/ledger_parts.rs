//! Forgets write ids: opens a new part of the ledger in time and drops old ones whole.
//!
//! Owns: that at most [`PARTS_MAX`] parts are alive, and that none is dropped while a delivery
//! may come back that it knows.

use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tracing::{info, warn};

use crate::core::partition::PartitionId;

/// Parts that the retention is cut into. With the open one and one that waits for its drop, eight
/// are alive at most.
const PARTS_A_RETENTION: i32 = 6;
/// Most parts alive before it is worth a warning.
pub const PARTS_MAX: usize = 8;
/// A DDL statement that waits behind somebody's long transaction would block every look-up behind
/// itself: it gives up, and the next round tries again.
const LOCK_TIMEOUT_MS: u32 = 1000;

/// Lines that dead letters refer to are copied, and there may be a million of them.
const STATEMENT_TIMEOUT_MS: u32 = 600_000;

/// What one round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turned {
    pub opened: Option<i32>,
    pub dropped: Vec<i32>,
}

/// Opens the next part when its time has come, and drops those that nobody can need any more.
pub async fn turn(pool: &PgPool, retention_hours: u32) -> Result<Turned, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let bound = format!(
        "set local lock_timeout = {LOCK_TIMEOUT_MS}; \
         set local statement_timeout = {STATEMENT_TIMEOUT_MS}"
    );
    sqlx::raw_sql(AssertSqlSafe(bound)).execute(&mut *tx).await?;
    let free: bool =
        sqlx::query_scalar("select pg_try_advisory_xact_lock(hashtext('keylane.ledger_parts'))")
            .fetch_one(&mut *tx)
            .await?;
    let mut turned = Turned::default();
    if free {
        turned.opened = open_next(&mut tx, retention_hours).await?;
        turned.dropped = drop_old(&mut tx, retention_hours).await?;
    }
    tx.commit().await?;
    if let Some(part) = turned.opened {
        info!(part, "Opened a part of the ledger");
    }
    for part in &turned.dropped {
        info!(part, "Dropped a part of the ledger: its write ids are forgotten");
    }
    Ok(turned)
}

async fn open_next(
    connection: &mut PgConnection,
    retention_hours: u32,
) -> Result<Option<i32>, sqlx::Error> {
    const SQL: &str = "
        select max(part) + 1 from keylane.ledger_parts
        having max(opened_at) < clock_timestamp() - make_interval(secs => $1::float8 * 3600 / $2)";
    let next: Option<i32> = sqlx::query_scalar(SQL)
        .bind(f64::from(retention_hours))
        .bind(PARTS_A_RETENTION)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(part) = next else { return Ok(None) };
    let create = format!(
        "create table keylane.ledger_{part} partition of keylane.ledger for values in ({part}); \
         insert into keylane.ledger_parts (part) values ({part})"
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(connection).await?;
    Ok(Some(part))
}

/// A part may go when it ended longer ago than the retention, and every queue that is not closed
/// has settled since then: what was committed and not acknowledged must still be recognized.
async fn drop_old(
    connection: &mut PgConnection,
    retention_hours: u32,
) -> Result<Vec<i32>, sqlx::Error> {
    const SQL: &str = "
        with ends as (
            select part, lead(opened_at) over (order by part)
                         + make_interval(hours => $1) as forgotten_at
              from keylane.ledger_parts)
        select part from ends
         where forgotten_at < clock_timestamp()
           and not exists (select from keylane.partitions p
                            where p.closed_at is null
                              and coalesce(p.settled_at, '-infinity') < ends.forgotten_at)
         order by part";
    let hours = i32::try_from(retention_hours).unwrap_or(i32::MAX);
    let old: Vec<i32> = sqlx::query_scalar(SQL).bind(hours).fetch_all(&mut *connection).await?;
    for part in &old {
        carry_over(connection, *part).await?;
        let drop = format!(
            "drop table keylane.ledger_{part}; delete from keylane.ledger_parts where part = {part}"
        );
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    }
    let alive: i64 = sqlx::query_scalar("select count(*) from keylane.ledger_parts")
        .fetch_one(connection)
        .await?;
    if usize::try_from(alive).is_ok_and(|alive| alive > PARTS_MAX) {
        warn!(alive, "Old parts of the ledger cannot be dropped: a partition has not settled");
    }
    Ok(old)
}

/// A write id is known for as long as an open dead letter refers to it: its line moves on to the
/// newest part.
async fn carry_over(connection: &mut PgConnection, part: i32) -> Result<(), sqlx::Error> {
    let sql = format!(
        "insert into keylane.ledger (part, id, entity, write_id, key, fingerprint, outcome, effect, \
                                     reason, detail, pointer, version, applied_at) \
         select (select max(part) from keylane.ledger_parts), l.id, l.entity, l.write_id, l.key, \
                l.fingerprint, l.outcome, l.effect, l.reason, l.detail, l.pointer, l.version, \
                l.applied_at \
           from keylane.ledger_{part} l \
          where l.outcome = 'rejected' \
            and exists (select from keylane.dead_letters d \
                         where d.entity = l.entity and d.key = l.key and d.write_id = l.write_id \
                           and d.state in ('dead', 'replaying')) \
             on conflict do nothing"
    );
    let carried = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?.rows_affected();
    if carried > 0 {
        info!(part, carried, "Dead letters still refer to these write ids: they stay known");
    }
    Ok(())
}

/// Notes that these partitions have nothing unsettled: their owner says so, or a subscriber that
/// heard nothing for an hour where nobody claimed for an hour.
pub async fn note_settled(
    pool: &PgPool,
    owner: &str,
    settled: &[PartitionId],
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.partitions p set settled_at = clock_timestamp()
          from unnest($1::int[], $2::int[]) as s (generation, partition)
         where p.generation = s.generation and p.partition = s.partition
           and (p.owner = $3 or p.claimed_at < clock_timestamp() - interval '1 hour')";
    sqlx::query(SQL)
        .bind(settled.iter().map(|id| id.generation).collect::<Vec<_>>())
        .bind(settled.iter().map(|id| id.partition).collect::<Vec<_>>())
        .bind(owner)
        .execute(pool)
        .await?;
    Ok(())
}
