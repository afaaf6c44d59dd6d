//! What every operator's change of a key has in common: the key is held while its dead letters
//! change, and its lane is told to look.
//!
//! Owns: the order of locks, the same as the lane's: the key's row first, then its dead letters.

use sqlx::PgConnection;

use crate::core::failure::Failure;
use crate::core::partition::PartitionId;
use crate::postgres::{Blame, failure};

/// How often a transaction is tried while others hold the same keys or letters in another order.
pub const TRIES_MAX: u32 = 5;

/// Whether a transaction failed because of another one, and may succeed if it is tried again.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(failure(error, Blame::Nobody), Failure::Conflict(_))
}

/// Holds the key until the transaction ends; nothing of it is applied meanwhile. A key that was
/// free stands still from now on: `lane` looks at it.
///
/// Several keys are held in the order of entity and key.
pub async fn hold(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
    lane: PartitionId,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        insert into keylane.parked_keys (entity, key, generation, partition)
        values ($1, $2, $3, $4)
        on conflict (entity, key) do update set key = excluded.key";
    sqlx::query(SQL)
        .bind(entity)
        .bind(key)
        .bind(lane.generation)
        .bind(lane.partition)
        .execute(connection)
        .await
        .map(drop)
}

/// Tells the key's lane to look, and counts what rests. The lane frees a key with nothing left.
pub async fn due(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.parked_keys
           set due_at = case when paused then null else clock_timestamp() end, woken_at = null,
               resting = (select count(*) from keylane.dead_letters d
                           where d.entity = $1 and d.key = $2
                             and d.state in ('parked', 'waiting'))
         where entity = $1 and key = $2";
    sqlx::query(SQL).bind(entity).bind(key).execute(connection).await.map(drop)
}
