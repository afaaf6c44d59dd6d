//! Reads what is known of one business key: its row, its last outcomes, what it waits for.

use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use time::OffsetDateTime;

use super::dead_letters::{self, Summary};
use super::standing::{self, Standing};
use crate::core::entity::Entity;
use crate::core::key::Key;

/// How many outcomes and dead letters of a key are shown.
const SHOWN_MAX: i64 = 10;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    pub entity: String,
    pub key: String,
    /// `null`: there is no row.
    pub row: Option<Row>,
    /// The newest first.
    pub outcomes: Vec<LedgerLine>,
    /// Those that nobody has dealt with yet, the newest first.
    pub dead_letters: Vec<Summary>,
    /// `null`: its writes are applied as they come.
    pub standing: Option<Standing>,
    /// What its lane takes first, in this order, up to the first dead one.
    pub line: Vec<InLine>,
    /// The lane that saw it last; `null` where only applied writes passed.
    pub lane: Option<Lane>,
    /// Writes in the last one to two minutes, where it is one of the busiest keys.
    pub hot: Option<i64>,
}

/// A dead letter in the line of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct InLine {
    pub id: i64,
    pub state: String,
    pub write_id: Option<String>,
    pub reason: String,
    #[serde(with = "time::serde::rfc3339")]
    pub dead_at: OffsetDateTime,
}

/// A partition, and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Lane {
    pub generation: i32,
    pub partition: i32,
    pub worker: Option<String>,
}

/// What keylane keeps in the user's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Row {
    /// `null` where the entity has no version column.
    pub version: Option<i64>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub occurred_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub deleted_at: Option<OffsetDateTime>,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct LedgerLine {
    pub write_id: String,
    pub outcome: String,
    pub effect: Option<String>,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub version: Option<i64>,
    #[serde(with = "time::serde::rfc3339")]
    pub applied_at: OffsetDateTime,
}

/// Reads everything about a key.
pub async fn show(
    connection: &mut PgConnection,
    entity: &Entity,
    key: &Key,
) -> Result<KeyReport, sqlx::Error> {
    let (name, text) = (entity.name.as_str(), key.as_str());
    Ok(KeyReport {
        entity: name.to_owned(),
        key: text.to_owned(),
        row: row(connection, entity, key).await?,
        outcomes: outcomes(connection, name, text).await?,
        dead_letters: dead_letters::open_of_key(connection, name, text, SHOWN_MAX).await?,
        standing: standing::of_key(connection, name, text).await?,
        line: line(connection, name, text).await?,
        lane: lane(connection, name, text).await?,
        hot: standing::hot(connection, Some(name), Some(text), 1)
            .await?
            .pop()
            .map(|hot| hot.writes),
    })
}

async fn line(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
) -> Result<Vec<InLine>, sqlx::Error> {
    const SQL: &str = "
        select id, state, write_id, reason, dead_at
          from keylane.dead_letters
         where entity = $1 and key = $2
           and (state in ('parked', 'waiting', 'replaying') or (state = 'dead' and stops))
         order by id
         limit $3";
    sqlx::query_as(SQL).bind(entity).bind(key).bind(SHOWN_MAX).fetch_all(connection).await
}

async fn lane(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
) -> Result<Option<Lane>, sqlx::Error> {
    const SQL: &str = "
        select seen.generation, seen.partition, l.owner as worker
          from (select generation, partition, 0 as place, 0 as id from keylane.parked_keys
                 where entity = $1 and key = $2
                union all
                select generation, partition, 1, id from keylane.dead_letters
                 where entity = $1 and key = $2) seen
          left join keylane.partitions l on l.generation = seen.generation
                and l.partition = seen.partition and l.closed_at is null
         order by seen.place, seen.id desc
         limit 1";
    sqlx::query_as(SQL).bind(entity).bind(key).fetch_optional(connection).await
}

async fn row(
    connection: &mut PgConnection,
    entity: &Entity,
    key: &Key,
) -> Result<Option<Row>, sqlx::Error> {
    let mut query = sqlx::query_as(AssertSqlSafe(row_sql(entity)));
    for part in key.parts() {
        query = query.bind(part.as_str());
    }
    query.fetch_optional(connection).await
}

/// Names are quoted, types come from the catalogue, and values are bound.
fn row_sql(entity: &Entity) -> String {
    let column = |name: &Option<String>, kind: &str, alias: &str| match name {
        Some(name) => format!("{}::{kind} as {alias}", quoted(name)),
        None => format!("null::{kind} as {alias}"),
    };
    let matches: Vec<String> = entity
        .key
        .iter()
        .zip(1..)
        .map(|(column, number)| {
            format!("{} = ${number}::text::{}", quoted(&column.name), column.sql_type)
        })
        .collect();
    format!(
        "select {}, {}, {} from {} where {}",
        column(&entity.version, "bigint", "version"),
        column(&entity.occurred_at, "timestamptz", "occurred_at"),
        column(&entity.deleted_at, "timestamptz", "deleted_at"),
        entity.table,
        matches.join(" and ")
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The ledger is made for looking ids up: this reads it through, so the connection's
/// `statement_timeout` is what bounds it. Lines of one batch have one time, and their place in the
/// table keeps their order.
async fn outcomes(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
) -> Result<Vec<LedgerLine>, sqlx::Error> {
    const SQL: &str = "
        select write_id, outcome, effect, reason, detail, version, applied_at
          from keylane.ledger
         where entity = $1 and key = $2
         order by applied_at desc, ctid desc
         limit $3";
    sqlx::query_as(SQL).bind(entity).bind(key).bind(SHOWN_MAX).fetch_all(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::column::ColumnType;
    use crate::core::entity::Column;

    #[test]
    fn a_row_is_found_by_its_quoted_and_typed_key() {
        let column = |name: &str, kind: ColumnType, sql_type: &str| Column {
            name: name.into(),
            kind,
            sql_type: sql_type.into(),
            not_null: true,
            default: None,
        };
        let entity = Entity {
            name: "order_line".into(),
            table: "\"public\".\"order lines\"".into(),
            key: vec![
                column("order", ColumnType::Uuid, "uuid"),
                column("a\"b", ColumnType::Int4, "integer"),
            ],
            columns: Vec::new(),
            version: Some("version".into()),
            occurred_at: None,
            deleted_at: None,
            fold: true,
            user_triggers: false,
            parks: false,
        };
        assert_eq!(
            row_sql(&entity),
            "select \"version\"::bigint as version, null::timestamptz as occurred_at, \
             null::timestamptz as deleted_at from \"public\".\"order lines\" \
             where \"order\" = $1::text::uuid and \"a\"\"b\" = $2::text::integer"
        );
    }
}
