//! Keys that wait by themselves: for a parent that is not there yet, for a row that somebody holds.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::sender::brief;
use crate::support::{Scene, Worker, Write, entities, wait, write};

const FAMILY: &str = "
    create table parents (id text primary key, name text, version bigint);
    create table children (
        id text primary key, parent text references parents, n integer not null default 0,
        version bigint);";
const FAMILY_ENTITIES: &str = "
    [entities.parent]
    table = 'parents'
    key = ['id']
    version = 'version'
    [entities.child]
    table = 'children'
    key = ['id']
    version = 'version'
    ";

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// Waits until a line of the page for monitoring is this.
async fn measured(worker: &Worker, line: &str) {
    wait::until(wait::SOON, line, async || {
        worker.get("/metrics").await.unwrap().1.lines().any(|found| found == line)
    })
    .await;
}

async fn states(scene: &Scene) -> Vec<Value> {
    scene.rows("select write_id as id, state, reason from keylane.dead_letters order by id").await
}

fn resting(id: &str, reason: &str) -> Value {
    json!({"id": id, "state": "waiting", "reason": reason})
}

async fn until_all_is_free(scene: &Scene) {
    wait::until_equal(wait::SOON, "no key stands still", 0, async || {
        scene.number("select count(*) from keylane.parked_keys").await
    })
    .await;
}

#[tokio::test]
async fn a_child_waits_for_its_parent_and_its_later_writes_wait_behind_it() {
    let scene = Scene::new(FAMILY, FAMILY_ENTITIES).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let children = [
        write("child.create", "c", "1", r#"{"parent":"p","n":5}"#),
        write("child.increment", "c", "2", r#"{"n":1}"#),
        write("child.update", "c", "3", r#"{"n":70}"#),
    ];
    let outcomes: Vec<String> = sender.outcomes(&children).await.iter().map(brief).collect();
    let behind = "parked behind_waiting_write -";
    assert_eq!(outcomes, ["parked missing_parent -", behind, behind]);
    let rests = [
        resting("1", "missing_parent"),
        resting("2", "behind_waiting_write"),
        resting("3", "behind_waiting_write"),
    ];
    assert_eq!(states(&scene).await, rests);

    let other = sender.outcome(write("child.create", "d", "4", "{}")).await;
    assert_eq!(brief(&other), "applied created 1", "other keys go on");
    let repeat = sender.outcome(children[1].clone()).await;
    assert_eq!((brief(&repeat).as_str(), &repeat["replayed"]), (behind, &json!(true)));
    let reused = sender.outcome(write("child.increment", "c", "2", r#"{"n":2}"#)).await;
    assert_eq!(brief(&reused), "rejected write_id_reused -");

    // The last call is its own; before it, or after it, come the outcomes of those that rested.
    sender.send(&[write("parent.create", "p", "5", "{}")]).await;
    let mut finally = Vec::new();
    while finally.len() < 3 {
        finally.push(brief(&sender.next_outcome().await));
    }
    assert_eq!(finally, ["applied created 1", "applied updated 2", "applied updated 3"]);
    assert_eq!(scene.number("select n from children where id = 'c'").await, 70);
    until_all_is_free(&scene).await;
    let again = sender.outcome(children[0].clone()).await;
    assert_eq!((brief(&again).as_str(), &again["replayed"]), ("applied created 1", &json!(true)));
}

#[tokio::test]
async fn a_parent_is_waited_for_so_long_and_no_longer() {
    let parked = [FAMILY_ENTITIES, "on_reject = 'park'"].concat();
    for (entities, then) in [
        (FAMILY_ENTITIES, "precondition_failed not_found -"),
        (&parked, "parked behind_dead_letter -"),
    ] {
        let scene = Scene::new(FAMILY, entities).await;
        let _worker = scene.worker_with(&[("park.wait_max_s", "1")]).await;
        let mut sender = scene.sender().await;
        let create = write("child.create", "c", "1", r#"{"parent":"p"}"#);
        let update = write("child.update", "c", "2", r#"{"n":7}"#);
        let outcomes = sender.outcomes(&[create.clone(), update.clone()]).await;
        assert_eq!(brief(&outcomes[0]), "parked missing_parent -");
        let rejected = sender.next_outcome().await;
        assert_eq!(brief(&rejected), "rejected constraint_violation -");
        assert!(
            rejected["detail"].as_str().unwrap().contains("did not come in time"),
            "{rejected}"
        );
        let dead =
            "select count(*) from keylane.dead_letters where write_id = '1' and state = 'dead'";
        wait::until_equal(wait::SOON, "a dead letter", 1, async || scene.number(dead).await).await;
        wait::until_equal(
            wait::SOON,
            "what comes of the one behind",
            then.to_owned(),
            async || brief(&sender.outcome(update.clone()).await),
        )
        .await;
    }
}

#[tokio::test]
async fn a_parent_that_is_still_referred_to_is_no_reason_to_wait() {
    let scene = Scene::new(FAMILY, FAMILY_ENTITIES).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    sender.outcome(write("parent.create", "p", "1", "{}")).await;
    sender.outcome(write("child.create", "c", "2", r#"{"parent":"p"}"#)).await;
    let outcome = sender.outcome(write("parent.delete", "p", "3", "")).await;
    assert_eq!(brief(&outcome), "rejected constraint_violation -");
}

#[tokio::test]
async fn a_row_that_somebody_holds_stops_its_key_and_no_other() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = scene.worker_with(&[("database.lock_timeout_ms", "300")]).await;
    let mut sender = scene.sender().await;
    sender.outcome(write("item.upsert", "held", "0", "{}")).await;
    // A connection of the worker's own role: of others it would see no statement.
    let mut intruder = scene.pool.acquire().await.unwrap();
    run(&mut intruder, "begin; update public.items set label = 'mine' where sku = 'held'").await;
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *intruder).await.unwrap();
    let increment = |key: &str, id: usize| {
        write("item.increment", key, &format!("{key}-{id}"), r#"{"stock":1}"#)
    };
    let held: Vec<Write> = (1..40).map(|id| increment("held", id)).collect();
    sender.send(&held).await;
    for round in 0..20 {
        let others: Vec<Write> = (0..25).map(|key| increment(&format!("k{key}"), round)).collect();
        let outcomes = sender.outcomes(&others).await;
        assert!(outcomes.iter().all(|outcome| outcome["outcome"] == "applied"), "{outcomes:?}");
    }
    assert_eq!(worker.get("/readyz").await.unwrap().0, 200, "it passes by itself");
    measured(&worker, r#"keylane_waiting_keys{for="lock"} 1"#).await;
    measured(&worker, "keylane_parked_writes 39").await;
    measured(&worker, r#"keylane_blocked_keys{rank="1"} 1"#).await;
    measured(&worker, r#"keylane_blocked_keys{rank="2"} 0"#).await;
    let (log, whose) = (worker.log(), format!("pid {pid}: "));
    assert!(log.contains(&whose), "`{whose}` is not in the log");
    let blocker = "select count(*) from keylane.parked_keys where blocker like 'pid %'";
    assert_eq!(scene.number(blocker).await, 1);

    run(&mut intruder, "commit").await;
    until_all_is_free(&scene).await;
    let row = scene.rows("select label, stock, version from items where sku = 'held'").await;
    assert_eq!(row, [json!({"label": "mine", "stock": 39, "version": 40})]);
    let order = scene
        .rows("select write_id as id, version from keylane.ledger where key = 'held' order by version")
        .await;
    let versions = |id: usize| match id {
        0 => json!({"id": "0", "version": 1}),
        id => json!({"id": format!("held-{id}"), "version": id + 1}),
    };
    assert_eq!(order, (0..40).map(versions).collect::<Vec<_>>(), "in the order of acceptance");
}

#[tokio::test]
async fn a_key_that_somebody_inserts_and_does_not_commit_waits_too() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker_with(&[("database.lock_timeout_ms", "300")]).await;
    let mut sender = scene.sender().await;
    let mut intruder = scene.intruder().await;
    let insert = "begin; insert into public.items (sku, stock, version) values ('A', 5, 41)";
    run(&mut intruder, insert).await;
    let write_to = |key: &str| write("item.increment", key, key, r#"{"stock":1}"#);
    let outcomes = sender.outcomes(&[write_to("A"), write_to("B"), write_to("C")]).await;
    let outcomes: Vec<String> = outcomes.iter().map(brief).collect();
    assert_eq!(outcomes, ["parked row_locked -", "applied created 1", "applied created 1"]);
    run(&mut intruder, "commit").await;
    assert_eq!(brief(&sender.next_outcome().await), "applied updated 42");
    until_all_is_free(&scene).await;
}

#[tokio::test]
async fn a_table_that_somebody_locks_makes_everything_wait_and_parks_nothing() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker_with(&[("database.lock_timeout_ms", "200")]).await;
    let mut sender = scene.sender().await;
    sender.outcome(write("item.upsert", "A", "0", "{}")).await;
    let mut intruder = scene.intruder().await;
    run(&mut intruder, "begin; lock table public.items in access exclusive mode").await;
    let writes: Vec<Write> =
        (1..30).map(|id| write("item.increment", "A", &id.to_string(), r#"{"stock":1}"#)).collect();
    sender.send(&writes).await;
    let waits = "select count(*) from pg_stat_activity
                  where datname = current_database() and wait_event_type = 'Lock'";
    for _ in 0..3 {
        wait::until(wait::SOON, "the worker waits", async || scene.number(waits).await == 1).await;
        wait::until(wait::SOON, "it gives up", async || scene.number(waits).await == 0).await;
    }
    run(&mut intruder, "commit").await;
    let outcomes = sender.outcomes(&writes).await;
    assert_eq!(brief(&outcomes[28]), "applied updated 30");
    assert_eq!(scene.number("select count(*) from keylane.dead_letters").await, 0);
}

#[tokio::test]
async fn what_waits_is_taken_up_by_another_worker() {
    let scene = Scene::new(FAMILY, FAMILY_ENTITIES).await;
    let mut first = scene.worker().await;
    let mut sender = scene.sender().await;
    let children = [
        write("child.create", "c", "1", r#"{"parent":"p"}"#),
        write("child.update", "c", "2", r#"{"n":7}"#),
    ];
    sender.outcomes(&children).await;
    first.kill();
    let _second = scene.worker().await;
    scene.execute("insert into parents (id) values ('p')").await;
    // Nothing is sent: the key's lane is reminded.
    until_all_is_free(&scene).await;
    assert_eq!(scene.number("select n from children where id = 'c'").await, 7);
}
