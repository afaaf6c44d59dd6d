//! What was decided, commit by commit, and whether every step of it was right.
//!
//! Owns: the judgement of runs in which operators and obstacles decide when a write has its turn:
//! the commits are replayed, one by one, by a plain model of lines.

use std::collections::{BTreeMap, BTreeSet};

use keylane::core::message::Message;
use keylane::core::outcome::Outcome;
use keylane::core::plan::Settled;
use time::OffsetDateTime;

use super::checks;
use super::model::{Answer, Line, Model, content};
use super::parking::Name;
use super::tables::Tables;

/// An operator's transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Replay(i64),
    Discard(i64),
    Restore(i64),
    /// With the new body.
    Edit(i64, Vec<u8>),
    Pause(Name),
    Resume(Name),
}

/// One thing that a commit decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A delivery that was seen for the first time, and its dead letter, if it became one.
    Delivery {
        message: Box<Message>,
        outcome: Outcome,
        letter: Option<i64>,
    },
    /// A letter had its turn.
    Letter {
        id: i64,
        outcome: Outcome,
    },
    Operator(Act),
    /// A key goes on: nothing stands before what comes next.
    Freed(Name),
}

/// A letter, as the model has it.
#[derive(Debug, Clone)]
struct Letter {
    name: Name,
    original: Message,
    message: Message,
    state: &'static str,
    stops: bool,
    reason: String,
}

/// Rows and ledger, and the lines of keys that stand still.
#[derive(Debug, Default)]
struct Lines {
    model: Model,
    letters: BTreeMap<i64, Letter>,
    paused: BTreeSet<Name>,
    /// Keys that stand still, also those of which an operator asked for something.
    held: BTreeSet<Name>,
}

/// Replays the history of a run; what is left must be what the tables hold.
pub(crate) fn check(tables: &Tables, now: OffsetDateTime) {
    let mut lines = Lines::default();
    let mut last = BTreeMap::new();
    for event in &tables.history {
        lines.replay(event, now);
        if let Event::Delivery { message, outcome, .. } = event
            && outcome.reason() != Some("write_id_reused")
        {
            in_queue_order(message, &mut last);
        }
    }
    checks::same_rows(&lines.model, tables);
    checks::same_ledger(&lines.model, tables);
    for (id, letter) in &lines.letters {
        let stored = &tables.dead_letters[usize::try_from(id - 1).expect("ids begin with 1")];
        assert_eq!((stored.state, stored.stops), (letter.state, letter.stops), "letter {id}");
    }
}

fn in_queue_order(message: &Message, last: &mut BTreeMap<Name, u64>) {
    let number = message.properties.correlation_id.as_deref().expect("each has a number");
    let number = number.parse().expect("it is a number");
    let entity = message.properties.kind.clone().unwrap_or_default();
    let entity = entity.split('.').next().unwrap_or_default().to_owned();
    let name = (entity, message.routing_key.clone());
    if let Some(earlier) = last.insert(name, number) {
        assert!(earlier < number, "the writes of a key come in queue order: {message:?}");
    }
}

impl Lines {
    fn replay(&mut self, event: &Event, now: OffsetDateTime) {
        match event {
            Event::Delivery { message, outcome, letter } => {
                self.deliver(message, outcome, *letter, now);
            }
            Event::Letter { id, outcome } => self.take(*id, outcome, now),
            Event::Operator(act) => self.act(act),
            Event::Freed(name) => {
                assert!(self.line(name).next().is_none(), "nothing is left behind: {name:?}");
                assert!(!self.paused.contains(name), "a paused key is not freed");
                assert!(self.held.remove(name), "only what stands still is freed");
            }
        }
    }

    /// The letters of a key that stand before anything newer.
    fn line(&self, name: &Name) -> impl Iterator<Item = (i64, &Letter)> {
        let in_line = |letter: &Letter| {
            matches!(letter.state, "parked" | "waiting" | "replaying")
                || (letter.state == "dead" && letter.stops)
        };
        let name = name.clone();
        self.letters
            .iter()
            .filter(move |(_, letter)| letter.name == name && in_line(letter))
            .map(|(id, letter)| (*id, letter))
    }

    fn deliver(
        &mut self,
        message: &Message,
        outcome: &Outcome,
        letter: Option<i64>,
        now: OffsetDateTime,
    ) {
        let read = content::read(message);
        let ((entity, write_id, key), _) = read.identity.clone().expect("events have names");
        let name = (entity, key);
        let refusal = read.request.as_ref().err().copied();
        let never_stops = |reason: &str| {
            ["write_id_reused", "unknown_entity"].contains(&reason)
                || reason.starts_with("missing_")
                || reason.starts_with("key_")
        };
        let passes = refusal.is_some_and(never_stops);
        let used =
            self.model.ledger.keys().any(|(entity, id, _)| *entity == name.0 && *id == write_id)
                || self.letters.values().any(|letter| {
                    letter.name == name
                        && letter.original.properties.message_id.as_ref() == Some(&write_id)
                });
        let stands_still = self.held.contains(&name);
        assert!(stands_still || self.line(&name).next().is_none(), "a line holds its key");
        // A batch that was under way when an operator asked for a replay comes before it.
        let asked = !self.paused.contains(&name)
            && self.line(&name).all(|(_, letter)| letter.state == "replaying");
        let stands_still = stands_still && !(asked && outcome.label() != "parked");
        let state = if used {
            // The same id in other letters; the first write stands.
            assert_eq!(outcome.reason(), Some("write_id_reused"), "{message:?}");
            "dead"
        } else if stands_still && !passes {
            assert_eq!(outcome.label(), "parked", "nothing passes a key that stands still");
            super::parking::state(outcome)
        } else if let Outcome::Parked(rest) = outcome {
            let met = matches!(rest.label(), "missing_parent" | "row_locked");
            assert!(met && refusal.is_none(), "nothing rests without a reason: {message:?}");
            "waiting"
        } else {
            let right = self.model.apply(message, now);
            assert_eq!(checks::answer(&settled(outcome, now)), right, "{message:?}");
            super::parking::state(outcome)
        };
        if state == "resolved" {
            return;
        }
        let Some(id) = letter else { panic!("what is not applied is kept: {message:?}") };
        let reason = outcome.reason().expect("it has one").to_owned();
        let parks = super::model::entities::Spec::named(&name.0).is_some_and(|spec| spec.parks);
        let stops = state == "dead" && parks && !never_stops(&reason);
        let (original, message) = (message.clone(), message.clone());
        if stops || matches!(state, "parked" | "waiting") {
            self.held.insert(name.clone());
        }
        // The same wrong content again is the same dead letter.
        self.letters.entry(id).or_insert(Letter { name, original, message, state, stops, reason });
    }

    fn take(&mut self, id: i64, outcome: &Outcome, now: OffsetDateTime) {
        let letter = self.letters.get(&id).expect("it was buried before").clone();
        let in_turn = matches!(letter.state, "parked" | "waiting" | "replaying");
        assert!(in_turn, "only what asks for a turn has one: {id} {letter:?}");
        let first = self.line(&letter.name).next().map(|(id, _)| id);
        assert_eq!(first, Some(id), "the line is taken from its front");
        assert!(!self.paused.contains(&letter.name), "a paused key stands still");
        let state = super::parking::state(outcome);
        let mut stops = false;
        if let Outcome::Parked(rest) = outcome {
            assert!(matches!(rest.label(), "missing_parent" | "row_locked"));
        } else {
            let right = apply_letter(&mut self.model, &letter, now);
            assert_eq!(checks::answer(&settled(outcome, now)), right, "letter {id} {letter:?}");
            let parks =
                super::model::entities::Spec::named(&letter.name.0).is_some_and(|it| it.parks);
            let reason = outcome.reason().unwrap_or_default();
            stops = state == "dead" && parks && !reason.starts_with("key_");
        }
        let stored = self.letters.get_mut(&id).expect("it is there");
        stored.state = state;
        stored.stops = stops;
        if state != "resolved" {
            stored.reason = outcome.reason().unwrap_or_default().to_owned();
        }
        // What rests behind it rests for the same kind of reason.
        let behind = match state {
            "waiting" => "waiting",
            "dead" if stops => "parked",
            _ => return,
        };
        for other in self.letters.values_mut().filter(|other| other.name == letter.name) {
            if matches!(other.state, "parked" | "waiting") {
                other.state = behind;
            }
        }
    }

    fn act(&mut self, act: &Act) {
        let held = match act {
            Act::Pause(name) | Act::Resume(name) => Some(name.clone()),
            Act::Replay(id) | Act::Discard(id) | Act::Restore(id) => {
                Some(self.letter(*id).name.clone())
            }
            Act::Edit(..) => None,
        };
        self.held.extend(held);
        match act {
            Act::Pause(name) => drop(self.paused.insert(name.clone())),
            Act::Resume(name) => drop(self.paused.remove(name)),
            Act::Replay(id) => self.letter(*id).state = "replaying",
            Act::Restore(id) => self.letter(*id).state = "dead",
            Act::Edit(id, body) => self.letter(*id).message.body.clone_from(body),
            Act::Discard(id) => {
                let letter = self.letter(*id);
                let rested = letter.state != "dead";
                letter.state = "discarded";
                letter.stops = false;
                let original = letter.original.clone();
                if let (true, Some((name, content))) = (rested, content::read(&original).identity) {
                    let answer = Answer::rejected("discarded");
                    self.model.ledger.entry(name).or_insert(Line { answer, content });
                }
            }
        }
    }

    fn letter(&mut self, id: i64) -> &mut Letter {
        self.letters.get_mut(&id).expect("operators act on what is there")
    }
}

/// Gives a dead letter another turn, maybe with other content: it stays the write that it was, and
/// its new outcome replaces `rejected`.
fn apply_letter(model: &mut Model, letter: &Letter, now: OffsetDateTime) -> Answer {
    let (name, content) = content::read(&letter.original).identity.expect("it has a name");
    if model.ledger.get(&name).is_some_and(|line| line.answer.outcome == "rejected") {
        model.ledger.remove(&name);
    }
    let answer = model.apply(&letter.message, now);
    if let Some(line) = model.ledger.get_mut(&name) {
        line.content = content;
    }
    answer
}

fn settled(outcome: &Outcome, now: OffsetDateTime) -> Settled {
    Settled { outcome: outcome.clone(), applied_at: now, replayed: false }
}
