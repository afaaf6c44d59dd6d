//! A worker that is told to stop.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::sender::brief;
use crate::support::{Scene, entities, wait, write};

#[tokio::test]
async fn sigterm_drains_and_leaves_the_rest_to_the_next_worker() {
    let scene = Scene::new(entities::LOAD_TABLES, entities::LOAD_ENTITIES).await;
    let mut worker = scene.worker().await;
    let load = Load::new(&scene);
    load.during(async {
        for signal in ["TERM", "INT", "TERM"] {
            load.flows(500).await;
            worker.signal(signal);
            assert_eq!(worker.exit_code().await, 0, "SIG{signal}");
            let log = worker.log();
            assert!(log.contains("Draining") && !log.contains("failed"), "{log}");
            worker = scene.worker().await;
        }
        load.flows(100).await;
    })
    .await;
    load.verify().await;
    load.verify_order().await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_with_failure_and_loses_nothing() {
    let scene = Scene::new(entities::SLOW, entities::THING).await;
    let mut worker = scene.worker_with(&[("worker.drain_max_ms", "2500")]).await;
    let sender = scene.sender().await;
    scene.execute("insert into slow values (600)").await;
    sender.send(&[write("thing.upsert", "A", "1", "{}")]).await;
    let sleeping = "select count(*) from pg_stat_activity
                     where datname = current_database() and wait_event = 'PgSleep'";
    wait::until_equal(wait::SOON, "a slow statement", 1, async || scene.number(sleeping).await)
        .await;
    worker.signal("TERM");
    wait::until(wait::SOON, "readiness says that it drains", async || {
        let ready = worker.get("/readyz").await;
        ready.is_some_and(|(status, why)| status == 503 && why.contains("draining"))
    })
    .await;
    assert_eq!(worker.get("/livez").await.unwrap().0, 200, "probes go on during a drain");
    assert_eq!(worker.exit_code().await, 1);

    scene.execute("delete from slow").await;
    let _next = scene.worker().await;
    let mut sender = sender;
    let repeat = sender.outcome(write("thing.upsert", "A", "1", "{}")).await;
    assert_eq!(brief(&repeat), "applied created 1");
    assert_eq!(scene.number("select version from things").await, 1);
}

#[tokio::test]
async fn a_stop_while_the_database_is_in_the_way_does_not_wait_for_it() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let mut worker = scene.worker_with(&[("database.lock_timeout_ms", "300")]).await;
    let mut sender = scene.sender().await;
    sender.outcome(write("item.upsert", "A", "1", "{}")).await;
    let mut intruder = scene.intruder().await;
    sqlx::raw_sql("begin; select from public.items for update")
        .execute(&mut intruder)
        .await
        .unwrap();
    sender.send(&[write("item.upsert", "A", "2", "{}")]).await;
    wait::until(wait::SOON, "the lock is noticed", async || {
        worker.get("/metrics").await.is_some_and(|(_, page)| page.contains(r#"cause="locked""#))
    })
    .await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, 0);
    sqlx::raw_sql("rollback").execute(&mut intruder).await.unwrap();
    let _next = scene.worker().await;
    wait::until_equal(Duration::from_secs(30), "the second write", 2, async || {
        scene.number("select version from items").await
    })
    .await;
}
