//! What is lost again and again is not kept.

use super::{Stage, brief, patch};
use crate::support::{OwnServers, Scene, entities, wait};

/// What becomes of the broker: the first ones warm up what is kept for good.
const LOSSES: [&str; 8] = [
    "kill-rabbit",
    "cut-rabbit",
    "cut-rabbit",
    "kill-rabbit",
    "cut-rabbit",
    "restart-rabbit",
    "cut-rabbit",
    "cut-rabbit",
];

#[tokio::test]
async fn a_connection_that_is_lost_again_and_again_leaves_nothing_open() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, entities::CUSTOMERS, entities::CUSTOMER).await;
    let mut stage = Stage::on(scene, &[]).await;
    let mut files = Vec::new();
    for (number, loss) in LOSSES.into_iter().enumerate() {
        own.run(loss).await;
        let call = || patch("customer/A", &number.to_string(), "{}").header("prefer", "wait=30");
        wait::until(wait::SOON, "a write after the loss", async || {
            let answer = stage.client.send(call()).await;
            assert!(answer.status < 300 || brief(&answer) == "503 broker_unavailable");
            answer.status < 300
        })
        .await;
        files.push(stage.ingress.open_files());
        // A broker that is killed while a ring is made may never serve its queues again.
        stage.scene.has_a_ring().await;
    }
    eprintln!("open files after each loss: {files:?}");
    // The pool may have opened one more connection to the database by then, no more.
    assert!(files[LOSSES.len() - 1] <= files[2] + 1, "{files:?}");
}
