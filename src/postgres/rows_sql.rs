//! The text of the statements on a user's table.
//!
//! Owns: what a column becomes, for each byte of [`Code`].

use crate::core::entity::{Column, Entity};

/// What becomes of a column: the byte that the statements look at.
#[derive(Clone, Copy)]
pub(super) enum Code {
    Keep = 0,
    Set = 1,
    Add = 2,
    Default = 3,
    AddToDefault = 4,
}

pub(super) fn load_sql(entity: &Entity, numbers: bool) -> String {
    let guard = |column: &Option<String>, otherwise: &str| match column {
        Some(name) => format!("t.{}", quoted(name)),
        None => otherwise.to_owned(),
    };
    let version = guard(&entity.version, "null");
    let occurred_at = guard(&entity.occurred_at, "null::timestamptz");
    let deleted_at = guard(&entity.deleted_at, "null::timestamptz");
    let number_columns = entity.columns.iter().filter(|column| column.kind.is_number());
    let texts =
        joined(number_columns, ", ", |_, column| format!("t.{}::text", quoted(&column.name)));
    let texts = if numbers { format!(", array[{texts}]::text[]") } else { String::new() };
    format!(
        "select x.position, coalesce({version}, 0)::bigint, {occurred_at}, \
         {deleted_at} is not null{texts} \
         from unnest({keys}) with ordinality as x ({names}, position) \
         join {table} t on {matches}",
        keys = key_parameters(entity),
        names = key_names(entity),
        table = entity.table,
        matches = key_matches(entity),
    )
}

/// A locked row bears the number of the transaction that holds it; of several holders it bears
/// another number, and then nobody is named. Statements of others are shown to roles that may
/// read them (`pg_read_all_stats`).
pub(super) fn holders_sql(entity: &Entity) -> String {
    format!(
        "select x.position, coalesce('pid ' || l.pid || ': ' || left(a.query, 200), \
                                     'held by a transaction that the server does not name') \
         from unnest({keys}) with ordinality as x ({names}, position) \
         join {table} t on {matches} \
         left join pg_catalog.pg_locks l on l.locktype = 'transactionid' \
              and l.transactionid = t.xmax and l.mode = 'ExclusiveLock' and l.granted \
         left join pg_catalog.pg_stat_activity a on a.pid = l.pid",
        keys = key_parameters(entity),
        names = key_names(entity),
        table = entity.table,
        matches = key_matches(entity),
    )
}

pub(super) fn insert_sql(entity: &Entity) -> String {
    let key =
        entity.key.iter().enumerate().map(|(part, column)| {
            (quoted(&column.name), format!("x.k{part}::{}", column.sql_type))
        });
    let columns = entity
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| (quoted(&column.name), value_sql(index, column, "null")));
    let guards = guards(entity).map(|(guard, value)| (quoted(guard), value.to_owned()));
    let (names, values): (Vec<String>, Vec<String>) = key.chain(columns).chain(guards).unzip();
    format!(
        "insert into {table} ({names}) select {values} from {source} \
         on conflict ({key}) do nothing",
        table = entity.table,
        names = names.join(", "),
        values = values.join(", "),
        source = source_sql(entity),
        key = joined(&entity.key, ", ", |_, column| quoted(&column.name)),
    )
}

pub(super) fn update_sql(entity: &Entity) -> String {
    let mut sets: Vec<String> = Vec::new();
    for (index, column) in entity.columns.iter().enumerate() {
        let current = format!("t.{}", quoted(&column.name));
        sets.push(format!("{} = {}", quoted(&column.name), value_sql(index, column, &current)));
    }
    for (guard, value) in guards(entity) {
        sets.push(format!("{} = {value}", quoted(guard)));
    }
    if sets.is_empty() {
        // Nothing but a key: the row stays as it is, and the count must still be right.
        sets.extend(entity.key.iter().take(1).map(|column| {
            let name = quoted(&column.name);
            format!("{name} = t.{name}")
        }));
    }
    format!(
        "update {table} as t set {sets} from {source} where {matches}",
        table = entity.table,
        sets = sets.join(", "),
        source = source_sql(entity),
        matches = key_matches(entity),
    )
}

pub(super) fn delete_sql(entity: &Entity) -> String {
    format!(
        "delete from {table} as t using unnest({keys}) as x ({names}) where {matches}",
        table = entity.table,
        keys = key_parameters(entity),
        names = key_names(entity),
        matches = key_matches(entity),
    )
}

/// The columns that keylane itself writes, with their source.
fn guards(entity: &Entity) -> impl Iterator<Item = (&str, &'static str)> {
    let pairs = [
        (&entity.version, "x.version"),
        (&entity.occurred_at, "x.occurred_at"),
        (&entity.deleted_at, "x.deleted_at"),
    ];
    pairs.into_iter().filter_map(|(name, value)| Some((name.as_deref()?, value)))
}

/// What a column becomes; `current` is its value before.
fn value_sql(index: usize, column: &Column, current: &str) -> String {
    let Column { sql_type, default, .. } = column;
    let default = default.as_deref().unwrap_or("null");
    let default = format!("({default})::{sql_type}");
    let given = format!("x.c{index}::{sql_type}");
    let sums = if column.kind.is_number() {
        format!(
            " when {} then coalesce({current}, 0) + {given} when {} then coalesce({default}, 0) + {given}",
            Code::Add as u8,
            Code::AddToDefault as u8
        )
    } else {
        String::new()
    };
    format!(
        "case get_byte(x.codes, {index}) when {} then {given}{sums} when {} then {default} else {current} end",
        Code::Set as u8,
        Code::Default as u8
    )
}

fn source_sql(entity: &Entity) -> String {
    let columns = entity.key.len() + entity.columns.len();
    let next = columns + 1;
    let texts = joined(&vec![(); columns], ", ", |index, ()| format!("${}::text[]", index + 1));
    let names = joined(&entity.columns, "", |index, _| format!(", c{index}"));
    format!(
        "unnest({texts}, ${next}::bytea[], ${}::bigint[], ${}::timestamptz[], ${}::timestamptz[]) \
         as x ({keys}{names}, codes, version, occurred_at, deleted_at)",
        next + 1,
        next + 2,
        next + 3,
        keys = key_names(entity),
    )
}

fn key_parameters(entity: &Entity) -> String {
    joined(&entity.key, ", ", |part, _| format!("${}::text[]", part + 1))
}

fn key_names(entity: &Entity) -> String {
    joined(&entity.key, ", ", |part, _| format!("k{part}"))
}

fn key_matches(entity: &Entity) -> String {
    joined(&entity.key, " and ", |part, column| {
        format!("t.{} = x.k{part}::{}", quoted(&column.name), column.sql_type)
    })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn joined<'a, T: 'a>(
    items: impl IntoIterator<Item = &'a T>,
    separator: &str,
    text: impl Fn(usize, &'a T) -> String,
) -> String {
    let texts: Vec<String> =
        items.into_iter().enumerate().map(|(index, item)| text(index, item)).collect();
    texts.join(separator)
}
