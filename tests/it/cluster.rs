//! The promise on a cluster of three brokers: nodes are killed, hang, and are cut off.
//!
//! Not in the ordinary run: `make test-cluster`. Workers know one node each, the first and the
//! second; senders go to any that answers. No write may be lost, applied twice or overtaken.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::cluster::{Cluster, NODES};
use crate::support::numbered::{self, Numbered, Verdict};
use crate::support::{Scene, Worker, wait};

/// How long a whole roll may take while a node is away.
const ROLLED_MAX: Duration = Duration::from_mins(3);
/// How long a step of a roll may take while a node is away.
const STEP_MAX: Duration = Duration::from_mins(1);
/// Enough writes that every sender and every partition had some of them.
const SOME: i64 = 2_000;

/// Shorter than it takes a node to notice that another one is away, as it is by default; long
/// enough for something to happen in it.
const SETTLE_MS: &str = "2000";

/// What a test does to the cluster, and what it does it with.
struct Trouble<'a> {
    cluster: &'a Cluster,
    scene: &'a Scene,
    numbered: &'a Numbered<'a>,
}

impl Trouble<'_> {
    /// Waits until so many writes were applied from now on; says how long they took.
    async fn flows(&self, what: &str) {
        let since = Instant::now();
        self.numbered.flows(SOME).await;
        eprintln!("{what}: {SOME} writes in {} ms", since.elapsed().as_millis());
    }

    /// The node that leads the first queue of the ring that has its turn.
    async fn leader(&self) -> usize {
        let ring = "select generation from keylane.turns where closed_at is null
                     order by turn limit 1";
        let queue = format!("{}.{}.000", self.scene.prefix, self.scene.number(ring).await);
        let leader = self.cluster.leader(queue).await;
        eprintln!("node {leader} leads the ring's first queue");
        leader
    }

    /// Waits until the database says so.
    async fn step(&self, what: &str, question: &str) {
        wait::until(STEP_MAX, what, async || {
            self.scene.try_number(question).await.is_ok_and(|answer| answer > 0)
        })
        .await;
    }

    /// Asks for another number of partitions, and waits until a worker is at it: writes flow to
    /// held too, the markers are still to come.
    async fn resize_until_begun(&self, partitions: i32) {
        resize(self.scene, partitions).await;
        self.step("a roll has begun", "select count(roller) from keylane.routing").await;
    }

    /// The same, and waits until the next ring is being made.
    async fn resize_until_planned(&self, partitions: i32) {
        let planned = format!(
            "select count(*) from keylane.generations g where partitions = {partitions}
              and not exists (select from keylane.turns t where t.generation = g.generation)"
        );
        resize(self.scene, partitions).await;
        self.step("the next ring is planned", &planned).await;
    }

    /// As `docs/BROKERS.md` says: where metadata is in Mnesia, a node that was taken for dead and
    /// talks again has parted from the others until it starts anew.
    async fn wakes_and_starts_anew(&self, node: usize) {
        self.cluster.run("wake", node).await;
        self.flows("it is awake").await;
        self.cluster.run("kill", node).await;
        self.cluster.run("restart", node).await;
    }

    async fn rolled(&self, partitions: i64) {
        let since = Instant::now();
        has_its_turn(self.scene, partitions).await;
        eprintln!("{partitions} partitions after {} ms", since.elapsed().as_millis());
    }
}

/// Runs `trouble` under load, and judges what came of the writes.
async fn keeps_its_promise(name: &str, trouble: impl AsyncFnOnce(&Trouble<'_>)) {
    let cluster = Cluster::start().await;
    let scene = Scene::on_own(&cluster.servers(1), numbered::TABLES, numbered::ENTITIES).await;
    let mut workers: Vec<Worker> = Vec::new();
    for node in [1, 2] {
        let settings = [
            ("amqp.partitions", "4"),
            ("amqp.url", cluster.url(node)),
            ("generations.settle_ms", SETTLE_MS),
            ("generations.copies_max_s", "5"),
            ("generations.spread_ms", "1000"),
        ];
        workers.push(scene.worker_with(&settings).await);
    }
    let numbered = Numbered::through(&scene, cluster.urls.clone());
    let stop = CancellationToken::new();
    let under_load = async {
        let with = Trouble { cluster: &cluster, scene: &scene, numbered: &numbered };
        has_its_turn(&scene, 4).await;
        with.flows("before").await;
        trouble(&with).await;
        with.flows("after").await;
        stop.cancel();
    };
    tokio::join!(numbered.run(&stop), under_load);
    numbered.drained().await;
    let verdict = numbered.verdict().await;
    let generations = scene.number("select count(*) from keylane.generations").await;
    eprintln!("{name}, {generations} generations: {verdict}");
    let Verdict { lost, twice, overtaken, .. } = verdict;
    let log = |worker: &Worker| worker.log();
    let logs: Vec<String> = workers.iter().map(log).collect();
    let wrong = "lost, applied twice, overtaken";
    assert_eq!((lost, twice, overtaken), (0, 0, 0), "{wrong}; {}", logs.join("\n---\n"));
}

/// Asks for so many partitions, and does not wait for them.
async fn resize(scene: &Scene, partitions: i32) {
    scene.execute(&format!("update keylane.routing set partitions = {partitions}")).await;
}

/// Waits until a ring of so many partitions has its turn, and nothing stands before it.
async fn has_its_turn(scene: &Scene, partitions: i64) {
    let first = "select coalesce(g.partitions, 0) from keylane.turns t
                   left join keylane.generations g using (generation)
                  where t.closed_at is null order by t.turn limit 1";
    wait::until_equal(ROLLED_MAX, "the new ring has its turn", partitions, async || {
        scene.try_number(first).await.unwrap_or(-1)
    })
    .await;
}

#[tokio::test]
async fn each_node_is_killed_and_comes_back() {
    keeps_its_promise("each node killed", async |with| {
        for node in NODES {
            with.cluster.run("kill", node).await;
            with.flows("one node is dead").await;
            with.cluster.run("restart", node).await;
            with.flows("it is back").await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_leader_of_a_queue_is_killed() {
    keeps_its_promise("leader killed, also within a roll", async |with| {
        let leader = with.leader().await;
        with.cluster.run("kill", leader).await;
        with.flows("its leader is dead").await;
        with.cluster.run("restart", leader).await;
        with.flows("it is back").await;
        let leader = with.leader().await;
        with.resize_until_begun(5).await;
        with.cluster.run("kill", leader).await;
        with.flows("its leader is dead").await;
        with.cluster.run("restart", leader).await;
        with.rolled(5).await;
    })
    .await;
}

#[tokio::test]
async fn the_leader_of_a_queue_hangs_while_markers_go_in() {
    keeps_its_promise("leader hung at the markers", async |with| {
        let leader = with.leader().await;
        with.resize_until_begun(5).await;
        with.cluster.run("hang", leader).await;
        with.flows("its leader hangs").await;
        with.wakes_and_starts_anew(leader).await;
        with.rolled(5).await;
    })
    .await;
}

#[tokio::test]
async fn the_leader_of_a_queue_hangs_while_a_ring_is_made() {
    keeps_its_promise("leader hung while a ring is made", async |with| {
        let leader = with.leader().await;
        with.resize_until_planned(16).await;
        with.cluster.run("hang", leader).await;
        with.flows("its leader hangs").await;
        with.wakes_and_starts_anew(leader).await;
        with.rolled(16).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_is_cut_off_while_the_ring_changes() {
    keeps_its_promise("nodes cut off", async |with| {
        // Once a node with senders alone, then the one that leads the queues.
        for (node, partitions) in [(3, 5), (with.leader().await, 16)] {
            with.cluster.run("cut", node).await;
            resize(with.scene, partitions).await;
            with.flows("it is cut off").await;
            with.rolled(partitions.into()).await;
            with.cluster.run("heal", node).await;
            with.flows("it is healed").await;
            // With Khepri nothing pauses it, and queues that were declared meanwhile have no member
            // there until it starts anew.
            with.cluster.run("kill", node).await;
            with.cluster.run("restart", node).await;
            with.flows("it has started anew").await;
        }
    })
    .await;
}
