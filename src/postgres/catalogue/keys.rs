//! Whether a unique index makes the business key what it has to be: one row.
//!
//! Owns: which unique indexes count, and what is wrong with those that do not. Pure.

use std::collections::BTreeSet;

use super::Trouble;
use super::queries::IndexRow;
use super::table::Table;

/// What is wrong with the unique indexes on the key, if anything.
pub(super) fn trouble(table: &Table<'_>) -> Option<Trouble> {
    let key: BTreeSet<&str> = table.settings.key.iter().map(String::as_str).collect();
    let columns: Vec<_> = key.iter().filter_map(|name| table.column(name)).collect();
    // Whatever is wrong with the column is said of the column.
    if columns.len() < key.len() || columns.iter().any(|column| column.row.nondeterministic) {
        return None;
    }
    let on_key: Vec<&IndexRow> = table
        .indexes
        .iter()
        .copied()
        .filter(|index| index.is_unique && covers(index, &key))
        .collect();
    // PostgreSQL takes every unique index on the columns of `on conflict`, and fails at a
    // deferrable one even beside a good one.
    let deferrable = on_key.iter().find(|index| !index.is_immediate && fault(index) == DEFERRABLE);
    let good = on_key.iter().any(|index| fault(index).is_empty());
    if good && deferrable.is_none() {
        return None;
    }
    let columns = table.settings.key.join(", ");
    let sql = &table.row.sql;
    let found = deferrable.or_else(|| on_key.first());
    let problem = match found {
        None => format!("{sql} has no unique index on exactly the key ({columns})"),
        Some(index) => format!(
            "{sql} has no usable unique index on exactly the key ({columns}): {} is {}",
            index.sql,
            fault(index)
        ),
    };
    let remedy = match found {
        Some(index) if fault(index) == DEFERRABLE => deferrable_remedy(table, index, good),
        Some(index) if fault(index) == INVALID => {
            format!("reindex index concurrently {}", index.sql)
        }
        _ => create(table),
    };
    Some(table.trouble(problem, remedy))
}

const DEFERRABLE: &str = "deferrable";
const INVALID: &str = "invalid";

/// Whether the index would be one on the key, were nothing wrong with it.
fn covers(index: &IndexRow, key: &BTreeSet<&str>) -> bool {
    let is_key = |columns: &[String]| {
        let columns: BTreeSet<&str> = columns.iter().map(String::as_str).collect();
        columns == *key
    };
    // An expression over a column, like lower(email), is not the column, but meant as such.
    is_key(if index.has_expressions { &index.mentions } else { &index.columns })
}

/// Why it does not make the key unique; empty: it does.
fn fault(index: &IndexRow) -> &'static str {
    if index.has_expressions {
        "on expressions"
    } else if index.is_partial {
        "partial"
    } else if !index.is_immediate {
        DEFERRABLE
    } else if index.nondeterministic {
        "under a non-deterministic collation"
    } else if !index.is_valid {
        INVALID
    } else {
        ""
    }
}

fn deferrable_remedy(table: &Table<'_>, index: &IndexRow, good: bool) -> String {
    let sql = &table.row.sql;
    let drop = match &index.constraint_sql {
        Some(constraint) => format!("alter table {sql} drop constraint {constraint}"),
        None => format!("drop index {}", index.sql),
    };
    if good { drop } else { format!("{}; {drop}", create(table)) }
}

fn create(table: &Table<'_>) -> String {
    let columns: Vec<&str> = table
        .settings
        .key
        .iter()
        .filter_map(|name| Some(table.column(name)?.row.sql.as_str()))
        .collect();
    // PostgreSQL cannot do it concurrently on a partitioned table.
    let how = if table.is_partitioned() { "" } else { "concurrently " };
    format!("create unique index {how}on {} ({})", table.row.sql, columns.join(", "))
}
