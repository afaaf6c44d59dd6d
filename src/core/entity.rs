//! A configured table: which columns a write may name, what they hold, what guards it.
//!
//! Owns: the shape of an entity as the catalogue described it.
//! Never: asks the database (that is `postgres::catalogue`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::column::ColumnType;

/// A configured table, checked against the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// The name in `type` and in the settings.
    pub name: String,
    /// Schema and table, quoted for SQL.
    pub table: String,
    /// The columns of the business key, in configured order.
    pub key: Vec<Column>,
    /// The columns that a body may name besides the key, sorted by name (byte order).
    pub columns: Vec<Column>,
    /// Name of the version column (bigint), unquoted.
    pub version: Option<String>,
    /// Name of the column with the time of the newest write (timestamptz), unquoted.
    pub occurred_at: Option<String>,
    /// Name of the column that marks a deleted row (timestamptz), unquoted.
    pub deleted_at: Option<String>,
    /// Whether several writes of a key may become one row write: nobody can see the difference.
    pub fold: bool,
    /// Whether triggers of the user's own run on writes: they get the planner's usual settings.
    pub user_triggers: bool,
    /// Whether later writes of a key wait behind its dead letter.
    pub parks: bool,
}

/// A column that a body may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Unquoted name.
    pub name: String,
    /// What it can hold.
    pub kind: ColumnType,
    /// The type to cast text to in SQL, quoted, without a modifier (`numeric`, not
    /// `numeric(12,2)`): an explicit cast with a modifier would cut silently.
    pub sql_type: String,
    /// Whether NULL is refused, by the column or by its domain.
    pub not_null: bool,
    /// The default's SQL expression; `None` is NULL.
    pub default: Option<String>,
}

impl Entity {
    /// Whether the fold can know every number that a creating write starts from.
    pub fn has_constant_numbers(&self) -> bool {
        let mut numbers = self.columns.iter().filter(|column| column.kind.is_number());
        numbers.all(|column| column.default_number().is_some())
    }

    /// The position of a writable column among [`Entity::columns`].
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.binary_search_by(|column| column.name.as_str().cmp(name)).ok()
    }
}

impl Column {
    /// The default of a number column where it is a plain constant (`Some(None)`: NULL); `None`
    /// where only the database can tell.
    pub fn default_number(&self) -> Option<Option<String>> {
        let Some(expression) = self.default.as_deref() else { return Some(None) };
        let constant = expression.split("::").next().unwrap_or_default();
        let plain = constant.trim_matches(['(', ')', ' ', '\'']);
        let is_number = !plain.is_empty()
            && plain
                .strip_prefix('-')
                .unwrap_or(plain)
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'.');
        is_number.then(|| Some(plain.to_owned()))
    }
}

/// All configured entities by name.
pub type Entities = BTreeMap<String, Arc<Entity>>;
