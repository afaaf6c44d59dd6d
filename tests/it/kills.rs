//! Workers that die, or seem to.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Scene, entities, wait};

#[tokio::test]
async fn a_worker_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let scene = Scene::new(entities::LOAD_TABLES, entities::LOAD_ENTITIES).await;
    let mut worker = scene.worker().await;
    let load = Load::new(&scene);
    load.during(async {
        for more in [300, 777, 1, 1234, 50, 400] {
            load.flows(more).await;
            worker.kill();
            worker = scene.worker().await;
        }
        load.flows(500).await;
    })
    .await;
    load.verify().await;
    load.verify_order().await;
}

#[tokio::test]
async fn a_worker_that_was_stopped_and_wakes_up_after_its_successor_harms_nothing() {
    let scene = Scene::new(entities::LOAD_TABLES, entities::LOAD_ENTITIES).await;
    // A heartbeat that the broker misses soon.
    let url = format!("{}?heartbeat=2", scene.servers.amqp);
    let zombie = scene.worker_with(&[("worker.id", "zombie"), ("amqp.url", &url)]).await;
    let load = Load::new(&scene);
    load.during(async {
        load.flows(500).await;
        let mut successor = scene.worker_with(&[("worker.id", "successor")]).await;
        for round in 0..2 {
            load.flows(300).await;
            zombie.signal("STOP");
            let owned = "select count(*) from keylane.partitions
                          where generation = 1 and owner = 'successor'";
            wait::until_equal(Duration::from_mins(1), "a successor", 2, async || {
                scene.number(owned).await
            })
            .await;
            load.flows(1000).await;
            zombie.signal("CONT");
            load.flows(1000).await;
            // It comes back as one that stands by, and is there when it is needed.
            wait::until(wait::SOON, "the zombie is ready again", async || {
                zombie.get("/readyz").await.is_some_and(|(status, _)| status == 200)
            })
            .await;
            eprintln!("round {round} is over");
        }
        successor.kill();
        load.flows(500).await;
    })
    .await;
    load.verify().await;
    load.verify_order().await;
}
