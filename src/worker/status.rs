//! What each partition is doing: written by its loop, read by probes, metrics and housekeeping.

use std::collections::VecDeque;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::core::partition::PartitionId;
use crate::http::probes::{Check, Found};

/// How long a subscriber must have been without a delivery before it may say, without a claim of
/// its own, that nothing unsettled is left in the queue.
const SILENCE_MIN: Duration = Duration::from_hours(1);

/// So many claims of one partition, lost within so long, are no handover: two owners take turns.
const CLAIMS_LOST: usize = 5;
const CLAIMS_LOST_WITHIN: Duration = Duration::from_mins(1);

/// A roll that has gone on for so long is told of; the alert waits as long.
const ROLL_MAX: Duration = Duration::from_mins(15);

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
    /// When each partition lost its last claims.
    lost: DashMap<PartitionId, VecDeque<Instant>>,
    /// More than one turn is not closed, since then.
    rolls_since: RwLock<Option<Instant>>,
    draining: AtomicBool,
    started: AtomicBool,
    begun: AtomicBool,
    /// The generation of which this broker knows nothing.
    unknown_ring: RwLock<Option<i32>>,
    blocked: AtomicBool,
}

fn set<T>(value: &RwLock<T>, new: T) {
    *value.write().unwrap_or_else(std::sync::PoisonError::into_inner) = new;
}

fn read<T: Clone>(value: &RwLock<T>) -> T {
    value.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

fn unknown(generation: i32) -> String {
    format!(
        "this broker knows neither the ring of generation {generation} nor any of its queues: it is \
         another one, or its cluster has split, and this worker changes no routing; if all that was \
         in it is gone for good, `keylane generations --abandon {generation}` goes on without it"
    )
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

    /// An alarm of the broker stops publishing, or does not.
    pub fn blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// A partition's claim was lost to somebody.
    pub fn fenced(&self, partition: PartitionId) {
        let mut lost = self.lost.entry(partition).or_default();
        if lost.len() == CLAIMS_LOST {
            lost.pop_front();
        }
        lost.push_back(Instant::now());
    }

    /// So many turns are not closed: 0 before the first, and more than 1 during a roll.
    pub fn turns(&self, open: i64) {
        if open > 0 {
            self.begun.store(true, Ordering::Relaxed);
        }
        let since = read(&self.rolls_since).unwrap_or_else(Instant::now);
        set(&self.rolls_since, (open > 1).then_some(since));
    }

    /// The broker knows nothing of this generation, though it has its turn.
    pub fn unknown_ring(&self, generation: Option<i32>) {
        if let Some(generation) = generation.filter(|_| read(&self.unknown_ring).is_none()) {
            tracing::error!(generation, "{}", unknown(generation));
        }
        set(&self.unknown_ring, generation);
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

    /// What readiness looks at.
    pub fn checks(&self) -> Vec<Check> {
        let started = self.started.load(Ordering::Relaxed);
        let broker = if started { read(&self.broker) } else { Some("not connected yet".into()) };
        let blocked = self.blocked.load(Ordering::Relaxed);
        let blocked = blocked.then(|| "an alarm of the broker stops publishing".to_owned());
        let mut checks = vec![
            Check::of("broker", broker),
            Check::of("database", read(&self.database)),
            Check::of("fence", self.claims_lost()),
            Check { name: "partitions", found: Found::Fine },
            Check::of("publisher", blocked),
            self.roll(),
        ];
        for status in &self.partitions {
            if let Doing::Halted(why) | Doing::Full(why) = &status.doing {
                let line = format!("partition {}: {why}", status.key());
                checks.push(Check { name: "partitions", found: Found::Missing(line) });
            }
        }
        if self.draining.load(Ordering::Relaxed) {
            checks.push(Check::draining());
        }
        checks
    }

    /// Which partitions are thrown out again and again.
    fn claims_lost(&self) -> Option<String> {
        let again = self.lost.iter().filter(|lost| {
            let first = lost.front().filter(|_| lost.len() == CLAIMS_LOST);
            first.is_some_and(|first| first.elapsed() < CLAIMS_LOST_WITHIN)
        });
        let mut names: Vec<String> = again.map(|lost| lost.key().to_string()).collect();
        names.sort_unstable();
        (!names.is_empty())
            .then(|| format!("somebody else claims partition {} again and again", names.join(", ")))
    }

    /// Without any turn nothing can be done. While a turn waits for its end writes are accepted,
    /// and a process that is not ready would not help it.
    fn roll(&self) -> Check {
        if !self.begun.load(Ordering::Relaxed) {
            return Check::of("roll", Some("nothing has its turn yet".to_owned()));
        }
        if let Some(generation) = read(&self.unknown_ring) {
            return Check::of("roll", Some(unknown(generation)));
        }
        let since = read(&self.rolls_since).map(|since| since.elapsed());
        let found = match since.filter(|lasts| *lasts > ROLL_MAX) {
            None => Found::Fine,
            Some(lasts) => {
                let minutes = lasts.as_secs() / 60;
                Found::Told(format!("roll: an earlier turn is not closed after {minutes} minutes"))
            }
        };
        Check { name: "roll", found }
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

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: PartitionId = PartitionId { generation: 1, partition: 0 };

    /// What `name` found.
    fn found(board: &Board, name: &str) -> Found {
        let mut checks = board.checks().into_iter();
        checks.find(|check| check.name == name).expect("it is looked at").found
    }

    fn back(by: Duration) -> Instant {
        Instant::now().checked_sub(by).expect("the machine has run for so long")
    }

    #[test]
    fn claims_lost_again_and_again_are_told_apart_from_a_handover() {
        let board = Board::default();
        for _ in 1..CLAIMS_LOST {
            board.fenced(FIRST);
            board.fenced(PartitionId { partition: 1, ..FIRST });
        }
        assert_eq!(found(&board, "fence"), Found::Fine);
        board.fenced(FIRST);
        let line = "fence: somebody else claims partition 1.000 again and again";
        assert_eq!(found(&board, "fence"), Found::Missing(line.to_owned()));
        for at in board.lost.get_mut(&FIRST).unwrap().iter_mut() {
            *at = back(CLAIMS_LOST_WITHIN);
        }
        board.fenced(FIRST);
        assert_eq!(found(&board, "fence"), Found::Fine, "most of it was long ago");
    }

    #[test]
    fn a_roll_is_missing_before_the_first_turn_and_told_of_when_it_lasts() {
        let board = Board::default();
        board.turns(0);
        let nothing = Found::Missing("roll: nothing has its turn yet".to_owned());
        assert_eq!(found(&board, "roll"), nothing);
        board.turns(2);
        assert_eq!(found(&board, "roll"), Found::Fine);
        set(&board.rolls_since, Some(back(ROLL_MAX * 2)));
        board.turns(3);
        let line = "roll: an earlier turn is not closed after 30 minutes";
        assert_eq!(found(&board, "roll"), Found::Told(line.to_owned()));
        board.turns(1);
        board.turns(2);
        assert_eq!(found(&board, "roll"), Found::Fine, "that is another roll");
    }
}
