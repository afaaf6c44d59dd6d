//! A simulated process: each of its steps takes time, and may be its last.
//!
//! Owns: the dice, and what they do to a process: kill, freeze, failures of the database.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keylane::core::failure::Failure;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often things go wrong, in thousandths of all chances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) dies: u32,
    pub(crate) freezes: u32,
    pub(crate) fails: u32,
    /// The end of a COMMIT is unknown.
    pub(crate) doubts: u32,
    /// The broker restarts, another number of partitions is wanted.
    pub(crate) storms: u32,
}

/// All randomness of a run.
#[derive(Debug)]
pub(crate) struct Dice {
    rng: SmallRng,
    weather: Weather,
    started: Instant,
    trace: Vec<String>,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut upto = |max| if rng.random_ratio(1, 3) { 0 } else { rng.random_range(0..max) };
        let weather = Weather {
            dies: upto(12),
            freezes: upto(8),
            fails: upto(120),
            doubts: upto(150),
            storms: upto(900),
        };
        Self { rng, weather, started: Instant::now(), trace: Vec::new() }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.rng.random_range(0..bound)
    }

    pub(crate) fn milliseconds(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    fn happens(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.random_ratio(thousandths, 1000)
    }

    /// Whether the ring is in for it.
    pub(crate) fn storms(&mut self) -> bool {
        let storms = self.weather.storms;
        self.happens(storms)
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn calm(&mut self) {
        self.weather = Weather { dies: 0, freezes: 0, fails: 0, doubts: 0, storms: 0 };
    }

    pub(crate) fn note(&mut self, what: &str) {
        let at = self.started.elapsed();
        self.trace.push(format!("{at:?} {what}"));
    }

    pub(crate) fn trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }
}

/// What becomes of a COMMIT whose answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    Aborted,
    Committed,
    /// The server gets to it later: its locks stay until then.
    CommittedAfter(Duration),
}

/// One incarnation of a worker process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Of this incarnation; also the name of its connection to the broker.
    pub(crate) id: u64,
    pub(crate) dice: Arc<Mutex<Dice>>,
    /// It is killed: whoever runs it drops it where it stands.
    pub(crate) killed: CancellationToken,
    /// It is asked to stop.
    pub(crate) stop: CancellationToken,
    thawed_at: Arc<Mutex<Instant>>,
}

impl Process {
    pub(crate) fn new(id: u64, dice: Arc<Mutex<Dice>>) -> Self {
        let thawed_at = Arc::new(Mutex::new(Instant::now()));
        Self {
            id,
            dice,
            killed: CancellationToken::new(),
            stop: CancellationToken::new(),
            thawed_at,
        }
    }

    pub(crate) fn roll<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.dice.lock().expect("nobody panics with the dice"))
    }

    /// Whether it is frozen for so long that its broker has given it up.
    pub(crate) fn frozen(&self) -> bool {
        let thawed_at = *self.thawed_at.lock().expect("nobody panics here");
        thawed_at > Instant::now() + Duration::from_secs(3)
    }

    /// Comes past a point between two steps, later; or never.
    pub(crate) async fn step(&self, place: &'static str) {
        let (dies, freezes, takes, freeze) = self.roll(|dice| {
            let Weather { dies, freezes, .. } = dice.weather;
            let dies = dice.happens(dies);
            let freezes = dice.happens(freezes);
            let takes = dice.milliseconds(4);
            let freeze = dice.milliseconds(40_000);
            dice.note(&format!("{} {place} {dies} {freezes}", self.id));
            (dies, freezes, takes, freeze)
        });
        if dies {
            self.killed.cancel();
            std::future::pending::<()>().await;
        }
        if freezes {
            *self.thawed_at.lock().expect("nobody panics here") = Instant::now() + freeze;
        }
        sleep(takes).await;
        loop {
            let thawed_at = *self.thawed_at.lock().expect("nobody panics here");
            if thawed_at <= Instant::now() {
                return;
            }
            sleep_until(thawed_at).await;
        }
    }

    /// A failure out of the blue, if the dice say so.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let why = || "simulated".to_owned();
        self.roll(|dice| {
            let fails = dice.weather.fails;
            dice.happens(fails).then(|| match dice.below(7) {
                0 => Failure::ConnectionLost(why()),
                1 => Failure::Unavailable(why()),
                2 => Failure::Locked(why()),
                3 => Failure::Conflict(why()),
                4 => Failure::TooMuch(why()),
                5 => Failure::MissingParent(why()),
                _ => Failure::RowsDiffer(why()),
            })
        })
    }

    /// Whether the answer to a COMMIT is lost, and what the server made of it.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        self.roll(|dice| {
            let doubts = dice.weather.doubts;
            dice.happens(doubts).then(|| match dice.below(3) {
                0 => Doubt::Aborted,
                1 => Doubt::Committed,
                _ => Doubt::CommittedAfter(dice.milliseconds(9_000)),
            })
        })
    }
}
