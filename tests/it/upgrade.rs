//! Workers are replaced, taken away and split up while writes keep flowing: nothing is lost, applied
//! twice or overtaken, and no partition stands still.
//!
//! `KEYLANE_OLD_BINARY` names the program of another version, and then the upgrade is one from that
//! version to this one (docs/OPERATING.md, "Upgrade", says how to build it). Without it the old
//! workers and the new ones are the same program: that shows how they take over from each other, and
//! nothing of what two versions think of one database.

use std::env;
use std::fmt::Write as _;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::support::numbered::{self, Numbered, Verdict};
use crate::support::{Scene, Worker, wait};

const PARTITIONS: i64 = 4;
/// Enough writes that every partition had some of them.
const SOME: i64 = 1_000;
/// The promise: longer than this no partition stands still while a worker is replaced. It is far more
/// than a takeover takes, and these tests run alone (.config/nextest.toml).
const PAUSE_MS_MAX: i64 = 2_000;

/// A worker that is ready, of the program that is named, or of the one that was built.
async fn worker(scene: &Scene, program: &str, id: &str, partitions: &str) -> Worker {
    let settings = [
        ("worker.id", id),
        ("worker.partitions", partitions),
        ("amqp.partitions", "4"),
        ("database.connections_max", "10"),
    ];
    let mut config = scene.config();
    if program != NEW {
        // A setting that another version may not know.
        config = config.replace(", spread_ms = 0", "");
    }
    Worker::spawn_program(program, "worker", &config, &settings).ready().await
}

const NEW: &str = env!("CARGO_BIN_EXE_keylane");

async fn new_worker(scene: &Scene, id: &str) -> Worker {
    worker(scene, NEW, id, "").await
}

/// SIGTERM to all of them at once; each must end in good order.
async fn stop(workers: Vec<Worker>) {
    for worker in &workers {
        worker.signal("TERM");
    }
    let codes = workers.into_iter().map(|mut worker| async move { worker.exit_code().await });
    let codes = join_all(codes).await;
    assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
}

/// Waits until these own the partitions: a name, a colon, and what it has, for each of them.
async fn owned(scene: &Scene, expected: &str) {
    let owners = "select owner, string_agg(partition::text, ',' order by partition) as has
                    from keylane.partitions where generation = 1 group by owner order by owner";
    wait::until_equal(wait::SOON, "owners", expected.to_owned(), async || {
        let lines = scene.rows(owners).await;
        let line = |line: &serde_json::Value| {
            format!("{}:{}", line["owner"].as_str().unwrap(), line["has"].as_str().unwrap())
        };
        lines.iter().map(line).collect::<Vec<_>>().join(" ")
    })
    .await;
}

/// Runs `trouble` under load, judges what came of the writes, and of the time they took.
async fn under_load(scene: &Scene, name: &str, trouble: impl AsyncFnOnce(&Numbered<'_>)) {
    let numbered = Numbered::new(scene);
    let stop = CancellationToken::new();
    let mut since = String::new();
    let troubled = async {
        numbered.flows(SOME).await;
        let now = scene.rows("select clock_timestamp()::text as now").await;
        now[0]["now"].as_str().unwrap().clone_into(&mut since);
        trouble(&numbered).await;
        numbered.flows(SOME).await;
        stop.cancel();
    };
    tokio::join!(numbered.run(&stop), troubled);
    numbered.drained().await;
    let verdict = numbered.verdict().await;
    let pauses = numbered.pauses(&since).await;
    let mut said = format!("{name}: {verdict}; longest pauses:");
    for pause in &pauses {
        let of = format!(" partition {} {} ms", pause.partition, pause.longest_ms);
        write!(said, "{of} ({} writes),", pause.writes).unwrap();
    }
    eprintln!("{said}");
    let Verdict { lost, twice, overtaken, moved, .. } = verdict;
    assert_eq!((lost, twice, overtaken), (0, 0, 0), "lost, applied twice, overtaken");
    assert_eq!(moved, 0, "a key has one partition as long as nobody resizes");
    let with_writes: Vec<i64> = pauses.iter().map(|pause| pause.partition).collect();
    assert_eq!(with_writes, (0..PARTITIONS).collect::<Vec<_>>(), "each had writes");
    let longest = pauses.iter().map(|pause| pause.longest_ms).max().unwrap();
    assert!(longest <= PAUSE_MS_MAX, "a partition stood still for {longest} ms: {said}");
}

async fn scene() -> Scene {
    Scene::new(numbered::TABLES, numbered::ENTITIES).await
}

/// What the writes of a scene want before anything is measured: a ring that has its turn.
async fn has_a_ring(scene: &Scene) {
    let first = "select count(*) from keylane.turns where closed_at is null and generation = 1";
    wait::until(wait::SOON, "a ring has its turn", async || scene.number(first).await == 1).await;
}

#[tokio::test]
async fn workers_of_an_old_version_are_replaced_one_by_one() {
    let scene = scene().await;
    let old = env::var("KEYLANE_OLD_BINARY").unwrap_or_else(|_| NEW.to_owned());
    let mut workers = Vec::new();
    for number in 0..3 {
        workers.push(worker(&scene, &old, &format!("old-{number}"), "").await);
    }
    has_a_ring(&scene).await;
    let mut replaced = Vec::new();
    under_load(&scene, &format!("upgrade from {old}"), async |numbered| {
        for (number, worker) in workers.into_iter().enumerate() {
            stop(vec![worker]).await;
            replaced.push(new_worker(&scene, &format!("new-{number}")).await);
            numbered.flows(SOME).await;
        }
    })
    .await;
    let old = "select count(*) from keylane.partitions where generation = 1 and owner !~ '^new-'";
    assert_eq!(scene.number(old).await, 0, "the new ones have all partitions");
}

#[tokio::test]
async fn three_of_four_workers_are_stopped_at_once_and_the_last_one_has_all_partitions() {
    let scene = scene().await;
    let mut workers = Vec::new();
    for id in ["a", "b", "c", "last"] {
        workers.push(new_worker(&scene, id).await);
    }
    has_a_ring(&scene).await;
    let last = workers.pop();
    under_load(&scene, "scale-in from 4 to 1", async |numbered| {
        stop(workers).await;
        numbered.flows(SOME).await;
    })
    .await;
    owned(&scene, "last:0,1,2,3").await;
    drop(last);
}

/// What scales workers out where the broker knows no consumer priorities: `worker.shards` of the
/// chart. The first worker has everything, and a second one changes nothing; two that name
/// different partitions share them as soon as the first one goes, and each has somebody who stands by.
#[tokio::test]
async fn partitions_are_split_by_hand_while_writes_flow_on_a_broker_of_any_age() {
    let scene = scene().await;
    let whole = new_worker(&scene, "whole").await;
    has_a_ring(&scene).await;
    let mut shards = Vec::new();
    under_load(&scene, "from one worker to two shards", async |numbered| {
        for (id, partitions) in [("even", "0,2"), ("odd", "1,3"), ("odd-stands-by", "1,3")] {
            shards.push(worker(&scene, NEW, id, partitions).await);
        }
        stop(vec![whole]).await;
        numbered.flows(SOME).await;
        owned_by_shards(&scene).await;
        stop(vec![shards.remove(1)]).await;
        numbered.flows(SOME).await;
        owned(&scene, "even:0,2 odd-stands-by:1,3").await;
    })
    .await;
}

/// Of the two that name the odd partitions the broker takes whom it likes.
async fn owned_by_shards(scene: &Scene) {
    let wrong = "select count(*) from keylane.partitions where generation = 1
                    and owner !~ case partition % 2 when 0 then '^even' else '^odd' end";
    wait::until_equal(wait::SOON, "partitions in the wrong hands", 0, async || {
        scene.number(wrong).await
    })
    .await;
}
