//! The user's row that a dead letter speaks of, as it is now.

use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::core::entity::Entity;
use crate::core::key::Key;
use crate::operate::chain;
use crate::postgres::catalogue;
use crate::settings::Settings;

/// The row, or why it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CurrentRow {
    /// All its columns.
    Is(Value),
    /// The table has none.
    Absent,
    /// It could not be looked up.
    Unknown(String),
}

/// Looks the row up. What stands in the way becomes part of the answer.
pub async fn current(
    connection: &mut PgConnection,
    settings: &Settings,
    (entity, key): (&str, &str),
) -> CurrentRow {
    match look_up(connection, settings, entity, key).await {
        Ok(Some(row)) => CurrentRow::Is(row),
        Ok(None) => CurrentRow::Absent,
        Err(why) => CurrentRow::Unknown(why),
    }
}

async fn look_up(
    connection: &mut PgConnection,
    settings: &Settings,
    entity: &str,
    key: &str,
) -> Result<Option<Value>, String> {
    let Some(configured) = settings.entities.get(entity) else {
        return Err(format!("no entity `{entity}` in the settings"));
    };
    let asked = [(entity.to_owned(), configured.clone())].into();
    let entities = catalogue::load(connection, &asked).await.map_err(|error| chain(&error))?;
    let loaded = entities.get(entity).ok_or("its table was not loaded")?;
    let key = Key::parse(loaded, key).map_err(|rejection| rejection.detail)?;
    let mut query = sqlx::query_scalar(AssertSqlSafe(sql(loaded)));
    for part in key.parts() {
        query = query.bind(part.as_str());
    }
    query.fetch_optional(connection).await.map_err(|error| chain(&error))
}

/// Names are quoted, types come from the catalogue, and values are bound.
fn sql(entity: &Entity) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let matches = entity.key.iter().zip(1..).map(|(column, number)| {
        format!("t.{} = ${number}::text::{}", quoted(&column.name), column.sql_type)
    });
    let matches: Vec<String> = matches.collect();
    format!("select to_jsonb(t) from {} t where {}", entity.table, matches.join(" and "))
}
