//! Writes without end to few keys, and the proof that none was lost, doubled or overtaken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Scene, Sender, Write, wait, write};

const KEYS: u64 = 8;
/// Rounds that are published together.
const ROUNDS_A_WINDOW: u64 = 8;
/// A window each so often: about 1,300 writes a second.
const WINDOW_EVERY: Duration = Duration::from_millis(100);
/// How long everything sent may take to be applied, once nothing gets in the way any more.
const DRAINED_MAX: Duration = Duration::from_mins(2);

/// A sender of rounds: in each, every key's counter grows by one and its line gets the round.
pub(crate) struct Load<'a> {
    scene: &'a Scene,
    rounds: AtomicU64,
}

impl<'a> Load<'a> {
    pub(crate) const fn new(scene: &'a Scene) -> Self {
        Self { scene, rounds: AtomicU64::new(0) }
    }

    /// Sends until `stop`. What the broker did not confirm is sent again, in order.
    async fn run(&self, stop: &CancellationToken) {
        let mut sender = self.reconnect().await;
        let mut next = Instant::now();
        while !stop.is_cancelled() {
            let window = self.window();
            while sender.try_send(&window).await.is_err() {
                sender = self.reconnect().await;
            }
            self.rounds.fetch_add(ROUNDS_A_WINDOW, Ordering::Relaxed);
            next = Instant::now().max(next + WINDOW_EVERY);
            sleep_until(next).await;
        }
    }

    fn window(&self) -> Vec<Write> {
        let sent = self.rounds.load(Ordering::Relaxed);
        let rounds = sent + 1..=sent + ROUNDS_A_WINDOW;
        let pair = |round: u64, key: u64| {
            let (key, body) = (format!("K{key}"), format!(r#"{{"seq":{round}}}"#));
            [
                write("counter.increment", &key, &format!("c{key}-{round}"), r#"{"n":1}"#),
                write("line.upsert", &key, &format!("l{key}-{round}"), &body),
            ]
        };
        rounds.flat_map(|round| (0..KEYS).flat_map(move |key| pair(round, key))).collect()
    }

    async fn reconnect(&self) -> Sender {
        let exchange = format!("{}.writes", self.scene.prefix);
        let end = Instant::now() + DRAINED_MAX;
        loop {
            match Sender::connect(&self.scene.servers.amqp, &exchange).await {
                Ok(sender) => return sender,
                Err(error) => assert!(Instant::now() < end, "the broker stays away: {error}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Writes that have been applied; none while the database is away.
    pub(crate) async fn applied(&self) -> i64 {
        self.scene.try_number("select count(*) from keylane.ledger").await.unwrap_or(-1)
    }

    /// Waits until `more` writes than now are applied: the load really flows.
    pub(crate) async fn flows(&self, more: i64) {
        let mut goal = None;
        wait::until(DRAINED_MAX, "writes are applied", async || {
            let applied = self.applied().await;
            applied >= 0 && applied >= *goal.get_or_insert(applied + more)
        })
        .await;
    }

    /// Sends for as long as `trouble` lasts.
    pub(crate) async fn during(&self, trouble: impl Future<Output = ()>) {
        let stop = CancellationToken::new();
        let troubled = async {
            trouble.await;
            stop.cancel();
        };
        tokio::join!(self.run(&stop), troubled);
    }

    /// Waits until all is applied; then nothing is lost, and nothing was applied twice.
    pub(crate) async fn verify(&self) {
        let scene = self.scene;
        let rounds = self.rounds.load(Ordering::Relaxed);
        assert!(rounds > 0, "nothing was sent");
        let sent = i64::try_from(rounds * KEYS * 2).unwrap();
        wait::until_equal(DRAINED_MAX, "all that was sent in the ledger", sent, async || {
            self.applied().await
        })
        .await;
        assert_eq!(scene.number("select count(*) from keylane.dead_letters").await, 0);
        let keys = i64::try_from(KEYS).unwrap();
        for right in [
            format!("select count(*) from counters where n = {rounds} and version = {rounds}"),
            format!("select count(*) from lines where version = {rounds}"),
            format!(
                "select count(*) from (select key from history group by key \
                  having count(*) = {rounds} and count(distinct seq) = {rounds}) q"
            ),
        ] {
            assert_eq!(scene.number(&right).await, keys, "{right}");
        }
        eprintln!("{sent} writes applied once");
    }

    /// The writes of each key were applied in the order in which they were sent.
    pub(crate) async fn verify_order(&self) {
        let overtaken = self
            .scene
            .rows(
                "select * from (select id, key, seq, lag(seq) over (partition by key order by id) \
                   as before from history) h where seq <= before order by id limit 5",
            )
            .await;
        assert!(overtaken.is_empty(), "writes were overtaken: {overtaken:?}");
    }
}
