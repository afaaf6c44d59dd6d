//! What must hold when everything is over.

use std::collections::BTreeMap;

use keylane::core::plan::Settled;

use super::database::{STARTED_AT, Witnessed};
use super::history;
use super::model::{Answer, Letter, Model, Row};
use super::run::Expected;
use super::tables::{Stored, Tables, hundredths, id};
use super::worker::World;

/// All of it.
pub(crate) fn check(expected: &Expected, world: &World) {
    let database = world.database.lock().expect("nobody panics with the database");
    nobody_wrote_under_an_old_claim(&database.commits);
    same_rows(&expected.model, &database.tables);
    same_ledger(&expected.model, &database.tables);
    same_dead_letters(&expected.model, &database.tables, true);
    in_queue_order(expected, &database.tables);
    let answers = world.answers.lock().expect("nobody panics with the answers");
    same_answers(expected, &answers);
}

/// All of it, where operators decided when a write had its turn.
pub(crate) fn check_history(world: &World) {
    let database = world.database.lock().expect("nobody panics with the database");
    nobody_wrote_under_an_old_claim(&database.commits);
    history::check(&database.tables, STARTED_AT);
}

fn nobody_wrote_under_an_old_claim(commits: &[Witnessed]) {
    for commit in commits {
        assert_eq!(commit.ours, commit.newest, "only the newest claim commits: {commit:?}");
    }
}

/// Rows are what the model says.
pub(crate) fn same_rows(model: &Model, tables: &Tables) {
    let stored: BTreeMap<_, _> =
        tables.rows.iter().map(|(name, stored)| (name.clone(), row(stored))).collect();
    assert_eq!(stored, model.rows, "every row is what its writes in queue order make of it");
}

fn row(stored: &Stored) -> Row {
    let [name, note, price, qty] = stored.values.as_slice() else {
        unreachable!("the example entities have four columns")
    };
    let cents = |text: &String| i64::try_from(hundredths(text).expect("a number")).expect("small");
    Row {
        name: name.clone(),
        qty: qty.as_ref().map(|qty| qty.parse().expect("a number")),
        price: price.as_ref().map(cents),
        note: note.clone(),
        version: stored.version.unwrap_or(0),
        occurred_at: stored.occurred_at,
        deleted: stored.deleted_at.is_some(),
    }
}

/// What an outcome says, without its detail.
pub(crate) fn answer(settled: &Settled) -> Answer {
    let outcome = &settled.outcome;
    Answer {
        outcome: outcome.label().to_owned(),
        effect: outcome.effect().map(str::to_owned),
        reason: outcome.reason().map(str::to_owned),
        version: outcome.version(),
        replayed: settled.replayed,
    }
}

/// One line a write, with the outcome that the model gives.
pub(crate) fn same_ledger(model: &Model, tables: &Tables) {
    let lines: BTreeMap<_, _> = tables
        .ledger
        .iter()
        .chain(&tables.forgotten)
        .map(|(name, line)| {
            let both = tables.ledger.contains_key(name) && tables.forgotten.contains_key(name);
            assert!(!both, "a write is applied once, whatever the ledger forgets");
            let recorded = &line.recorded;
            let name = (line.entity.clone(), line.write_id.clone(), recorded.key.clone());
            let settled = Settled {
                outcome: recorded.outcome.clone(),
                applied_at: recorded.applied_at,
                replayed: false,
            };
            (name, answer(&settled))
        })
        .collect();
    let expected: BTreeMap<_, _> =
        model.ledger.iter().map(|(name, line)| (name.clone(), line.answer.clone())).collect();
    assert_eq!(lines, expected, "every write has its one line");
}

/// Dead letters without an identity may stand twice: after a redelivery, a commit in doubt, or
/// where a handover has made copies. Of the writes that mean the same and whose id another has, one
/// is kept; a queue that was bound in between has the later ones only.
pub(crate) fn same_dead_letters(model: &Model, tables: &Tables, twice: bool) {
    let mut letters: Vec<Letter> = tables
        .dead_letters
        .iter()
        .filter(|letter| letter.state != "resolved")
        .map(|letter| Letter {
            write: letter
                .identity
                .as_ref()
                .map(|it| (it.entity.clone(), it.key.clone(), it.write_id.clone())),
            reason: letter.reason.to_owned(),
            routing_key: letter.message.routing_key.clone(),
            body: letter.message.body.clone(),
        })
        .collect();
    let mut expected = model.dead_letters.clone();
    for letter in letters.iter_mut().chain(&mut expected) {
        if letter.reason == "write_id_reused" {
            letter.body.clear();
        }
    }
    letters.sort_unstable();
    expected.sort_unstable();
    if twice {
        let once = |letters: &mut Vec<Letter>| {
            letters.dedup_by(|one, other| one.write.is_none() && one == other);
        };
        assert!(letters.len() >= expected.len(), "no dead letter is lost");
        once(&mut letters);
        once(&mut expected);
    }
    assert_eq!(letters, expected, "what is rejected is kept, and nothing else");
}

/// The ledger lines of a key were committed in the order in which its writes were accepted. What is
/// rejected for what it says itself passes a key that waits: it does nothing to it.
fn in_queue_order(expected: &Expected, tables: &Tables) {
    let mut positions = BTreeMap::new();
    for (position, message) in expected.messages.iter().enumerate() {
        let Some(id) = id(message) else { continue };
        positions.entry(id).or_insert(position);
    }
    let mut last: BTreeMap<(&String, &String), usize> = BTreeMap::new();
    for name in &tables.committed {
        let position = *positions.get(&name.0).expect("only what was sent is in the ledger");
        let line = tables.ledger.get(name).or_else(|| tables.forgotten.get(name));
        let line = line.expect("what is committed is in the ledger");
        if line.recorded.outcome.label() == "rejected" {
            continue;
        }
        let entity = &line.entity;
        if let Some(earlier) = last.insert((entity, &name.1), position) {
            assert!(earlier < position, "the writes of a key are applied in queue order");
        }
    }
}

/// Each delivery that was settled was told what became of its write.
fn same_answers(expected: &Expected, answers: &[(usize, Settled)]) {
    for (number, settled) in answers {
        let says = answer(settled);
        if says.outcome == "parked" {
            continue;
        }
        let right = &expected.answers[*number];
        assert!(says.replayed || !right.replayed, "a repeat is told so: {number}");
        let right = Answer { replayed: says.replayed, ..right.clone() };
        assert_eq!(says, right, "write {number}: {:?}", expected.messages[*number]);
    }
}
