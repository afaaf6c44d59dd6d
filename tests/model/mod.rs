//! What must come of a list of writes, by WIRE.md alone: a plain model, one write at a time.
//!
//! Owns: rows, ledger and dead letters as they must be, and the answer to each write.
//! Never: uses the fold, the plan or the decoder that it is there to judge.

pub(crate) mod content;
pub(crate) mod decimal;
pub(crate) mod entities;
pub(crate) mod generate;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use keylane::core::message::Message;
use time::{Duration, OffsetDateTime};

use content::{Change, Content, Expected, Given, Read, Request, read};
use entities::Spec;

/// A row; whole numbers of cents for the price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: Option<String>,
    pub(crate) qty: Option<i64>,
    pub(crate) price: Option<i64>,
    pub(crate) note: Option<String>,
    /// 0 where the table has no such column.
    pub(crate) version: i64,
    pub(crate) occurred_at: Option<OffsetDateTime>,
    pub(crate) deleted: bool,
}

impl Row {
    const DEFAULT: Self = Self {
        name: None,
        qty: Some(5),
        price: None,
        note: None,
        version: 0,
        occurred_at: None,
        deleted: false,
    };
}

/// The outcome of a write, in the words of WIRE.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) outcome: String,
    pub(crate) effect: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) version: Option<i64>,
    pub(crate) replayed: bool,
}

impl Answer {
    fn new(
        outcome: &str,
        effect: Option<&str>,
        reason: Option<&str>,
        version: Option<i64>,
    ) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            outcome: outcome.to_owned(),
            effect: owned(effect),
            reason: owned(reason),
            version,
            replayed: false,
        }
    }

    pub(crate) fn rejected(reason: &str) -> Self {
        Self::new("rejected", None, Some(reason), None)
    }
}

/// What the ledger must say of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) answer: Answer,
    pub(crate) content: Content,
}

/// A dead letter: of a write where entity and write id are usable, else of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    /// Entity, key and write id.
    pub(crate) write: Option<(String, String, String)>,
    pub(crate) reason: String,
    pub(crate) routing_key: String,
    pub(crate) body: Vec<u8>,
}

/// Entity and key.
pub(crate) type Name = (String, String);

/// The whole database as it must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<Name, Row>,
    /// By entity, write id and key.
    pub(crate) ledger: BTreeMap<(String, String, String), Line>,
    pub(crate) dead_letters: Vec<Letter>,
    reused: Vec<(String, Content)>,
}

impl Model {
    /// Applies one message, as if it were alone in the world.
    pub(crate) fn apply(&mut self, message: &Message, now: OffsetDateTime) -> Answer {
        let Read { identity, request } = read(message);
        let Some((name, content)) = identity else {
            let reason = request.err().unwrap_or("none");
            self.bury(message, None, reason);
            return Answer::rejected(reason);
        };
        if let Some(line) = self.ledger.get(&name)
            && line.content == content
        {
            return Answer { replayed: true, ..line.answer.clone() };
        }
        let (entity, write_id, key) = name.clone();
        let letter = (entity.clone(), key, write_id.clone());
        if self.ledger.keys().any(|(e, id, _)| *e == entity && *id == write_id) {
            if !self.reused.contains(&(write_id.clone(), content.clone())) {
                self.reused.push((write_id, content));
                self.bury(message, Some(letter), "write_id_reused");
            }
            return Answer::rejected("write_id_reused");
        }
        let answer = match request {
            Ok(request) => self.decide(&request, now),
            Err(reason) => Answer::rejected(reason),
        };
        if answer.outcome == "rejected" {
            self.bury(message, Some(letter), answer.reason.as_deref().unwrap_or_default());
        }
        self.ledger.insert(name, Line { answer: answer.clone(), content });
        answer
    }

    fn bury(&mut self, message: &Message, write: Option<(String, String, String)>, reason: &str) {
        self.dead_letters.push(Letter {
            write,
            reason: reason.to_owned(),
            routing_key: message.routing_key.clone(),
            body: message.body.clone(),
        });
    }

    /// Rejections, if-version, occurred-at, `already_exists` / `not_found`: in this order. What
    /// only the database can judge (tables that are not folded) comes last.
    fn decide(&mut self, request: &Request, now: OffsetDateTime) -> Answer {
        let spec = request.spec;
        let name = (spec.name.to_owned(), request.key.clone());
        let before = self.rows.get(&name).cloned();
        let present = before.clone().filter(|row| !row.deleted);
        if request.occurred_at.is_some_and(|at| at > now + Duration::HOUR) {
            return Answer::rejected("type_mismatch");
        }
        let takes_effect = match request.change {
            Change::Delete | Change::Update => present.is_some(),
            Change::Upsert | Change::Create | Change::Replace | Change::Increment => true,
        };
        let after = takes_effect.then(|| changed(request, before.as_ref()));
        if matches!(after, Some(None)) && spec.folds {
            return Answer::rejected("type_mismatch");
        }
        if let Some(reason) = unmet(request, before.as_ref()) {
            let version = present.filter(|_| spec.guarded).map(|row| row.version);
            return Answer::new("precondition_failed", None, Some(reason), version);
        }
        let effect = match (request.change, present.is_some()) {
            (Change::Delete, false) => {
                return Answer::new("applied", Some("unchanged"), None, None);
            }
            (Change::Delete, true) => "deleted",
            (_, true) => "updated",
            (_, false) => "created",
        };
        let after = match after.flatten() {
            Some(row) if spec.folds || row.qty.is_none_or(|qty| qty >= 0) => row,
            _ => return Answer::rejected("constraint_violation"),
        };
        let version = (spec.guarded && !after.deleted).then_some(after.version);
        if after.deleted && !spec.guarded {
            self.rows.remove(&name);
        } else {
            self.rows.insert(name, after);
        }
        Answer::new("applied", Some(effect), None, version)
    }
}

/// The sender's condition that does not hold.
fn unmet(request: &Request, before: Option<&Row>) -> Option<&'static str> {
    let present = before.filter(|row| !row.deleted);
    let holds = match request.if_version {
        None => true,
        Some(Expected::Absent) => present.is_none(),
        Some(Expected::Present) => present.is_some(),
        Some(Expected::Version(version)) => present.is_some_and(|row| row.version == version),
    };
    if !holds {
        return Some("version_mismatch");
    }
    let seen = before.and_then(|row| row.occurred_at);
    if let (Some(at), Some(seen)) = (request.occurred_at, seen)
        && at < seen
    {
        return Some("older_than_row");
    }
    match (request.change, present) {
        (Change::Create, Some(_)) => Some("already_exists"),
        (Change::Update, None) => Some("not_found"),
        _ => None,
    }
}

/// The row after the change; `None` where a sum is beyond its column.
fn changed(request: &Request, before: Option<&Row>) -> Option<Row> {
    let present = before.filter(|row| !row.deleted);
    let mut row = match present {
        Some(row) if request.change != Change::Replace => row.clone(),
        _ => Row { note: Some("x".to_owned()), ..Row::DEFAULT },
    };
    let body = &request.body;
    let adds = request.change == Change::Increment;
    set(&mut row.name, &body.name);
    set(&mut row.note, &body.note);
    number(&mut row.qty, &body.qty, adds, i32::MIN.into()..=i32::MAX.into())?;
    number(&mut row.price, &body.price, adds, -Spec::CENTS_MAX..=Spec::CENTS_MAX)?;
    row.version = before.map_or(0, |row| row.version) + i64::from(request.spec.guarded);
    row.occurred_at = request.occurred_at.or(before.and_then(|row| row.occurred_at));
    row.deleted = request.change == Change::Delete;
    Some(row)
}

fn set<T: Clone>(column: &mut Option<T>, given: &Given<T>) {
    match given {
        Given::Nothing => {}
        Given::Null => *column = None,
        Given::Value(value) => *column = Some(value.clone()),
    }
}

/// Sets or adds a number; `None` where that is out of range.
fn number(
    column: &mut Option<i64>,
    given: &Given<i64>,
    adds: bool,
    range: RangeInclusive<i64>,
) -> Option<()> {
    match given {
        Given::Value(value) if adds => *column = Some(column.unwrap_or(0) + value),
        given => set(column, given),
    }
    column.is_none_or(|number| range.contains(&number)).then_some(())
}
