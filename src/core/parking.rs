//! Keys that stand still: why, since when, and when their lane looks again.
//!
//! Owns: the bounds of what may rest, and the pauses between two tries of a write that waits.
//! Never: decides what a write gets (that is `plan`).

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};

/// The first pause before a waiting write is tried again; it doubles with each try.
const RETRY_DELAY_MIN: Duration = Duration::milliseconds(100);
/// The longest pause.
const RETRY_DELAY_MAX: Duration = Duration::seconds(5);

/// What may rest at most, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkLimits {
    /// Resting writes of one key.
    pub key_max: usize,
    /// More resting writes that are allowed in all.
    pub room: usize,
    /// How long a write waits for the parent that its foreign key names.
    pub wait_max: Duration,
}

/// What a write waits for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitsFor {
    /// A row that a foreign key refers to.
    Parent,
    /// A row that somebody else holds.
    Lock,
}

impl WaitsFor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Parent, Self::Lock];

    /// The name in `keylane.parked_keys` and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Lock => "lock",
        }
    }

    /// Reads a label back.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|waits| waits.label() == label)
    }
}

/// A try that did not succeed and says nothing against the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub waits_for: WaitsFor,
    /// What the server said, or who holds the row.
    pub why: String,
}

/// A key whose first resting write is tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub waits_for: WaitsFor,
    pub since: OffsetDateTime,
    /// Tries so far, at least 1.
    pub tries: u32,
    pub why: String,
}

impl Waiting {
    /// After one more try in vain; another obstacle starts its own time.
    pub fn again(before: Option<&Self>, obstacle: Obstacle, now: OffsetDateTime) -> Self {
        let Obstacle { waits_for, why } = obstacle;
        let before = before.filter(|before| before.waits_for == waits_for);
        Self {
            waits_for,
            since: before.map_or(now, |before| before.since),
            tries: before.map_or(0, |before| before.tries).saturating_add(1),
            why,
        }
    }

    /// The pause before the next try.
    pub fn delay(&self) -> Duration {
        let factor = 2_i32.saturating_pow(self.tries.saturating_sub(1).min(16));
        RETRY_DELAY_MIN.saturating_mul(factor).min(RETRY_DELAY_MAX)
    }
}

/// What is stored of a key that stands still.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// By an operator.
    pub paused: bool,
    pub waiting: Option<Waiting>,
    /// How many writes of the key rest.
    pub resting: usize,
    /// The lane looks at the key in this transaction: its line may go on.
    pub looked_at: bool,
}

/// What becomes of a key that stood still, or does from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    pub entity: String,
    pub key: String,
    /// Writes that came to rest, less those that no longer do.
    pub rested: i64,
    pub then: KeyThen,
}

/// How a key goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyThen {
    /// As before: a write came to rest behind the others.
    AsBefore,
    /// It stands still behind a dead letter, until somebody asks.
    Stopped,
    /// It is looked at again after a pause.
    Waits(Waiting),
    /// Its line goes on; with nothing left in it the key is free.
    GoesOn,
}

/// Values by entity and key, found without making a name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByKey<T>(HashMap<String, HashMap<String, T>>);

impl<T> Default for ByKey<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> ByKey<T> {
    /// Whether there is none; the usual case.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, entity: &str, key: &str) -> Option<&T> {
        self.0.get(entity)?.get(key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, entity: &str, key: &str) -> Option<&mut T> {
        self.0.get_mut(entity)?.get_mut(key)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, entity: &str, key: &str, value: T) {
        self.0.entry(entity.to_owned()).or_default().insert(key.to_owned(), value);
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &T)> {
        self.0.iter().flat_map(|(entity, keys)| {
            keys.iter().map(move |(key, value)| (entity.as_str(), key.as_str(), value))
        })
    }

    /// All of them, in no order.
    pub fn into_entries(self) -> impl Iterator<Item = (String, String, T)> {
        self.0.into_iter().flat_map(|(entity, keys)| {
            keys.into_iter().map(move |(key, value)| (entity.clone(), key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn obstacle(waits_for: WaitsFor) -> Obstacle {
        Obstacle { waits_for, why: "so".into() }
    }

    #[test]
    fn a_waiting_write_is_tried_after_100_ms_then_twice_as_long_up_to_5_s() {
        let start = datetime!(2026-11-21 00:00 UTC);
        let mut waiting = Waiting::again(None, obstacle(WaitsFor::Lock), start);
        let mut delays = vec![waiting.delay().whole_milliseconds()];
        for _ in 0..7 {
            let later = start + Duration::MINUTE;
            waiting = Waiting::again(Some(&waiting), obstacle(WaitsFor::Lock), later);
            delays.push(waiting.delay().whole_milliseconds());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(waiting.since, start);
    }

    #[test]
    fn another_obstacle_starts_its_own_time() {
        let start = datetime!(2026-11-21 00:00 UTC);
        let locked = Waiting::again(None, obstacle(WaitsFor::Lock), start);
        let later = start + Duration::HOUR;
        let orphaned = Waiting::again(Some(&locked), obstacle(WaitsFor::Parent), later);
        assert_eq!((orphaned.since, orphaned.tries), (later, 1));
    }
}
