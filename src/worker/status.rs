//! What each partition is doing: written by its loop, read by probes, metrics and housekeeping.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::core::partition::PartitionId;

/// How long a subscriber must have been without a delivery before it may say, without a claim of
/// its own, that nothing unsettled is left in the queue.
const SILENCE_MIN: Duration = Duration::from_hours(1);

/// What a partition's loop is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// Subscribed; another worker may be the active one.
    Standby,
    /// Claimed, and committing what comes.
    Active,
    /// Waits for something that will pass.
    Waiting(String),
    /// Takes no deliveries until fewer writes rest.
    Full(String),
    /// Waits for a person.
    Halted(String),
}

#[derive(Debug, Clone)]
struct Status {
    doing: Doing,
    subscribed_at: Instant,
    delivered_at: Option<Instant>,
    in_hand_since: Option<Instant>,
    /// Something that nobody has applied waits for the turn since then.
    not_our_turn_since: Option<Instant>,
}

/// The board of one process.
#[derive(Debug, Default)]
pub struct Board {
    partitions: DashMap<PartitionId, Status>,
    broker: RwLock<Option<String>>,
    database: RwLock<Option<String>>,
    draining: AtomicBool,
    started: AtomicBool,
    begun: AtomicBool,
}

fn set(missing: &RwLock<Option<String>>, why: Option<String>) {
    *missing.write().unwrap_or_else(std::sync::PoisonError::into_inner) = why;
}

fn read(missing: &RwLock<Option<String>>) -> Option<String> {
    missing.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

impl Board {
    /// A partition has subscribed.
    pub fn subscribed(&self, partition: PartitionId) {
        let subscribed_at = Instant::now();
        self.partitions.insert(
            partition,
            Status {
                doing: Doing::Standby,
                subscribed_at,
                delivered_at: None,
                in_hand_since: None,
                not_our_turn_since: None,
            },
        );
    }

    /// A partition has ended its subscription.
    pub fn ended(&self, partition: PartitionId) {
        self.partitions.remove(&partition);
    }

    /// A batch is in hand.
    pub fn took(&self, partition: PartitionId) {
        if let Some(mut status) = self.partitions.get_mut(&partition) {
            let now = Instant::now();
            status.delivered_at = Some(now);
            status.in_hand_since.get_or_insert(now);
        }
    }

    /// Everything in hand is settled.
    pub fn settled(&self, partition: PartitionId) {
        if let Some(mut status) = self.partitions.get_mut(&partition) {
            status.in_hand_since = None;
            status.not_our_turn_since = None;
        }
    }

    /// A delivery waits for the turn of its source.
    pub fn waits_for_its_turn(&self, partition: PartitionId) {
        if let Some(mut status) = self.partitions.get_mut(&partition) {
            status.not_our_turn_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether something has waited in held for longer than a copy would.
    pub fn strays(&self, longer_than: Duration) -> bool {
        let held = self.partitions.get(&PartitionId::HELD);
        held.and_then(|status| status.not_our_turn_since)
            .is_some_and(|since| since.elapsed() > longer_than)
    }

    /// A partition does something else from now on; returns whether that is news.
    pub fn does(&self, partition: PartitionId, doing: Doing) -> bool {
        self.partitions.get_mut(&partition).is_some_and(|mut status| {
            let news = std::mem::discriminant(&status.doing) != std::mem::discriminant(&doing);
            status.doing = doing;
            news
        })
    }

    /// The broker is there (`None`), or why it is not.
    pub fn broker(&self, missing: Option<String>) {
        set(&self.broker, missing);
        self.started.store(true, Ordering::Relaxed);
    }

    /// Some source of writes has its turn.
    pub fn begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// The database is there (`None`), or why it is not.
    pub fn database(&self, missing: Option<String>) {
        set(&self.database, missing);
    }

    /// Whether the database was missing at the last look.
    pub fn database_missing(&self) -> bool {
        read(&self.database).is_some()
    }

    /// The process is about to stop.
    pub fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// What is missing for this worker to work; empty when it is ready.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            missing.push("draining: the process is about to stop".to_owned());
        }
        if !self.started.load(Ordering::Relaxed) {
            missing.push("broker: not connected yet".to_owned());
        }
        if !self.begun.load(Ordering::Relaxed) {
            missing.push("roll: nothing has its turn yet".to_owned());
        }
        missing.extend(read(&self.broker).map(|why| format!("broker: {why}")));
        missing.extend(read(&self.database).map(|why| format!("database: {why}")));
        for status in &self.partitions {
            if let Doing::Halted(why) | Doing::Full(why) = &status.doing {
                missing.push(format!("partition {}: {why}", status.key()));
            }
        }
        missing.sort_unstable();
        missing
    }

    /// How many partitions are claimed, and the age in seconds of the oldest delivery in hand of
    /// each that is subscribed.
    pub fn ages(&self) -> (usize, Vec<(PartitionId, f64)>) {
        let mut held = 0;
        let mut ages = Vec::with_capacity(self.partitions.len());
        for status in &self.partitions {
            held += usize::from(status.doing != Doing::Standby);
            let age = status.in_hand_since.map_or(0.0, |since| since.elapsed().as_secs_f64());
            ages.push((*status.key(), age));
        }
        (held, ages)
    }

    /// How many partitions take no deliveries because too many writes rest.
    pub fn full(&self) -> usize {
        self.partitions.iter().filter(|status| matches!(status.doing, Doing::Full(_))).count()
    }

    /// Partitions with nothing unsettled, as far as this process can know.
    pub fn settled_partitions(&self) -> Vec<PartitionId> {
        let settled = self.partitions.iter().filter(|status| {
            status.in_hand_since.is_none()
                && (status.delivered_at.is_some() || status.subscribed_at.elapsed() > SILENCE_MIN)
        });
        settled.map(|status| *status.key()).collect()
    }
}
