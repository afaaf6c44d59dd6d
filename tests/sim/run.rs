//! One run: writes come in, workers come and go, and in the end everything must add up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keylane::core::batch::BatchLimits;
use keylane::core::message::Message;
use keylane::core::parking::ParkLimits;
use tokio::time::{Instant, sleep};

use super::broker::Broker;
use super::checks;
use super::database::{Database, STARTED_AT};
use super::model::entities::entities;
use super::model::generate::{Generator, Taste};
use super::model::{Answer, Model};
use super::operators;
use super::process::{Dice, Process};
use super::worker::{Worker, World};

/// Simulated time within which a run must be done.
const RUN_MAX: Duration = Duration::from_hours(6);
/// Long enough for every frozen process to wake up and do what it had in mind.
const THAW: Duration = Duration::from_mins(2);

/// What was sent, and what must come of it.
pub(crate) struct Expected {
    pub(crate) messages: Vec<Message>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) model: Model,
}

/// Runs one seed and checks it; returns how many rolls there were.
pub(crate) fn run(seed: u64) -> u64 {
    block_on(simulate(seed, false)).1
}

/// Runs one seed with operators, who decide when a write has its turn, and checks each commit.
pub(crate) fn run_with_operators(seed: u64) -> u64 {
    block_on(simulate(seed, true)).1
}

fn block_on<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(run)
}

/// Says which seed failed, however it did, and the last steps before that.
struct Said {
    seed: u64,
    dice: Arc<Mutex<Dice>>,
}

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            println!(
                "{}\nfailed: SEED={} cargo test --test sim",
                dice.trace().join("\n"),
                self.seed
            );
        }
    }
}

/// Runs one seed, checks it and returns all its steps.
pub(crate) fn trace(seed: u64) -> Vec<String> {
    block_on(simulate(seed, false)).0
}

fn expected(seed: u64, entities: &'static [&'static str], writes: u64) -> Expected {
    // While a write waits, nobody promises anything about its id under another key.
    let taste = Taste { entities, foreign_ids: false, overflows: true };
    let mut generator = Generator::new(seed, taste);
    let mut expected =
        Expected { messages: Vec::new(), answers: Vec::new(), model: Model::default() };
    for number in 0..writes {
        let mut message = generator.next(&expected.model);
        message.properties.correlation_id = Some(number.to_string());
        expected.answers.push(expected.model.apply(&message, STARTED_AT));
        expected.messages.push(message);
    }
    expected
}

async fn simulate(seed: u64, operators: bool) -> (Vec<String>, u64) {
    let mut dice = Dice::new(seed);
    let partitions = if dice.below(3) == 0 { 2 } else { 1 };
    let workers = 1 + dice.below(3);
    let entities_used: &[&str] = if operators {
        &["park", "park_each", "item"]
    } else {
        &["item", "item_each", "plain", "plain_each"]
    };
    let expected = expected(seed, entities_used, 20 + dice.below(100));
    let upto = |bound| 1 + usize::try_from(bound).expect("it is small");
    let world = World {
        broker: Arc::new(Mutex::new(Broker::new())),
        database: Arc::new(Mutex::new(Database::new(&expected.messages, partitions))),
        entities: Arc::new(entities()),
        answers: Arc::default(),
        prefetch: upto(dice.below(60)),
        limits: BatchLimits {
            writes_max: upto(dice.below(40)),
            bytes_max: upto(dice.below(4_000)),
            body_bytes_max: 10_000,
        },
        park_limits: ParkLimits {
            key_max: usize::MAX,
            room: usize::MAX,
            wait_max: time::Duration::DAY,
        },
    };
    let dice = Arc::new(Mutex::new(dice));
    let said = Said { seed, dice: Arc::clone(&dice) };
    let slots = (0..workers).map(|slot| employ(slot, &world, &dice));
    tokio::select! {
        biased;
        () = publish(&expected, &world, &dice, operators) => {}
        _ = futures_util::future::join_all(slots) => {}
        () = misfortunes(&world, &dice) => {}
        () = storms(&world, &dice) => {}
        () = operators::remind(&world) => {}
        () = operators::operate(&world, &dice), if operators => {}
    }
    if operators {
        checks::check_history(&world);
    } else {
        checks::check(&expected, &world);
    }
    drop(said);
    let turns = world.database.lock().expect("nobody panics with the database").line.turns.len();
    let rolls = u64::try_from(turns).expect("there are few");
    let trace = dice.lock().expect("nobody panics with the dice").trace();
    (trace, rolls)
}

/// Publishes everything, and waits until all of it is settled and every sleeper has woken up.
async fn publish(expected: &Expected, world: &World, dice: &Mutex<Dice>, operators: bool) {
    let roll = |bound| dice.lock().expect("nobody panics with the dice").below(bound);
    let started = Instant::now();
    for message in &expected.messages {
        if roll(4) == 0 {
            sleep(Duration::from_millis(roll(2_000))).await;
        }
        world.publish(message);
    }
    sleep(Duration::from_millis(roll(60_000))).await;
    dice.lock().expect("nobody panics with the dice").calm();
    let is_empty = || world.broker.lock().expect("nobody panics with the broker").is_empty();
    let is_quiet =
        || world.database.lock().expect("nobody panics with the database").tables.is_quiet();
    let free = async {
        while !is_empty() || !is_quiet() {
            sleep(Duration::from_millis(100)).await;
            assert!(started.elapsed() < RUN_MAX, "everything is settled some day");
        }
    };
    tokio::select! {
        () = free => {}
        () = operators::set_free(world, dice), if operators => {}
    }
    sleep(THAW).await;
    assert!(operators || is_empty(), "what is settled stays so");
    world.database.lock().expect("nobody panics with the database").tick();
}

/// Keeps one worker running: a killed one is started again.
async fn employ(slot: u64, world: &World, dice: &Arc<Mutex<Dice>>) {
    let roll = |bound| dice.lock().expect("nobody panics with the dice").below(bound);
    for incarnation in 0.. {
        let process = Process::new(slot * 1_000 + incarnation, Arc::clone(dice));
        let worker = Worker { world: world.clone(), process: process.clone() };
        let stops_after = Duration::from_millis(500 + roll(200_000));
        tokio::select! {
            biased;
            () = process.killed.cancelled() => {}
            () = worker.run() => {}
            () = retire(&process, stops_after) => {}
            () = forget(&process, world) => {}
        }
        let after = || Duration::from_millis(roll(8_000));
        leave(&process, world, after);
        sleep(after()).await;
    }
}

/// A process is gone: the broker knows at once, the database some time later.
fn leave(process: &Process, world: &World, notices_after: impl FnMut() -> Duration) {
    let mut database = world.database.lock().expect("nobody panics with the database");
    database.abandon_process(process.id, notices_after);
    drop(database);
    world.broker.lock().expect("nobody panics with the broker").lose(process.id);
}

/// Asks a process to stop; it does so by itself.
async fn retire(process: &Process, after: Duration) {
    sleep(after).await;
    process.stop.cancel();
    std::future::pending::<()>().await;
}

/// The broker gives up a process that does not answer.
async fn forget(process: &Process, world: &World) {
    loop {
        sleep(Duration::from_secs(2)).await;
        if process.frozen() {
            world.broker.lock().expect("nobody panics with the broker").lose(process.id);
        }
    }
}

/// What comes from outside: better consumers, cut networks, ended backends.
async fn misfortunes(world: &World, dice: &Mutex<Dice>) {
    let roll = |bound| dice.lock().expect("nobody panics with the dice").below(bound);
    let broker = || world.broker.lock().expect("nobody panics with the broker");
    let patience = 2_000 + roll(20_000);
    loop {
        sleep(Duration::from_millis(roll(patience))).await;
        let choice = roll(1_000);
        match roll(12) {
            0..4 => {
                let queue = broker().any_queue(choice);
                broker().prefer_another(queue);
            }
            4 => broker().lose_any(choice),
            5 => {
                let mut database = world.database.lock().expect("nobody panics with it");
                database.terminate_any(choice);
            }
            _ => {}
        }
    }
}

/// What befalls the ring.
async fn storms(world: &World, dice: &Mutex<Dice>) {
    let roll = |bound| dice.lock().expect("nobody panics with the dice").below(bound);
    loop {
        sleep(Duration::from_millis(roll(6_000))).await;
        if !dice.lock().expect("nobody panics with the dice").storms() {
            continue;
        }
        if roll(3) == 0 {
            let mut database = world.database.lock().expect("nobody panics with it");
            database.wanted = 4 - database.wanted;
        } else {
            world.broker.lock().expect("nobody panics with the broker").restart();
        }
    }
}
