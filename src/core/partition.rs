//! Which queue a lane serves, and what the queues are called.

use std::fmt;

/// A queue with one active consumer: a partition of a generation, or one of the two beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The ring; 0 for the queues outside of any.
    pub generation: i32,
    /// Position in the ring; for generation 0: 0 is held, 1 is dead.
    pub partition: i32,
}

impl PartitionId {
    /// Writes that were published while no ring stood.
    pub const HELD: Self = Self { generation: 0, partition: 0 };
    /// What the broker itself gave up on.
    pub const DEAD: Self = Self { generation: 0, partition: 1 };

    /// The queue's name.
    pub fn queue(self, prefix: &str) -> String {
        match self {
            Self::HELD => format!("{prefix}.held"),
            Self::DEAD => format!("{prefix}.dead"),
            Self { generation, partition } => format!("{prefix}.{generation}.{partition:03}"),
        }
    }

    /// Its name in whatever generation.
    pub fn place(self) -> String {
        match self {
            Self::HELD | Self::DEAD => self.to_string(),
            Self { generation: _, partition } => format!("{partition:03}"),
        }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::HELD => f.write_str("held"),
            Self::DEAD => f.write_str("dead"),
            Self { generation, partition } => write!(f, "{generation}.{partition:03}"),
        }
    }
}

/// The number that says who owns a partition; a commit under an old one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
