//! Trouble with the database that passes: the worker waits, goes on by itself, blames no write.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::sender::brief;
use crate::support::{Scene, Worker, entities, wait, write};

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// Waits until the worker has tried a batch again for this `cause`, so often.
async fn retried(worker: &Worker, cause: &str, times: u32) {
    let line = format!("keylane_retries_total{{cause=\"{cause}\"}} ");
    wait::until(wait::SOON, &format!("{times} retries because of {cause}"), async || {
        let page = worker.get("/metrics").await.unwrap().1;
        let count = page.lines().find_map(|found| found.strip_prefix(&line));
        count.is_some_and(|count| count.parse::<u32>().unwrap() >= times)
    })
    .await;
}

async fn blames_nobody(scene: &Scene) {
    assert_eq!(scene.number("select count(*) from keylane.dead_letters").await, 0);
}

#[tokio::test]
async fn a_row_that_somebody_else_inserts_first_is_taken_as_it_is() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let mut intruder = scene.intruder().await;
    let insert = "begin; insert into public.items (sku, stock, version) values ('A', 5, 41)";
    run(&mut intruder, insert).await;
    sender.send(&[write("item.increment", "A", "1", r#"{"stock":1}"#)]).await;
    let waits = "select count(*) from pg_stat_activity
                  where datname = current_database() and wait_event_type = 'Lock'";
    wait::until_equal(wait::SOON, "the worker waits", 1, async || scene.number(waits).await).await;
    run(&mut intruder, "commit").await;
    let outcome = sender.outcome(write("item.increment", "A", "1", r#"{"stock":1}"#)).await;
    assert_eq!(brief(&outcome), "applied updated 42");
    assert_eq!(scene.number("select stock from items").await, 6);
    blames_nobody(&scene).await;
}

#[tokio::test]
async fn a_deadlock_with_another_session_is_tried_again() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let settings = [("amqp.partitions", "1"), ("database.lock_timeout_ms", "20000")];
    let worker = scene.worker_with(&settings).await;
    let mut sender = scene.sender().await;
    for key in ["A", "B", "C"] {
        sender.outcome(write("item.upsert", key, key, "{}")).await;
    }
    // While the worker waits for C, the writes of A and B gather for one batch.
    let mut gathering = scene.intruder().await;
    run(&mut gathering, "begin; select from public.items where sku = 'C' for update").await;
    sender.send(&[write("item.increment", "C", "c", r#"{"stock":1}"#)]).await;
    let waits = "select count(*) from pg_stat_activity
                  where datname = current_database() and wait_event_type = 'Lock'";
    wait::until_equal(wait::SOON, "the worker waits", 1, async || scene.number(waits).await).await;
    let mut intruder = scene.intruder().await;
    // The worker is to be the one that notices.
    let first = "set deadlock_timeout = '60s'; begin;
                 select from public.items where sku = 'B' for update";
    run(&mut intruder, first).await;
    let writes: Vec<_> = (0..200)
        .map(|n| {
            let key = ["A", "B"][n % 2];
            write("item.increment", key, &n.to_string(), r#"{"stock":1}"#)
        })
        .collect();
    sender.send(&writes).await;
    run(&mut gathering, "commit").await;
    wait::until_equal(wait::SOON, "C is done", 1, async || {
        scene.number("select stock from items where sku = 'C'").await
    })
    .await;
    wait::until_equal(wait::SOON, "the worker waits", 1, async || scene.number(waits).await).await;
    run(&mut intruder, "select from public.items where sku = 'A' for update").await;
    retried(&worker, "conflict", 1).await;
    run(&mut intruder, "commit").await;
    sender.outcomes(&writes).await;
    assert_eq!(scene.number("select sum(stock) from items").await, 201);
    assert_eq!(scene.number("select sum(version) from items").await, 204);
    blames_nobody(&scene).await;
}

#[tokio::test]
async fn a_database_without_a_free_connection_is_waited_for() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = scene.worker().await;
    let mut sender = scene.sender().await;
    sender.outcome(write("item.upsert", "A", "0", "{}")).await;
    let mut intruder = scene.intruder().await;
    let close = format!(
        "alter database {} connection limit 0;
         select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and application_name = 'keylane worker'",
        scene.name
    );
    run(&mut intruder, &close).await;
    let write = write("item.upsert", "A", "1", "{}");
    sender.send(std::slice::from_ref(&write)).await;
    wait::until(wait::SOON, "readiness says that the database is missing", async || {
        let ready = worker.get("/readyz").await;
        ready.is_some_and(|(status, why)| status == 503 && why.contains("database"))
    })
    .await;
    run(&mut intruder, &format!("alter database {} connection limit -1", scene.name)).await;
    assert_eq!(brief(&sender.outcome(write).await), "applied updated 2");
    wait::until(wait::SOON, "the worker is ready again", async || {
        worker.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    blames_nobody(&scene).await;
}

#[tokio::test]
async fn statements_that_take_too_long_are_tried_again_in_smaller_batches() {
    let scene = Scene::new(entities::SLOW, entities::THING).await;
    let settings = [("database.statement_timeout_ms", "700"), ("database.lock_timeout_ms", "600")];
    let worker = scene.worker_with(&settings).await;
    let mut sender = scene.sender().await;
    // One row is slow, ten in one statement are too slow; none is refused for it.
    scene.execute("insert into slow values (0.2)").await;
    let writes: Vec<_> =
        (0..20).map(|n| write("thing.upsert", &format!("k{n}"), &n.to_string(), "{}")).collect();
    for outcome in sender.outcomes(&writes).await {
        assert_eq!(brief(&outcome), "applied created 1");
    }
    // Too slow even alone: it is waited for.
    scene.execute("update slow set seconds = 60").await;
    let slow = write("thing.upsert", "k0", "slow", "{}");
    sender.send(std::slice::from_ref(&slow)).await;
    retried(&worker, "too_much", 2).await;
    scene.execute("delete from slow").await;
    assert_eq!(brief(&sender.outcome(slow).await), "applied updated 2");
    blames_nobody(&scene).await;
}

#[tokio::test]
async fn a_table_that_is_gone_stops_its_partition_until_somebody_mends_it() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = scene.worker().await;
    let mut sender = scene.sender().await;
    sender.outcome(write("item.upsert", "A", "0", "{}")).await;
    scene.execute("alter table items rename to elsewhere").await;
    let write = write("item.upsert", "A", "1", "{}");
    sender.send(std::slice::from_ref(&write)).await;
    wait::until(wait::SOON, "readiness names the partition", async || {
        let ready = worker.get("/readyz").await;
        ready.is_some_and(|(status, why)| status == 503 && why.contains("partition 1.00"))
    })
    .await;
    blames_nobody(&scene).await;
    scene.execute("alter table elsewhere rename to items").await;
    assert_eq!(brief(&sender.outcome(write).await), "applied updated 2");
    wait::until(wait::SOON, "the worker is ready again", async || {
        worker.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    blames_nobody(&scene).await;
}
