//! Operators of a run: they act on keys at any time, and their commands are killed at any time.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use keylane::core::message::{LOOK, Message, Properties};
use keylane::core::partition::PartitionId;
use tokio::time::sleep;

use super::database::Lock;
use super::history::Act;
use super::parking::Name;
use super::process::Dice;
use super::worker::World;

/// Bodies that an operator may put in the place of a wrong one.
const EDITED: [&[u8]; 4] =
    [b"{}", b"{\"qty\":7}", b"{\"note\":\"mended\",\"qty\":3}", b"{\"qty\":"];

/// "Look at this key."
fn look(key: String) -> Message {
    let properties = Properties { kind: Some(LOOK.to_owned()), ..Properties::default() };
    Message { routing_key: key, properties, body: Vec::new() }
}

fn publish(world: &World, key: String) {
    world.publish(&look(key));
}

/// One act, if nobody holds the key just now; without the control message the command was killed.
fn act(world: &World, act: &Act, wakes: bool) {
    let mut database = world.database.lock().expect("nobody panics with the database");
    database.tick();
    let name = match act {
        Act::Replay(id) | Act::Discard(id) | Act::Restore(id) | Act::Edit(id, _) => {
            database.tables.name_of(*id).expect("it was listed")
        }
        Act::Pause(name) | Act::Resume(name) => name.clone(),
    };
    // Who pauses waits until no batch is under way that does not know of it.
    let barred = matches!(act, Act::Pause(_)) && database.is_in_transaction();
    if barred || database.is_locked(&Lock::Key(name.0.clone(), name.1.clone())) {
        return;
    }
    let now = database.now();
    // Whoever is said to look; the control message finds the right lane.
    let lane = PartitionId { generation: 1, partition: 0 };
    let done = database.tables.act(act, lane, now);
    drop(database);
    if done && wakes {
        publish(world, name.1);
    }
}

fn names(world: &World) -> (Vec<Name>, BTreeSet<Name>) {
    let database = world.database.lock().expect("nobody panics with the database");
    let paused = database.tables.parked.iter().filter(|(_, key)| key.paused);
    let paused = paused.map(|(name, _)| name.clone()).collect();
    (database.tables.names().into_iter().collect(), paused)
}

fn letters(world: &World) -> Vec<i64> {
    world.database.lock().expect("nobody panics with the database").tables.open_letters()
}

/// Acts now and then.
pub(crate) async fn operate(world: &World, dice: &Mutex<Dice>) {
    let roll = |bound| dice.lock().expect("nobody panics with the dice").below(bound);
    let index =
        |bound: usize| usize::try_from(roll(u64::try_from(bound).expect("small"))).expect("small");
    let busy = 200 + roll(8_000);
    loop {
        sleep(Duration::from_millis(roll(busy))).await;
        let (names, paused) = names(world);
        let letters = letters(world);
        let wakes = roll(3) > 0;
        let chosen = match roll(10) {
            0 if !names.is_empty() => {
                let name = names[index(names.len())].clone();
                if paused.contains(&name) { Act::Resume(name) } else { Act::Pause(name) }
            }
            1..3 if !paused.is_empty() => {
                Act::Resume(paused.iter().next().cloned().expect("there is one"))
            }
            _ if letters.is_empty() => continue,
            choice => {
                let id = letters[index(letters.len())];
                match choice {
                    3 => Act::Discard(id),
                    4 => Act::Restore(id),
                    5 => Act::Edit(id, EDITED[index(EDITED.len())].to_vec()),
                    _ => Act::Replay(id),
                }
            }
        };
        act(world, &chosen, wakes);
    }
}

/// Reminds lanes of keys that are due for long, as housekeeping does.
pub(crate) async fn remind(world: &World) {
    loop {
        sleep(Duration::from_secs(2)).await;
        let database = world.database.lock().expect("nobody panics with the database");
        let before = database.now() - Duration::from_secs(5);
        let overdue = database
            .tables
            .parked
            .iter()
            .filter(|(_, key)| !key.paused && key.due_at.is_some_and(|at| at < before));
        let keys: BTreeSet<String> = overdue.map(|(name, _)| name.1.clone()).collect();
        drop(database);
        for key in keys {
            publish(world, key);
        }
    }
}

/// In the end everything that stands still is set free, one way or another.
pub(crate) async fn set_free(world: &World, dice: &Mutex<Dice>) {
    let roll = |bound| dice.lock().expect("nobody panics with the dice").below(bound);
    loop {
        sleep(Duration::from_secs(1)).await;
        let (_, paused) = names(world);
        for name in paused {
            act(world, &Act::Resume(name), true);
        }
        let stopping: Vec<i64> = {
            let database = world.database.lock().expect("nobody panics with the database");
            let letters = database.tables.dead_letters.iter().zip(1..);
            let stops = letters.filter(|(letter, _)| letter.state == "dead" && letter.stops);
            stops.map(|(_, id)| id).collect()
        };
        for id in stopping {
            let chosen = if roll(3) == 0 { Act::Discard(id) } else { Act::Replay(id) };
            act(world, &chosen, true);
        }
    }
}
