//! A batch and what was loaded for it come to one plan: all that the batch will store and settle.
//!
//! Owns: exactly one outcome for every delivery; what a repeat gets; which changes share a
//! statement.
//! Never: depends on anything but its arguments. Equal input, equal plan.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::batch::{Item, Source};
use super::entity::Entity;
use super::failure::Failure;
use super::fingerprint::Fingerprint;
use super::fold::Lane;
use super::key::Key;
use super::lines::Lines;
pub use super::loaded::{Loaded, Recorded};
use super::outcome::{Outcome, Reason, Rejection, Rest};
use super::parking::{ByKey, KeyChange, Obstacle, ParkLimits, Waiting, WaitsFor};
use super::roll::Standing;
use super::row::{Row, RowChange};
use super::write::{Identity, Write};

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
    /// Items that get a line in the ledger; a letter's replaces the one that it has.
    pub ledger: Vec<usize>,
    /// Deliveries that become dead letters, or rest among them.
    pub dead_letters: Vec<usize>,
    /// Letters of which something new is known.
    pub letters: Vec<usize>,
    /// Keys that stand still, or did, sorted.
    pub keys: Vec<KeyChange>,
    /// One for each item.
    pub settled: Vec<Settled>,
}

impl CommitPlan {
    /// How many deliveries come to rest.
    pub fn resting(&self) -> usize {
        let outcomes = self.dead_letters.iter().filter_map(|position| self.settled.get(*position));
        outcomes.filter(|settled| matches!(settled.outcome, Outcome::Parked(_))).count()
    }

    /// How many row writes the plan comes to.
    pub fn row_writes(&self) -> usize {
        self.rounds.iter().map(|round| round.changes.len()).sum()
    }
}

/// Decides every item of a batch, in queue order; letters in the order of their line.
///
/// It fails with [`Failure::ParkFull`], and with [`Failure::NotOurTurn`] or [`Failure::Stranded`]
/// where something is new that has to wait: then nothing of it may be stored.
pub fn plan(items: &[Item], loaded: Loaded, limits: ParkLimits) -> Result<CommitPlan, Failure> {
    let mut planning = Planning::new(loaded, limits);
    for (position, item) in items.iter().enumerate() {
        planning.item(position, item)?;
    }
    let plan = planning.finish();
    assert_eq!(plan.settled.len(), items.len(), "every delivery of a batch gets one outcome");
    Ok(plan)
}

struct Planning<'a> {
    now: OffsetDateTime,
    wait_max: Duration,
    standing: Standing,
    known: HashMap<Uuid, Vec<Recorded>>,
    rows: HashMap<String, HashMap<String, Row>>,
    locked: ByKey<String>,
    lines: Lines,
    lanes: Vec<KeyLane<'a>>,
    lane_of: HashMap<(&'a str, &'a str), usize>,
    reused: HashSet<(Uuid, Fingerprint)>,
    rounds: BTreeMap<(usize, &'a str), Round>,
    ledger: Vec<usize>,
    dead_letters: Vec<usize>,
    letters: Vec<usize>,
    settled: Vec<Settled>,
}

struct KeyLane<'a> {
    write: &'a Write,
    lane: Lane,
    round: usize,
}

impl<'a> Planning<'a> {
    fn new(loaded: Loaded, limits: ParkLimits) -> Self {
        Self {
            now: loaded.now,
            wait_max: limits.wait_max,
            standing: loaded.standing,
            known: loaded.known,
            rows: loaded.rows,
            locked: loaded.locked,
            lines: Lines::new(loaded.gates, limits),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            reused: HashSet::new(),
            rounds: BTreeMap::new(),
            ledger: Vec::new(),
            dead_letters: Vec::new(),
            letters: Vec::new(),
            settled: Vec::new(),
        }
    }

    fn item(&mut self, position: usize, item: &'a Item) -> Result<(), Failure> {
        match (item.source, item.identity()) {
            (_, None) => {
                let outcome = self.decide(item);
                // Where the turn is over, the copy that is applied is the one to complain about.
                if self.standing != Standing::Over {
                    self.dead_letters.push(position);
                }
                self.settle(outcome);
                Ok(())
            }
            (Source::Delivery(_), Some(name)) => self.delivery(position, item, name),
            (Source::Letter { rests, .. }, Some(name)) => {
                self.letter(position, item, name, rests);
                Ok(())
            }
        }
    }

    fn delivery(
        &mut self,
        position: usize,
        item: &'a Item,
        name: &Identity,
    ) -> Result<(), Failure> {
        match self.repeat(name) {
            Repeat::No => self.may_apply()?,
            Repeat::Same(settled) => {
                self.settled.push(settled);
                return Ok(());
            }
            Repeat::Reused(rejection) => {
                if self.reused.insert((name.id, name.fingerprint)) {
                    self.dead_letters.push(position);
                }
                self.settle(Outcome::Rejected(rejection));
                return Ok(());
            }
        }
        let still = self.lines.stands_still(name).filter(|_| item.keeps_to_the_line());
        let outcome = still.map_or_else(|| self.decide(item), Outcome::Parked);
        match &outcome {
            Outcome::Applied { .. } | Outcome::PreconditionFailed { .. } => {
                self.ledger.push(position);
            }
            Outcome::Rejected(rejection) => {
                self.ledger.push(position);
                self.dead_letters.push(position);
                if item.stops_its_key(rejection.reason) {
                    self.lines.stop(name);
                }
            }
            Outcome::Parked(_) => {
                self.dead_letters.push(position);
                self.lines.rests(name)?;
            }
        }
        self.remember(name, &outcome);
        self.settle(outcome);
        Ok(())
    }

    /// What nobody has applied yet waits for the turn of its queue.
    fn may_apply(&self) -> Result<(), Failure> {
        match self.standing {
            Standing::Mine => Ok(()),
            Standing::NotYet => Err(Failure::NotOurTurn("what was accepted before waits".into())),
            Standing::Over => Err(Failure::Stranded),
        }
    }

    /// A letter of the line: it is decided unless the one before it was not.
    fn letter(&mut self, position: usize, item: &'a Item, name: &Identity, rests: bool) {
        if let Some(rest) = self.lines.stands_still(name) {
            return self.settle(Outcome::Parked(rest));
        }
        self.letters.push(position);
        let settled = match self.repeat(name) {
            Repeat::Same(settled) if settled.outcome.is_final() => settled,
            // It was there first: what another key made of its id is no reason against it.
            Repeat::Same(_) | Repeat::Reused(_) | Repeat::No => {
                let outcome = self.decide(item);
                if !matches!(outcome, Outcome::Parked(_)) {
                    self.ledger.push(position);
                    self.remember(name, &outcome);
                }
                self.now_settled(outcome)
            }
        };
        match (&settled.outcome, rests) {
            (Outcome::Parked(_), false) => self.lines.stays(name),
            (Outcome::Parked(_), true) | (_, false) => {}
            (_, true) => self.lines.leaves(name),
        }
        if let Outcome::Rejected(rejection) = &settled.outcome
            && item.stops_its_key(rejection.reason)
        {
            self.lines.stop(name);
        }
        self.settled.push(settled);
    }

    fn settle(&mut self, outcome: Outcome) {
        let settled = self.now_settled(outcome);
        self.settled.push(settled);
    }

    fn now_settled(&self, outcome: Outcome) -> Settled {
        Settled { outcome, applied_at: self.now, replayed: false }
    }

    fn remember(&mut self, name: &Identity, outcome: &Outcome) {
        let lines = self.known.entry(name.id).or_default();
        lines.retain(|line| line.key != name.key);
        lines.push(Recorded {
            key: name.key.clone(),
            fingerprint: name.fingerprint,
            outcome: outcome.clone(),
            applied_at: self.now,
        });
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

    /// What becomes of a write that nobody has seen before and that nothing holds back.
    fn decide(&mut self, item: &'a Item) -> Outcome {
        let write = match &item.decoded {
            Ok(write) => write,
            Err(refused) => return Outcome::Rejected(refused.rejection.clone()),
        };
        match self.obstacle(item, write) {
            Some(obstacle) => self.wait(write, obstacle),
            None => self.apply(write),
        }
    }

    fn obstacle(&self, item: &Item, write: &Write) -> Option<Obstacle> {
        let locked = || {
            let holder = self.locked.get(&write.entity.name, write.key.as_str())?;
            Some(Obstacle { waits_for: WaitsFor::Lock, why: holder.clone() })
        };
        item.obstacle.clone().or_else(locked)
    }

    /// The key waits; a parent that does not come is waited for so long and no longer.
    fn wait(&mut self, write: &Write, obstacle: Obstacle) -> Outcome {
        let name = &write.identity;
        let waiting = Waiting::again(self.lines.waiting(name), obstacle, self.now);
        let rest = match waiting.waits_for {
            WaitsFor::Lock => Rest::RowLocked,
            WaitsFor::Parent if self.now - waiting.since < self.wait_max => Rest::MissingParent,
            WaitsFor::Parent => {
                let why = format!("{}; it did not come in time", waiting.why);
                return Outcome::Rejected(Rejection::new(Reason::ConstraintViolation, why));
            }
        };
        self.lines.wait(name, waiting);
        Outcome::Parked(rest)
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
            letters: self.letters,
            keys: self.lines.finish(),
            settled: self.settled,
        }
    }
}

enum Repeat {
    No,
    Same(Settled),
    Reused(Rejection),
}
