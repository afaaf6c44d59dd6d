//! What the checker of `rolls` says of a system that does without turns: the same lanes on the same
//! store, but two rings that are consumed as they come. A checker that found nothing here would
//! prove nothing there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keylane::core::hot::Hot;
use keylane::core::partition::PartitionId;
use keylane::core::roll::Source;
use keylane::postgres::catalogue::current::Catalogue;
use keylane::postgres::store::PgStore;
use keylane::rabbit::connection::Connection;
use keylane::rabbit::consumer::{Queue, Subscription};
use keylane::rabbit::topology::Topology;
use keylane::settings;
use keylane::telemetry::metrics::Metrics;
use keylane::telemetry::rolls::Rolls;
use keylane::worker::Process;
use keylane::worker::status::Board;
use keylane::worker::turn::Lane;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::Scene;
use crate::support::numbered::{self, Numbered};

const PARTITIONS: i32 = 5;
/// Beyond the partitions of the first ring: the fence takes the second ring for more of the first.
const SECOND_RING: i32 = 100;
const ANSWER_MAX: Duration = Duration::from_secs(10);

async fn process(scene: &Scene) -> Process {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keylane.toml");
    std::fs::write(&file, scene.config()).unwrap();
    let settings = settings::load(Some(file)).unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect(&scene.url).await.unwrap();
    let entities = settings.entities.clone();
    let catalogue = Arc::new(Catalogue::unread(pool.clone(), entities));
    catalogue.read_first().await.unwrap();
    Process {
        settings,
        worker: "without".to_owned(),
        pool,
        catalogue,
        board: Board::default(),
        metrics: Metrics::new(),
        rolls: Rolls::new(),
        leaving: mpsc::channel(1).0,
        resting: 0.into(),
        hot: Hot::new(1).into(),
        started: Instant::now(),
    }
}

/// Applies what is in a queue, in its order, as `as_partition`; returns when `stop` is cancelled.
async fn consume(
    process: &Process,
    connection: &Arc<Connection>,
    queue: String,
    as_partition: PartitionId,
    stop: &CancellationToken,
) {
    let pool = process.pool.clone();
    let mut store = PgStore::new(pool, format!("without {queue}"), ANSWER_MAX);
    let subscribed = Queue { name: &queue, held: "", tag: &queue, prefetch: 2_000, priority: 0 };
    let mut subscription = Subscription::open(connection, &subscribed).await.unwrap();
    let mut lane = Lane::new(as_partition, &mut store, process, process.limits(), stop.clone());
    lane.serve(&mut subscription).await;
    subscription.close().await;
}

#[tokio::test]
async fn without_turns_the_checker_finds_what_was_overtaken() {
    let scene = Scene::new(numbered::TABLES, numbered::ENTITIES).await;
    scene.worker().await.kill();
    let numbered = Numbered::new(&scene);
    numbered.round().await;
    let process = process(&scene).await;
    let amqp = &process.settings.amqp;
    let connection = Connection::open(amqp, "without turns", ANSWER_MAX).await.unwrap();
    let connection = Arc::new(connection);
    let topology = Topology::new(&connection, &scene.prefix);
    topology.declare_ring(2, PARTITIONS).await.unwrap();
    topology.bind(Source::Ring(2), 0).await.unwrap();
    topology.unbind(Source::Ring(1), 0).await.unwrap();
    numbered.round().await;

    // Whoever serves the new ring does not wait for those who serve the old one.
    for (generation, partitions, arrived) in [(2, PARTITIONS, 1), (1, 2, 2)] {
        let stop = CancellationToken::new();
        let lanes = (0..partitions).map(|partition| {
            let queue = PartitionId { generation, partition }.queue(&scene.prefix);
            let partition = partition + (generation - 1) * SECOND_RING;
            let as_partition = PartitionId { generation: 1, partition };
            consume(&process, &connection, queue, as_partition, &stop)
        });
        let all = async {
            numbered.arrives(arrived * numbered::KEYS).await;
            stop.cancel();
        };
        tokio::join!(join_all(lanes), all);
    }
    let verdict = numbered.verdict().await;
    println!("without turns: {verdict}");
    assert_eq!((verdict.lost, verdict.twice), (0, 0), "{verdict}");
    assert!(verdict.overtaken > 1_000, "{verdict}");
}
