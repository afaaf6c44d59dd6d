//! What may rest, and how long.

use std::num::{NonZeroU32, NonZeroUsize};

use serde::{Deserialize, Serialize};

use super::{size, u32};

/// Keys that stand still.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Park {
    /// Most writes of one key that rest; beyond it the partition takes no deliveries.
    pub key_max: NonZeroUsize,
    /// Most writes that rest in all; counted every two seconds.
    pub total_max: NonZeroUsize,
    /// How long a write waits for the row that its foreign key refers to, in seconds.
    pub wait_max_s: NonZeroU32,
}

impl Default for Park {
    fn default() -> Self {
        Self { key_max: size(10_000), total_max: size(1_000_000), wait_max_s: u32(60) }
    }
}
