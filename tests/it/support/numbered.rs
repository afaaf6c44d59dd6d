//! Numbered writes to many keys, and a checker that knows nothing but the numbers that arrived.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Scene, Sender, Write, wait, write};

pub(crate) const KEYS: usize = 2_000;
const SENDERS: usize = 4;
/// Keys of a sender that get their next number together.
const WINDOW: usize = 60;
/// A window each so often: about 800 writes a second in all.
const WINDOW_EVERY: Duration = Duration::from_millis(300);
/// How long everything that was sent may take, once nothing gets in the way any more.
const DRAINED_MAX: Duration = Duration::from_mins(2);
/// How long a sender waits for a broker that says nothing before it goes to the next one.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Every change of a line leaves its number, how long it waited, and which partition wrote it.
pub(crate) const TABLES: &str = "
    create table lines (
        key text primary key, seq bigint not null, sent_at timestamptz not null, version bigint);
    create table history (
        id bigserial primary key, key text not null, seq bigint not null,
        waited double precision not null, generation int, partition int,
        written_at timestamptz not null default clock_timestamp());
    create function remember() returns trigger language plpgsql as $$
    declare place record;
    begin
        select p.generation, p.partition into place from keylane.partitions p
         where p.backend_pid = pg_backend_pid() order by p.claimed_at desc limit 1;
        insert into history (key, seq, waited, generation, partition)
        values (new.key, new.seq, extract(epoch from clock_timestamp() - new.sent_at),
                place.generation, place.partition);
        return new;
    end $$;
    create trigger remember before insert or update on lines
        for each row execute function remember();";
pub(crate) const ENTITIES: &str = "
    [entities.line]
    table = 'lines'
    key = ['key']
    version = 'version'
    ";

/// Senders, each with keys of its own: a key's next number is published when the broker has
/// confirmed the one before.
pub(crate) struct Numbered<'a> {
    scene: &'a Scene,
    /// The brokers that may be sent to.
    urls: Vec<String>,
    /// The last number of each key that the broker has confirmed.
    confirmed: Mutex<Vec<u64>>,
}

/// What the checker found.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub sent: i64,
    /// Confirmed and never applied.
    pub lost: i64,
    /// Applied more than once.
    pub twice: i64,
    /// Applied after a later one of its key.
    pub overtaken: i64,
    /// Keys that were written by partitions of different numbers.
    pub moved: i64,
    /// Milliseconds from publishing to the row: half of them, all but a hundredth, the longest.
    pub waited: [i64; 3],
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, twice, overtaken, moved, waited: [half, most, longest] } = self;
        write!(
            f,
            "{sent} writes: lost {lost}, applied twice {twice}, order violations {overtaken}; \
             {moved} of {KEYS} keys moved; waited {half} ms (p50), {most} ms (p99), {longest} ms \
             (max)"
        )
    }
}

/// The longest time in which a partition wrote nothing although something was published for it.
#[derive(Debug)]
pub(crate) struct Pause {
    pub partition: i64,
    pub writes: i64,
    pub longest_ms: i64,
}

impl<'a> Numbered<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        Self::through(scene, vec![scene.servers.amqp.clone()])
    }

    /// With senders to different nodes, each of which goes to another one when its own fails.
    pub(crate) fn through(scene: &'a Scene, urls: Vec<String>) -> Self {
        Self { scene, urls, confirmed: Mutex::new(vec![0; KEYS]) }
    }

    /// Sends until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let senders = (0..SENDERS).map(|sender| self.send(sender, stop));
        futures_util::future::join_all(senders).await;
    }

    /// Gives every key its next number.
    pub(crate) async fn round(&self) {
        let sender = self.scene.sender().await;
        let keys: Vec<usize> = (0..KEYS).collect();
        let writes: Vec<Write> = keys.iter().map(|key| self.next_of(*key)).collect();
        sender.send(&writes).await;
        self.confirm(&keys);
    }

    async fn send(&self, number: usize, stop: &CancellationToken) {
        let keys: Vec<usize> = (0..KEYS).filter(|key| key % SENDERS == number).collect();
        let mut urls = self.urls.iter().cycle().skip(number);
        let mut sender = self.reconnect(&mut urls).await;
        let mut next = Instant::now();
        for window in keys.chunks(WINDOW).cycle() {
            if stop.is_cancelled() {
                return;
            }
            let writes: Vec<Write> = window.iter().map(|key| self.next_of(*key)).collect();
            // What was not confirmed is sent again as it was: the same number under the same id.
            while !matches!(timeout(ANSWER_MAX, sender.try_send(&writes)).await, Ok(Ok(()))) {
                sender = self.reconnect(&mut urls).await;
            }
            self.confirm(window);
            next = Instant::now().max(next + WINDOW_EVERY);
            sleep_until(next).await;
        }
    }

    fn confirm(&self, window: &[usize]) {
        let mut confirmed = self.confirmed.lock().unwrap();
        for key in window {
            confirmed[*key] += 1;
        }
    }

    fn next_of(&self, key: usize) -> Write {
        let seq = self.confirmed.lock().unwrap()[key] + 1;
        let sent_at = keylane::core::moment::rfc3339_millis(time::OffsetDateTime::now_utc());
        let body = format!(r#"{{"seq":{seq},"sent_at":"{sent_at}"}}"#);
        write("line.upsert", &format!("K{key}"), &format!("{key}-{seq}"), &body)
    }

    async fn reconnect(&self, urls: &mut impl Iterator<Item = &String>) -> Sender {
        let exchange = format!("{}.writes", self.scene.prefix);
        let end = Instant::now() + DRAINED_MAX;
        loop {
            let url = urls.next().unwrap();
            match timeout(ANSWER_MAX, Sender::connect(url, &exchange)).await {
                Ok(Ok(sender)) => return sender,
                _failed => assert!(Instant::now() < end, "no broker answers"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn arrived(&self) -> i64 {
        self.scene.try_number("select count(*) from history").await.unwrap_or(-1)
    }

    /// Waits until `more` writes than now are applied.
    pub(crate) async fn flows(&self, more: i64) {
        let goal = self.arrived().await + more;
        wait::until(DRAINED_MAX, "writes are applied", async || self.arrived().await >= goal).await;
    }

    /// Waits until so many are applied in all.
    pub(crate) async fn arrives(&self, goal: usize) {
        let goal = i64::try_from(goal).unwrap();
        wait::until(DRAINED_MAX, "writes are applied", async || self.arrived().await >= goal).await;
    }

    /// Waits until as many are applied as were confirmed; the verdict says which.
    pub(crate) async fn drained(&self) {
        let sent = self.sent();
        let end = Instant::now() + DRAINED_MAX;
        while self.arrived().await < sent && Instant::now() < end {
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn sent(&self) -> i64 {
        let confirmed = self.confirmed.lock().unwrap();
        i64::try_from(confirmed.iter().sum::<u64>()).unwrap()
    }

    /// The pauses of each partition, in what was written from `since` on (by the database's clock).
    ///
    /// Between two rows that follow each other in a partition there was a pause from the first one
    /// on, or from when the second one was published, if that was later.
    pub(crate) async fn pauses(&self, since: &str) -> Vec<Pause> {
        let asked = format!(
            "select partition, count(*) as writes, (1000 * max(pause))::bigint as longest
               from (select partition, written_at, extract(epoch from written_at - greatest(
                         lag(written_at) over (partition by generation, partition order by id),
                         written_at - make_interval(secs => waited))) as pause
                       from history where generation > 0) h
              where written_at > '{since}' group by partition order by partition"
        );
        let number = |line: &Value, name: &str| line[name].as_i64().unwrap();
        let pause = |line: &Value| Pause {
            partition: number(line, "partition"),
            writes: number(line, "writes"),
            longest_ms: number(line, "longest"),
        };
        self.scene.rows(&asked).await.iter().map(pause).collect()
    }

    /// Reads what arrived, and compares it with what was confirmed.
    pub(crate) async fn verdict(&self) -> Verdict {
        let confirmed = self.confirmed.lock().unwrap().clone();
        let expected: Vec<String> =
            confirmed.iter().enumerate().map(|(key, last)| format!("('K{key}', {last})")).collect();
        let found = self
            .scene
            .rows(&format!(
                "with expected (key, last) as (values {}),
                 arrived as (select e.key, e.last,
                                    (select count(distinct seq) from history h
                                      where h.key = e.key and h.seq <= e.last) as seen
                               from expected e),
                 ordered as (select key, seq, lag(seq) over (partition by key order by id) as before
                               from history),
                 places as (select key, count(distinct partition) as partitions from history
                             where generation > 0 group by key)
                 select (select sum(last) from expected) as sent,
                        (select sum(last - seen) from arrived) as lost,
                        (select count(*) - count(distinct (key, seq)) from history) as twice,
                        (select count(*) from ordered where seq < before) as overtaken,
                        (select count(*) from places where partitions > 1) as moved,
                        (select array_agg((1000 * w)::bigint) from unnest((
                            select percentile_disc(array[0.5, 0.99, 1]) within group
                                   (order by waited) from history)) w) as waited",
                expected.join(", ")
            ))
            .await
            .remove(0);
        let number = |name: &str| found[name].as_i64().unwrap_or_default();
        Verdict {
            sent: number("sent"),
            lost: number("lost"),
            twice: number("twice"),
            overtaken: number("overtaken"),
            moved: number("moved"),
            waited: [0, 1, 2].map(|at| found["waited"][at].as_i64().unwrap_or_default()),
        }
    }
}
