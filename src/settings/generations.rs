//! How rings come and go.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::u32;

/// Rings that come and go.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generations {
    /// How long the broker may take to deliver what it has routed, in milliseconds: a roll waits so
    /// long before it says where a turn ends.
    pub settle_ms: NonZeroU32,
    /// How long the broker may take to write down which queues it has, in milliseconds: new ones
    /// rest so long before anybody relies on them.
    pub rest_ms: NonZeroU32,
    /// How long a worker leaves the queues of a ring that has got its turn to workers with a higher
    /// score, at most, in milliseconds.
    pub spread_ms: u32,
    /// How long the queues of a ring are kept, and consumed, after its turn, in minutes.
    pub keep_minutes: NonZeroU32,
    /// How long a write in a queue whose turn is over waits for its copy to be applied, before it is
    /// put into held.
    pub copies_max_s: NonZeroU32,
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            settle_ms: u32(5_000),
            rest_ms: u32(2_000),
            spread_ms: 1_000,
            keep_minutes: u32(60),
            copies_max_s: u32(60),
        }
    }
}
