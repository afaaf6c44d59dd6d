//! The committed state of the simulated database, and what one transaction does to it.
//!
//! Owns: what `postgres::rows`, `ledger` and `dead_letters` do, in memory: all or nothing.
//! Never: waits, or knows who is asking.

use std::collections::BTreeMap;

use keylane::core::batch::{Item, Source, Wanted};
use keylane::core::column::ColumnType;
use keylane::core::entity::{Column, Entity};
use keylane::core::failure::Failure;
use keylane::core::fingerprint::ledger_id;
use keylane::core::message::Message;
use keylane::core::outcome::Outcome;
use keylane::core::partition::PartitionId;
use keylane::core::plan::{CommitPlan, Loaded, Recorded, Round};
use keylane::core::row::{Image, Row, RowChange, Value};
use keylane::core::write::Identity;
use time::OffsetDateTime;
use uuid::Uuid;

use super::history::Event;
use super::parking::{ParkedKey, state};

/// A row of a user's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// As PostgreSQL prints them, in the order of the entity's columns.
    pub(crate) values: Vec<Option<String>>,
    pub(crate) version: Option<i64>,
    pub(crate) occurred_at: Option<OffsetDateTime>,
    pub(crate) deleted_at: Option<OffsetDateTime>,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) entity: String,
    pub(crate) write_id: String,
    pub(crate) recorded: Recorded,
}

/// A dead letter; its id is its place in the table, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Letter {
    pub(crate) identity: Option<Identity>,
    pub(crate) reason: &'static str,
    pub(crate) state: &'static str,
    pub(crate) stops: bool,
    pub(crate) message: Message,
}

/// All tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tables {
    /// By entity and key.
    pub(crate) rows: BTreeMap<(String, String), Stored>,
    pub(crate) ledger: BTreeMap<(Uuid, String), Line>,
    /// Lines that the ledger has forgotten since: nobody may deliver their writes again.
    pub(crate) forgotten: BTreeMap<(Uuid, String), Line>,
    /// Ledger ids and keys in the order in which they were committed.
    pub(crate) committed: Vec<(Uuid, String)>,
    pub(crate) dead_letters: Vec<Letter>,
    /// By entity and key.
    pub(crate) parked: BTreeMap<(String, String), ParkedKey>,
    /// Everything that was decided, in the order of the commits.
    pub(crate) history: Vec<Event>,
}

impl Tables {
    /// What is wanted, as it stands.
    pub(crate) fn load(&self, wanted: &Wanted, now: OffsetDateTime) -> Loaded {
        let mut loaded = Loaded::nothing(now);
        for id in &wanted.ids {
            let lines = self.ledger.range((*id, String::new())..).take_while(|(at, _)| at.0 == *id);
            let lines: Vec<_> = lines.map(|(_, line)| line.recorded.clone()).collect();
            if !lines.is_empty() {
                loaded.known.insert(*id, lines);
            }
        }
        for (name, wanted) in &wanted.rows {
            let rows = wanted.keys.iter().filter_map(|key| {
                let stored = self.rows.get(&(name.clone(), key.as_str().to_owned()))?;
                Some((key.as_str().to_owned(), stored.row(&wanted.entity, wanted.numbers)))
            });
            loaded.rows.insert(name.clone(), rows.collect());
        }
        loaded
    }

    /// The last message of a write id is settled: its line goes, as if its time had run out. What
    /// became a dead letter is remembered.
    pub(crate) fn forget(&mut self, id: Uuid) {
        let is_over = |(of, _): &(Uuid, String), line: &mut Line| {
            *of == id && !matches!(line.recorded.outcome, Outcome::Rejected(_))
        };
        for (name, line) in self.ledger.extract_if(.., is_over) {
            let earlier = self.forgotten.insert(name, line);
            assert_eq!(earlier, None, "a write is applied once, whatever the ledger forgets");
        }
    }

    /// Stores a plan, all or nothing.
    pub(crate) fn commit(
        &mut self,
        partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let mut next = self.clone();
        for round in &plan.rounds {
            next.write(round)?;
        }
        for position in &plan.ledger {
            let (item, settled) = at(items, plan, *position);
            let identity = item.identity().expect("a ledger line has an identity");
            let line = Line {
                entity: identity.entity.clone(),
                write_id: identity.write_id.clone(),
                recorded: Recorded {
                    key: identity.key.clone(),
                    fingerprint: identity.fingerprint,
                    outcome: without_pointer(settled),
                    applied_at: plan.now,
                },
            };
            let name = (identity.id, identity.key.clone());
            next.committed.push(name.clone());
            let replaces = matches!(item.source, Source::Letter { .. });
            if next.ledger.insert(name, line).is_some() && !replaces {
                return Err(Failure::LedgerDiffers);
            }
        }
        for position in &plan.dead_letters {
            let (item, outcome) = at(items, plan, *position);
            next.bury(item, outcome);
        }
        next.note(items, plan);
        next.letters_decided(items, plan);
        next.keys_go_on(partition, items, plan);
        *self = next;
        Ok(())
    }

    /// A write is there once, however often it is delivered.
    fn bury(&mut self, item: &Item, outcome: &Outcome) {
        let identity = item.identity().cloned();
        let is_there = |letter: &Letter| identity.is_some() && letter.identity == identity;
        if self.dead_letters.iter().any(is_there) {
            return;
        }
        let stops =
            matches!(outcome, Outcome::Rejected(rejection) if item.stops_its_key(rejection.reason));
        self.dead_letters.push(Letter {
            reason: outcome.reason().expect("a dead letter has a reason"),
            state: state(outcome),
            stops,
            message: item.message.clone(),
            identity,
        });
    }

    fn write(&mut self, round: &Round) -> Result<(), Failure> {
        let mut missed = 0;
        for (key, change) in &round.changes {
            let name = (round.entity.name.clone(), key.as_str().to_owned());
            let before = self.rows.get(&name).cloned();
            let after = match (change, &before) {
                (RowChange::Insert(image), None) | (RowChange::Recreate(image), Some(_)) => {
                    Some(stored(&round.entity, None, image)?)
                }
                (RowChange::Update(image), Some(before)) => {
                    Some(stored(&round.entity, Some(before), image)?)
                }
                (RowChange::Delete, Some(_)) => None,
                _ => {
                    missed += 1;
                    continue;
                }
            };
            match after {
                Some(after) => drop(self.rows.insert(name, after)),
                None => drop(self.rows.remove(&name)),
            }
        }
        if missed > 0 {
            return Err(Failure::RowsDiffer(format!("{missed} rows of {}", round.entity.table)));
        }
        Ok(())
    }
}

/// The ledger's id of a message, if it can have one.
pub(crate) fn id(message: &Message) -> Option<Uuid> {
    let (entity, _) = message.properties.kind.as_deref()?.split_once('.')?;
    Some(ledger_id(entity, message.properties.message_id.as_deref()?))
}

pub(crate) fn at<'a>(
    items: &'a [Item],
    plan: &'a CommitPlan,
    position: usize,
) -> (&'a Item, &'a Outcome) {
    let settled = plan.settled.get(position).expect("every item is settled");
    (items.get(position).expect("positions are those of items"), &settled.outcome)
}

/// The ledger has no column for it.
fn without_pointer(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    if let Outcome::Rejected(rejection) = &mut outcome {
        rejection.pointer = None;
    }
    outcome
}

impl Stored {
    fn row(&self, entity: &Entity, numbers: bool) -> Row {
        let columns = entity.columns.iter().enumerate();
        let texts = columns
            .filter(|(_, column)| numbers && column.kind.is_number())
            .map(|(index, _)| (index, self.values.get(index).cloned().flatten()));
        Row {
            version: self.version.unwrap_or(0),
            occurred_at: self.occurred_at,
            deleted: self.deleted_at.is_some(),
            numbers: texts.collect(),
        }
    }
}

/// The row after one statement; where nothing is folded the table has a check: `qty >= 0`.
fn stored(entity: &Entity, before: Option<&Stored>, image: &Image) -> Result<Stored, Failure> {
    let mut values = Vec::with_capacity(entity.columns.len());
    for (index, column) in entity.columns.iter().enumerate() {
        let old = match before {
            Some(before) if !image.reset => before.values.get(index).cloned().flatten(),
            _ => default(column),
        };
        let text = match image.named.get(&index) {
            None => old,
            Some(Value::Set(text)) => text.clone(),
            Some(Value::Add(delta)) => Some(sum(column, old.as_deref(), delta)?),
        };
        values.push(judged(entity, column, text)?);
    }
    Ok(Stored {
        values,
        version: entity.version.as_ref().map(|_| image.version),
        occurred_at: entity.occurred_at.as_ref().and(image.occurred_at),
        deleted_at: entity.deleted_at.as_ref().and(image.deleted_at),
    })
}

fn default(column: &Column) -> Option<String> {
    let expression = column.default.as_deref()?;
    Some(expression.split("::").next()?.trim_matches('\'').to_owned())
}

fn sum(column: &Column, old: Option<&str>, delta: &str) -> Result<String, Failure> {
    let (old, delta) = (hundredths(old.unwrap_or("0"))?, hundredths(delta)?);
    let sum = old + delta;
    Ok(if column.kind == ColumnType::Int4 { (sum / 100).to_string() } else { printed(sum) })
}

/// What the column keeps of a text, or the refusal of the whole statement.
fn judged(
    entity: &Entity,
    column: &Column,
    text: Option<String>,
) -> Result<Option<String>, Failure> {
    let refused = |why: &str| Err(Failure::Refused(format!("column {}: {why}", column.name)));
    let Some(text) = text else {
        return if column.not_null { refused("not null") } else { Ok(None) };
    };
    match column.kind {
        ColumnType::Int4 => match text.parse::<i32>() {
            Ok(qty) if qty < 0 && !entity.fold => refused("check qty >= 0"),
            Ok(_) => Ok(Some(text)),
            Err(_) => refused("out of range"),
        },
        ColumnType::Numeric(_) => match hundredths(&text)? {
            price if price.abs() < 1_000_000_000_000 => Ok(Some(printed(price))),
            _ => refused("out of range"),
        },
        ColumnType::Text(Some(max)) if text.chars().count() > max as usize => refused("too long"),
        _ if text.contains('\0') => refused("NUL"),
        _ => Ok(Some(text)),
    }
}

/// A plain decimal text, times 100. PostgreSQL would round; the core must not let it come to that.
pub(crate) fn hundredths(text: &str) -> Result<i128, Failure> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let plain = fraction.trim_end_matches('0');
    let digits = format!("{whole}{plain:0<2}");
    let parsed = (plain.len() <= 2).then(|| digits.parse().ok()).flatten();
    parsed.ok_or_else(|| Failure::Refused("not a number with two decimals".to_owned()))
}

fn printed(hundredths: i128) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let size = hundredths.abs();
    format!("{sign}{}.{:02}", size / 100, size % 100)
}
