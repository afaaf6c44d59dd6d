//! Whether anybody could tell several row writes from one.
//!
//! Owns: what forbids folding where the settings say `auto`. Pure.
//!
//! Whatever PostgreSQL judges by itself may refuse a state that lies between two writes. Folded,
//! that state never is, and outcomes would depend on where a batch happened to end.

use super::queries::IndexRow;
use super::table::{Described, Table};
use crate::core::column::ColumnType;

/// What would see the difference; `None`: nothing does.
pub(super) fn obstacle(table: &Table<'_>) -> Option<&'static str> {
    let row = table.row;
    let of_table = [
        // A row that belongs into no partition is refused like one that breaks a check.
        (table.is_partitioned() || row.is_partition, "partitions"),
        (row.has_checks, "a check constraint"),
        (row.has_references, "a foreign key"),
        (row.has_exclusions, "an exclusion constraint"),
        (row.has_triggers, "a trigger"),
        (row.has_rules, "a rule"),
        (table.columns.iter().any(|column| column.of.has_checks), "a domain with a check"),
        (table.columns.iter().any(|column| column.row.generated), "a generated column"),
        (table.columns.iter().any(|column| is_judged(column)), "a type of its own rules"),
        (table.indexes.iter().any(|index| may_refuse(table, index)), "an index"),
    ];
    of_table.into_iter().find_map(|(there, what)| there.then_some(what))
}

/// Whether only PostgreSQL knows which values the column takes.
fn is_judged(column: &Described<'_>) -> bool {
    let kind = match &column.of.kind {
        ColumnType::Array(element) => element,
        kind => kind,
    };
    *kind == ColumnType::Other
}

fn may_refuse(table: &Table<'_>, index: &IndexRow) -> bool {
    if index.has_expressions || index.is_partial {
        return true;
    }
    let is_key = index.columns.iter().all(|column| table.is_key(column))
        && index.columns.len() == table.settings.key.len();
    let is_never_written = index.columns.iter().all(|name| {
        !table.is_key(name)
            && !table.guards().any(|(_, guard)| guard == name)
            && table.column(name).is_some_and(Described::fills_itself)
    });
    index.is_unique && !is_key && !is_never_written
}
