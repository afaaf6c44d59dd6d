//! Routing changes under load: the broker restarts, workers die, the number of partitions changes.
//!
//! `KEYLANE_ROLLS=10` restarts the broker so often; without it, as often as a test run can afford.

use std::env;

use tokio_util::sync::CancellationToken;

use crate::support::cli::Cli;
use crate::support::numbered::{self, Numbered, Verdict};
use crate::support::{OwnServers, Scene};

/// Restarts of an ordinary test run.
const RESTARTS: usize = 3;

fn restarts() -> usize {
    env::var("KEYLANE_ROLLS").map_or(RESTARTS, |restarts| restarts.parse().unwrap())
}

/// Asks for so many partitions, and waits until they have their turn.
async fn resize(cli: &Cli, partitions: &str) {
    cli.run(&["resize", "--partitions", partitions, "--yes"]).await.ended(0);
}

#[tokio::test]
async fn whatever_becomes_of_the_ring_every_key_keeps_its_order() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, numbered::TABLES, numbered::ENTITIES).await;
    let settings = [("amqp.partitions", "4"), ("generations.spread_ms", "1000")];
    let mut workers = [scene.worker_with(&settings).await, scene.worker_with(&settings).await];
    let (numbered, cli) = (Numbered::new(&scene), Cli::new(&scene));
    let stop = CancellationToken::new();
    let restarts = restarts();
    let trouble = async {
        for restart in 0..restarts {
            numbered.flows(1_000).await;
            let restarted =
                own.run(if restart % 2 == 0 { "restart-rabbit" } else { "kill-rabbit" });
            match restart {
                1 => tokio::join!(restarted, resize(&cli, "16")).0,
                2 => tokio::join!(restarted, resize(&cli, "5")).0,
                _ => restarted.await,
            }
            numbered.flows(100).await;
            let slot = restart % workers.len();
            workers[slot].kill();
            workers[slot] = scene.worker_with(&settings).await;
        }
        // Once more while nothing else happens.
        for partitions in ["16", "5"] {
            resize(&cli, partitions).await;
            numbered.flows(1_000).await;
        }
        stop.cancel();
    };
    tokio::join!(numbered.run(&stop), trouble);
    numbered.drained().await;
    let verdict = numbered.verdict().await;
    let generations = scene.number("select count(*) from keylane.generations").await;
    println!("{restarts} restarts, {generations} generations: {verdict}");
    let Verdict { lost, twice, overtaken, moved, .. } = verdict;
    assert_eq!((lost, twice, overtaken), (0, 0, 0), "lost, applied twice, overtaken");
    assert!(moved > 0, "no key ever moved: this test would notice nothing");
}
