//! The deliveries that are committed together, and what must be loaded to decide them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::entity::{Entities, Entity};
use super::failure::Verdict;
use super::key::Key;
use super::message::Message;
use super::outcome::{Reason, Rejection};
use super::parking::Obstacle;
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

/// Where an item of a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The broker, which wants it settled under this number.
    Delivery(u64),
    /// The line of a key that stood still.
    Letter {
        /// Of the dead letter.
        id: i64,
        /// It is `parked` or `waiting`, not a dead letter that is replayed.
        rests: bool,
    },
}

/// A dead letter that its key's lane takes from the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    pub id: i64,
    /// It is `parked` or `waiting`, not a dead letter that is replayed.
    pub rests: bool,
    pub message: Message,
    /// The write as its sender sent it; an operator may have edited its content since.
    pub identity: Identity,
}

/// One delivery of a batch, or one letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub source: Source,
    pub message: Message,
    pub decoded: Decoded,
    /// Alone in its batch it met this; it says nothing against the write.
    pub obstacle: Option<Obstacle>,
}

impl Item {
    /// Decodes a delivery.
    pub fn new(tag: u64, message: Message, entities: &Entities, limits: BatchLimits) -> Self {
        let decoded = decode(&message, entities, limits.body_bytes_max);
        Self { source: Source::Delivery(tag), message, decoded, obstacle: None }
    }

    /// Decodes a dead letter, which stays the write that it was.
    pub fn of_letter(letter: Letter, entities: &Entities, limits: BatchLimits) -> Self {
        let Letter { id, rests, message, identity } = letter;
        let decoded = known_as(decode(&message, entities, limits.body_bytes_max), identity);
        Self { source: Source::Letter { id, rests }, message, decoded, obstacle: None }
    }

    /// Whether it comes from the table.
    pub const fn is_letter(&self) -> bool {
        matches!(self.source, Source::Letter { .. })
    }

    /// The write's name in the ledger, if it has one.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.decoded {
            Ok(write) => Some(&write.identity),
            Err(refused) => refused.identity.as_ref(),
        }
    }

    /// Whether its key stands still behind it, should it be rejected for this.
    pub fn stops_its_key(&self, reason: Reason) -> bool {
        self.parks() && reason.may_stop_a_key()
    }

    fn parks(&self) -> bool {
        match &self.decoded {
            Ok(write) => write.entity.parks,
            Err(refused) => refused.parks,
        }
    }

    /// Whether it must not pass a key that stands still.
    pub fn keeps_to_the_line(&self) -> bool {
        match &self.decoded {
            Ok(_) => true,
            Err(refused) => refused.rejection.reason.may_stop_a_key(),
        }
    }

    /// Whether it was refused for something that the catalogue may know better by now.
    pub fn stale(&self) -> bool {
        self.decoded.as_ref().is_err_and(|refused| refused.stale)
    }

    /// Decodes it again with a fresh catalogue, whose answer stands.
    pub fn decode_again(&mut self, entities: &Entities, limits: BatchLimits) {
        let decoded = decode(&self.message, entities, limits.body_bytes_max);
        let decoded = decoded.map_err(|mut refused| {
            refused.stale = false;
            refused
        });
        self.decoded = match (self.source, self.identity()) {
            (Source::Letter { .. }, Some(identity)) => known_as(decoded, identity.clone()),
            _ => decoded,
        };
    }

    /// Turns it into a rejection: it was alone in its batch and could not be applied.
    fn reject(&mut self, rejection: Rejection) {
        let identity = self.identity().cloned();
        let parks = self.parks();
        self.decoded = Err(Box::new(Refused { identity, rejection, stale: false, parks }));
    }

    /// What it gets after it failed alone: it is rejected, or it rests.
    pub fn judge(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Reject(rejection) => self.reject(rejection.clone()),
            Verdict::Rest(obstacle) => self.obstacle = Some(obstacle.clone()),
            _ => {}
        }
    }

    /// What the broker gave up on is rejected, unless the ledger knows what became of it.
    pub fn give_up(&mut self) {
        let why = self.message.properties.header("x-first-death-reason").unwrap_or_default();
        let detail = format!("the broker gave the message up: {why}");
        self.reject(Rejection::new(Reason::RedeliveredTooOften, detail));
    }
}

fn known_as(mut decoded: Decoded, identity: Identity) -> Decoded {
    match &mut decoded {
        Ok(write) => write.identity = identity,
        Err(refused) => refused.identity = Some(identity),
    }
    decoded
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
