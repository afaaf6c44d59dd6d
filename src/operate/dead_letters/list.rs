//! Lists of dead letters, a page at a time.

use serde::Serialize;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::Filter;

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Summary {
    pub id: i64,
    pub state: String,
    pub entity: Option<String>,
    pub key: Option<String>,
    pub write_id: Option<String>,
    pub reason: String,
    pub detail: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub dead_at: OffsetDateTime,
}

/// A part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Older than this dead letter: the last one of the page before.
    pub after: Option<i64>,
    /// How many at most.
    pub limit: i64,
}

/// The newest dead letters that match.
pub async fn list(
    connection: &mut PgConnection,
    filter: &Filter,
    page: Page,
) -> Result<Vec<Summary>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "select d.id, d.state, d.entity, d.key, d.write_id, d.reason, d.detail, d.dead_at
           from keylane.dead_letters d
          where true",
    );
    filter.append(&mut query);
    if let Some(after) = page.after {
        query.push(" and d.id < ").push_bind(after);
    }
    query.push(" order by d.id desc limit ").push_bind(page.limit);
    query.build_query_as().fetch_all(connection).await
}

/// The dead letters of a key that nobody has dealt with yet, newest first.
pub async fn open_of_key(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
    limit: i64,
) -> Result<Vec<Summary>, sqlx::Error> {
    const SQL: &str = "
        select id, state, entity, key, write_id, reason, detail, dead_at
          from keylane.dead_letters
         where entity = $1 and key = $2 and state not in ('resolved', 'discarded')
         order by id desc
         limit $3";
    sqlx::query_as(SQL).bind(entity).bind(key).bind(limit).fetch_all(connection).await
}
