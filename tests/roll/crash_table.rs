//! A roll that breaks off before each of its steps: what is left behind, and how it ends. The table
//! in the documentation is what this comes to.

use keylane::core::roll::{Cause, Source, Step};

use super::actions::Action;
use super::explore::calm;
use super::roller::{Outcome, steps};
use super::scenarios::{QUIET, steady};
use super::turns::State;
use super::world::{FIRST_MARKER, QUEUES, Setting, World, number};

/// Where the table is written down.
const TABLE: &str = include_str!("../../docs/decisions/0008-crash-table.md");

/// The first write is there before the roll, the second comes just before it breaks off, the third
/// when all is well again.
const SETTING: Setting = Setting { keys: &[0, 0, 0], ..QUIET };

/// What breaks a roll off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    RollerDies,
    BrokerRestarts,
    Both,
}

/// A world in which a roll is due for that reason.
fn due(cause: Cause) -> World {
    let mut world =
        if cause == Cause::FirstStart { World::new(&SETTING) } else { steady(&SETTING) };
    match cause {
        Cause::FirstStart => {}
        Cause::RingLost | Cause::Held => world.restart(&SETTING, false),
        Cause::Strays => world.unbind(&SETTING, Source::Ring(1), 0),
        Cause::Resize => world.wanted = 1,
    }
    world.publish(&SETTING, 1);
    if cause == Cause::Held {
        take(&mut world, usize::MAX);
    }
    assert_eq!(world.due(&SETTING).map(|handover| handover.cause), Some(cause));
    world
}

/// Carries out so many steps of the handover that is due.
fn take(world: &mut World, many: usize) {
    let handover = world.due(&SETTING).expect("one is due");
    world.begin(0, handover);
    for _ in 0..many.min(steps(&SETTING, &handover).len()) {
        while world.step(&SETTING, 0) == Outcome::NotYet {
            arrive(world);
        }
    }
}

/// All markers reach their queues.
fn arrive(world: &mut World) {
    for marker in FIRST_MARKER.. {
        let Some(to) = world.markers.get(usize::from(marker)).copied() else { return };
        for queue in (0..QUEUES).filter(|queue| to >> queue & 1 > 0) {
            world.land_marker(marker, queue);
        }
    }
}

/// What there is that would not be there had nobody begun.
fn left_behind(world: &World) -> String {
    let mut left = Vec::new();
    let last = world.line.last();
    for (ring, generation) in (1..).zip(&world.line.generations) {
        match generation.state {
            State::Declared if world.is_bound(Source::Ring(ring)) => left.push("a ring, bound"),
            State::Planned | State::Declared if world.is_there(ring) => left.push("a ring"),
            State::Planned | State::Declared => left.push("a number"),
            State::Open | State::Closed | State::Deleted => {}
        }
    }
    let turn = last.map_or(0, |turn| turn.number);
    let held = |turn: i64| turn > 0 && world.broker.held >> turn & 1 > 0;
    if held(turn + 1) {
        left.push("held, bound");
    }
    if let Some(marker) = last.and_then(|turn| turn.marker) {
        let mut items = (0..QUEUES).flat_map(|queue| world.broker.items(queue));
        let queued = items.any(|item| number(item) == marker);
        left.push(if queued { "markers" } else { "a marker's number" });
    }
    let before = world.line.turns.iter().rev().nth(1);
    let still_bound = |source| match source {
        Source::Held => held(turn - 1),
        Source::Ring(_) => world.is_bound(source),
    };
    if before.is_some_and(|row| still_bound(row.turn.source)) {
        left.push("the source before, bound");
    }
    if left.is_empty() { "nothing".to_owned() } else { left.join("; ") }
}

/// The turns that follow until a ring stands, where nothing else goes wrong.
fn ends(mut world: World, fault: Fault) -> String {
    let turns = world.line.turns.len();
    if fault != Fault::BrokerRestarts {
        world.rollers[0] = None;
    }
    if fault != Fault::RollerDies {
        world.restart(&SETTING, false);
    }
    calm(&SETTING, &mut world).expect("it ends well, with all that was accepted");
    let name = |source| if source == Source::Held { "held" } else { "ring" };
    let turns: Vec<&str> =
        world.line.turns[turns..].iter().map(|row| name(row.turn.source)).collect();
    if turns.is_empty() { "-".to_owned() } else { turns.join(", ") }
}

fn row(cause: Cause, at: usize, step: Option<Step>) -> String {
    let mut world = due(cause);
    take(&mut world, at);
    let left = left_behind(&world);
    let publish = Action::Publish(2);
    world.happen(&SETTING, publish).expect("a write is accepted at any time");
    let [dies, restarts, both] = [Fault::RollerDies, Fault::BrokerRestarts, Fault::Both]
        .map(|fault| ends(world.clone(), fault));
    let step = step.map_or_else(|| "(the end)".to_owned(), |step| format!("{step:?}"));
    format!("| {} | {step} | {left} | {dies} | {restarts} | {both} |", cause.label())
}

#[test]
fn a_roll_that_breaks_off_ends_as_the_table_says() {
    let mut table = Vec::new();
    for cause in Cause::ALL {
        let handover = due(cause).due(&SETTING).expect("one is due");
        let steps = steps(&SETTING, &handover);
        let breaks = steps.iter().copied().map(Some).chain([None]).enumerate();
        table.extend(breaks.map(|(at, step)| row(cause, at, step)));
    }
    let written: Vec<&str> = TABLE.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert_eq!(table, written, "it comes to:\n{}", table.join("\n"));
}
