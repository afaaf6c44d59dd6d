//! Routing changes under load: the broker restarts, workers die, the number of partitions changes.
//!
//! `KEYLANE_ROLLS=10` restarts the broker so often; without it, as often as a test run can afford.

use std::env;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::support::numbered::{self, Numbered, Verdict};
use crate::support::{OwnServers, Scene, wait};

/// Restarts of an ordinary test run.
const RESTARTS: usize = 3;
/// How long a roll may take on a machine that does other things as well.
const ROLLED_MAX: Duration = Duration::from_mins(2);

fn restarts() -> usize {
    env::var("KEYLANE_ROLLS").map_or(RESTARTS, |restarts| restarts.parse().unwrap())
}

/// Asks for so many partitions.
pub(crate) async fn resize(scene: &Scene, partitions: i32) {
    scene.execute(&format!("update keylane.routing set partitions = {partitions}")).await;
}

/// Waits until a ring of so many partitions has its turn, and nothing stands before it.
pub(crate) async fn has_its_turn(scene: &Scene, partitions: i64) {
    let first = "select coalesce(g.partitions, 0) from keylane.turns t
                   left join keylane.generations g using (generation)
                  where t.closed_at is null order by t.turn limit 1";
    wait::until_equal(ROLLED_MAX, "the new ring has its turn", partitions, async || {
        scene.try_number(first).await.unwrap_or(-1)
    })
    .await;
}

#[tokio::test]
async fn whatever_becomes_of_the_ring_every_key_keeps_its_order() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, numbered::TABLES, numbered::ENTITIES).await;
    let four = [("amqp.partitions", "4")];
    let mut workers = [scene.worker_with(&four).await, scene.worker_with(&four).await];
    let numbered = Numbered::new(&scene);
    let stop = CancellationToken::new();
    let restarts = restarts();
    let trouble = async {
        has_its_turn(&scene, 4).await;
        for restart in 0..restarts {
            numbered.flows(1_000).await;
            match restart {
                1 => resize(&scene, 16).await,
                2 => resize(&scene, 5).await,
                _ => {}
            }
            own.run(if restart % 2 == 0 { "restart-rabbit" } else { "kill-rabbit" }).await;
            numbered.flows(100).await;
            let slot = restart % workers.len();
            workers[slot].kill();
            workers[slot] = scene.worker_with(&four).await;
        }
        // Once more while nothing else happens.
        for partitions in [16, 5] {
            resize(&scene, partitions).await;
            has_its_turn(&scene, partitions.into()).await;
            numbered.flows(1_000).await;
        }
        stop.cancel();
    };
    tokio::join!(numbered.run(&stop), trouble);
    numbered.drained().await;
    let verdict = numbered.verdict().await;
    let generations = scene.number("select count(*) from keylane.generations").await;
    println!("{restarts} restarts, {generations} generations: {verdict}");
    eprintln!("{restarts} restarts, {generations} generations: {verdict}");
    let Verdict { lost, twice, overtaken, moved, .. } = verdict;
    assert_eq!((lost, twice, overtaken), (0, 0, 0), "lost, applied twice, overtaken");
    assert!(moved > 0, "no key ever moved: this test would notice nothing");
}
