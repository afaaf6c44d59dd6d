//! A batch and what was loaded for it come to one plan: all that the batch will store and settle.
//!
//! Owns: exactly one outcome for every delivery; what a repeat gets; which changes share a
//! statement.
//! Never: depends on anything but its arguments. Equal input, equal plan.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::batch::Item;
use super::entity::Entity;
use super::fingerprint::Fingerprint;
use super::fold::Lane;
use super::key::Key;
use super::outcome::{Outcome, Reason, Rejection};
use super::row::{Row, RowChange};
use super::write::{Identity, Write};

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The key under which the write id was used.
    pub key: String,
    pub fingerprint: Fingerprint,
    pub outcome: Outcome,
    pub applied_at: OffsetDateTime,
}

/// What the store knew when the batch was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The database's clock.
    pub now: OffsetDateTime,
    /// Ledger lines by ledger id; one write id may have been used under several keys.
    pub known: HashMap<Uuid, Vec<Recorded>>,
    /// Rows that are there, by entity and routing key.
    pub rows: HashMap<String, HashMap<String, Row>>,
}

/// What one delivery gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub outcome: Outcome,
    pub applied_at: OffsetDateTime,
    /// The ledger knew it: nothing was changed.
    pub replayed: bool,
}

/// Row changes of one entity that one round of statements can write: no key twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    pub entity: Arc<Entity>,
    /// Sorted by key.
    pub changes: BTreeMap<Key, RowChange>,
}

/// All that one batch will store and settle. Positions are those of the batch's items.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitPlan {
    /// When the batch was decided, by the database's clock.
    pub now: OffsetDateTime,
    /// In order: a later one may change the same row again.
    pub rounds: Vec<Round>,
    /// Items that get a line in the ledger.
    pub ledger: Vec<usize>,
    /// Items that become dead letters.
    pub dead_letters: Vec<usize>,
    /// One for each item.
    pub settled: Vec<Settled>,
}

impl CommitPlan {
    /// How many row writes the plan comes to.
    pub fn row_writes(&self) -> usize {
        self.rounds.iter().map(|round| round.changes.len()).sum()
    }
}

/// Decides every item of a batch, in queue order.
pub fn plan(items: &[Item], loaded: Loaded) -> CommitPlan {
    let mut planning = Planning::new(loaded);
    for (position, item) in items.iter().enumerate() {
        planning.item(position, item);
    }
    let plan = planning.finish();
    assert_eq!(plan.settled.len(), items.len(), "every delivery of a batch gets one outcome");
    plan
}

struct Planning<'a> {
    now: OffsetDateTime,
    known: HashMap<Uuid, Vec<Recorded>>,
    rows: HashMap<String, HashMap<String, Row>>,
    lanes: Vec<KeyLane<'a>>,
    lane_of: HashMap<(&'a str, &'a str), usize>,
    reused: HashSet<(Uuid, Fingerprint)>,
    rounds: BTreeMap<(usize, &'a str), Round>,
    ledger: Vec<usize>,
    dead_letters: Vec<usize>,
    settled: Vec<Settled>,
}

struct KeyLane<'a> {
    write: &'a Write,
    lane: Lane,
    round: usize,
}

impl<'a> Planning<'a> {
    fn new(loaded: Loaded) -> Self {
        Self {
            now: loaded.now,
            known: loaded.known,
            rows: loaded.rows,
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            reused: HashSet::new(),
            rounds: BTreeMap::new(),
            ledger: Vec::new(),
            dead_letters: Vec::new(),
            settled: Vec::new(),
        }
    }

    fn item(&mut self, position: usize, item: &'a Item) {
        if let Some(identity) = item.identity() {
            match self.repeat(identity) {
                Repeat::No => {}
                Repeat::Same(settled) => return self.settled.push(settled),
                Repeat::Reused(rejection) => {
                    if self.reused.insert((identity.id, identity.fingerprint)) {
                        self.dead_letters.push(position);
                    }
                    return self.settle(Outcome::Rejected(rejection));
                }
            }
        }
        let outcome = match &item.decoded {
            Ok(write) => self.apply(write),
            Err(refused) => Outcome::Rejected(refused.rejection.clone()),
        };
        if matches!(outcome, Outcome::Rejected(_)) {
            self.dead_letters.push(position);
        }
        if let Some(identity) = item.identity() {
            self.known.entry(identity.id).or_default().push(Recorded {
                key: identity.key.clone(),
                fingerprint: identity.fingerprint,
                outcome: outcome.clone(),
                applied_at: self.now,
            });
            self.ledger.push(position);
        }
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        self.settled.push(Settled { outcome, applied_at: self.now, replayed: false });
    }

    /// What the ledger, or an earlier write of this batch, says of the write id.
    fn repeat(&self, identity: &Identity) -> Repeat {
        let Some(lines) = self.known.get(&identity.id) else { return Repeat::No };
        let reused = |detail: &str| Repeat::Reused(Rejection::new(Reason::WriteIdReused, detail));
        match lines.iter().find(|line| line.key == identity.key) {
            Some(line) if line.fingerprint == identity.fingerprint => Repeat::Same(Settled {
                outcome: line.outcome.clone(),
                applied_at: line.applied_at,
                replayed: true,
            }),
            Some(_) => reused("this write id was used before with other content"),
            None if lines.is_empty() => Repeat::No,
            None => reused("this write id was used before under another key"),
        }
    }

    fn apply(&mut self, write: &'a Write) -> Outcome {
        let name = (write.entity.name.as_str(), write.key.as_str());
        let position = *self.lane_of.entry(name).or_insert_with(|| {
            let row = self.rows.get_mut(name.0).and_then(|rows| rows.remove(name.1));
            let lane = Lane::new(Arc::clone(&write.entity), row);
            self.lanes.push(KeyLane { write, lane, round: 0 });
            self.lanes.len() - 1
        });
        let now = self.now;
        let Some(key_lane) = self.lanes.get_mut(position) else {
            unreachable!("a lane is pushed before its position is handed out")
        };
        let outcome = key_lane.lane.apply(write, now);
        if !write.entity.fold
            && let Some(change) = key_lane.lane.take_change()
        {
            let round = key_lane.round;
            key_lane.round += 1;
            self.add_change(round, write, change);
        }
        outcome
    }

    fn add_change(&mut self, round: usize, write: &'a Write, change: RowChange) {
        self.rounds
            .entry((round, &write.entity.name))
            .or_insert_with(|| Round {
                entity: Arc::clone(&write.entity),
                changes: BTreeMap::new(),
            })
            .changes
            .insert(write.key.clone(), change);
    }

    fn finish(mut self) -> CommitPlan {
        for mut key_lane in std::mem::take(&mut self.lanes) {
            if let Some(change) = key_lane.lane.take_change() {
                self.add_change(0, key_lane.write, change);
            }
        }
        CommitPlan {
            now: self.now,
            rounds: self.rounds.into_values().collect(),
            ledger: self.ledger,
            dead_letters: self.dead_letters,
            settled: self.settled,
        }
    }
}

enum Repeat {
    No,
    Same(Settled),
    Reused(Rejection),
}
