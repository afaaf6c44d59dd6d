//! The state of the model: small, and equal where two histories come to the same.

use keylane::core::partition::PartitionId;
use keylane::core::roll::{Handover, Source};
use uuid::Uuid;

use super::mutation::Mutation;
use super::turns::Line;

/// Rings that a run may come to.
pub(crate) const RINGS: usize = 7;
/// Held, and the partitions of the rings.
pub(crate) const QUEUES: usize = 1 + RINGS * PARTITIONS;
const PARTITIONS: usize = 2;
/// Items of a queue are numbers: first the writes, then the markers.
pub(crate) const FIRST_MARKER: u8 = 7;
const LAST_ITEM: u8 = 15;

/// Some of the queues.
pub(crate) type QueueSet = u16;
/// Some of the writes.
pub(crate) type WriteSet = u8;

/// What can happen in a scenario, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// Handovers that may begin while the explorer still looks for trouble.
    pub(crate) rolls: u8,
    /// A worker dies between two steps of a roll, or a lane between commit and acknowledgement.
    pub(crate) crashes: u8,
    pub(crate) restarts: u8,
    /// A person unbinds or deletes the ring.
    pub(crate) persons: u8,
    /// A person deletes a partition's queue that is empty.
    pub(crate) queues: u8,
    /// A confirm of a marker comes too late.
    pub(crate) late: u8,
    /// A lane has stood before a marker for too long.
    pub(crate) withdrawals: u8,
    /// Another number of partitions is wanted.
    pub(crate) resizes: u8,
    /// Rounds of tidying up.
    pub(crate) tidies: u8,
    /// A queue's leader hangs for a while.
    pub(crate) hangs: u8,
}

/// What does not change during a run.
#[expect(clippy::struct_excessive_bools, reason = "each says how one scenario differs")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The key of each write.
    pub(crate) keys: &'static [u8],
    /// Writes that their sender puts into held himself.
    pub(crate) straight: WriteSet,
    /// The next write of a key is published before the confirm of the one before, on one channel.
    pub(crate) pipelined: bool,
    /// What is published has arrived, at once.
    pub(crate) prompt: bool,
    /// The broker forgets rings when it restarts.
    pub(crate) forgets: bool,
    /// A sender whose write was lost on its way never sends it again.
    pub(crate) gives_up: bool,
    pub(crate) rollers: usize,
    /// Each transaction of a lane in two: what it reads at its beginning may be old at its end.
    pub(crate) slow_lanes: bool,
    pub(crate) budget: Budget,
    pub(crate) mutation: Option<Mutation>,
}

impl Setting {
    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(crate) fn writes(&self) -> impl Iterator<Item = u8> + use<> {
        1..=u8::try_from(self.keys.len()).expect("there are few writes")
    }

    pub(crate) fn key(&self, write: u8) -> u8 {
        self.keys[usize::from(write) - 1]
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Sent {
    pub(crate) published: bool,
    pub(crate) accepted: bool,
    pub(crate) given_up: bool,
    /// Queues that it is routed to and has not reached.
    pub(crate) under_way: QueueSet,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Broker {
    /// Turns under whose key held is bound.
    pub(crate) held: u16,
    /// Rings that are there, that are bound, and queues that are there.
    pub(crate) rings: u16,
    pub(crate) bound: u16,
    /// Rings that somebody deleted since the last restart: a roller whose connection is older than
    /// that knows it was no restart.
    pub(crate) deleted: u16,
    pub(crate) there: QueueSet,
    /// Its leader answers nobody; what comes, waits.
    pub(crate) hangs: QueueSet,
    /// Four bits an item, the head in the lowest.
    queues: [u64; QUEUES],
}

/// The volatile memory of a worker that carries out a handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Roller {
    pub(crate) handover: Handover,
    /// The step that comes next.
    pub(crate) at: u8,
    pub(crate) next: Source,
    pub(crate) marker: u8,
    /// The markers are published; of some the confirm may be missing.
    pub(crate) put: bool,
    /// Writes that were routed before the next source was bound, and are still under way.
    pub(crate) waits_for: WriteSet,
    /// Queues of the last turn that are not there.
    pub(crate) gone: QueueSet,
    /// Its connection to the broker lives.
    pub(crate) connected: bool,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) line: Line,
    pub(crate) wanted: i32,
    pub(crate) broker: Broker,
    pub(crate) writes: [Sent; FIRST_MARKER as usize],
    /// For each marker, the queues that it has not reached yet.
    pub(crate) markers: [QueueSet; LAST_ITEM as usize + 1],
    pub(crate) rollers: [Option<Roller>; 2],
    /// What an open transaction of a lane has read: its standing, or nothing.
    pub(crate) lanes: [u8; QUEUES],
    pub(crate) applied: WriteSet,
    pub(crate) budget: Budget,
}

pub(crate) fn bit(position: usize) -> u16 {
    1 << position
}

pub(crate) fn write_bit(write: u8) -> WriteSet {
    1 << (write - 1)
}

pub(crate) fn number(marker: u8) -> Uuid {
    Uuid::from_u128(marker.into())
}

/// The queue of a partition.
pub(crate) fn queue(id: PartitionId) -> usize {
    let at = |number: i32| usize::try_from(number).expect("no number is negative");
    if id == PartitionId::HELD { 0 } else { at(id.generation) * PARTITIONS - 1 + at(id.partition) }
}

/// The partition of a queue.
pub(crate) fn partition(queue: usize) -> PartitionId {
    if queue == 0 {
        return PartitionId::HELD;
    }
    let number = |number: usize| i32::try_from(number).expect("there are few");
    let (generation, partition) = (queue.div_ceil(PARTITIONS), (queue - 1) % PARTITIONS);
    PartitionId { generation: number(generation), partition: number(partition) }
}

impl Broker {
    pub(crate) fn head(&self, queue: usize) -> Option<u8> {
        self.items(queue).next()
    }

    /// From the head on.
    pub(crate) fn items(&self, queue: usize) -> impl Iterator<Item = u8> + use<> {
        let mut rest = self.queues[queue];
        std::iter::from_fn(move || {
            let item = u8::try_from(rest & 15).expect("four bits");
            rest >>= 4;
            (item > 0).then_some(item)
        })
    }

    pub(crate) fn push(&mut self, queue: usize, item: u8) {
        let items = &mut self.queues[queue];
        let long = (64 - items.leading_zeros()).div_ceil(4) * 4;
        assert!(long < 64, "no queue of a scenario gets that long");
        *items |= u64::from(item) << long;
    }

    pub(crate) fn pop(&mut self, queue: usize) {
        self.queues[queue] >>= 4;
    }

    pub(crate) fn clear(&mut self, queue: usize) {
        self.queues[queue] = 0;
    }
}

impl World {
    /// Nothing has ever been there but the frame.
    pub(crate) fn new(setting: &Setting) -> Self {
        let (rings, bound, held, hangs) = (0, 0, 0, 0);
        Self {
            line: Line::default(),
            wanted: 2,
            broker: Broker { held, rings, bound, deleted: 0, there: 1, hangs, queues: [0; QUEUES] },
            writes: Default::default(),
            markers: Default::default(),
            rollers: [None, None],
            lanes: [0; QUEUES],
            applied: 0,
            budget: setting.budget,
        }
    }

    pub(crate) fn sent(&mut self, write: u8) -> &mut Sent {
        &mut self.writes[usize::from(write)]
    }

    pub(crate) fn is_applied(&self, write: u8) -> bool {
        self.applied & write_bit(write) != 0
    }

    pub(crate) fn under_way(&self) -> WriteSet {
        let writes =
            (1..FIRST_MARKER).filter(|write| self.writes[usize::from(*write)].under_way > 0);
        writes.map(write_bit).sum()
    }

    /// A marker that nobody knows of any more can be taken again: so there are finitely many.
    pub(crate) fn unused_marker(&self) -> u8 {
        let turns = self.line.turns.iter().filter(|row| !row.closed);
        let meant = turns.filter_map(|row| row.turn.marker);
        let farewells = self.line.generations.iter().filter_map(|generation| generation.farewell);
        let numbers: Vec<Uuid> = meant.chain(farewells).collect();
        let queued = (0..QUEUES).flat_map(|queue| self.broker.items(queue));
        let intended = self.rollers.iter().flatten().map(|roller| roller.marker);
        let known: Vec<u8> = queued.chain(intended).collect();
        (FIRST_MARKER..=LAST_ITEM)
            .find(|marker| {
                self.markers[usize::from(*marker)] == 0
                    && !known.contains(marker)
                    && !numbers.contains(&number(*marker))
            })
            .expect("few markers are about at once")
    }
}
