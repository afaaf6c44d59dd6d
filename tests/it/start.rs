//! What a worker says when it cannot start, and what it does when only the broker is wrong.

use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};

use crate::support::{Cli, Scene, Worker, entities, wait, write};

#[tokio::test]
async fn an_existing_queue_with_other_arguments_is_named_and_nothing_is_repaired() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let connecting = Connection::connect(&scene.servers.amqp, ConnectionProperties::default());
    let connection = connecting.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(20));
    let held = format!("{}.held", scene.prefix);
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(held.as_str().into(), options, arguments).await.unwrap();

    let worker = Worker::spawn(&scene.config(), &[]);
    wait::until(wait::SOON, "readiness names the queue and an argument", async || {
        let ready = worker.get("/readyz").await;
        ready
            .is_some_and(|(status, why)| status == 503 && why.contains(&held) && why.contains("x-"))
    })
    .await;
    assert_eq!(worker.get("/livez").await.unwrap().0, 200, "a restart would not help");
    channel.queue_delete(held.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let worker = worker.ready().await;
    let outcome = scene.sender().await.outcome(write("item.upsert", "A", "1", "{}")).await;
    assert_eq!(outcome["outcome"], "applied");
    assert!(worker.log().contains("The broker is back"));
}

#[tokio::test]
async fn a_worker_that_cannot_work_says_why_and_fails() {
    let tables = "
        create table no_key (id text not null, version text);
        create table floats (id float8 primary key);
        create table secret (id text primary key);
        alter table secret owner to postgres;";
    let scene = Scene::new("", "").await;
    let mut admin = scene.intruder().await;
    let sql = format!("set search_path = public; {tables}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
    let entity = |table: &str, more: &str| {
        format!("[entities.it]\ntable = '{table}'\nkey = ['id']\n{more}\n")
    };
    let cases = [
        (entity("nowhere", ""), ["entity it", "nowhere"]),
        (entity("no_key", ""), ["no unique index", "create unique index"]),
        (entity("no_key", "version = 'version'"), ["version", "bigint"]),
        (entity("floats", ""), ["entity it", "float8"]),
        (entity("secret", ""), ["entity it", "grant"]),
        ("nonsense = 1".to_owned(), ["nonsense", "unknown field"]),
        ("[batch]\nwrites_max = 0".to_owned(), ["batch.writes_max", "keylane.toml"]),
    ];
    for (settings, says) in cases {
        let mut worker = Worker::spawn(&(scene.config() + &settings), &[]);
        assert_eq!(worker.exit_code().await, 1, "{settings}");
        let log = worker.log();
        for part in says {
            assert!(log.contains(part), "{settings}: `{part}` is missing from: {log}");
        }
    }
    scene.execute("delete from keylane.migrations").await;
    let mut worker = Worker::spawn(&scene.config(), &[]);
    assert_eq!(worker.exit_code().await, 1);
    assert!(worker.log().contains("keylane migrate"), "{}", worker.log());
}

#[tokio::test]
async fn a_worker_waits_for_a_broker_that_is_not_there_yet() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let nobody = "amqp://guest:guest@127.0.0.1:1/%2f";
    let mut worker = Worker::spawn(&scene.config(), &[("amqp.url", nobody)]);
    wait::until(Duration::from_secs(30), "readiness says that the broker is missing", async || {
        let ready = worker.get("/readyz").await;
        ready.is_some_and(|(status, why)| status == 503 && why.contains("connect to the broker"))
    })
    .await;
    assert!(!worker.log().contains("guest:guest"), "a password is in the log");
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, 0);
}

#[tokio::test]
async fn a_migration_that_refuses_to_run_says_what_is_to_be_done() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    scene.execute("delete from keylane.migrations where version = 4").await;
    for generation in [1, 2] {
        let open = "insert into keylane.generations \
                    (generation, partitions, state, broker, planned_by)";
        scene.execute(&format!("{open} values ({generation}, 4, 'open', '', '')")).await;
    }
    let refused = Cli::new(&scene).run(&["migrate"]).await.ended(1);
    for said in ["migration 4 is not applied", "more than one generation", "set state = 'closed'"] {
        assert!(refused.error.contains(said), "{refused:?}");
    }
}
