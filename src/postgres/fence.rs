//! The fence: every transaction of a lane begins with the proof that it may write.
//!
//! Owns: the statement that takes it, and all that a lane learns in the same round trip: whether it
//! is the turn of its queue, and whether some key stands still.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use time::OffsetDateTime;
use tracing::warn;

use crate::core::failure::Failure;
use crate::core::parking::{ByKey, Gate};
use crate::core::partition::{Epoch, PartitionId};
use crate::core::roll::{Source, Standing};
use crate::store::{Opened, Opening};

use super::error::ours as own;

/// Longest wait for a lock once it is known that somebody holds one for long.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// What the open transaction knows.
pub(super) struct Transaction {
    pub(super) now: OffsetDateTime,
    /// Of the ledger, for new lines.
    pub(super) part: i32,
    /// Rows that somebody holds are waited for.
    pub(super) patient: bool,
    /// Some key stands still.
    pub(super) stands_still: bool,
    /// The keys that are looked at.
    pub(super) gates: ByKey<Gate>,
    /// Whether what is new may be applied.
    pub(super) standing: Standing,
}

impl Transaction {
    /// There is none yet.
    pub(super) fn none() -> Self {
        Self {
            now: OffsetDateTime::UNIX_EPOCH,
            part: 0,
            patient: true,
            stands_still: false,
            gates: ByKey::default(),
            standing: Standing::NotYet,
        }
    }
}

/// Prepares what every transaction begins with, once a connection: `keylane_fence` (held until the
/// end) and `keylane_known`, to be executed with generation and partition. Planning them would take
/// longer than a small batch does.
///
/// What stands still is read in a statement of its own, after the fence is held: an operator who
/// pauses a key and then waits for that lock is seen by everything that comes later.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    const PREPARED: &str = "
        select exists (select from pg_catalog.pg_prepared_statements where name = 'keylane_known')";
    const PREPARE: &str = "
        prepare keylane_fence (int, int) as
        select epoch, closed_at is not null from keylane.partitions
         where generation = $1 and partition = $2 for share;
        prepare keylane_known (int, int) as
        select clock_timestamp(), (select max(part) from keylane.ledger_parts),
               exists (select from keylane.parked_keys),
               (select extract(epoch from min(k.due_at) - clock_timestamp())::float8
                  from keylane.parked_keys k
                 where k.generation = $1 and k.partition = $2 and k.due_at is not null),
               exists (select from keylane.parked_keys k
                        where k.generation = $1 and k.partition = $2 and k.waits_for = 'lock'),
               (select generation from keylane.turns where closed_at is null
                 order by turn limit 1),
               exists (select from keylane.turns where closed_at is null and generation = $1)";
    if !sqlx::query_scalar(PREPARED).fetch_one(&mut *connection).await? {
        sqlx::raw_sql(PREPARE).execute(connection).await?;
    }
    Ok(())
}

/// Opens the transaction and checks the fence, in one round trip and before any row is locked: a
/// superseded epoch must fail before it holds locks that the new owner waits for. What is loaded
/// comes in later statements, whose snapshots see all that the old owner committed.
pub(super) async fn begin(
    connection: &mut PgConnection,
    ours: Epoch,
    partition: PartitionId,
    opening: &Opening,
) -> Result<(Transaction, Opened), Failure> {
    let bound = if opening.patient { String::new() } else { lock_timeout(IMPATIENCE) };
    let PartitionId { generation, partition: number } = partition;
    let sql = format!(
        "begin isolation level read committed; set constraints all immediate; {bound}\
         execute keylane_fence ({generation}, {number}); \
         execute keylane_known ({generation}, {number})"
    );
    let unreadable = |error: sqlx::Error| own(&error);
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
    let rows = rows.map_err(unreadable)?;
    let [fence, known] = rows.as_slice() else { return Err(own(&sqlx::Error::RowNotFound)) };
    let epoch = Epoch(fence.try_get(0).map_err(unreadable)?);
    if epoch != ours {
        warn!(%partition, %ours, theirs = %epoch, "Another claim superseded ours");
        return Err(Failure::Superseded);
    }
    let closed = fence.try_get(1).map_err(unreadable)?;
    let first: Option<i32> = known.try_get(5).map_err(unreadable)?;
    let first = first.map(Source::from_generation);
    let waits = known.try_get(6).map_err(unreadable)?;
    let standing = Standing::of(partition, first, closed, waits);
    let transaction = Transaction {
        now: known.try_get(0).map_err(unreadable)?,
        part: known.try_get::<Option<i32>, _>(1).map_err(unreadable)?.unwrap_or(0),
        patient: opening.patient,
        stands_still: known.try_get(2).map_err(unreadable)?,
        gates: ByKey::default(),
        standing,
    };
    let due: Option<f64> = known.try_get(3).map_err(unreadable)?;
    // What rests is looked at by the lane whose turn it is.
    let due = due.filter(|_| standing == Standing::Mine);
    let opened = Opened {
        due: due.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
        locked: known.try_get(4).map_err(unreadable)?,
        ..Opened::default()
    };
    Ok((transaction, opened))
}

fn lock_timeout(bound: Duration) -> String {
    format!("set local lock_timeout = {}; ", bound.as_millis())
}
