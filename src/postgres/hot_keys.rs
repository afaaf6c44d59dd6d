//! The busiest keys, as each worker counted them, for those who ask for all of them together.

use sqlx::PgPool;

/// Lines of a worker that has not written for so long are of one that is gone.
const KEPT_MINUTES: i32 = 10;

/// Replaces what `worker` said before by `busiest` (entity, key, writes), and clears away what
/// workers left behind that are gone.
pub async fn store(
    pool: &PgPool,
    worker: &str,
    busiest: &[(String, String, u64)],
) -> Result<(), sqlx::Error> {
    const CLEAR: &str = "
        delete from keylane.hot_keys
         where worker = $1 or counted_at < clock_timestamp() - make_interval(mins => $2)";
    const STORE: &str = "
        insert into keylane.hot_keys (worker, entity, key, writes)
        select $1, busy.* from unnest($2::text[], $3::text[], $4::bigint[]) as busy";
    let texts = |of: fn(&(String, String, u64)) -> &String| -> Vec<&str> {
        busiest.iter().map(|line| of(line).as_str()).collect()
    };
    let writes = busiest.iter().map(|(_, _, writes)| i64::try_from(*writes).unwrap_or(i64::MAX));
    let mut tx = pool.begin().await?;
    sqlx::query(CLEAR).bind(worker).bind(KEPT_MINUTES).execute(&mut *tx).await?;
    sqlx::query(STORE)
        .bind(worker)
        .bind(texts(|(entity, _, _)| entity))
        .bind(texts(|(_, key, _)| key))
        .bind(writes.collect::<Vec<i64>>())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}
