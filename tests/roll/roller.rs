//! What `worker::roll` and `worker::tidy` do, a step at a time.

use keylane::core::partition::PartitionId;
use keylane::core::roll::{Cause, Handover, Next, Ring, Source, Standing, Step};

use super::broker::{held_bit, queues};
use super::mutation::Mutation;
use super::turns::{Generation, State};
use super::world::{QUEUES, RINGS, Roller, Setting, World, bit, number, partition};

/// What comes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// It has to be waited for.
    NotYet,
    /// The handover is over: somebody was faster, or something is not there.
    Fails,
}

fn done(done: bool) -> Outcome {
    if done { Outcome::Done } else { Outcome::Fails }
}

/// The steps of a handover, as the design has them or as a mutation does.
pub(crate) fn steps(setting: &Setting, handover: &Handover) -> Vec<Step> {
    let mut steps = handover.steps().to_vec();
    let at = |steps: &[Step], step| steps.iter().position(|it| *it == step);
    match setting.mutation {
        Some(Mutation::NoSettle) => steps.retain(|step| *step != Step::Settle),
        Some(Mutation::NoOverlap) if handover.cause == Cause::Held => {
            steps.retain(|step| *step != Step::Unbind);
            let bind = at(&steps, Step::Bind).expect("each handover binds");
            steps.insert(bind, Step::Unbind);
        }
        Some(Mutation::UnbindBeforeEnd) => {
            if let (Some(end), Some(unbind)) = (at(&steps, Step::End), at(&steps, Step::Unbind)) {
                steps.swap(end, unbind);
            }
        }
        _ => {}
    }
    steps
}

impl World {
    /// Whether what waits in held has no copy that is applied.
    fn strays(&self) -> bool {
        let waits = self.line.standing(PartitionId::HELD) == Standing::NotYet;
        let head = self.broker.head(0).filter(|item| *item < super::world::FIRST_MARKER);
        waits && head.is_some_and(|write| !self.is_applied(write))
    }

    /// The handover that is due.
    pub(crate) fn due(&self, setting: &Setting) -> Option<Handover> {
        let last = self.line.last().map_or(Source::Held, |turn| turn.source);
        let view = self.line.view(self.ring(last), self.wanted, self.strays());
        let mut due = view.due()?;
        if setting.is(Mutation::RingAfterLost) && due.cause == Cause::RingLost {
            due.next = Next::Ring(self.wanted);
        }
        // Where the model has no more room for rings it is as if nobody looked.
        let room = self.line.generations.len() < RINGS;
        (room || due.next == Next::Held).then_some(due)
    }

    pub(crate) fn begin(&mut self, roller: usize, handover: Handover) {
        self.rollers[roller] = Some(Roller {
            handover,
            at: 0,
            next: Source::Held,
            marker: 0,
            put: false,
            waits_for: 0,
            gone: 0,
            connected: true,
        });
    }

    /// The step that comes next.
    pub(crate) fn next_step(&self, setting: &Setting, roller: usize) -> Option<Step> {
        let Roller { handover, at, .. } = self.rollers[roller]?;
        steps(setting, &handover).get(usize::from(at)).copied()
    }

    /// Does it, and forgets the handover where it ends.
    pub(crate) fn step(&mut self, setting: &Setting, roller: usize) -> Outcome {
        let (Some(mut it), Some(step)) = (self.rollers[roller], self.next_step(setting, roller))
        else {
            return Outcome::Fails;
        };
        let outcome = self.try_step(setting, step, &mut it);
        let last = usize::from(it.at) + 1 == steps(setting, &it.handover).len();
        self.rollers[roller] = match outcome {
            Outcome::Done if last => None,
            Outcome::Done => Some(Roller { at: it.at + 1, ..it }),
            Outcome::NotYet => Some(it),
            Outcome::Fails => None,
        };
        outcome
    }

    fn try_step(&mut self, setting: &Setting, step: Step, it: &mut Roller) -> Outcome {
        let from = it.handover.from;
        let of_broker = matches!(step, Step::Declare | Step::Bind | Step::Mark | Step::Unbind);
        if of_broker && !it.connected {
            return Outcome::Fails;
        }
        match (step, it.handover.next, it.next, from) {
            (Step::Plan, Next::Ring(partitions), ..) => {
                it.next = Source::Ring(self.plan(setting, partitions));
                Outcome::Done
            }
            (Step::Declare, Next::Ring(partitions), Source::Ring(generation), _) => {
                self.declare(generation, partitions);
                Outcome::Done
            }
            (Step::Declared, _, Source::Ring(generation), _) => {
                done(self.line.declared(generation))
            }
            (Step::Bind, _, next, _) => {
                it.waits_for = self.under_way();
                done(self.bind(setting, next, from.map_or(1, |from| from.number + 1)))
            }
            // A hung leader makes the time pass without anything arriving.
            (Step::Settle, ..) if it.waits_for > 0 && !self.hangs(it.waits_for) => Outcome::NotYet,
            (Step::Rest | Step::Settle, ..) => Outcome::Done,
            (Step::Intend, _, _, Some(from)) => {
                it.marker = self.unused_marker();
                done(self.line.intend(from.number, number(it.marker)))
            }
            (Step::Mark, _, _, Some(from)) => self.mark(setting, from.source, it),
            (Step::End, _, _, None) => done(self.line.begin()),
            (Step::End, ..) => self.end(setting, it),
            (Step::Unbind, _, _, Some(from)) => {
                self.unbind(setting, from.source, from.number);
                Outcome::Done
            }
            (step, next, ..) => unreachable!("{step:?} is no step towards {next:?}"),
        }
    }

    /// The markers were not confirmed in time: the roller tries others.
    pub(crate) fn mark_again(&mut self, roller: usize) {
        if let Some(it) = &mut self.rollers[roller] {
            it.at = u8::try_from(it.handover.again()).expect("there are few steps");
            (it.put, it.marker, it.gone) = (false, 0, 0);
        }
    }

    fn plan(&mut self, setting: &Setting, partitions: i32) -> i32 {
        let before = self.line.generations.clone();
        let generation = self.line.plan(partitions);
        if setting.is(Mutation::NoGiveUp) {
            self.line.generations[..before.len()].copy_from_slice(&before);
        }
        generation
    }

    /// All of these writes hang.
    pub(crate) fn hangs(&self, writes: u8) -> bool {
        let waits = |write: &u8| writes & super::world::write_bit(*write) > 0;
        let mut writes = (1..super::world::FIRST_MARKER).filter(waits);
        writes.all(|write| self.writes[usize::from(write)].under_way & !self.broker.hangs == 0)
    }

    fn mark(&mut self, setting: &Setting, source: Source, it: &mut Roller) -> Outcome {
        if !it.put {
            it.put = true;
            let (mut to, mut partitions) = (0, self.line.partitions(source));
            if setting.is(Mutation::MarkOne) {
                partitions = 1;
            }
            for queue in queues(source, partitions) {
                to |= bit(queue);
            }
            it.gone = to & !self.broker.there;
            self.markers[usize::from(it.marker)] = to & self.broker.there;
            let counts = setting.is(Mutation::EndBeforeConfirm);
            return if counts { Outcome::Done } else { Outcome::NotYet };
        }
        let all = self.markers[usize::from(it.marker)] == 0;
        if all { Outcome::Done } else { Outcome::NotYet }
    }

    fn end(&mut self, setting: &Setting, it: &Roller) -> Outcome {
        let Some(from) = it.handover.from else { return Outcome::Fails };
        let mut gone: Vec<PartitionId> =
            (0..QUEUES).filter(|queue| it.gone & bit(*queue) > 0).map(partition).collect();
        // Its transaction waits for those that share the fence of a partition.
        let open = |id: &PartitionId| self.lanes[super::world::queue(*id)] > 0;
        if gone.iter().any(open) && !setting.is(Mutation::NoFence) {
            return Outcome::NotYet;
        }
        if setting.is(Mutation::GoneStaysOpen) {
            gone.clear();
        }
        if setting.is(Mutation::NoEndCheck)
            && let Some(row) = self.line.turns.iter_mut().find(|row| row.turn.number == from.number)
        {
            row.turn.ended = false;
            row.turn.marker = Some(number(it.marker));
        }
        let ended = self.line.end(from.number, number(it.marker), it.next, &gone);
        if ended && setting.is(Mutation::MarkOne) {
            for queue in queues(from.source, self.line.partitions(from.source)).skip(1) {
                self.line.close(partition(queue), from.number);
            }
        }
        done(ended)
    }

    /// What is left of old turns is unbound.
    pub(crate) fn unbind_old(&mut self, setting: &Setting) {
        if !setting.is(Mutation::NoGiveUp) {
            self.line.give_up();
        }
        let last = self.line.last().map_or(0, |turn| turn.number);
        for turn in (last - 3).max(1)..last {
            self.unbind(setting, Source::Held, turn);
        }
        for generation in self.line.unbound() {
            self.unbind(setting, Source::Ring(generation), 0);
        }
    }

    /// Whether that makes a difference.
    pub(crate) fn has_old(&self, setting: &Setting) -> bool {
        let last = self.line.last().map_or(0, |turn| turn.number);
        let held = (last - 3).max(1)..last;
        // Much later, nobody rolls any more who has planned them.
        let planned = |it: &Generation| matches!(it.state, State::Planned | State::Declared);
        let forsaken = self.rollers.iter().all(Option::is_none)
            && self.due(setting).is_none()
            && self.line.generations.iter().any(planned);
        held.into_iter().any(|turn| self.broker.held & held_bit(setting, turn) > 0)
            || (forsaken && !setting.is(Mutation::NoGiveUp))
            || self.line.unbound().into_iter().any(|it| self.is_bound(Source::Ring(it)))
    }

    /// Whether a round of tidying makes a difference.
    pub(crate) fn has_leaving(&self, setting: &Setting) -> bool {
        !self.line.unbound().is_empty() && {
            let mut tidied = self.clone();
            tidied.tidy(setting) && tidied != *self
        }
    }

    /// A round of tidying: a farewell for a ring, or its end. False: there is nothing to do.
    pub(crate) fn tidy(&mut self, setting: &Setting) -> bool {
        let Some((generation, farewell, emptied)) = self.line.leaving(number(self.unused_marker()))
        else {
            return false;
        };
        let source = Source::Ring(generation);
        let all: u16 = queues(source, self.line.partitions(source)).map(bit).sum();
        if !emptied && all & self.broker.there > 0 && !setting.is(Mutation::DeleteAtOnce) {
            let marker = u8::try_from(farewell.as_u128()).expect("it is small");
            self.markers[usize::from(marker)] |= all & self.broker.there;
            return true;
        }
        self.delete(generation);
        self.line.deleted(generation);
        true
    }

    /// Whether the ring that has the turn stands, and nothing else is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        let last = self.line.last().map_or(Source::Held, |turn| turn.source);
        let open = self.line.generations.iter().filter(|it| it.state == State::Open).count();
        self.ring(last) == Ring::Whole && open == 1 && self.rollers.iter().all(Option::is_none)
    }
}
