//! Which keys stand still while a batch is planned, and what comes of them.
//!
//! Owns: that nothing passes a key that stands still, and the bounds of what rests.
//! Never: decides whether a write can be applied.

use std::collections::BTreeMap;

use super::failure::Failure;
use super::outcome::Rest;
use super::parking::{ByKey, Gate, KeyChange, KeyThen, ParkLimits, Waiting};
use super::write::Identity;

/// The keys of a batch that stand still, or did.
pub(super) struct Lines {
    keys: ByKey<Line>,
    limits: ParkLimits,
    rested: usize,
}

/// One of them.
struct Line {
    gate: Gate,
    /// What the next write of the key gets; `None` while the line is being taken.
    still: Option<Rest>,
    rested: i64,
    then: KeyThen,
}

impl Lines {
    pub(super) fn new(gates: ByKey<Gate>, limits: ParkLimits) -> Self {
        let mut keys = ByKey::default();
        for (entity, key, gate) in gates.into_entries() {
            let (still, then) = match &gate {
                Gate { looked_at: true, .. } => (None, KeyThen::GoesOn),
                Gate { paused: true, .. } => (Some(Rest::Paused), KeyThen::AsBefore),
                Gate { waiting: Some(_), .. } => {
                    (Some(Rest::BehindWaitingWrite), KeyThen::AsBefore)
                }
                Gate { .. } => (Some(Rest::BehindDeadLetter), KeyThen::AsBefore),
            };
            keys.insert(&entity, &key, Line { gate, still, rested: 0, then });
        }
        Self { keys, limits, rested: 0 }
    }

    /// Why the next write of the key must rest, if it must.
    pub(super) fn stands_still(&self, name: &Identity) -> Option<Rest> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(&name.entity, &name.key)?.still
    }

    /// The try before this one, of a key that waits.
    pub(super) fn waiting(&self, name: &Identity) -> Option<&Waiting> {
        self.keys.get(&name.entity, &name.key)?.gate.waiting.as_ref()
    }

    /// A write of the key comes to rest.
    pub(super) fn rests(&mut self, name: &Identity) -> Result<(), Failure> {
        let (key_max, room) = (self.limits.key_max, self.limits.room);
        let line = self.line(name);
        line.rested += 1;
        let resting = i64::try_from(line.gate.resting).unwrap_or(i64::MAX);
        if i64::try_from(key_max).is_ok_and(|max| resting.saturating_add(line.rested) > max) {
            return Err(Failure::ParkFull(format!(
                "{} writes of one key of {} rest, and no more may (park.key_max); \
                 `keylane key list --parked` names it",
                line.gate.resting, name.entity
            )));
        }
        self.rested += 1;
        if self.rested > room {
            return Err(Failure::ParkFull(
                "as many writes rest in all as may (park.total_max)".to_owned(),
            ));
        }
        Ok(())
    }

    /// A dead letter of the key that was replayed rests now; it was in the table before.
    pub(super) fn stays(&mut self, name: &Identity) {
        self.line(name).rested += 1;
    }

    /// A write of the key no longer rests.
    pub(super) fn leaves(&mut self, name: &Identity) {
        self.line(name).rested -= 1;
    }

    /// The key stands still behind a dead letter.
    pub(super) fn stop(&mut self, name: &Identity) {
        let line = self.line(name);
        line.still = Some(Rest::BehindDeadLetter);
        line.then = KeyThen::Stopped;
    }

    /// The key waits.
    pub(super) fn wait(&mut self, name: &Identity, waiting: Waiting) {
        let line = self.line(name);
        line.still = Some(Rest::BehindWaitingWrite);
        line.then = KeyThen::Waits(waiting);
    }

    fn line(&mut self, name: &Identity) -> &mut Line {
        if self.keys.get(&name.entity, &name.key).is_none() {
            let line =
                Line { gate: Gate::default(), still: None, rested: 0, then: KeyThen::AsBefore };
            self.keys.insert(&name.entity, &name.key, line);
        }
        match self.keys.get_mut(&name.entity, &name.key) {
            Some(line) => line,
            None => unreachable!("it was there, or was made"),
        }
    }

    /// What is to be stored, sorted by entity and key: locks are taken in this order.
    pub(super) fn finish(self) -> Vec<KeyChange> {
        let touched = self
            .keys
            .into_entries()
            .filter(|(_, _, line)| line.rested != 0 || line.then != KeyThen::AsBefore);
        let sorted: BTreeMap<_, _> =
            touched.map(|(entity, key, line)| ((entity, key), line)).collect();
        sorted
            .into_iter()
            .map(|((entity, key), line)| KeyChange {
                entity,
                key,
                rested: line.rested,
                then: line.then,
            })
            .collect()
    }
}
