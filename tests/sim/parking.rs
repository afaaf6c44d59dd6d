//! What `postgres::parking` does, in memory, and what operators do to it.
//!
//! Owns: the row of a key that stands still, and the line of letters that its lane takes.

use std::collections::BTreeSet;

use keylane::core::batch::{Item, Letter, Source};
use keylane::core::fingerprint::ledger_id;
use keylane::core::outcome::{Outcome, Reason, Rejection, Rest};
use keylane::core::parking::{ByKey, Gate, KeyChange, KeyThen, Waiting};
use keylane::core::partition::PartitionId;
use keylane::core::plan::{CommitPlan, Recorded};
use time::OffsetDateTime;
use uuid::Uuid;

use super::history::{Act, Event};
use super::tables::{Line, Tables, at};

/// Entity and key.
pub(crate) type Name = (String, String);

/// A key that stands still.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParkedKey {
    pub(crate) lane: PartitionId,
    resting: i64,
    pub(crate) paused: bool,
    waiting: Option<Waiting>,
    pub(crate) due_at: Option<OffsetDateTime>,
}

/// The state of a letter with this outcome.
pub(crate) fn state(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied { .. } | Outcome::PreconditionFailed { .. } => "resolved",
        Outcome::Rejected(_) => "dead",
        Outcome::Parked(rest) if rest.passes() => "waiting",
        Outcome::Parked(_) => "parked",
    }
}

fn place(id: i64) -> usize {
    usize::try_from(id - 1).expect("ids begin with 1")
}

fn id_of(place: usize) -> i64 {
    i64::try_from(place).expect("there are few letters") + 1
}

impl Tables {
    /// Whether nothing rests, and nothing asks to be looked at.
    pub(crate) fn is_quiet(&self) -> bool {
        self.parked.is_empty()
    }

    /// Until the first key of the lane is due.
    pub(crate) fn due(&self, lane: PartitionId) -> Option<OffsetDateTime> {
        let of_lane = |key: &&ParkedKey| key.lane == lane && !key.paused;
        self.parked.values().filter(of_lane).filter_map(|key| key.due_at).min()
    }

    /// Takes over the keys that were asked for; returns those of the lane that are due.
    pub(crate) fn due_keys(
        &mut self,
        lane: PartitionId,
        asked: &[String],
        now: OffsetDateTime,
        mut lock: impl FnMut(&Name) -> bool,
    ) -> Vec<Name> {
        for (name, key) in &mut self.parked {
            if asked.contains(&name.1) && key.lane != lane && lock(name) {
                key.lane = lane;
            }
        }
        let is_due = |key: &ParkedKey| {
            key.lane == lane && !key.paused && key.due_at.is_some_and(|at| at <= now)
        };
        let due = self.parked.iter().filter(|(_, key)| is_due(key)).map(|(name, _)| name.clone());
        due.collect::<Vec<_>>().into_iter().filter(|name| lock(name)).collect()
    }

    /// The letters of a key that stand before anything newer, with their ids.
    fn line(&self, name: &Name) -> Vec<usize> {
        let in_line = |letter: &super::tables::Letter| {
            let of_key =
                letter.identity.as_ref().is_some_and(|it| it.entity == name.0 && it.key == name.1);
            of_key
                && (matches!(letter.state, "parked" | "waiting" | "replaying")
                    || (letter.state == "dead" && letter.stops))
        };
        let places = self.dead_letters.iter().enumerate();
        places.filter(|(_, letter)| in_line(letter)).map(|(place, _)| place).collect()
    }

    /// What the lane takes of these keys.
    pub(crate) fn take(&self, names: &[Name], letters_max: usize) -> Vec<Letter> {
        let mut letters = Vec::new();
        for name in names {
            let line = self.line(name).into_iter();
            for place in line.take_while(|place| self.dead_letters[*place].state != "dead") {
                let letter = &self.dead_letters[place];
                letters.push(Letter {
                    id: id_of(place),
                    rests: letter.state != "replaying",
                    message: letter.message.clone(),
                    identity: letter.identity.clone().expect("a line has names"),
                });
            }
        }
        letters.truncate(letters_max);
        letters
    }

    /// What the plan needs to know of a key.
    pub(crate) fn gate(&self, name: &Name) -> Option<Gate> {
        let key = self.parked.get(name)?;
        Some(Gate {
            paused: key.paused,
            waiting: key.waiting.clone(),
            resting: usize::try_from(key.resting).expect("nothing leaves that did not come"),
            looked_at: false,
        })
    }

    /// What rests already of these writes.
    pub(crate) fn resting(&self, items: &[Item], gates: &ByKey<Gate>) -> Vec<(Uuid, Recorded)> {
        let mut found = Vec::new();
        for letter in &self.dead_letters {
            let Some(identity) = &letter.identity else { continue };
            let is_asked = items.iter().filter_map(Item::identity).any(|it| it.id == identity.id);
            let rests = matches!(letter.state, "parked" | "waiting");
            if rests && is_asked && gates.get(&identity.entity, &identity.key).is_some() {
                let rest = Rest::from_label(letter.reason).unwrap_or(Rest::BehindDeadLetter);
                found.push((
                    identity.id,
                    Recorded {
                        key: identity.key.clone(),
                        fingerprint: identity.fingerprint,
                        outcome: Outcome::Parked(rest),
                        applied_at: super::database::STARTED_AT,
                    },
                ));
            }
        }
        found
    }

    /// Notes what a commit decided, item by item.
    pub(crate) fn note(&mut self, items: &[Item], plan: &CommitPlan) {
        for (position, (item, settled)) in items.iter().zip(&plan.settled).enumerate() {
            let outcome = settled.outcome.clone();
            match item.source {
                Source::Letter { id, .. } if plan.letters.contains(&position) => {
                    self.history.push(Event::Letter { id, outcome });
                }
                Source::Delivery(_) if !settled.replayed && item.identity().is_some() => {
                    let message = Box::new(item.message.clone());
                    let names = |letter: &super::tables::Letter| {
                        letter.identity.as_ref() == item.identity()
                    };
                    let letter = self.dead_letters.iter().position(names).map(id_of);
                    self.history.push(Event::Delivery { message, outcome, letter });
                }
                Source::Letter { .. } | Source::Delivery(_) => {}
            }
        }
    }

    /// Stores what became of the letters of a look.
    pub(crate) fn letters_decided(&mut self, items: &[Item], plan: &CommitPlan) {
        for position in &plan.letters {
            let (item, outcome) = at(items, plan, *position);
            let Source::Letter { id, .. } = item.source else { continue };
            let letter = &mut self.dead_letters[place(id)];
            assert_eq!(item.identity(), letter.identity.as_ref(), "it stays the write that it was");
            assert!(
                matches!(letter.state, "parked" | "waiting" | "replaying"),
                "nobody decides a letter while its key is held: {letter:?}"
            );
            letter.state = state(outcome);
            letter.stops = matches!(outcome, Outcome::Rejected(r) if item.stops_its_key(r.reason));
            if !outcome.is_final() {
                letter.reason = outcome.reason().expect("it has one");
            }
        }
    }

    /// Stores how keys go on.
    pub(crate) fn keys_go_on(&mut self, lane: PartitionId, items: &[Item], plan: &CommitPlan) {
        let looks = !items.iter().any(|item| matches!(item.source, Source::Delivery(_)));
        for change in &plan.keys {
            self.key_goes_on(lane, looks, change, plan.now);
            let name = (change.entity.clone(), change.key.clone());
            if let Some(key) = self.parked.get(&name) {
                assert_eq!(key.resting, self.count_resting(&name), "what rests is counted");
            }
        }
    }

    fn count_resting(&self, name: &Name) -> i64 {
        let rests = |place: &usize| matches!(self.dead_letters[*place].state, "parked" | "waiting");
        i64::try_from(self.line(name).into_iter().filter(rests).count()).expect("it is small")
    }

    fn key_goes_on(
        &mut self,
        lane: PartitionId,
        looks: bool,
        change: &KeyChange,
        now: OffsetDateTime,
    ) {
        let name = (change.entity.clone(), change.key.clone());
        if change.then == KeyThen::AsBefore {
            self.parked.get_mut(&name).expect("it stood still before").resting += change.rested;
            return;
        }
        let key = self.parked.entry(name.clone()).or_insert(ParkedKey {
            lane,
            resting: 0,
            paused: false,
            waiting: None,
            due_at: None,
        });
        key.resting += change.rested;
        key.waiting = match &change.then {
            KeyThen::Waits(waiting) => Some(waiting.clone()),
            KeyThen::AsBefore | KeyThen::Stopped | KeyThen::GoesOn => None,
        };
        let due_at = match &change.then {
            KeyThen::Waits(waiting) => Some(now + waiting.delay()),
            KeyThen::GoesOn => Some(now),
            KeyThen::AsBefore | KeyThen::Stopped => None,
        };
        key.due_at = if looks { due_at } else { key.due_at.or(due_at) };
        if !looks {
            return;
        }
        let places = self.line(&name);
        let still = match &change.then {
            KeyThen::Waits(_) => Some(("waiting", "behind_waiting_write")),
            KeyThen::Stopped => Some(("parked", "behind_dead_letter")),
            KeyThen::AsBefore | KeyThen::GoesOn => None,
        };
        for place in &places {
            let letter = &mut self.dead_letters[*place];
            if let (Some(still), "parked" | "waiting") = (still, letter.state)
                && letter.state != still.0
            {
                (letter.state, letter.reason) = still;
            }
        }
        if change.then == KeyThen::GoesOn {
            let first = places.first().map(|place| self.dead_letters[*place].state);
            let key = self.parked.get_mut(&name).expect("it is looked at");
            match first {
                None if !key.paused => {
                    self.parked.remove(&name);
                    self.history.push(Event::Freed(name));
                }
                Some("dead") => key.due_at = None,
                _ => {}
            }
        }
    }

    /// Open letters that an operator can decide on.
    pub(crate) fn open_letters(&self) -> Vec<i64> {
        let open = |letter: &super::tables::Letter| {
            let named = letter.identity.is_some();
            named && matches!(letter.state, "dead" | "parked" | "waiting" | "discarded")
        };
        let places = self.dead_letters.iter().enumerate();
        places.filter(|(_, letter)| open(letter)).map(|(place, _)| id_of(place)).collect()
    }

    /// The key of a letter.
    pub(crate) fn name_of(&self, id: i64) -> Option<Name> {
        let identity = self.dead_letters.get(place(id))?.identity.as_ref()?;
        Some((identity.entity.clone(), identity.key.clone()))
    }

    /// Keys that have been seen.
    pub(crate) fn names(&self) -> BTreeSet<Name> {
        let of_letters = self.dead_letters.iter().filter_map(|letter| letter.identity.as_ref());
        of_letters.map(|it| (it.entity.clone(), it.key.clone())).collect()
    }

    /// An operator's transaction, with the key held; returns whether there was anything to do.
    pub(crate) fn act(&mut self, act: &Act, lane: PartitionId, now: OffsetDateTime) -> bool {
        let name = match act {
            Act::Replay(id) | Act::Discard(id) | Act::Restore(id) | Act::Edit(id, _) => {
                self.name_of(*id).expect("only letters with a name are acted on")
            }
            Act::Pause(name) | Act::Resume(name) => name.clone(),
        };
        if let Act::Replay(id) | Act::Discard(id) | Act::Restore(id) | Act::Edit(id, _) = act {
            let letter = &mut self.dead_letters[place(*id)];
            match (act, letter.state) {
                (Act::Replay(_), "dead") if letter.reason != "write_id_reused" => {
                    letter.state = "replaying";
                }
                (Act::Discard(_), state @ ("dead" | "parked" | "waiting")) => {
                    letter.state = "discarded";
                    letter.stops = false;
                    if state != "dead" {
                        let letter = letter.clone();
                        self.refuse_for_good(&letter, now);
                    }
                }
                (Act::Restore(_), "discarded") => letter.state = "dead",
                (Act::Edit(_, body), "dead" | "parked") => {
                    letter.message.body.clone_from(body);
                    self.history.push(Event::Operator(act.clone()));
                    return true;
                }
                _ => return false,
            }
        }
        let key = self.parked.entry(name.clone()).or_insert(ParkedKey {
            lane,
            resting: 0,
            paused: false,
            waiting: None,
            due_at: None,
        });
        match act {
            Act::Pause(_) => key.paused = true,
            Act::Resume(_) => key.paused = false,
            _ => {}
        }
        key.due_at = if key.paused { None } else { Some(now) };
        let resting = self.count_resting(&name);
        self.parked.get_mut(&name).expect("it is there").resting = resting;
        self.history.push(Event::Operator(act.clone()));
        true
    }

    fn refuse_for_good(&mut self, letter: &super::tables::Letter, now: OffsetDateTime) {
        let identity = letter.identity.as_ref().expect("it rested, so it has a name");
        let outcome = Outcome::Rejected(Rejection::new(Reason::Discarded, "discarded"));
        let line = Line {
            entity: identity.entity.clone(),
            write_id: identity.write_id.clone(),
            recorded: Recorded {
                key: identity.key.clone(),
                fingerprint: identity.fingerprint,
                outcome,
                applied_at: now,
            },
        };
        let id = ledger_id(&identity.entity, &identity.write_id);
        self.ledger.entry((id, identity.key.clone())).or_insert(line);
    }
}
