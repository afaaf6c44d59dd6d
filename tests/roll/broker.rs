//! What the broker does: it routes, lets things arrive, forgets.

use keylane::core::roll::{Ring, Source};

use super::mutation::Mutation;
use super::world::{FIRST_MARKER, QUEUES, QueueSet, Sent, Setting, World, bit, queue, write_bit};

/// The queues of a ring, whether they are there or not.
pub(crate) fn queues(source: Source, partitions: i32) -> impl Iterator<Item = usize> {
    use keylane::core::partition::PartitionId;
    let generation = source.generation();
    (0..partitions).map(move |partition| queue(PartitionId { generation, partition }))
}

fn ring_bit(generation: i32) -> u16 {
    bit(usize::try_from(generation).expect("no number is negative"))
}

impl World {
    pub(crate) fn is_bound(&self, source: Source) -> bool {
        match source {
            Source::Held => self.broker.held > 0,
            Source::Ring(generation) => self.broker.bound & ring_bit(generation) > 0,
        }
    }

    pub(crate) fn is_there(&self, generation: i32) -> bool {
        self.broker.rings & ring_bit(generation) > 0
    }

    /// Declares a ring and its queues.
    pub(crate) fn declare(&mut self, generation: i32, partitions: i32) {
        self.broker.rings |= ring_bit(generation);
        for queue in queues(Source::Ring(generation), partitions) {
            self.broker.there |= bit(queue);
        }
    }

    /// False: the ring is not there.
    pub(crate) fn bind(&mut self, setting: &Setting, source: Source, turn: i64) -> bool {
        match source {
            Source::Held => self.broker.held |= held_bit(setting, turn),
            Source::Ring(generation) if self.is_there(generation) => {
                self.broker.bound |= ring_bit(generation);
            }
            Source::Ring(_) => return false,
        }
        true
    }

    pub(crate) fn unbind(&mut self, setting: &Setting, source: Source, turn: i64) {
        match source {
            Source::Held => self.broker.held &= !held_bit(setting, turn),
            Source::Ring(generation) => self.broker.bound &= !ring_bit(generation),
        }
    }

    /// What `Topology::ring` answers.
    pub(crate) fn ring(&self, source: Source) -> Ring {
        let Source::Ring(generation) = source else { return Ring::Gone };
        let mut all = queues(source, self.line.partitions(source));
        match self.is_there(generation) {
            false if self.broker.deleted & ring_bit(generation) > 0 => Ring::Broken,
            false => Ring::Gone,
            true if all.all(|queue| self.broker.there & bit(queue) > 0) => Ring::Whole,
            true => Ring::Broken,
        }
    }

    /// Deletes a ring with its queues.
    pub(crate) fn delete(&mut self, generation: i32) {
        self.delete_ring(generation);
        let source = Source::Ring(generation);
        for queue in queues(source, self.line.partitions(source)) {
            self.delete_queue(queue);
        }
    }

    /// An exchange goes with its bindings.
    pub(crate) fn delete_ring(&mut self, generation: i32) {
        self.broker.rings &= !ring_bit(generation);
        self.broker.bound &= !ring_bit(generation);
        self.broker.deleted |= ring_bit(generation);
    }

    pub(crate) fn delete_queue(&mut self, queue: usize) {
        self.broker.there &= !bit(queue);
        self.broker.clear(queue);
        for sent in &mut self.writes {
            sent.under_way &= !bit(queue);
        }
        for marker in &mut self.markers {
            *marker &= !bit(queue);
        }
    }

    /// Where a write of that key goes now.
    fn route(&self, key: u8) -> QueueSet {
        let mut to = QueueSet::from(self.broker.held > 0);
        for generation in 1..=i32::try_from(self.line.generations.len()).expect("few") {
            let source = Source::Ring(generation);
            if !self.is_bound(source) {
                continue;
            }
            let there: Vec<usize> = queues(source, self.line.partitions(source))
                .filter(|queue| self.broker.there & bit(*queue) > 0)
                .collect();
            // Another ring, another place of each key. A ring without queues has held to go to.
            let place = usize::from(key) + usize::try_from(generation).expect("few");
            to |= if there.is_empty() { 1 } else { bit(there[place % there.len()]) };
        }
        // Nothing is bound: the alternate exchange takes it.
        if to == 0 { 1 } else { to }
    }

    /// Whether its sender may publish a write now.
    pub(crate) fn may_publish(&self, setting: &Setting, write: u8) -> bool {
        let before = (1..write).filter(|other| setting.key(*other) == setting.key(write));
        let let_go =
            |sent: Sent| sent.accepted || sent.given_up || (setting.pipelined && sent.published);
        let sent = self.writes[usize::from(write)];
        !sent.published
            && !sent.given_up
            && before.map(|other| self.writes[usize::from(other)]).all(let_go)
    }

    pub(crate) fn publish(&mut self, setting: &Setting, write: u8) {
        let straight = setting.straight & write_bit(write) > 0;
        let to = if straight { 1 } else { self.route(setting.key(write)) };
        let sent = self.sent(write);
        (sent.published, sent.under_way) = (true, to);
        for queue in (0..QUEUES).filter(|queue| setting.prompt && to & bit(*queue) > 0) {
            self.land(write, queue);
        }
    }

    /// Queues that a write may reach now: on one channel nothing overtakes.
    pub(crate) fn lands(&self, setting: &Setting, write: u8) -> QueueSet {
        let mut to = self.writes[usize::from(write)].under_way & !self.broker.hangs;
        if setting.pipelined {
            let before = (1..write).filter(|other| setting.key(*other) == setting.key(write));
            before.for_each(|other| to &= !self.writes[usize::from(other)].under_way);
        }
        to
    }

    pub(crate) fn land(&mut self, write: u8, queue: usize) {
        self.broker.push(queue, write);
        let sent = self.sent(write);
        sent.under_way &= !bit(queue);
        sent.accepted |= sent.under_way == 0;
        self.forget_under_way();
    }

    /// What has arrived, or never will, is waited for no longer.
    fn forget_under_way(&mut self) {
        let under_way = self.under_way();
        for roller in self.rollers.iter_mut().flatten() {
            roller.waits_for &= under_way;
        }
    }

    pub(crate) fn land_marker(&mut self, marker: u8, queue: usize) {
        self.markers[usize::from(marker)] &= !bit(queue);
        self.broker.push(queue, marker);
    }

    /// What is under way arrives, or is lost without a confirm.
    pub(crate) fn restart(&mut self, setting: &Setting, loses: bool) {
        self.broker.hangs = 0;
        for write in 1..FIRST_MARKER {
            if self.writes[usize::from(write)].under_way == 0 {
                continue;
            }
            for queue in (0..QUEUES).filter(|_| !loses) {
                if self.writes[usize::from(write)].under_way & bit(queue) > 0 {
                    self.land(write, queue);
                }
            }
            if loses {
                let given_up = setting.gives_up;
                *self.sent(write) = Sent { given_up, ..Sent::default() };
            }
        }
        for marker in usize::from(FIRST_MARKER)..self.markers.len() {
            let to = std::mem::take(&mut self.markers[marker]);
            for queue in (0..QUEUES).filter(|queue| !loses && to & bit(*queue) > 0) {
                self.broker.push(queue, u8::try_from(marker).expect("few"));
            }
        }
        self.forget_under_way();
        self.broker.deleted = 0;
        if setting.forgets {
            (self.broker.rings, self.broker.bound) = (0, 0);
        }
        self.lanes = [0; QUEUES];
        for roller in self.rollers.iter_mut().flatten() {
            roller.connected = false;
        }
    }

    /// A leader answers again: what has come to it meanwhile is first.
    pub(crate) fn wake(&mut self, queue: usize) {
        self.broker.hangs &= !bit(queue);
        for write in 1..FIRST_MARKER {
            if self.writes[usize::from(write)].under_way & bit(queue) > 0 {
                self.land(write, queue);
            }
        }
    }
}

pub(crate) fn held_bit(setting: &Setting, turn: i64) -> u16 {
    let turn = if setting.is(Mutation::OneKeyOfHeld) { 0 } else { turn };
    bit(usize::try_from(turn).expect("no number is negative"))
}
