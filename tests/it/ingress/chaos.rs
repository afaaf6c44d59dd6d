//! Everything at once: impatient callers, and every part of the system killed under them.

use std::collections::{HashMap, HashSet};
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{add, told};
use crate::support::{
    Answer, Client, OwnServers, Process, Request, Scene, entities, request, wait,
};

const CALLERS: usize = 240;
const KEYS: u32 = 12;
/// How many more file descriptors an ingress may have at the end than at its start: four pooled
/// connections to the database, and what a first reconnect to the broker opens for good.
const FILES_MORE_MAX: usize = 10;
/// How long everything may take to come to rest.
const REST_MAX: Duration = Duration::from_mins(1);

/// What callers were told.
#[derive(Default)]
struct Book {
    /// Answered with `2xx`.
    acknowledged: HashSet<String>,
    /// The outcome of each write, as it was told first.
    outcomes: HashMap<String, Value>,
    retries: u64,
}

/// What all callers share.
struct Street {
    ports: [AtomicU16; 2],
    closed: AtomicBool,
    book: Mutex<Book>,
}

impl Street {
    fn note(&self, id: &str, answer: &Answer) {
        let mut book = self.book.lock().unwrap();
        match answer.status {
            200 | 201 => {
                book.acknowledged.insert(id.to_owned());
                let outcome = told(answer);
                let first = book.outcomes.entry(id.to_owned()).or_insert_with(|| outcome.clone());
                assert_eq!(*first, outcome, "two outcomes of {id}");
            }
            202 => {
                book.acknowledged.insert(id.to_owned());
            }
            503 => book.retries += 1,
            _ => panic!("{id}: {answer:?}"),
        }
    }

    fn client(&self, side: usize) -> Client {
        Client::new(self.ports[side].load(Ordering::Relaxed))
    }
}

/// One caller: writes one after the other, each until it is acknowledged.
struct Caller<'a> {
    street: &'a Street,
    number: usize,
    random: StdRng,
    client: Client,
}

impl<'a> Caller<'a> {
    fn new(street: &'a Street, number: usize, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed + number as u64);
        Self { street, number, random, client: street.client(number % 2) }
    }

    async fn run(mut self) {
        for turn in 0.. {
            if self.street.closed.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("{}-{turn}", self.number);
            let key = self.random.random_range(0..KEYS);
            let call = add(&format!("counter/K{key}"), &id, r#"{"n":1}"#);
            while !self.attempt(&id, &call).await {
                if self.street.closed.load(Ordering::Relaxed) {
                    return;
                }
                sleep(Duration::from_millis(self.random.random_range(5..100))).await;
            }
        }
    }

    /// Whether the caller is content.
    async fn attempt(&mut self, id: &str, call: &Request) -> bool {
        let wait = self.random.random_range(0..4);
        let call = call.clone().header("prefer", &format!("wait={wait}"));
        let answered = match self.random.random_range(0..10) {
            // Cut off at any moment.
            0 | 1 => {
                let patience = Duration::from_millis(self.random.random_range(0..60));
                timeout(patience, self.client.try_send(call)).await.unwrap_or_else(|_| {
                    self.client.cut();
                    Err("cut off".to_owned())
                })
            }
            // To both at once.
            2 => {
                let (mut one, mut other) = (self.street.client(0), self.street.client(1));
                let (first, second) =
                    tokio::join!(one.try_send(call.clone()), other.try_send(call));
                if let Ok(answer) = &second {
                    self.street.note(id, answer);
                }
                first
            }
            _ => self.client.try_send(call).await,
        };
        let Ok(answer) = answered else {
            self.client = self.street.client(self.random.random_range(0..2));
            return false;
        };
        self.street.note(id, &answer);
        // Some ask again although they know, or could know later.
        let content = if answer.status == 202 { 5 } else { 9 };
        answer.status < 300 && self.random.random_range(0..10) < content
    }
}

/// The processes and servers that are killed in turn.
struct Victims<'a> {
    own: &'a OwnServers,
    scene: &'a Scene,
    workers: [Process; 2],
    ingresses: [Process; 2],
    files: [usize; 2],
}

impl Victims<'_> {
    async fn flows(&self) {
        let mut goal = None;
        wait::until(REST_MAX, "writes are applied", async || {
            let applied = self.scene.try_number("select count(*) from keylane.ledger").await;
            applied.is_ok_and(|applied| applied >= *goal.get_or_insert(applied + 300))
        })
        .await;
    }

    async fn fall(&mut self, street: &Street) {
        let turns = ["worker 0", "ingress 0", "rabbit", "ingress 1", "postgres", "worker 1"];
        for victim in turns.into_iter().chain(["postgres", "rabbit", "ingress 0", "worker 0"]) {
            self.flows().await;
            let side = usize::from(victim.ends_with('1'));
            match victim {
                "rabbit" => self.own.run("kill-rabbit").await,
                "postgres" => self.own.run("kill-postgres").await,
                worker if worker.starts_with("worker") => {
                    self.workers[side].kill();
                    self.workers[side] = self.scene.worker().await;
                }
                _ => {
                    self.ingresses[side].kill();
                    self.ingresses[side] = self.scene.ingress().await;
                    self.files[side] = self.ingresses[side].open_files();
                    street.ports[side].store(self.ingresses[side].port, Ordering::Relaxed);
                }
            }
            eprintln!("{victim} fell");
        }
        self.flows().await;
    }
}

#[tokio::test]
async fn whatever_falls_every_acknowledged_write_is_applied_once_and_told_the_same() {
    let seed = env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    let own = OwnServers::start().await;
    let tables = (entities::LOAD_TABLES, entities::LOAD_ENTITIES);
    let scene = Scene::on_own(&own.servers, tables.0, tables.1).await;
    let workers = [scene.worker().await, scene.worker().await];
    let ingresses = [scene.ingress().await, scene.ingress().await];
    let street = Street {
        ports: [ingresses[0].port.into(), ingresses[1].port.into()],
        closed: AtomicBool::new(false),
        book: Mutex::default(),
    };
    let files = [ingresses[0].open_files(), ingresses[1].open_files()];
    let mut victims = Victims { own: &own, scene: &scene, workers, ingresses, files };
    let callers = (0..CALLERS).map(|number| Caller::new(&street, number, seed).run());
    tokio::join!(join_all(callers), async {
        victims.fall(&street).await;
        street.closed.store(true, Ordering::Relaxed);
    });
    verify(&scene, &street).await;
    at_rest(&victims).await;
}

/// Nothing acknowledged is lost, nothing is doubled, and the ledger says what callers were told.
async fn verify(scene: &Scene, street: &Street) {
    let book = std::mem::take(&mut *street.book.lock().unwrap());
    wait::until_equal(REST_MAX, "acknowledged writes that are missing", 0, async || {
        let lines = scene.rows("select write_id as w from keylane.ledger").await;
        let applied: HashSet<&str> = lines.iter().filter_map(|line| line["w"].as_str()).collect();
        book.acknowledged.iter().filter(|id| !applied.contains(id.as_str())).count()
    })
    .await;
    let (writes, told) = (book.acknowledged.len(), book.outcomes.len());
    eprintln!(
        "{writes} acknowledged, {told} of them with their outcome, {} asked to come later",
        book.retries
    );
    let applied = "select count(*) from keylane.ledger where outcome = 'applied'";
    let lines = "select count(*) from keylane.ledger";
    // What was not acknowledged may still come; both sides grow together.
    for sum in ["select sum(n) from counters", "select sum(version) from counters", lines] {
        wait::until(REST_MAX, sum, async || {
            scene.number(&format!("select (({sum}) = ({applied}))::int")).await == 1
        })
        .await;
    }
    assert_eq!(scene.number("select count(*) from keylane.dead_letters").await, 0);
    assert_eq!(scene.number("select count(*) from counters").await, i64::from(KEYS));
    let mut client = street.client(0);
    for (id, outcome) in book.outcomes.iter().take(500) {
        let asked = client.send(request("GET", &format!("/v1/writes/counter/{id}"))).await;
        assert_eq!(told_of(&asked), *outcome, "{id}");
    }
}

fn told_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    told(answer)
}

/// Nobody is in hand any more, and no connection was left open.
async fn at_rest(victims: &Victims<'_>) {
    for (ingress, files) in victims.ingresses.iter().zip(victims.files) {
        for gauge in ["keylane_http_requests_in_hand", "keylane_http_outcomes_awaited"] {
            wait::until_equal(REST_MAX, gauge, Some(0.0), async || ingress.metric(gauge).await)
                .await;
        }
        wait::until(REST_MAX, "file descriptors are given back", async || {
            ingress.open_files() <= files + FILES_MORE_MAX
        })
        .await;
        eprintln!("{files} files at the start, {} at the end", ingress.open_files());
    }
}
