//! A database that is restored to an earlier time, while the broker has gone on: what
//! docs/OPERATING.md says under "Backup" brings both together again.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::scene::clear_broker;
use crate::support::{Cli, Scene, Worker, Write, entities, wait, write};

const KEYS: i64 = 24;

/// Every key's write of a round.
fn round(round: i64) -> Vec<Write> {
    let write =
        |key| write("item.upsert", &format!("k{key}"), &format!("{key}-{round}"), &body(round));
    (0..KEYS).map(write).collect()
}

fn body(round: i64) -> String {
    format!(r#"{{"label":"round {round}"}}"#)
}

/// Makes database `to` what database `from` is.
async fn copy(scene: &Scene, from: &str, to: &str) {
    let mut admin = PgConnection::connect(&scene.servers.admin).await.unwrap();
    let statements = [
        format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{from}'"),
        format!("drop database if exists {to} with (force)"),
        format!("create database {to} template {from} owner keylane"),
    ];
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
    }
    admin.close().await.unwrap();
}

/// So many rows are at the version that so many rounds make, and hold the last one's text.
async fn at_round(scene: &Scene, round: i64) -> i64 {
    let rows =
        format!("select count(*) from items where version = {round} and label = 'round {round}'");
    scene.number(&rows).await
}

async fn applied(scene: &Scene, rounds: &[i64]) -> Vec<Value> {
    let mut sender = scene.sender().await;
    let mut outcomes = Vec::new();
    for number in rounds {
        outcomes.extend(sender.outcomes(&round(*number)).await);
    }
    assert!(outcomes.iter().all(|outcome| outcome["outcome"] == "applied"), "{outcomes:?}");
    outcomes
}

#[tokio::test]
async fn a_database_restored_to_before_a_roll_goes_on_with_a_broker_that_was_cleared() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let backup = format!("{}_backup", scene.name);
    let mut worker = scene.worker().await;
    applied(&scene, &[1]).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, 0);
    copy(&scene, &scene.name, &backup).await;

    let mut worker = scene.worker().await;
    let cli = Cli::new(&scene);
    cli.run(&["resize", "--partitions", "4", "--yes"]).await.ended(0);
    applied(&scene, &[2]).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, 0);
    // Accepted by the broker, and never taken.
    scene.sender().await.send(&round(3)).await;

    copy(&scene, &backup, &scene.name).await;
    assert_eq!(at_round(&scene, 1).await, KEYS, "all that came after the backup is gone");
    clear_broker(&scene.servers.amqp, &scene.prefix).await.unwrap();
    let worker = Worker::spawn(&scene.config(), &[]);
    wait::until(wait::SOON, "the worker says that the broker knows nothing", async || {
        let page = worker.get("/readyz").await;
        page.is_some_and(|(status, why)| status == 503 && why.contains("knows neither the ring"))
    })
    .await;
    let abandon = ["generations", "--abandon", "1", "--yes", "--because", "restored"];
    cli.run(&abandon).await.ended(0);
    let _worker = worker.ready().await;
    let rolled = "select count(*) from keylane.turns t where closed_at is null and generation > 1
                     and not exists (select from keylane.turns o
                                      where o.closed_at is null and o.turn <> t.turn)";
    wait::until_equal(wait::SOON, "a new ring has its turn", 1, async || {
        scene.number(rolled).await
    })
    .await;
    // From before the backup on: what it knows gets its stored outcome.
    let outcomes = applied(&scene, &[1, 2, 3]).await;
    let replayed = outcomes.iter().filter(|outcome| outcome["replayed"] == true).count();
    assert_eq!(i64::try_from(replayed).unwrap(), KEYS, "{outcomes:?}");
    assert_eq!(at_round(&scene, 3).await, KEYS);
    assert_eq!(scene.number("select count(*) from keylane.ledger").await, 3 * KEYS);
    let mut admin = PgConnection::connect(&scene.servers.admin).await.unwrap();
    let drop = format!("drop database {backup} with (force)");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
}
