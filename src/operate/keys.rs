//! Reads what is known of one business key: its row, its last outcomes, what it waits for.

use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use time::OffsetDateTime;

use super::dead_letters::{self, Summary};
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
    })
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
