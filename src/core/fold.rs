//! Folds the writes of one key, in order, onto its row.
//!
//! Owns: what becomes of each write, and of the row. The order of checks is WIRE.md's: rejections,
//! if-version, occurred-at, then whether the row is there.
//! Never: waits, reads a clock, or looks at another key.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::entity::Entity;
use super::outcome::{Effect, Outcome, Reason, Rejection, Unmet};
use super::row::{Image, Row, RowChange, Value};
use super::write::{Change, IfVersion, Write};

/// How far ahead of the database's clock an `occurred-at` may be; beyond it would freeze the key.
pub const OCCURRED_AT_AHEAD_MAX: Duration = Duration::HOUR;

/// One key in the middle of its batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    entity: Arc<Entity>,
    /// The row as it stands after the writes so far; `None` if there is none in the table.
    row: Option<Row>,
    /// What is to be written since it was last taken.
    change: Option<RowChange>,
}

impl Lane {
    /// Starts with the row as it was loaded.
    pub fn new(entity: Arc<Entity>, row: Option<Row>) -> Self {
        Self { entity, row, change: None }
    }

    /// Decides one write and applies it.
    pub fn apply(&mut self, write: &Write, now: OffsetDateTime) -> Outcome {
        match self.decide(write, now) {
            Ok(Step::Nothing) => {
                Outcome::Applied { effect: Effect::Unchanged, version: self.shown_version() }
            }
            Ok(Step::Change { change, row, effect }) => {
                self.row = row;
                self.change = match self.change.take() {
                    Some(earlier) => earlier.then(change),
                    None => Some(change),
                };
                Outcome::Applied { effect, version: self.shown_version() }
            }
            Err(outcome) => outcome,
        }
    }

    /// What is to be written for the writes applied since the last call.
    pub fn take_change(&mut self) -> Option<RowChange> {
        self.change.take()
    }

    /// The row that senders can see: one that is not marked as deleted.
    fn present(&self) -> Option<&Row> {
        self.row.as_ref().filter(|row| !row.deleted)
    }

    fn shown_version(&self) -> Option<i64> {
        self.entity.version.as_ref().and_then(|_| self.present()).map(|row| row.version)
    }

    fn decide(&self, write: &Write, now: OffsetDateTime) -> Result<Step, Outcome> {
        let step = self.step(write, now).map_err(Outcome::Rejected)?;
        let unmet =
            |unmet| Err(Outcome::PreconditionFailed { unmet, version: self.shown_version() });
        if !self.version_holds(write.guards.if_version) {
            return unmet(Unmet::VersionMismatch);
        }
        let seen = self.row.as_ref().and_then(|row| row.occurred_at);
        if write.guards.occurred_at.zip(seen).is_some_and(|(at, seen)| at < seen) {
            return unmet(Unmet::OlderThanRow);
        }
        match (write.change, self.present().is_some()) {
            (Change::Create, true) => unmet(Unmet::AlreadyExists),
            (Change::Update, false) => unmet(Unmet::NotFound),
            _ => Ok(step),
        }
    }

    fn version_holds(&self, expected: Option<IfVersion>) -> bool {
        match (expected, self.present()) {
            (None, _) | (Some(IfVersion::Absent), None) | (Some(IfVersion::Present), Some(_)) => {
                true
            }
            (Some(IfVersion::Is(version)), Some(row)) => row.version == version,
            (Some(IfVersion::Absent), Some(_))
            | (Some(IfVersion::Present | IfVersion::Is(_)), None) => false,
        }
    }

    /// What the write would do if its conditions hold; or why it can never be done.
    fn step(&self, write: &Write, now: OffsetDateTime) -> Result<Step, Rejection> {
        if write.guards.occurred_at.is_some_and(|at| at > now + OCCURRED_AT_AHEAD_MAX) {
            return Err(Rejection::new(
                Reason::TypeMismatch,
                "occurred-at is more than an hour ahead of the database's clock",
            ));
        }
        match (write.change, self.present()) {
            (Change::Delete, Some(row)) => self.delete(write, row, now),
            (Change::Delete | Change::Update, None) => Ok(Step::Nothing),
            (_, Some(_)) => self.put(write, write.change == Change::Replace, Effect::Updated),
            (_, None) => {
                self.check_complete(write)?;
                self.put(write, self.row.is_some(), Effect::Created)
            }
        }
    }

    /// A creating write must name every column that has no other way to a value.
    fn check_complete(&self, write: &Write) -> Result<(), Rejection> {
        let missing = self.entity.columns.iter().enumerate().find(|(index, column)| {
            column.not_null
                && column.default.is_none()
                && !write.values.iter().any(|(named, _)| named == index)
        });
        match missing {
            Some((_, column)) => Err(Rejection::new(
                Reason::ConstraintViolation,
                format!(
                    "column {} is not null and has no default, so a creating write must name it",
                    column.name
                ),
            )
            .at(format!("/{}", column.name))),
            None => Ok(()),
        }
    }

    /// Sets or adds the columns that the write names; `reset` puts all others to their defaults.
    fn put(&self, write: &Write, reset: bool, effect: Effect) -> Result<Step, Rejection> {
        let creates = effect == Effect::Created;
        let replaces = write.change == Change::Replace || creates;
        let mut numbers = match &self.row {
            Some(row) if !replaces => row.numbers.clone(),
            _ => self.default_numbers(),
        };
        let mut named = BTreeMap::new();
        for (index, text) in &write.values {
            let value = match (write.change, text) {
                (Change::Increment, Some(delta)) => self.sum(*index, &numbers, delta)?,
                _ => Value::Set(text.clone()),
            };
            if let (Value::Set(text), Some(number)) = (&value, numbers.get_mut(index)) {
                number.clone_from(text);
            }
            named.insert(*index, value);
        }
        let version = self.next_version()?;
        let before = self.row.as_ref();
        let occurred_at = write.guards.occurred_at.or(before.and_then(|row| row.occurred_at));
        let image = Image { reset, named, version, occurred_at, deleted_at: None };
        let row = Row { version, occurred_at, deleted: false, numbers };
        let change =
            if before.is_some() { RowChange::Update(image) } else { RowChange::Insert(image) };
        Ok(Step::Change { change, row: Some(row), effect })
    }

    fn delete(&self, write: &Write, row: &Row, now: OffsetDateTime) -> Result<Step, Rejection> {
        if self.entity.deleted_at.is_none() {
            let change = RowChange::Delete;
            return Ok(Step::Change { change, row: None, effect: Effect::Deleted });
        }
        let version = self.next_version()?;
        let occurred_at = write.guards.occurred_at.or(row.occurred_at);
        let named = BTreeMap::new();
        let image = Image { reset: false, named, version, occurred_at, deleted_at: Some(now) };
        let row = Row { version, occurred_at, deleted: true, numbers: row.numbers.clone() };
        let change = RowChange::Update(image);
        Ok(Step::Change { change, row: Some(row), effect: Effect::Deleted })
    }

    fn next_version(&self) -> Result<i64, Rejection> {
        self.row.as_ref().map_or(0, |row| row.version).checked_add(1).ok_or_else(|| {
            Rejection::new(Reason::ConstraintViolation, "the row's version cannot grow further")
        })
    }

    /// Where writes are folded the sum is computed here, in the column's own type, so that each
    /// write is judged by itself; elsewhere a trigger may change the row between two of them.
    fn sum(
        &self,
        index: usize,
        numbers: &BTreeMap<usize, Option<String>>,
        delta: &str,
    ) -> Result<Value, Rejection> {
        let (true, Some(column)) = (self.entity.fold, self.entity.columns.get(index)) else {
            return Ok(Value::Add(delta.to_owned()));
        };
        let current = numbers.get(&index).and_then(Option::as_deref);
        column.kind.add(current, delta).map(|sum| Value::Set(Some(sum))).map_err(|mismatch| {
            Rejection::new(
                Reason::TypeMismatch,
                format!("column {}: {}", column.name, mismatch.detail),
            )
            .at(format!("/{}", column.name))
        })
    }

    fn default_numbers(&self) -> BTreeMap<usize, Option<String>> {
        let columns = self.entity.columns.iter().enumerate();
        columns
            .filter(|(_, column)| column.kind.is_number())
            .map(|(index, column)| (index, column.default_number().flatten()))
            .collect()
    }
}

/// What a write does if its conditions hold.
enum Step {
    Nothing,
    Change { change: RowChange, row: Option<Row>, effect: Effect },
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
