//! What stands still, as housekeeping sees it: how much, behind whom, and what nobody looked at.

use std::time::Duration;

use sqlx::PgPool;

/// Keys that have been due for so long that nobody seems to look; each is named at most once in
/// that time.
pub async fn overdue(
    pool: &PgPool,
    after: Duration,
    keys_max: i64,
) -> Result<Vec<String>, sqlx::Error> {
    const SQL: &str = "
        update keylane.parked_keys k set woken_at = clock_timestamp()
         where (k.entity, k.key) in (
               select entity, key from keylane.parked_keys
                where due_at < clock_timestamp() - make_interval(secs => $1)
                  and coalesce(woken_at, '-infinity')
                      < clock_timestamp() - make_interval(secs => $1)
                  and not paused
                order by due_at limit $2
                  for update skip locked)
        returning k.key";
    sqlx::query_scalar(SQL).bind(after.as_secs_f64()).bind(keys_max).fetch_all(pool).await
}

/// What stands still, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Census {
    /// Keys with a row.
    pub keys: i64,
    /// Of these: paused by an operator, waiting for a parent, waiting for a lock.
    pub paused: i64,
    pub for_parents: i64,
    pub for_locks: i64,
    /// Writes that rest.
    pub resting: i64,
}

/// Counts what stands still.
pub async fn census(pool: &PgPool) -> Result<Census, sqlx::Error> {
    const SQL: &str = "
        select count(*) as keys, count(*) filter (where paused) as paused,
               count(*) filter (where waits_for = 'parent') as for_parents,
               count(*) filter (where waits_for = 'lock') as for_locks,
               coalesce(sum(resting), 0)::bigint as resting
          from keylane.parked_keys";
    sqlx::query_as(SQL).fetch_one(pool).await
}

/// Who holds rows that keys wait for, and how many keys, the most first.
pub async fn blockers(pool: &PgPool, most: i64) -> Result<Vec<(String, i64)>, sqlx::Error> {
    const SQL: &str = "
        select coalesce(blocker, ''), count(*) from keylane.parked_keys
         where waits_for = 'lock' group by 1 order by 2 desc limit $1";
    sqlx::query_as(SQL).bind(most).fetch_all(pool).await
}
