//! The deliveries that are committed together, and what must be loaded to decide them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::entity::{Entities, Entity};
use super::key::Key;
use super::message::Message;
use super::outcome::{Reason, Rejection};
use super::write::{Change, Decoded, Identity, Refused, decode};

/// What a batch may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Deliveries.
    pub writes_max: usize,
    /// Bytes of their bodies together; one larger body still makes a batch of its own.
    pub bytes_max: usize,
    /// Bytes of one body; a larger one is refused.
    pub body_bytes_max: usize,
}

/// One delivery of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The number under which the broker wants it settled.
    pub tag: u64,
    pub message: Message,
    pub decoded: Decoded,
}

impl Item {
    /// Decodes a delivery.
    pub fn new(tag: u64, message: Message, entities: &Entities, limits: BatchLimits) -> Self {
        let decoded = decode(&message, entities, limits.body_bytes_max);
        Self { tag, message, decoded }
    }

    /// The write's name in the ledger, if it has one.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.decoded {
            Ok(write) => Some(&write.identity),
            Err(refused) => refused.identity.as_ref(),
        }
    }

    /// Whether it was refused for something that the catalogue may know better by now.
    pub fn stale(&self) -> bool {
        self.decoded.as_ref().is_err_and(|refused| refused.stale)
    }

    /// Decodes it again with a fresh catalogue, whose answer stands.
    pub fn decode_again(&mut self, entities: &Entities, limits: BatchLimits) {
        self.decoded =
            decode(&self.message, entities, limits.body_bytes_max).map_err(|mut refused| {
                refused.stale = false;
                refused
            });
    }

    /// Turns it into a rejection: it was alone in its batch and could not be applied.
    pub fn reject(&mut self, rejection: Rejection) {
        let identity = self.identity().cloned();
        self.decoded = Err(Box::new(Refused { identity, rejection, stale: false }));
    }

    /// What the broker gave up on is rejected, unless the ledger knows what became of it.
    pub fn give_up(&mut self) {
        let why = self.message.properties.header("x-first-death-reason").unwrap_or_default();
        let detail = format!("the broker gave the message up: {why}");
        self.reject(Rejection::new(Reason::RedeliveredTooOften, detail));
    }
}

/// The rows of one entity that a batch needs.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedRows {
    pub entity: Arc<Entity>,
    /// Sorted: locks are taken in this order.
    pub keys: BTreeSet<Key>,
    /// A row may go away: the lock must be the one that a delete takes.
    pub deletes: bool,
    /// An increment is folded: the number columns are needed.
    pub numbers: bool,
}

/// What a batch needs to know before it can be decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Ledger ids.
    pub ids: Vec<Uuid>,
    /// By entity name.
    pub rows: BTreeMap<String, WantedRows>,
}

impl Wanted {
    /// Reads off the batch what it needs.
    pub fn of(items: &[Item]) -> Self {
        let mut wanted = Self::default();
        for item in items {
            wanted.ids.extend(item.identity().map(|identity| identity.id));
            let Ok(write) = &item.decoded else { continue };
            if !wanted.rows.contains_key(&write.entity.name) {
                wanted.rows.insert(
                    write.entity.name.clone(),
                    WantedRows {
                        entity: Arc::clone(&write.entity),
                        keys: BTreeSet::new(),
                        deletes: false,
                        numbers: false,
                    },
                );
            }
            let Some(rows) = wanted.rows.get_mut(&write.entity.name) else { continue };
            rows.deletes |= write.change == Change::Delete && write.entity.deleted_at.is_none();
            rows.numbers |= write.change == Change::Increment && write.entity.fold;
            if !rows.keys.contains(&write.key) {
                rows.keys.insert(write.key.clone());
            }
        }
        wanted
    }
}
