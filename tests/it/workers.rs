//! Several workers: who has which partition.

use std::time::Duration;

use keylane::core::partition::PartitionId;
use keylane::core::rendezvous::score;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::servers::broker_version;
use crate::support::{Scene, Sender, entities, write};

const PARTITIONS: i32 = 4;

/// Who should have each partition: on brokers before 4.0 the first to come, later the one with
/// the highest score.
fn expected(scene: &Scene, alive: &[&str]) -> Vec<Value> {
    (0..PARTITIONS)
        .map(|partition| {
            let queue = PartitionId { generation: 1, partition }.queue(&scene.prefix);
            let best = match broker_version() {
                3 => alive.first(),
                _ => alive.iter().max_by_key(|worker| score(worker, &queue)),
            };
            json!({"partition": partition, "owner": best.unwrap()})
        })
        .collect()
}

/// Sends to every partition until they are owned as they should be.
async fn owned(scene: &Scene, sender: &mut Sender, alive: &[&str]) {
    let expected = expected(scene, alive);
    let owners = "select partition, owner from keylane.partitions
                   where generation = 1 order by partition";
    let end = Instant::now() + Duration::from_secs(30);
    let mut number = scene.number("select count(*) from keylane.ledger").await;
    loop {
        let writes: Vec<_> = (0..16)
            .map(|key| {
                number += 1;
                write("item.upsert", &format!("k{key}"), &number.to_string(), "{}")
            })
            .collect();
        for outcome in sender.outcomes(&writes).await {
            assert_eq!(outcome["outcome"], "applied", "{outcome}");
        }
        let owners = scene.rows(owners).await;
        if owners == expected {
            return;
        }
        assert!(Instant::now() < end, "{alive:?}: expected {expected:?}, found {owners:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn partitions_go_to_the_worker_that_should_have_them_and_move_when_it_is_gone() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let partitions = PARTITIONS.to_string();
    let start = async |id| {
        let settings = [("worker.id", id), ("amqp.partitions", partitions.as_str())];
        scene.worker_with(&settings).await
    };
    let mut first = start("first").await;
    let mut sender = scene.sender().await;
    owned(&scene, &mut sender, &["first"]).await;
    let second = start("second").await;
    owned(&scene, &mut sender, &["first", "second"]).await;
    first.kill();
    owned(&scene, &mut sender, &["second"]).await;
    let _third = start("third").await;
    let mut second = second;
    second.signal("TERM");
    assert_eq!(second.exit_code().await, 0);
    owned(&scene, &mut sender, &["third"]).await;
    // 16 keys, one version a write: nothing was lost or doubled on the way.
    let writes = scene.number("select count(*) from keylane.ledger").await;
    assert_eq!(scene.number("select sum(version) from items").await, writes);
}

#[tokio::test]
async fn a_worker_told_to_serve_some_partitions_leaves_the_others_alone() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _even = scene.worker_with(&[("worker.id", "0"), ("worker.partitions", "0")]).await;
    let _odd = scene.worker_with(&[("worker.id", "1"), ("worker.partitions", "1")]).await;
    let mut sender = scene.sender().await;
    let writes: Vec<_> =
        (0..32).map(|n| write("item.upsert", &format!("k{n}"), &n.to_string(), "{}")).collect();
    sender.outcomes(&writes).await;
    let owners = "select partition, owner from keylane.partitions
                   where generation = 1 order by partition";
    let expected = [json!({"partition": 0, "owner": "0"}), json!({"partition": 1, "owner": "1"})];
    assert_eq!(scene.rows(owners).await, expected);
}
