//! Where the simulated broker sends what is published, and what it forgets at a restart.

use std::collections::{BTreeMap, BTreeSet};

use keylane::core::partition::PartitionId;
use keylane::core::roll::{Ring, Source};

/// Exchanges and bindings.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Turns under whose key held is bound.
    held: BTreeSet<i64>,
    /// Rings that are there, with their partitions.
    rings: BTreeMap<i32, i32>,
    bound: BTreeSet<i32>,
}

/// The queues of a ring.
pub(crate) fn queues(generation: i32, partitions: i32) -> impl Iterator<Item = PartitionId> {
    (0..partitions).map(move |partition| PartitionId { generation, partition })
}

impl Routing {
    pub(crate) fn declare(&mut self, generation: i32, partitions: i32) {
        self.rings.insert(generation, partitions);
    }

    /// False: there is no such ring.
    pub(crate) fn bind(&mut self, source: Source, turn: i64) -> bool {
        match source {
            Source::Held => {
                self.held.insert(turn);
            }
            Source::Ring(generation) if self.rings.contains_key(&generation) => {
                self.bound.insert(generation);
            }
            Source::Ring(_) => return false,
        }
        true
    }

    pub(crate) fn unbind(&mut self, source: Source, turn: i64) {
        match source {
            Source::Held => self.held.remove(&turn),
            Source::Ring(generation) => self.bound.remove(&generation),
        };
    }

    pub(crate) fn ring(&self, source: Source) -> Ring {
        match source {
            Source::Ring(generation) if self.rings.contains_key(&generation) => Ring::Whole,
            Source::Ring(_) | Source::Held => Ring::Gone,
        }
    }

    /// A restart without Khepri.
    pub(crate) fn forget(&mut self) {
        self.rings.clear();
        self.bound.clear();
    }

    /// The queues that a message goes to.
    pub(crate) fn of(&self, routing_key: &str) -> Vec<PartitionId> {
        let sum: i32 = routing_key.bytes().map(i32::from).sum();
        let place = |generation: &i32| {
            // Each ring has places of its own.
            let partition = (sum + generation) % self.rings[generation];
            PartitionId { generation: *generation, partition }
        };
        let held = (!self.held.is_empty()).then_some(PartitionId::HELD);
        let mut to: Vec<_> = held.into_iter().chain(self.bound.iter().map(place)).collect();
        if to.is_empty() {
            to.push(PartitionId::HELD);
        }
        to
    }
}
