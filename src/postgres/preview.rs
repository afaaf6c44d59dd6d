//! Reads rows without holding them, for those who only want to know what a write would do.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::core::batch::{Wanted, WantedRows};
use crate::core::key::Key;
use crate::core::plan::Loaded;
use crate::core::row::Row;

use super::rows::{Statements, key_part};
use super::rows_sql::load_sql;

/// What is there just now, without what the ledger knows of the writes.
pub async fn load(connection: &mut PgConnection, wanted: &Wanted) -> Result<Loaded, sqlx::Error> {
    let now = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *connection).await?;
    let mut loaded = Loaded::nothing(now);
    for (name, wanted) in &wanted.rows {
        loaded.rows.insert(name.clone(), rows(connection, wanted).await?);
    }
    Ok(loaded)
}

async fn rows(
    connection: &mut PgConnection,
    wanted: &WantedRows,
) -> Result<HashMap<String, Row>, sqlx::Error> {
    let statements = Statements::new(Arc::clone(&wanted.entity));
    let keys: Vec<&Key> = wanted.keys.iter().collect();
    let mut query = sqlx::query(AssertSqlSafe(load_sql(&wanted.entity, wanted.numbers)));
    for part in 0..wanted.entity.key.len() {
        query = query.bind(key_part(&keys, part));
    }
    let mut rows = HashMap::with_capacity(keys.len());
    for found in query.fetch_all(connection).await? {
        let position: i64 = found.try_get(0)?;
        let key = usize::try_from(position - 1).ok().and_then(|position| keys.get(position));
        if let Some(key) = key {
            rows.insert(key.as_str().to_owned(), statements.row(&found, wanted.numbers)?);
        }
    }
    Ok(rows)
}
