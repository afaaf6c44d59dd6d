//! A configured table with all that was read about it, and the troubles it may have as a whole.
//!
//! Owns: which tables can be written to at all. Pure.

use std::collections::HashMap;

use sqlx::postgres::types::Oid;

use super::Trouble;
use super::queries::{ColumnRow, IndexRow, TableRow};
use super::types::{Resolved, Types};
use crate::settings::EntitySettings;

/// A table and what was read about it.
pub(super) struct Table<'a> {
    pub row: &'a TableRow,
    pub settings: &'a EntitySettings,
    pub columns: Vec<Described<'a>>,
    pub indexes: Vec<&'a IndexRow>,
}

/// A column and its type.
pub(super) struct Described<'a> {
    pub row: &'a ColumnRow,
    pub of: Resolved,
}

impl Described<'_> {
    pub(super) fn not_null(&self) -> bool {
        self.row.not_null || self.of.not_null
    }

    /// Whether PostgreSQL fills it and keylane never does: generated, identity, serial.
    pub(super) fn fills_itself(&self) -> bool {
        self.row.generated || !self.row.identity.is_empty() || self.row.serial
    }
}

impl<'a> Table<'a> {
    pub(super) fn new(
        row: &'a TableRow,
        settings: &'a EntitySettings,
        columns: &'a [ColumnRow],
        (indexes, types): (&'a [IndexRow], &Types),
    ) -> Self {
        let columns = columns.iter().filter(|column| Some(column.relation) == row.oid);
        let columns = columns
            .map(|row| Described { row, of: types.resolve(row.type_oid, row.modifier) })
            .collect();
        let indexes = indexes.iter().filter(|index| Some(index.relation) == row.oid).collect();
        Self { row, settings, columns, indexes }
    }

    pub(super) fn column(&self, name: &str) -> Option<&Described<'a>> {
        self.columns.iter().find(|column| column.row.name == name)
    }

    /// The columns that keylane itself writes, by their setting.
    pub(super) fn guards(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let EntitySettings { version, occurred_at, deleted_at, .. } = self.settings;
        [("version", version), ("occurred_at", occurred_at), ("deleted_at", deleted_at)]
            .into_iter()
            .filter_map(|(setting, column)| Some((setting, column.as_deref()?)))
    }

    pub(super) fn is_key(&self, column: &str) -> bool {
        self.settings.key.iter().any(|key| key == column)
    }

    /// Whether a body may name it.
    pub(super) fn is_writable(&self, column: &Described<'_>) -> bool {
        let name = &column.row.name;
        !self.is_key(name)
            && !self.guards().any(|(_, guard)| guard == name)
            && !column.fills_itself()
    }

    pub(super) fn is_partitioned(&self) -> bool {
        self.row.kind.as_deref() == Some("p")
    }

    pub(super) fn trouble(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Trouble {
        let entity = self.row.entity.clone();
        Trouble { entity, problem: problem.into(), remedy: remedy.into() }
    }

    /// Why it cannot be looked at any further: it is not there, or is no table.
    pub(super) fn missing(&self) -> Option<Trouble> {
        let TableRow { entity, sql, near, .. } = self.row;
        let kind = match self.row.kind.as_deref() {
            Some("v") => "a view",
            Some("m") => "a materialized view",
            Some("f") => "a foreign table",
            Some(_) => return None,
            None => {
                let setting = format!("entities.{entity}.table");
                let problem = format!("there is no table {sql}");
                return Some(match near.first() {
                    None => self.trouble(
                        problem,
                        format!("create table {sql} (…), or name another in {setting}"),
                    ),
                    Some(first) => self.trouble(
                        format!("{problem}, but there is {}", near.join(", ")),
                        format!("{setting} = \"{first}\""),
                    ),
                });
            }
        };
        Some(self.trouble(
            format!("{sql} is {kind}, and rows can be locked and written only in a table"),
            format!("name the table beneath it in entities.{entity}.table"),
        ))
    }

    /// What stands between the role and the table, or between a statement and its row.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = self.missing_privileges();
        let TableRow { sql, role, .. } = self.row;
        if self.row.row_security {
            troubles.push(self.trouble(
                format!("row-level security of {sql} is in force for {role}: it may hide rows"),
                format!("alter role {role} bypassrls"),
            ));
        }
        for rule in &self.row.rules {
            troubles.push(self.trouble(
                format!("rule {rule} on {sql} is run in place of inserts, updates or deletes, or forbids `on conflict`"),
                format!("drop rule {rule} on {sql}"),
            ));
        }
        if self.row.has_children && !self.is_partitioned() {
            troubles.push(self.trouble(
                format!("other tables inherit from {sql}, and no unique index spans them all"),
                format!(
                    "name a table that nothing inherits from in entities.{}.table",
                    self.row.entity
                ),
            ));
        }
        troubles
    }

    fn missing_privileges(&self) -> Vec<Trouble> {
        let TableRow { sql, schema_sql, role, missing_privileges: missing, .. } = self.row;
        let mut troubles = Vec::new();
        if !self.row.schema_usage {
            troubles.push(self.trouble(
                format!("{role} may not use the schema {schema_sql}"),
                format!("grant usage on schema {schema_sql} to {role}"),
            ));
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            troubles.push(self.trouble(
                format!("{role} lacks privileges on {sql}: {missing}"),
                format!("grant {missing} on {sql} to {role}"),
            ));
        }
        // A key or guard column is always given, so nobody asks its default.
        let defaulted = self.columns.iter().filter(|column| {
            let name = &column.row.name;
            !self.is_key(name) && !self.guards().any(|(_, guard)| guard == name)
        });
        for sequence in defaulted.flat_map(|column| &column.row.denied_sequences) {
            troubles.push(self.trouble(
                format!("{role} may not use {sequence}, which a default of {sql} counts up"),
                format!("grant usage on sequence {sequence} to {role}"),
            ));
        }
        troubles
    }
}

/// A trouble for each entity whose table another entity has already.
pub(super) fn shared(tables: &[TableRow]) -> Vec<Trouble> {
    let mut owners: HashMap<Oid, &str> = HashMap::new();
    let mut troubles = Vec::new();
    for TableRow { entity, oid, sql, .. } in tables {
        let Some(oid) = oid else { continue };
        let owner = *owners.entry(*oid).or_insert(entity);
        if owner != entity {
            troubles.push(Trouble {
                entity: entity.clone(),
                problem: format!(
                    "{sql} is the table of entity {owner} too: two entities would write one row \
                     in no order"
                ),
                remedy: format!("remove [entities.{entity}] or [entities.{owner}]"),
            });
        }
    }
    troubles
}
