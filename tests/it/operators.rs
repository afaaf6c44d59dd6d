//! Operators and workers at once, all of them killed at random: each write is applied once and in
//! order, or it was left out by an operator.
//!
//! `SEED=n cargo test --test it operators` makes the same choices again; how processes meet is not
//! in the seed.

use std::collections::BTreeMap;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::{Cli, Scene, Worker, Write, entities, write};

const WRITES: u64 = 3000;
const KEYS: u64 = 30;
/// How long a command may take before it is killed after all.
const LIFE_MAX: Duration = Duration::from_secs(3);
/// How long the end may take, once nobody gets in the way any more.
const SETTLED_MAX: Duration = Duration::from_secs(45);

/// Lines have parents, and each change of a line is remembered.
const FAMILY: &str = "
    create table parents (id text primary key);
    alter table lines add parent text references parents;";
const ENTITY: &str = "
    [entities.line]
    table = 'lines'
    key = ['key']
    version = 'version'
    on_reject = 'park'
    ";
const IMPATIENT: [(&str, &str); 2] =
    [("database.lock_timeout_ms", "200"), ("park.wait_max_s", "2")];
/// Nothing of it may be left in the end.
const OPEN: &str = "state in ('dead', 'parked', 'waiting', 'replaying')";
/// The number of a write whose body is wrong, and its dead letter's.
const WRONG: &str = "
    select id, substr(write_id, 2) as seq from keylane.dead_letters
     where state in ('dead', 'parked') and position('\"x\"' in convert_from(body, 'UTF8')) > 0";

struct Turmoil {
    scene: Scene,
    cli: Cli,
    over: CancellationToken,
    /// Commands that ended, that were killed, and what the failed ones said.
    ended: AtomicU32,
    killed: AtomicU32,
    complaints: Mutex<BTreeMap<String, u32>>,
}

fn is_well(log: &str) {
    for word in ["panicked", "Stopped until somebody mends it"] {
        assert!(!log.contains(word), "{log}");
    }
}

fn millis(rng: &mut SmallRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

fn writes(rng: &mut SmallRng) -> Vec<Write> {
    let write = |seq: u64| {
        let body = match rng.random_range(0..100) {
            0..4 => r#"{"seq":"x"}"#.to_owned(),
            4..6 => format!(r#"{{"seq":{seq},"parent":"P{seq}"}}"#),
            _ => format!(r#"{{"seq":{seq}}}"#),
        };
        let key = format!("K{}", rng.random_range(0..KEYS));
        write("line.upsert", &key, &format!("w{seq}"), &body)
    };
    (1..=WRITES).map(write).collect()
}

impl Turmoil {
    /// Sends all of it in order, some a second time.
    async fn send(&self, mut rng: SmallRng) {
        let sender = self.scene.sender().await;
        let writes = writes(&mut rng);
        let mut sent = 0;
        while sent < writes.len() {
            let end = writes.len().min(sent + rng.random_range(1..80));
            sender.send(&writes[sent..end]).await;
            let again = rng.random_range(end.saturating_sub(200)..end);
            sender.send(&writes[again..end.min(again + 5)]).await;
            sent = end;
            sleep(millis(&mut rng, 20..320)).await;
        }
        self.over.cancel();
    }

    /// Workers are killed, sometimes while another one stands by.
    async fn kill_workers(&self, mut rng: SmallRng) -> Worker {
        let mut worker = self.scene.worker_with(&IMPATIENT).await;
        while !self.over.is_cancelled() {
            sleep(millis(&mut rng, 500..3500)).await;
            let next = if rng.random() {
                let next = self.scene.worker_with(&IMPATIENT).await;
                worker.kill();
                next
            } else {
                worker.kill();
                self.scene.worker_with(&IMPATIENT).await
            };
            let log = std::mem::replace(&mut worker, next).log();
            is_well(&log);
        }
        worker
    }

    /// Somebody holds rows, for longer and shorter than a lane waits.
    async fn lock_rows(&self, mut rng: SmallRng, mut intruder: PgConnection) {
        while !self.over.is_cancelled() {
            let key = rng.random_range(0..KEYS);
            let lock = format!("begin; select from public.lines where key = 'K{key}' for update");
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut intruder).await.unwrap();
            sleep(millis(&mut rng, 50..1200)).await;
            sqlx::raw_sql("rollback").execute(&mut intruder).await.unwrap();
            sleep(millis(&mut rng, 100..800)).await;
        }
    }

    /// Parents come, some in time and some late. What rests is counted right at every moment.
    async fn bear_parents(&self, mut rng: SmallRng) {
        const MISCOUNTED: &str = "
            select * from (
                select k.*, (select count(*) from keylane.dead_letters d
                              where d.entity = k.entity and d.key = k.key
                                and d.state in ('parked', 'waiting')) as counted
                  from keylane.parked_keys k) k
             where resting <> counted";
        while !self.over.is_cancelled() {
            let miscounted = self.scene.rows(MISCOUNTED).await;
            assert!(miscounted.is_empty(), "{miscounted:#?}");
            sleep(millis(&mut rng, 100..500)).await;
            self.parents(rng.random_range(0..WRITES), 100).await;
        }
    }

    async fn parents(&self, from: u64, many: u64) {
        let to = from + many;
        let born = format!(
            "insert into parents select 'P' || n from generate_series({from}, {to}) n
                 on conflict do nothing"
        );
        self.scene.execute(&born).await;
    }

    /// Does this and that, and is killed in the middle of some of it.
    async fn operate(&self, mut rng: SmallRng) {
        while !self.over.is_cancelled() {
            if let Some(args) = self.order(&mut rng).await {
                let args: Vec<&str> = args.split(' ').collect();
                let hasty = rng.random_ratio(1, 3);
                let life = if hasty { millis(&mut rng, 10..250) } else { LIFE_MAX };
                self.command(&args, life).await;
            }
            sleep(millis(&mut rng, 0..50)).await;
        }
    }

    async fn order(&self, rng: &mut SmallRng) -> Option<String> {
        let key = format!("K{}", rng.random_range(0..KEYS));
        let salt: u32 = rng.random();
        let one_of = async |whose: &str| {
            let sql = format!(
                "select id from keylane.dead_letters where {whose}
                  order by md5(id || '{salt}') limit 1"
            );
            let id = self.scene.number(&sql).await;
            (id > 0).then_some(id)
        };
        Some(match rng.random_range(0..16) {
            0..3 => "dead-letters replay --all --yes".to_owned(),
            3 => "dead-letters replay --all --yes --canary 1,3".to_owned(),
            4 => {
                let last = self.scene.number("select max(id) from keylane.replays").await;
                format!("dead-letters replay --continue {last}")
            }
            5..8 => {
                let wrong = self.scene.rows(&format!("{WRONG} order by md5(id || '{salt}')")).await;
                let letter = wrong.first()?;
                let seq = letter["seq"].as_str().unwrap();
                format!("dead-letters edit {} --because typo --set seq={seq}", letter["id"])
            }
            8..10 => format!("dead-letters discard {} --because old", one_of(OPEN).await?),
            10 if rng.random() => {
                format!("dead-letters discard --key {key} --yes --because old")
            }
            10 => format!(
                "dead-letters discard --key {key} --reason type_mismatch --yes --because old"
            ),
            11 => {
                let id = one_of("state = 'discarded'").await?;
                format!("dead-letters restore {id} --because new")
            }
            12..14 => format!("key pause line {key}"),
            _ => {
                let sql = format!(
                    "select key from keylane.parked_keys where paused
                      order by md5(key || '{salt}') limit 1"
                );
                let paused = self.scene.rows(&sql).await;
                format!("key resume line {}", paused.first()?["key"].as_str()?)
            }
        })
    }

    async fn command(&self, args: &[&str], life: Duration) {
        let mut running = self.cli.start(args);
        if !running.ends_within(life).await {
            running.signal("KILL");
            self.killed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let said = running.ended().await;
        self.ended.fetch_add(1, Ordering::Relaxed);
        assert!(matches!(said.code, Some(0 | 1)), "{args:?}: {said:?}");
        if said.code == Some(1) {
            let digits = |c: char| c.is_ascii_digit();
            let last = said.error.lines().last().unwrap_or_default();
            let complaint = format!("{} {}: {}", args[0], args[1], last.replace(digits, "#"));
            *self.complaints.lock().unwrap().entry(complaint).or_default() += 1;
        }
    }

    /// One operator, unhurried: everything is mended and replayed until nothing stands still.
    async fn settle(&self) {
        let end = Instant::now() + SETTLED_MAX;
        self.parents(1, WRITES).await;
        let left = format!(
            "select (select count(*) from keylane.parked_keys)
                  + (select count(*) from keylane.dead_letters where {OPEN})
                  + {WRITES} - (select count(*) from keylane.ledger)"
        );
        while self.scene.number(&left).await != 0 {
            let standing = async || self.scene.rows("select * from keylane.parked_keys").await;
            assert!(Instant::now() < end, "still standing: {:#?}", standing().await);
            for row in self.scene.rows("select key from keylane.parked_keys where paused").await {
                let key = row["key"].as_str().unwrap();
                self.cli.run(&["key", "resume", "line", key]).await.ended(0);
            }
            for letter in self.scene.rows(WRONG).await {
                let set = format!("seq={}", letter["seq"].as_str().unwrap());
                let id = letter["id"].to_string();
                let edit = ["dead-letters", "edit", &id, "--because", "typo", "--set", &set];
                self.cli.run(&edit).await;
            }
            self.cli.run(&["dead-letters", "replay", "--all", "--yes"]).await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn verify(&self) {
        let none = async |what: &str, sql: String| {
            let found = self.scene.rows(&format!("select * from ({sql}) s limit 5")).await;
            assert!(found.is_empty(), "{what}: {found:#?}");
        };
        let twice = |table: &str, by: &str| {
            format!("select {by} from {table} group by {by} having count(*) > 1")
        };
        none("applied twice", twice("history", "seq")).await;
        none("two lines", twice("keylane.ledger", "write_id")).await;
        none("two letters", twice("keylane.dead_letters", "write_id")).await;
        none(
            "neither applied nor left out, or both",
            format!(
                "select n, h.id, d.id as letter from generate_series(1, {WRITES}) n
                   left join history h on h.seq = n
                   left join keylane.dead_letters d
                        on d.write_id = 'w' || n and d.state = 'discarded'
                  where (h.id is null) = (d.id is null)"
            ),
        )
        .await;
        none(
            "the ledger says otherwise",
            "select l.write_id, l.key, l.outcome, h.key as applied_to
                   from keylane.ledger l left join history h on 'w' || h.seq = l.write_id
                  where l.outcome <> case when h.id is null then 'rejected' else 'applied' end
                     or l.key <> coalesce(h.key, l.key)"
                .to_owned(),
        )
        .await;
        none(
            "overtaken, and nobody asked for it",
            "select * from (
                 select h.id, h.key, h.seq,
                        lag(h.seq) over (partition by h.key order by h.id) as before
                   from history h
                  where h.seq not in (
                        select substr(d.write_id, 2)::bigint from keylane.dead_letters d
                          join keylane.operator_actions a
                            on a.action = 'restore' and a.count > 0
                           and a.target = 'dead letter ' || d.id)) s
              where seq <= before"
                .to_owned(),
        )
        .await;
        none(
            "another row than the last write made",
            "select l.key, l.seq, l.version, h.seq as last, h.writes from lines l
               join (select key, count(*) as writes,
                            (array_agg(seq order by id desc))[1] as seq
                       from history group by key) h using (key)
              where (l.seq, l.version) <> (h.seq, h.writes)"
                .to_owned(),
        )
        .await;
    }
}

#[tokio::test]
async fn whatever_operators_do_each_write_is_applied_once_in_order_or_left_out() {
    let seed: u64 = env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    let tables = [entities::LOAD_TABLES, FAMILY].concat();
    let scene = Scene::new(&tables, ENTITY).await;
    let turmoil = Turmoil {
        cli: Cli::new(&scene),
        scene,
        over: CancellationToken::new(),
        ended: AtomicU32::default(),
        killed: AtomicU32::default(),
        complaints: Mutex::default(),
    };
    drop(turmoil.scene.worker_with(&IMPATIENT).await);
    let intruder = turmoil.scene.intruder().await;
    let rng = |task: u64| SmallRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(task));
    let (worker, ..) = tokio::join!(
        turmoil.kill_workers(rng(0)),
        turmoil.send(rng(1)),
        turmoil.lock_rows(rng(2), intruder),
        turmoil.bear_parents(rng(3)),
        turmoil.operate(rng(4)),
        turmoil.operate(rng(5)),
        turmoil.operate(rng(6)),
        turmoil.operate(rng(7)),
    );
    let (ended, killed) = (&turmoil.ended, &turmoil.killed);
    let complaints = turmoil.complaints.lock().unwrap().clone();
    eprintln!("{ended:?} commands ended, {killed:?} were killed; {complaints:#?}");
    turmoil.settle().await;
    is_well(&worker.log());
    turmoil.verify().await;
    let tally = "select (select count(*) from history) as applied, count(*) as letters,
                        count(*) filter (where attempts > 1 or reason like 'behind%') as rested,
                        count(*) filter (where state = 'discarded') as discarded
                   from keylane.dead_letters";
    eprintln!("of {WRITES}: {}", turmoil.scene.rows(tally).await[0]);
}
