//! What the store knew when a batch was loaded.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::fingerprint::Fingerprint;
use super::outcome::Outcome;
use super::parking::{ByKey, Gate};
use super::roll::Standing;
use super::row::Row;

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
    /// Ledger lines by ledger id; one write id may have been used under several keys. Writes that
    /// rest are among them.
    pub known: HashMap<Uuid, Vec<Recorded>>,
    /// Rows that are there, by entity and routing key.
    pub rows: HashMap<String, HashMap<String, Row>>,
    /// Rows that somebody else holds, and who.
    pub locked: ByKey<String>,
    /// Keys that stand still.
    pub gates: ByKey<Gate>,
    /// Whether what is not known yet may be applied.
    pub standing: Standing,
}

impl Loaded {
    /// Nothing is known and nothing is there.
    pub fn nothing(now: OffsetDateTime) -> Self {
        Self {
            now,
            known: HashMap::new(),
            rows: HashMap::new(),
            locked: ByKey::default(),
            gates: ByKey::default(),
            standing: Standing::Mine,
        }
    }
}
