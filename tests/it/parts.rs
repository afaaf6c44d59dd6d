//! The ledger's parts: forgotten whole, and only when nobody can need them any more.

use keylane::postgres::ledger_parts::{Turned, turn};

use crate::support::{Scene, Sender, entities, wait, write};

const RETENTION_HOURS: u32 = 168;

async fn age(scene: &Scene, part: i32, hours: u32) {
    let sql = format!(
        "update keylane.ledger_parts set opened_at = clock_timestamp() - interval '{hours} hours'
          where part = {part}"
    );
    scene.execute(&sql).await;
}

async fn is_known(sender: &mut Sender, id: &str) -> bool {
    let outcome = sender.outcome(write("item.upsert", "A", id, "{}")).await;
    assert_eq!(outcome["outcome"], "applied");
    outcome["replayed"] == true
}

#[tokio::test]
async fn write_ids_are_known_for_the_retention_and_as_long_as_something_may_come_again() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    assert!(!is_known(&mut sender, "first").await);
    assert_eq!(turn(&scene.pool, RETENTION_HOURS).await.unwrap(), Turned::default());

    age(&scene, 1, RETENTION_HOURS / 6 + 1).await;
    let opened = Turned { opened: Some(2), dropped: vec![] };
    assert_eq!(turn(&scene.pool, RETENTION_HOURS).await.unwrap(), opened);
    assert!(!is_known(&mut sender, "second").await);
    assert!(is_known(&mut sender, "first").await, "old parts are looked at too");
    let parts = "select count(distinct part) from keylane.ledger";
    assert_eq!(scene.number(parts).await, 2);

    // Its time is over, but a partition may still get back what it committed.
    age(&scene, 1, 2 * RETENTION_HOURS).await;
    age(&scene, 2, RETENTION_HOURS + 1).await;
    let unsettled = "update keylane.partitions
                        set settled_at = null, claimed_at = now() - interval '300 hours'";
    scene.execute(unsettled).await;
    let opened = Turned { opened: Some(3), dropped: vec![] };
    assert_eq!(turn(&scene.pool, RETENTION_HOURS).await.unwrap(), opened);
    assert!(is_known(&mut sender, "first").await);

    scene.execute("update keylane.partitions set settled_at = clock_timestamp()").await;
    let dropped = Turned { opened: None, dropped: vec![1] };
    assert_eq!(turn(&scene.pool, RETENTION_HOURS).await.unwrap(), dropped);
    assert!(is_known(&mut sender, "second").await, "its part ended just now");
    assert!(!is_known(&mut sender, "first").await, "forgotten: applied again");
    assert_eq!(scene.number("select version from items").await, 3);
    let misplaced = "select count(*) from keylane.ledger_default";
    assert_eq!(scene.number(misplaced).await, 0);
}

#[tokio::test]
async fn a_reader_of_the_ledger_does_not_make_writers_wait_for_a_drop() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    assert!(!is_known(&mut sender, "first").await);
    age(&scene, 1, 3 * RETENTION_HOURS).await;
    turn(&scene.pool, RETENTION_HOURS).await.unwrap();
    age(&scene, 2, 2 * RETENTION_HOURS).await;
    scene.execute("update keylane.partitions set settled_at = clock_timestamp()").await;
    // A dump reads for hours.
    let mut dump = scene.intruder().await;
    let read = "begin; select count(*) from keylane.ledger";
    sqlx::raw_sql(read).execute(&mut dump).await.unwrap();
    assert!(turn(&scene.pool, RETENTION_HOURS).await.is_err(), "it gives up soon");
    assert!(is_known(&mut sender, "first").await);
    sqlx::raw_sql("commit").execute(&mut dump).await.unwrap();
    assert_eq!(turn(&scene.pool, RETENTION_HOURS).await.unwrap().dropped, [1]);
}

#[tokio::test]
async fn a_write_id_is_known_for_as_long_as_an_open_dead_letter_refers_to_it() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let (open, closed) = (
        write("item.upsert", "A", "open", r#"{"stock":"many"}"#),
        write("item.upsert", "B", "closed", r#"{"stock":"many"}"#),
    );
    let rejected = sender.outcomes(&[open.clone(), closed.clone()]).await;
    assert!(rejected.iter().all(|outcome| outcome["outcome"] == "rejected"), "{rejected:?}");
    let discard = "update keylane.dead_letters set state = 'discarded' where write_id = 'closed'";
    scene.execute(discard).await;
    age(&scene, 1, 3 * RETENTION_HOURS).await;
    turn(&scene.pool, RETENTION_HOURS).await.unwrap();
    age(&scene, 2, 2 * RETENTION_HOURS).await;
    scene.execute("update keylane.partitions set settled_at = clock_timestamp()").await;
    assert_eq!(turn(&scene.pool, RETENTION_HOURS).await.unwrap().dropped, [1]);
    let again = sender.outcomes(&[open, closed]).await;
    assert_eq!(again[0]["replayed"], true, "{again:?}");
    assert_eq!(again[0]["applied_at"], rejected[0]["applied_at"]);
    assert_eq!(again[1]["replayed"], false, "{again:?}");
}

#[tokio::test]
async fn a_write_that_another_lane_stores_meanwhile_is_a_repeat() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = scene.worker().await;
    let mut sender = scene.sender().await;
    assert!(!is_known(&mut sender, "first").await);
    // The line as the other lane would write it: not committed when this one looks for it.
    scene.execute("create table kept as select * from keylane.ledger").await;
    scene.execute("delete from keylane.ledger").await;
    let mut other = scene.intruder().await;
    let store = "begin; insert into keylane.ledger select * from public.kept";
    sqlx::raw_sql(store).execute(&mut other).await.unwrap();
    let committing = async {
        let waits = "select count(*) from pg_stat_activity
                      where datname = current_database() and wait_event = 'transactionid'";
        wait::until(wait::SOON, "the ledger's insert waits", async || {
            scene.number(waits).await > 0
        })
        .await;
        sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
    };
    let (known, ()) = tokio::join!(is_known(&mut sender, "first"), committing);
    assert!(known, "it was decided again, after the other lane's commit");
    assert_eq!(scene.number("select version from items").await, 1, "and not applied twice");
    let page = worker.get("/metrics").await.unwrap().1;
    let retried = "keylane_retries_total{cause=\"ledger_differs\"} 1";
    assert!(page.contains(retried), "{page}");
}
