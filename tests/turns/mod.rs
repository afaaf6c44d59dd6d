//! The line of turns in memory: what the statements of `postgres::turns` and
//! `postgres::generations` do. The decisions are those of `core::roll`.
//!
//! Owns: nothing of its own. Where it differs from the SQL, it is wrong.

use std::time::Duration;

use keylane::core::partition::PartitionId;
use keylane::core::roll::{Passing, Ring, Source, Standing, Turn, View, pass};
use uuid::Uuid;

/// A row of `keylane.turns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) turn: Turn,
    pub(crate) closed: bool,
}

/// What a row of `keylane.generations` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Planned,
    Declared,
    Open,
    Closed,
    Deleted,
}

/// A row of `keylane.generations`, with its rows of `keylane.partitions`: a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    pub(crate) state: State,
    pub(crate) partitions: i32,
    pub(crate) closed: u32,
    pub(crate) farewell: Option<Uuid>,
    pub(crate) emptied: u32,
}

/// The tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Line {
    pub(crate) turns: Vec<Row>,
    /// The first is generation 1.
    pub(crate) generations: Vec<Generation>,
}

fn bit(partition: i32) -> u32 {
    1 << partition
}

impl Line {
    pub(crate) fn generation(&self, generation: i32) -> Option<&Generation> {
        self.generations.get(usize::try_from(generation - 1).ok()?)
    }

    fn generation_mut(&mut self, generation: i32) -> Option<&mut Generation> {
        self.generations.get_mut(usize::try_from(generation - 1).ok()?)
    }

    fn turn_mut(&mut self, number: i64) -> Option<&mut Row> {
        self.turns.iter_mut().find(|row| row.turn.number == number)
    }

    pub(crate) fn last(&self) -> Option<Turn> {
        self.turns.last().map(|row| row.turn)
    }

    /// The source of the first turn that is not closed.
    pub(crate) fn first(&self) -> Option<Source> {
        self.turns.iter().find(|row| !row.closed).map(|row| row.turn.source)
    }

    /// What the roller sees, given what it sees of the broker.
    pub(crate) fn view(&self, ring: Ring, wanted: i32, strays: bool) -> View {
        let last = self.last();
        let partitions = last.map_or(0, |turn| self.partitions(turn.source));
        let steady = self.turns.iter().filter(|row| !row.closed).count() <= 1;
        View { last, steady, ring, partitions, wanted, strays, abandoned: false }
    }

    /// Partitions of a source; 1 for held.
    pub(crate) fn partitions(&self, source: Source) -> i32 {
        self.generation(source.generation()).map_or(1, |generation| generation.partitions)
    }

    /// `turns::consumed`, and held.
    pub(crate) fn is_consumed(&self, source: Source) -> bool {
        let Source::Ring(generation) = source else { return true };
        let state = self.generation(generation).map(|generation| generation.state);
        let first = self.turns.iter().find(|row| !row.closed).map_or(0, |row| row.turn.number);
        let waits = |row: &Row| row.turn.source == source && !row.closed && row.turn.number > first;
        matches!(state, Some(State::Open | State::Closed)) && !self.turns.iter().any(waits)
    }

    /// As a lane's fence reads it.
    pub(crate) fn standing(&self, partition: PartitionId) -> Standing {
        let source = Source::of(partition);
        let waits = self.turns.iter().any(|row| !row.closed && Some(row.turn.source) == source);
        let closed = self
            .generation(partition.generation)
            .is_some_and(|generation| generation.closed & bit(partition.partition) != 0);
        Standing::of(partition, self.first(), closed, waits)
    }

    pub(crate) fn plan(&mut self, partitions: i32) -> i32 {
        self.give_up();
        let state = State::Planned;
        self.generations.push(Generation {
            state,
            partitions,
            closed: 0,
            farewell: None,
            emptied: 0,
        });
        i32::try_from(self.generations.len()).expect("there are few generations")
    }

    /// What is planned and has no turn is given up.
    pub(crate) fn give_up(&mut self) {
        for generation in &mut self.generations {
            if matches!(generation.state, State::Planned | State::Declared) {
                generation.state = State::Closed;
            }
        }
    }

    /// From one state to the next; false: it is in another.
    fn moves(&mut self, generation: i32, from: State, to: State) -> bool {
        let generation = self.generation_mut(generation).filter(|it| it.state == from);
        generation.map(|generation| generation.state = to).is_some()
    }

    pub(crate) fn declared(&mut self, generation: i32) -> bool {
        self.moves(generation, State::Planned, State::Declared)
    }

    pub(crate) fn intend(&mut self, number: i64, marker: Uuid) -> bool {
        let turn = self.turn_mut(number).filter(|row| !row.turn.ended);
        turn.map(|row| row.turn.marker = Some(marker)).is_some()
    }

    pub(crate) fn begin(&mut self) -> bool {
        let first = self.turns.is_empty();
        if first {
            self.add(1, Source::Held);
        }
        first
    }

    fn add(&mut self, number: i64, source: Source) {
        let turn = Turn { number, source, marker: None, ended: false };
        self.turns.push(Row { turn, closed: false });
    }

    pub(crate) fn end(
        &mut self,
        number: i64,
        marker: Uuid,
        next: Source,
        gone: &[PartitionId],
    ) -> bool {
        let row = self.turns.iter().find(|row| row.turn.number == number).map(|row| row.turn);
        if !row.is_some_and(|turn| turn.marker == Some(marker) && !turn.ended) {
            return false;
        }
        if let Source::Ring(generation) = next
            && !self.moves(generation, State::Declared, State::Open)
        {
            return false;
        }
        self.turn_mut(number).expect("it was found").turn.ended = true;
        self.add(number + 1, next);
        for id in gone {
            if let Some(generation) = self.generation_mut(id.generation) {
                generation.closed |= bit(id.partition);
            }
        }
        if !gone.is_empty() {
            self.close_if_complete(number);
        }
        true
    }

    fn close_if_complete(&mut self, number: i64) {
        let Some(source) = self.turn_mut(number).map(|row| row.turn.source) else { return };
        if let Some(generation) = self.generation_mut(source.generation()) {
            if generation.closed != bit(generation.partitions) - 1 {
                return;
            }
            generation.state = State::Closed;
        }
        self.turn_mut(number).expect("it was found").closed = true;
    }

    /// `standing` is what the same transaction has read before.
    pub(crate) fn pass(
        &mut self,
        partition: PartitionId,
        marker: Uuid,
        standing: Standing,
        waited: Duration,
    ) -> Passing {
        let Some(source) = Source::of(partition) else { return Passing::Skip };
        let row = self.turns.iter().find(|row| row.turn.source == source && !row.closed);
        let turn = row.map(|row| row.turn);
        let passing = pass(marker, turn.as_ref(), standing, waited);
        match (passing, turn) {
            (Passing::Close, Some(turn)) => self.close(partition, turn.number),
            (Passing::Withdraw, Some(turn)) => {
                self.turn_mut(turn.number).expect("it was found").turn.marker = None;
            }
            (Passing::Skip, _) if standing == Standing::Over => {
                let generation = self.generation_mut(partition.generation);
                if let Some(generation) = generation.filter(|it| it.farewell == Some(marker)) {
                    generation.emptied |= bit(partition.partition);
                    generation.closed |= bit(partition.partition);
                }
            }
            _ => {}
        }
        passing
    }

    /// A partition is closed at the marker of that turn.
    pub(crate) fn close(&mut self, partition: PartitionId, number: i64) {
        if let Some(generation) = self.generation_mut(partition.generation) {
            generation.closed |= bit(partition.partition);
        }
        self.close_if_complete(number);
    }

    /// Generations that nobody binds any more.
    pub(crate) fn unbound(&self) -> Vec<i32> {
        let all = (1..).zip(&self.generations);
        all.filter(|(_, it)| it.state == State::Closed).map(|(number, _)| number).collect()
    }

    /// The oldest of them, with the marker that shows it to be empty, and whether it is.
    pub(crate) fn leaving(&mut self, farewell: Uuid) -> Option<(i32, Uuid, bool)> {
        let number = *self.unbound().first()?;
        let generation = self.generation_mut(number)?;
        let farewell = *generation.farewell.get_or_insert(farewell);
        Some((number, farewell, generation.emptied == bit(generation.partitions) - 1))
    }

    pub(crate) fn deleted(&mut self, generation: i32) {
        self.moves(generation, State::Closed, State::Deleted);
    }
}
