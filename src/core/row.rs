//! A row as it was loaded, and what is to be written to it.

use std::collections::BTreeMap;

use time::OffsetDateTime;

/// The state of a key's row, as far as a decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// 0 where the entity has no version column, or the row none yet.
    pub version: i64,
    /// The newest `occurred-at` that it has seen.
    pub occurred_at: Option<OffsetDateTime>,
    /// Marked as deleted: absent to changes and guards, but its version and time go on.
    pub deleted: bool,
    /// The texts of its number columns, loaded where an increment asks for them.
    pub numbers: BTreeMap<usize, Option<String>>,
}

/// What is to become of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// This text, or NULL.
    Set(Option<String>),
    /// Its own value (NULL counts as 0) plus this, computed by the database.
    Add(String),
}

/// The columns of a row after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Columns that are not named go back to their defaults.
    pub reset: bool,
    /// By position among the entity's columns.
    pub named: BTreeMap<usize, Value>,
    /// The new version.
    pub version: i64,
    /// The newest time seen.
    pub occurred_at: Option<OffsetDateTime>,
    /// Set where the row is marked as deleted.
    pub deleted_at: Option<OffsetDateTime>,
}

/// What is to be written for one key by one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    Insert(Image),
    Update(Image),
    Delete,
    /// Delete, then insert: a hard delete was followed by a creation.
    Recreate(Image),
}

impl RowChange {
    /// What two changes of one key come to, the earlier first; `None` if nothing is left to do.
    pub fn then(self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Insert(first), Self::Update(second)) => Some(Self::Insert(first.then(second))),
            (Self::Recreate(first), Self::Update(second)) => {
                Some(Self::Recreate(first.then(second)))
            }
            (Self::Update(first), Self::Update(second)) => Some(Self::Update(first.then(second))),
            (Self::Insert(_), Self::Delete) => None,
            (Self::Delete | Self::Update(_) | Self::Recreate(_), Self::Delete) => {
                Some(Self::Delete)
            }
            (Self::Delete, Self::Insert(image) | Self::Update(image)) => {
                Some(Self::Recreate(image))
            }
            (_, next @ (Self::Insert(_) | Self::Recreate(_))) => Some(next),
        }
    }
}

impl Image {
    fn then(mut self, next: Self) -> Self {
        if next.reset {
            self.named.clear();
            self.reset = true;
        }
        self.named.extend(next.named);
        Self {
            reset: self.reset,
            named: self.named,
            version: next.version,
            occurred_at: next.occurred_at,
            deleted_at: next.deleted_at,
        }
    }
}
