//! A ring that is gone.

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeleteOptions,
};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;

use crate::support::{Cli, Scene, Worker, entities, wait, write};

/// A channel for what somebody does to the broker by hand.
async fn by_hand(scene: &Scene) -> (Connection, Channel) {
    let connecting = Connection::connect(&scene.servers.amqp, ConnectionProperties::default());
    let connection = connecting.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Sends 50 writes with the ids from `first`.
async fn send(scene: &Scene, first: i64) {
    let writes: Vec<_> = (first..first + 50)
        .map(|n| write("item.increment", &format!("k{}", n % 7), &n.to_string(), r#"{"stock":1}"#))
        .collect();
    scene.sender().await.send(&writes).await;
}

async fn applied(scene: &Scene, writes: i64) {
    wait::until_equal(wait::SOON, "all writes applied", writes, async || {
        scene.number("select sum(stock) from items").await
    })
    .await;
    assert_eq!(scene.number("select sum(version) from items").await, writes);
    assert_eq!(scene.number("select count(*) from keylane.ledger").await, writes);
    assert_eq!(scene.number("select count(*) from keylane.dead_letters").await, 0);
}

#[tokio::test]
async fn without_a_ring_writes_are_held_and_a_new_generation_takes_over() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let mut worker = scene.worker().await;
    send(&scene, 0).await;
    applied(&scene, 50).await;
    worker.kill();
    // A backlog in the old partitions, another one in held.
    send(&scene, 50).await;
    let (_connection, channel) = by_hand(&scene).await;
    let ring = format!("{}.ring.1", scene.prefix);
    channel.exchange_delete(ring.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    send(&scene, 100).await;
    let mut worker = scene.worker().await;
    applied(&scene, 150).await;
    // Held had a turn between them; whatever waits behind the first is applied before it.
    let turns = "select turn, generation from keylane.turns order by turn";
    let expected = [(1, 0), (2, 1), (3, 0), (4, 2)];
    let expected =
        expected.map(|(turn, generation)| json!({"turn": turn, "generation": generation}));
    wait::until_equal(wait::SOON, "a new ring has its turn", expected.to_vec(), async || {
        scene.rows(turns).await
    })
    .await;
    send(&scene, 150).await;
    applied(&scene, 200).await;
    wait::until_equal(wait::SOON, "new writes flow through the new ring", 2, async || {
        scene.number("select count(*) from keylane.partitions where generation = 2").await
    })
    .await;

    // A missing queue is no reason for a repair either, and the setting is not read again.
    worker.kill();
    let queue = format!("{}.2.001", scene.prefix);
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let _worker = scene.worker_with(&[("amqp.partitions", "4")]).await;
    send(&scene, 200).await;
    applied(&scene, 250).await;
    let newest = "select partitions from keylane.generations where generation = 3";
    wait::until_equal(wait::SOON, "the next ring is as large as the last", 2, async || {
        scene.number(newest).await
    })
    .await;
}

/// Neither ring nor queues: no restart leaves that behind. It may be another broker, or a part of a
/// cluster that has split, and what was confirmed is elsewhere.
#[tokio::test]
async fn of_a_ring_that_the_broker_never_knew_a_person_decides() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let cli = Cli::new(&scene);
    let mut worker = scene.worker().await;
    send(&scene, 0).await;
    applied(&scene, 50).await;
    let known = cli.run(&["generations", "--abandon", "1", "--yes"]).await.ended(1);
    assert!(known.error.contains("this broker knows generation 1"), "{known:?}");
    worker.kill();
    let (_connection, channel) = by_hand(&scene).await;
    let ring = format!("{}.ring.1", scene.prefix);
    channel.exchange_delete(ring.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    for partition in 0..2 {
        let queue = format!("{}.1.{partition:03}", scene.prefix);
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }

    let worker = Worker::spawn(&scene.config(), &[]);
    let said = "neither the ring of generation 1 nor any of its queues";
    wait::until(wait::SOON, "it says what it misses", async || {
        let (status, page) = worker.get("/readyz").await.unwrap_or_default();
        (status, page.contains(said)) == (503, true)
    })
    .await;
    assert!(worker.log().contains(said), "{}", worker.log());
    send(&scene, 50).await;
    let wrong = cli.run(&["generations", "--abandon", "2", "--yes"]).await.ended(1);
    assert!(wrong.error.contains("generation 2 does not receive writes"), "{wrong:?}");
    assert_eq!(scene.number("select count(*) from keylane.turns").await, 2, "nothing was rolled");
    let because = ["--because", "its disk is gone"];
    let command = [&["generations", "--abandon", "1", "--yes"][..], &because].concat();
    cli.run(&command).await.ended(0);
    applied(&scene, 100).await;
    let actions = "select action, target, reason from keylane.operator_actions";
    let noted =
        json!({"action": "abandon", "target": "generation 1", "reason": "its disk is gone"});
    assert_eq!(scene.rows(actions).await, [noted]);
}

/// A node that did not know of the change confirms a write for a ring whose turn is over. It has no
/// copy anywhere.
#[tokio::test]
async fn a_write_that_comes_after_the_turn_of_its_queue_is_applied_late() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = scene.worker_with(&[("generations.copies_max_s", "1")]).await;
    send(&scene, 0).await;
    applied(&scene, 50).await;
    Cli::new(&scene).run(&["resize", "--partitions", "3", "--yes"]).await.ended(0);
    let (_connection, channel) = by_hand(&scene).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let queue = format!("{}.1.000", scene.prefix);
    for id in ["50", "51", "52"] {
        let properties = BasicProperties::default()
            .with_type("item.increment".into())
            .with_message_id(id.into());
        let options = BasicPublishOptions::default();
        let publishing = channel.basic_publish(
            "".into(),
            queue.as_str().into(),
            options,
            br#"{"stock":1}"#,
            properties,
        );
        publishing.await.unwrap().await.unwrap();
    }
    applied(&scene, 53).await;
    let page = worker.get("/metrics").await.unwrap().1;
    assert!(page.contains("\nkeylane_late_writes_total 3\n"), "{page}");
}
