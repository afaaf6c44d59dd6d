//! Which rings there are, who sees to the next, and how many partitions it gets.
//!
//! Owns: that a ring is declared once in its life, by the worker that planned it, and that one
//! database serves one broker.

use std::time::Duration;

use sqlx::{PgPool, Row};
use uuid::Uuid;

/// Notes what this database is for at the first start, and returns what it is for.
pub async fn settle_on(
    pool: &PgPool,
    broker: &str,
    partitions: i32,
) -> Result<String, sqlx::Error> {
    const SETTLE: &str = "
        insert into keylane.routing (broker, partitions) values ($1, $2) on conflict do nothing";
    sqlx::query(SETTLE).bind(broker).bind(partitions).execute(pool).await?;
    sqlx::query_scalar("select broker from keylane.routing").fetch_one(pool).await
}

/// Takes, or keeps, the task of rolling for so long. Nothing that counts depends on it: it only
/// keeps workers from doing the same twice.
pub async fn lease(pool: &PgPool, worker: &str, lasts: Duration) -> Result<bool, sqlx::Error> {
    const SQL: &str = "
        update keylane.routing
           set roller = $1, roller_until = clock_timestamp() + make_interval(secs => $2)
         where roller is null or roller = $1 or roller_until < clock_timestamp()";
    let taken = sqlx::query(SQL).bind(worker).bind(lasts.as_secs_f64()).execute(pool).await?;
    Ok(taken.rows_affected() == 1)
}

/// Gives that task back.
pub async fn give_back(pool: &PgPool, worker: &str) -> Result<(), sqlx::Error> {
    const SQL: &str = "update keylane.routing set roller = null where roller = $1";
    sqlx::query(SQL).bind(worker).execute(pool).await.map(drop)
}

/// Takes a number never used before. What others planned and never brought to a turn is given up:
/// it holds nothing but copies.
pub async fn plan(
    pool: &PgPool,
    partitions: i32,
    broker: &str,
    worker: &str,
) -> Result<i32, sqlx::Error> {
    const SQL: &str = "
        with given_up as (
            update keylane.generations
               set state = 'closed', state_changed_at = clock_timestamp()
             where state in ('planned', 'declared'))
        insert into keylane.generations (generation, partitions, state, broker, planned_by)
        select coalesce((select max(generation) from keylane.generations), 0) + 1, $1, 'planned',
               $2, $3
        returning generation";
    sqlx::query_scalar(SQL).bind(partitions).bind(broker).bind(worker).fetch_one(pool).await
}

/// Notes that a planned ring and its queues are declared; false: it was given up.
pub async fn declared(pool: &PgPool, generation: i32) -> Result<bool, sqlx::Error> {
    const SQL: &str = "
        update keylane.generations set state = 'declared', state_changed_at = clock_timestamp()
         where generation = $1 and state = 'planned'";
    Ok(sqlx::query(SQL).bind(generation).execute(pool).await?.rows_affected() == 1)
}

/// Gives up what was planned so long ago and never had a turn: whoever planned it came too late,
/// and it would go on taking copies that nobody consumes.
pub async fn give_up(pool: &PgPool, older_than: Duration) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.generations set state = 'closed', state_changed_at = clock_timestamp()
         where state in ('planned', 'declared')
           and state_changed_at < clock_timestamp() - make_interval(secs => $1)";
    sqlx::query(SQL).bind(older_than.as_secs_f64()).execute(pool).await.map(drop)
}

/// Generations that nobody binds any more and whose queues may still be there, with their
/// partitions.
pub async fn unbound(pool: &PgPool) -> Result<Vec<(i32, i32)>, sqlx::Error> {
    const SQL: &str = "
        select generation, partitions from keylane.generations g where state = 'closed' order by 1";
    sqlx::query_as(SQL).fetch_all(pool).await
}

/// A generation that has been closed for so long, and the marker that shows its queues to be
/// empty: the first call decides on the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    pub generation: i32,
    pub partitions: i32,
    pub farewell: Uuid,
    /// Every partition has met the marker.
    pub emptied: bool,
}

/// The oldest generation that is to be deleted.
pub async fn leaving(
    pool: &PgPool,
    closed_for: Duration,
    farewell: Uuid,
) -> Result<Option<Leaving>, sqlx::Error> {
    const SQL: &str = "
        update keylane.generations g set farewell = coalesce(g.farewell, $2)
         where g.generation = (
               select min(generation) from keylane.generations
                where state = 'closed'
                  and state_changed_at < clock_timestamp() - make_interval(secs => $1))
        returning g.generation, g.partitions, g.farewell,
                  (select count(*) from keylane.partitions p
                    where p.generation = g.generation and p.emptied_at is not null)
                  >= g.partitions as emptied";
    let row =
        sqlx::query(SQL).bind(closed_for.as_secs_f64()).bind(farewell).fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Leaving {
        generation: row.try_get("generation")?,
        partitions: row.try_get("partitions")?,
        farewell: row.try_get("farewell")?,
        emptied: row.try_get("emptied")?,
    }))
}

/// Notes that a generation's queues are gone, or never were.
pub async fn deleted(pool: &PgPool, generation: i32) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        with closed as (
            update keylane.partitions set closed_at = coalesce(closed_at, clock_timestamp())
             where generation = $1)
        update keylane.generations set state = 'deleted', state_changed_at = clock_timestamp()
         where generation = $1 and state = 'closed'";
    sqlx::query(SQL).bind(generation).execute(pool).await.map(drop)
}
