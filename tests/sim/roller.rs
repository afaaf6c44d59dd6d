//! A simulated worker looks after the ring, as `worker::roll` does: what is due and in which steps
//! is decided by `core::roll`.

use std::time::Duration;

use keylane::core::message::{MARKER, Message, Properties};
use keylane::core::partition::PartitionId;
use keylane::core::roll::{Handover, Next, Source, Standing, Step};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::routing::queues;
use super::worker::Worker;

/// How long something waits in held before it counts as a stray.
const STRAYS_AFTER: Duration = Duration::from_secs(10);

/// What a handover has come to.
struct Progress {
    /// The broker's life in which it began: a connection does not outlive it.
    life: u64,
    next: Source,
    marker: Uuid,
}

fn marker(number: Uuid) -> Message {
    let properties = Properties {
        kind: Some(MARKER.to_owned()),
        message_id: Some(number.to_string()),
        ..Properties::default()
    };
    Message { routing_key: String::new(), properties, body: Vec::new() }
}

impl Worker {
    /// Looks after the ring until it is asked to stop.
    pub(crate) async fn roll(&self) {
        let mut held_since = None;
        while !self.process.stop.is_cancelled() {
            let pause = self.process.roll(|dice| dice.milliseconds(1_500));
            sleep(pause).await;
            self.process.step("look at the ring").await;
            match self.due(&mut held_since) {
                Some(handover) => self.carry_out(&handover).await,
                None => self.tidy(),
            }
        }
    }

    fn due(&self, held_since: &mut Option<Instant>) -> Option<Handover> {
        let database = self.world.database.lock().expect("nobody panics with the database");
        let broker = self.world.broker.lock().expect("nobody panics with the broker");
        let waits = database.line.standing(PartitionId::HELD) == Standing::NotYet
            && !broker.is_drained(PartitionId::HELD);
        let since = held_since.take().unwrap_or_else(Instant::now);
        *held_since = waits.then_some(since);
        let strays = held_since.is_some_and(|since| since.elapsed() > STRAYS_AFTER);
        let last = database.line.last().map_or(Source::Held, |turn| turn.source);
        database.line.view(broker.routing.ring(last), database.wanted, strays).due()
    }

    async fn carry_out(&self, handover: &Handover) {
        let life = self.world.broker.lock().expect("nobody panics with the broker").restarts;
        let mut progress = Progress { life, next: Source::Held, marker: Uuid::nil() };
        for step in handover.steps() {
            self.process.step("roll").await;
            if matches!(step, Step::Settle | Step::Rest) {
                sleep(self.process.roll(|dice| dice.milliseconds(2_000))).await;
            }
            let done = self.try_step(*step, handover, &mut progress);
            self.process.roll(|dice| dice.note(&format!("{step:?} {done}")));
            if !done {
                return;
            }
        }
    }

    fn try_step(&self, step: Step, handover: &Handover, progress: &mut Progress) -> bool {
        let mut database = self.world.database.lock().expect("nobody panics with the database");
        let mut broker = self.world.broker.lock().expect("nobody panics with the broker");
        let of_broker = matches!(step, Step::Declare | Step::Bind | Step::Mark | Step::Unbind);
        if of_broker && progress.life != broker.restarts {
            return false;
        }
        let line = &mut database.line;
        let number = handover.from.map_or(0, |from| from.number);
        match (step, handover.next, progress.next, handover.from) {
            (Step::Plan, Next::Ring(partitions), ..) => {
                progress.next = Source::Ring(line.plan(partitions));
            }
            (Step::Declare, Next::Ring(partitions), Source::Ring(generation), _) => {
                broker.declare(generation, partitions);
            }
            (Step::Declared, _, Source::Ring(generation), _) => return line.declared(generation),
            (Step::Bind, _, next, _) => return broker.routing.bind(next, number + 1),
            (Step::Intend, ..) => {
                progress.marker = Uuid::from_u128(broker.next_number().into());
                return line.intend(number, progress.marker);
            }
            (Step::Mark, _, _, Some(from)) => {
                let partitions = line.partitions(from.source);
                for queue in queues(from.source.generation(), partitions) {
                    broker.put(queue, marker(progress.marker));
                }
            }
            (Step::End, _, _, None) => return line.begin(),
            (Step::End, ..) => return line.end(number, progress.marker, progress.next, &[]),
            (Step::Unbind, _, _, Some(from)) => broker.routing.unbind(from.source, from.number),
            _ => {}
        }
        true
    }

    /// Unbinds what somebody left bound, and deletes the oldest ring once it is empty.
    fn tidy(&self) {
        let mut database = self.world.database.lock().expect("nobody panics with the database");
        let mut broker = self.world.broker.lock().expect("nobody panics with the broker");
        database.line.give_up();
        for row in database.line.turns.iter().rev().skip(1).take(3) {
            broker.routing.unbind(row.turn.source, row.turn.number);
        }
        for generation in database.line.unbound() {
            broker.routing.unbind(Source::Ring(generation), 0);
        }
        let farewell = Uuid::from_u128(broker.next_number().into());
        let Some((generation, farewell, emptied)) = database.line.leaving(farewell) else { return };
        let partitions = database.line.partitions(Source::Ring(generation));
        let there = queues(generation, partitions).filter(|id| broker.has(*id));
        let there: Vec<PartitionId> = there.collect();
        if emptied || there.is_empty() {
            // One that never had a turn may hold copies that came late.
            let source = Source::Ring(generation);
            let had_turn = database.line.turns.iter().any(|row| row.turn.source == source);
            for id in there {
                assert!(!had_turn || broker.is_drained(id), "{id} goes, and writes are in it");
                broker.delete(id);
            }
            database.line.deleted(generation);
        } else {
            for id in there {
                broker.put(id, marker(farewell));
            }
        }
    }
}
